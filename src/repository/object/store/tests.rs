//! What every store has to do, on each kind of store; real ones if `scripts/object-servers` started
//! them.

mod denial;
mod files;
mod settings;
mod tls;
mod trouble;
mod web_server;

#[path = "../../../../tests/object_servers.rs"]
mod object_servers;

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;

use self::object_servers::ObjectServer;
use super::{
    Created, Environment, Limits, ObjectUrl, Preconditions, Replaced, Requests, Store,
    StoreOptions, probe,
};
use crate::error::Kind;

/// Declares each test once for each kind of store.
macro_rules! on_every_store {
    ($($name:ident)*) => {
        mod in_memory {
            $(#[test] fn $name() { super::$name(&super::Store::in_memory()); })*
        }
        mod in_a_directory {
            $(#[test] fn $name() {
                let directory = tempfile::tempdir().unwrap();
                super::$name(&super::in_directory(directory.path()));
            })*
        }
        mod on_seaweedfs {
            $(#[test] fn $name() {
                if let Some(server) = super::object_servers::s3() {
                    super::$name(&super::connect(&server));
                }
            })*
        }
        mod on_azurite {
            $(#[test] fn $name() {
                if let Some(server) = super::object_servers::azure() {
                    super::$name(&super::connect(&server));
                }
            })*
        }
        mod on_a_stub_of_google {
            $(#[test] fn $name() {
                let server = super::object_servers::google().unwrap();
                super::$name(&super::connect(&server));
            })*
        }
    };
}

on_every_store! {
    an_object_is_read_as_it_was_written
    an_object_that_is_missing_is_none
    an_object_that_is_there_is_not_created_again
    an_object_is_overwritten
    an_object_that_is_too_large_is_refused
    an_object_is_replaced_only_if_it_is_the_version_that_was_read
    a_missing_object_is_not_replaced
    an_object_may_be_deleted_twice
    keys_are_listed_in_order_and_below_a_prefix
    more_keys_than_a_page_are_listed
    exactly_one_of_twelve_creators_wins
    exactly_one_of_twelve_replacements_wins
    requests_are_counted_as_predicted
    the_probe_finds_what_the_store_honours
}

fn options(server: &ObjectServer) -> StoreOptions {
    StoreOptions {
        endpoint: Some(server.endpoint.clone()),
        allow_http: true,
        environment: server.environment.iter().cloned().collect(),
        ..StoreOptions::default()
    }
}

fn connect(server: &ObjectServer) -> Store {
    let url = ObjectUrl::parse(&server.url).unwrap();
    Store::connect(&url, &options(server)).unwrap()
}

fn in_directory(path: &std::path::Path) -> Store {
    let url = ObjectUrl::parse(&format!("object+file://{}", path.display())).unwrap();
    Store::connect(&url, &StoreOptions::default()).unwrap()
}

