//! Stores that are slow, busy, cut off, or do not keep their word.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::probe::Preconditions;
use super::super::{Created, Limits, ObjectUrl, Replaced, Store, probe};
use super::bytes;
use super::web_server::{OBJECT, Reply, WebServer, error, header, http, object};
use crate::error::{Cause, Kind, Signal};
use crate::event::Silent;
use crate::run::Run;

/// Limits of tests in which the store recovers.
fn patient() -> Limits {
    Limits {
        answer: Duration::from_millis(300),
        patience: Duration::from_secs(120),
        first_patience: Duration::from_secs(120),
        ..Limits::default()
    }
}

fn patient_store(server: &WebServer) -> Store {
    let mut options = server.options();
    options.limits = patient();
    Store::connect(&ObjectUrl::parse("s3://bucket/prefix").unwrap(), &options).unwrap()
}

#[test]
fn a_lost_reply_after_success_finds_the_object_there() {
    let server = WebServer::start(|number, _| match number {
        0 => Reply::Close,
        _ => error("412 Precondition Failed", "PreconditionFailed"),
    });
    let store = patient_store(&server);

    assert_eq!(store.create("one", bytes("1")).unwrap(), Created::Exists);
    let sent = store.requests();
    assert_eq!((sent.puts, sent.repeated, sent.bytes_up), (2, 1, 2));
}

#[test]
fn a_create_is_repeated_if_no_answer_comes_in_time() {
    let server = WebServer::start(|number, _| match number {
        0 => Reply::Silence,
        _ => object(""),
    });
    let store = patient_store(&server);

    assert_eq!(store.create("one", bytes("1")).unwrap(), Created::New);
    assert_eq!(store.requests().repeated, 1);
    for head in server.heads() {
        assert_eq!(header(&head, "if-none-match").unwrap(), "*");
        assert!(header(&head, "x-amz-checksum-sha256").is_some());
    }
}

#[test]
fn a_replacement_whose_reply_was_lost_counts_as_done() {
    let server = WebServer::start(|number, head| match number {
        0 => object("old"),
        1 => Reply::Close,
        _ if head.starts_with("PUT") => error("412 Precondition Failed", "PreconditionFailed"),
        _ => object("new"),
    });
    let store = patient_store(&server);

    let (_, version) = store.get_versioned("one", 10).unwrap().unwrap();
    let replaced = store.replace("one", bytes("new"), &version).unwrap();
    assert_eq!(replaced, Replaced::Done);
}

#[test]
fn a_replacement_of_a_changed_object_is_not_done() {
    let server = WebServer::start(|number, head| match number {
        0 => object("old"),
        _ if head.starts_with("PUT") => error("412 Precondition Failed", "PreconditionFailed"),
        _ => object("somebody else's"),
    });
    let store = patient_store(&server);

    let (_, version) = store.get_versioned("one", 10).unwrap().unwrap();
    let replaced = store.replace("one", bytes("new"), &version).unwrap();
    assert_eq!(replaced, Replaced::Changed);
}

#[test]
fn a_body_that_is_cut_is_read_again() {
    let server = WebServer::start(|number, _| match (number, object("0123456789")) {
        (0 | 1, Reply::Bytes(mut bytes)) => {
            bytes.truncate(bytes.len() - 4);
            Reply::Bytes(bytes)
        }
        (_, whole) => whole,
    });
    let store = patient_store(&server);

    assert_eq!(store.get("one", 10).unwrap().unwrap(), b"0123456789");
    assert_eq!(store.requests().repeated, 2);
}

#[test]
fn a_busy_store_is_asked_again() {
    let server = WebServer::start(|number, _| match number {
        0 => error("503 Slow Down", "SlowDown"),
        1 => error("429 Too Many Requests", "TooManyRequests"),
        2 => error("500 Internal Server Error", "InternalError"),
        3 => error("409 Conflict", "ConditionalRequestConflict"),
        4 => error("400 Bad Request", "BadDigest"),
        _ => object(""),
    });
    let store = patient_store(&server);

    assert_eq!(store.create("one", bytes("1")).unwrap(), Created::New);
    assert_eq!(store.requests().repeated, 5);
}

#[test]
fn a_store_that_stays_busy_is_told() {
    let server = WebServer::start(|_, _| error("503 Slow Down", "SlowDown"));
    let error = server.store().put("one", bytes("1")).unwrap_err();

    assert_eq!(error.kind(), Kind::Transient);
    assert!(error.what().contains("keeps answering 503"), "{error}");
    assert_eq!(error.place(), Some("s3://bucket/prefix/one"));
    assert!(error.causes()[0].contains("SlowDown: told so"));
    assert!(server.heads().len() > 1);
}