/// An environment without anything of this process.
fn environment(variables: &[(&str, &str)]) -> Environment {
    variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// Limits of tests that wait for a failure.
fn impatient() -> Limits {
    Limits {
        connect: Duration::from_secs(5),
        answer: Duration::from_secs(5),
        patience: Duration::from_millis(600),
        first_patience: Duration::from_millis(300),
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::from(text.to_owned())
}

fn keys(store: &Store, prefix: &str) -> Vec<String> {
    let listed = store.list(prefix).unwrap();
    listed.into_iter().map(|object| object.key).collect()
}

fn an_object_is_read_as_it_was_written(store: &Store) {
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    for (key, written) in [
        ("empty", Vec::new()),
        ("data/ab/0123-_.x", b"small".to_vec()),
        ("large", large),
    ] {
        let created = store.create(key, Bytes::from(written.clone())).unwrap();
        assert_eq!(created, Created::New, "{key}");
        assert_eq!(store.get(key, 3_000_000).unwrap(), Some(written.clone()));

        let info = store.head(key).unwrap().unwrap();
        assert_eq!(info.key, key);
        assert_eq!(info.size, u64::try_from(written.len()).unwrap());
        let (_, version) = store.get_versioned(key, 3_000_000).unwrap().unwrap();
        assert_eq!(info.version, version);

        let age = jiff::Timestamp::now().as_second() - info.modified.as_second();
        assert!(age.abs() < 600, "{key} is {age} seconds old");
    }
}

fn an_object_that_is_missing_is_none(store: &Store) {
    assert_eq!(store.get("missing", 10).unwrap(), None);
    assert_eq!(store.get_versioned("some/missing", 10).unwrap(), None);
    assert_eq!(store.head("missing").unwrap(), None);
    assert!(store.list("").unwrap().is_empty());
    assert!(store.list("some").unwrap().is_empty());
}

fn an_object_that_is_there_is_not_created_again(store: &Store) {
    assert_eq!(store.create("one", bytes("first")).unwrap(), Created::New);
    for text in ["second", "first"] {
        assert_eq!(store.create("one", bytes(text)).unwrap(), Created::Exists);
        let again = store.create_in_class("one", bytes(text)).unwrap();
        assert_eq!(again, Created::Exists);
    }
    assert_eq!(store.get("one", 10).unwrap().unwrap(), b"first");
}

fn an_object_is_overwritten(store: &Store) {
    store.put("one", bytes("first")).unwrap();
    store.put("one", bytes("second")).unwrap();
    assert_eq!(store.get("one", 10).unwrap().unwrap(), b"second");
}

fn an_object_that_is_too_large_is_refused(store: &Store) {
    store.put("one", bytes("12345")).unwrap();
    assert_eq!(store.get("one", 5).unwrap().unwrap(), b"12345");

    let error = store.get("one", 4).unwrap_err();
    assert_eq!(error.kind(), Kind::StoredCorrupt);
    assert_eq!(error.what(), "the object is larger than it can be");
    assert!(error.place().unwrap().ends_with("/one"), "{error}");
}

fn an_object_is_replaced_only_if_it_is_the_version_that_was_read(store: &Store) {
    store.put("one", bytes("first")).unwrap();
    let (_, version) = store.get_versioned("one", 10).unwrap().unwrap();

    let replaced = store.replace("one", bytes("second"), &version).unwrap();
    assert_eq!(replaced, Replaced::Done);
    let replaced = store.replace("one", bytes("third"), &version).unwrap();
    assert_eq!(replaced, Replaced::Changed);
    assert_eq!(store.get("one", 10).unwrap().unwrap(), b"second");
}

fn a_missing_object_is_not_replaced(store: &Store) {
    store.put("one", bytes("first")).unwrap();
    let (_, version) = store.get_versioned("one", 10).unwrap().unwrap();
    store.delete("one").unwrap();

    let replaced = store.replace("one", bytes("second"), &version).unwrap();
    assert_eq!(replaced, Replaced::Changed);
    assert_eq!(store.get("one", 10).unwrap(), None);
}

fn an_object_may_be_deleted_twice(store: &Store) {
    store.put("some/one", bytes("first")).unwrap();
    store.delete("some/one").unwrap();
    store.delete("some/one").unwrap();
    store.delete("never/there").unwrap();

    assert_eq!(store.get("some/one", 10).unwrap(), None);
    assert_eq!(store.create("some/one", bytes("x")).unwrap(), Created::New);
}

fn keys_are_listed_in_order_and_below_a_prefix(store: &Store) {
    for key in ["b/2", "a", "b/1", "b/10", "bc/1", "b/1/deep", "c"] {
        // A directory cannot hold a file and a directory of one name.
        let key = key.replace("1/deep", "1-deep/x");
        store.put(&key, bytes(&key)).unwrap();
    }

    let all = ["a", "b/1", "b/1-deep/x", "b/10", "b/2", "bc/1", "c"];
    assert_eq!(keys(store, ""), all);
    assert_eq!(keys(store, "b"), ["b/1", "b/1-deep/x", "b/10", "b/2"]);
    assert_eq!(keys(store, "b/"), keys(store, "b"));

    let after: Vec<String> = store
        .list_after("b", "b/1-deep/x")
        .unwrap()
        .into_iter()
        .map(|object| object.key)
        .collect();
    assert_eq!(after, ["b/10", "b/2"]);

    let listed = store.list("b").unwrap();
    let info = store.head("b/1-deep/x").unwrap().unwrap();
    assert_eq!((listed[1].size, info.size), (10, 10));
    // Google tells the generation of an object only with the object.
    if !store.place().starts_with("gs:") {
        assert_eq!(listed[1], info);
    }
}

fn more_keys_than_a_page_are_listed(store: &Store) {
    const KEYS: usize = 2_050;

    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= KEYS {
                        break;
                    }
                    store.put(&format!("many/{number:05}"), bytes("x")).unwrap();
                }
            });
        }
    });

    let before = store.requests();
    let expected: Vec<String> = (0..KEYS).map(|n| format!("many/{n:05}")).collect();
    assert_eq!(keys(store, "many"), expected);

    // azurite tells up to 5000 keys at once, all others a thousand.
    let sent = store.requests() - before;
    let pages = if store.place().starts_with("az:") {
        1
    } else {
        3
    };
    assert_eq!(sent.lists, pages);
}