#[test]
fn a_store_is_left_alone_for_as_long_as_it_wants() {
    let server = WebServer::start(|number, _| match number {
        0 => http("503 Slow Down", &[("retry-after", "1")], ""),
        _ => object(""),
    });
    let began = Instant::now();
    patient_store(&server).put("one", bytes("1")).unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[test]
fn a_conflict_that_is_not_known_does_not_count_as_stored() {
    let server = WebServer::start(|_, _| error("409 Conflict", "BlobImmutableDueToPolicy"));
    let error = server.store().create("one", bytes("1")).unwrap_err();

    assert_eq!(error.kind(), Kind::Failed);
    assert_eq!(error.what(), "cannot write to the object store");
    assert!(error.causes()[0].contains("BlobImmutableDueToPolicy"));
}

#[test]
fn a_list_that_breaks_off_goes_on_after_its_last_key() {
    const FIRST: &str = "<ListBucketResult><IsTruncated>true</IsTruncated>\
        <NextContinuationToken>next</NextContinuationToken><Contents><Key>prefix/a</Key>\
        <LastModified>2026-12-01T03:00:00Z</LastModified><ETag>1</ETag><Size>1</Size></Contents>\
        </ListBucketResult>";
    const SECOND: &str = "<ListBucketResult><IsTruncated>false</IsTruncated>\
        <Contents><Key>prefix/b</Key><LastModified>2026-12-01T03:00:00Z</LastModified>\
        <ETag>1</ETag><Size>1</Size></Contents></ListBucketResult>";

    let server = WebServer::start(|number, _| match number {
        0 => http("200 OK", &[], FIRST),
        1 => Reply::Close,
        _ => http("200 OK", &[], SECOND),
    });
    let store = patient_store(&server);

    let listed = store.list("").unwrap();
    let keys: Vec<&str> = listed.iter().map(|object| object.key.as_str()).collect();
    assert_eq!(keys, ["a", "b"]);
    assert_eq!(store.requests().lists, 3);
    assert!(server.heads()[2].contains("start-after=prefix%2Fa"));
}

#[test]
fn a_store_that_was_never_there_is_told_soon() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);

    let mut options = WebServer::start(|_, _| Reply::Close).options();
    options.endpoint = Some(address);
    options.limits.patience = Duration::from_secs(3600);
    let store = Store::connect(&ObjectUrl::parse("s3://bucket").unwrap(), &options).unwrap();

    let error = store.list("").unwrap_err();
    assert_eq!(error.kind(), Kind::Transient);
    assert_eq!(error.what(), "the object store cannot be reached");
    assert_eq!(error.place(), Some("s3://bucket"));
    assert!(error.in_words().contains("refused"), "{}", error.in_words());
    assert!(!error.in_words().contains("very-secret"));
}

#[test]
fn a_host_that_does_not_exist_is_told() {
    let mut options = WebServer::start(|_, _| Reply::Close).options();
    options.endpoint = Some("https://no-such-host.invalid".to_owned());
    let store = Store::connect(&ObjectUrl::parse("s3://bucket").unwrap(), &options).unwrap();

    let error = store.get("one", 1).unwrap_err();
    assert_eq!(error.kind(), Kind::Transient);
    assert_eq!(error.what(), "the object store cannot be reached");
}

#[test]
fn a_store_that_ignores_preconditions_is_found_out() {
    let server = WebServer::start(|_, _| object("bytes"));
    let expected = Preconditions {
        create: false,
        update: false,
    };
    assert_eq!(probe(&server.store()).unwrap(), expected);
    assert!(server.heads().last().unwrap().starts_with("DELETE"));
}

#[test]
fn a_store_that_does_not_know_preconditions_is_found_out() {
    let server = WebServer::start(|_, head| {
        let is_conditional =
            header(head, "if-none-match").is_some() || header(head, "if-match").is_some();
        if is_conditional {
            error("501 Not Implemented", "NotImplemented")
        } else {
            http("200 OK", &OBJECT, "")
        }
    });
    let expected = Preconditions {
        create: false,
        update: false,
    };
    assert_eq!(probe(&server.store()).unwrap(), expected);
}

#[test]
fn the_clock_of_the_store_is_known() {
    let server = WebServer::start(|_, _| {
        http(
            "404 Not Found",
            &[("date", "Tue, 01 Dec 2020 03:00:00 GMT")],
            "",
        )
    });
    let store = server.store();
    assert_eq!(store.clock_difference(), None);
    assert_eq!(store.get("one", 1).unwrap(), None);
    assert!(store.clock_difference().unwrap() < -86_400);
}

#[test]
fn a_run_that_is_interrupted_waits_for_no_store() {
    let run = Arc::new(Run::new(Silent));
    let to_interrupt = Arc::clone(&run);
    let server = WebServer::start(move |_, _| {
        to_interrupt.interrupt(Signal::Terminate);
        Reply::Silence
    });

    let mut options = server.options();
    options.limits = Limits {
        answer: Duration::from_secs(3600),
        ..Limits::default()
    };
    let store = Store::connect(&ObjectUrl::parse("s3://bucket").unwrap(), &options).unwrap();

    let error = store.for_run(&run).put("one", bytes("1")).unwrap_err();
    let expected = Kind::Interrupted(Cause::Signal(Signal::Terminate));
    assert_eq!(error.kind(), expected);
    assert_eq!(server.heads().len(), 1);
}