fn exactly_one_of_twelve_creators_wins(store: &Store) {
    // SeaweedFS takes seconds for each race.
    for round in 0..3 {
        let key = format!("race/{round}");
        let start = Barrier::new(12);
        let winners = AtomicUsize::new(0);
        let winner = AtomicUsize::new(0);

        std::thread::scope(|scope| {
            for writer in 0..12 {
                let (key, start, winners, winner) = (&key, &start, &winners, &winner);
                scope.spawn(move || {
                    start.wait();
                    let text = bytes(&format!("writer {writer}"));
                    if store.create(key, text).unwrap() == Created::New {
                        winners.fetch_add(1, Ordering::SeqCst);
                        winner.store(writer, Ordering::SeqCst);
                    }
                });
            }
        });

        assert_eq!(winners.load(Ordering::SeqCst), 1, "round {round}");
        let expected = format!("writer {}", winner.load(Ordering::SeqCst));
        assert_eq!(store.get(&key, 100).unwrap().unwrap(), expected.as_bytes());
    }
}

fn exactly_one_of_twelve_replacements_wins(store: &Store) {
    store.put("one", bytes("first")).unwrap();
    let (_, version) = store.get_versioned("one", 10).unwrap().unwrap();
    let start = Barrier::new(12);
    let winners = AtomicUsize::new(0);

    std::thread::scope(|scope| {
        for writer in 0..12 {
            let (version, start, winners) = (&version, &start, &winners);
            scope.spawn(move || {
                start.wait();
                let text = bytes(&format!("writer {writer}"));
                if store.replace("one", text, version).unwrap() == Replaced::Done {
                    winners.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(winners.load(Ordering::SeqCst), 1);
}

fn requests_are_counted_as_predicted(store: &Store) {
    assert_eq!(store.requests(), Requests::default());

    store.create("a", bytes("12345")).unwrap();
    store.create("a", bytes("12345")).unwrap();
    store.put("b", bytes("123")).unwrap();
    store.get("a", 10).unwrap();
    store.get("missing", 10).unwrap();
    store.head("b").unwrap();
    store.list("").unwrap();
    store.delete("a").unwrap();

    let sent = store.requests();
    let expected = Requests {
        puts: 3,
        gets: 3,
        lists: 1,
        deletes: 1,
        repeated: 0,
        bytes_up: 13,
        bytes_down: 5,
    };
    assert_eq!(sent, expected);

    store.clone().get("b", 10).unwrap();
    let since = store.requests() - sent;
    assert_eq!(since.gets, 1);
    assert_eq!(since.bytes_down, 3);
    assert_eq!(since.puts, 0);
}

fn the_probe_finds_what_the_store_honours(store: &Store) {
    let is_directory = store.place().starts_with("object+file:");
    let expected = Preconditions {
        create: true,
        update: !is_directory,
    };
    assert_eq!(probe(store).unwrap(), expected);
    assert!(store.list("").unwrap().is_empty());
}

#[test]
fn requests_are_told_in_a_line() {
    let requests = Requests {
        puts: 3,
        gets: 2,
        lists: 1,
        deletes: 0,
        repeated: 0,
        bytes_up: 16_777_216,
        bytes_down: 5,
    };
    assert_eq!(
        requests.to_string(),
        "3 writes, 2 reads, 1 lists, 0 deletes, 16.0 MiB up, 5 B down"
    );

    let repeated = Requests {
        repeated: 4,
        ..requests
    };
    assert!(repeated.to_string().ends_with(", 4 requests repeated"));
}
