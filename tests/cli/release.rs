//! The node gets back what was taken from it, whatever became of its address; and only that node
//! does.

use std::net::SocketAddr;
use std::process::Child;
use std::time::{Duration, Instant};

use kbackup_testnode::{AutoScavenge, AutoScavengeState, Member, Node, Server, Version};
use serde_json::Value;

use super::{NodeSite, PATIENCE, Place, wait_until};

/// A full that is slow enough to be killed in the middle.
const SLOW: &str = "full --repo repo --node URL --limit-rate 4MiB";

/// What every node that binds 0.0.0.0 on its own may advertise.
const EVERYBODY: &str = "127.0.0.1:2113";

fn advertise(node: &Node, address: &str) {
    let address: SocketAddr = address.parse().unwrap();
    node.change_quirks(|quirks| quirks.advertised = Some(address));
}

/// A node with auto-scavenge in this state, which advertises what others advertise, too.
fn site(state: AutoScavengeState) -> NodeSite {
    let site = NodeSite::still();
    advertise(&site.node, EVERYBODY);
    site.node
        .change_quirks(|quirks| quirks.auto_scavenge = AutoScavenge::Licensed(state));
    site
}

/// Starts a backup and waits until it has paused auto-scavenge and copies.
fn paused_by_a_run(site: &NodeSite) -> Child {
    let child = site.start(SLOW);
    wait_until(|| site.node.auto_scavenge() == Some(AutoScavengeState::Paused));
    wait_until(|| {
        let incoming = walkdir::WalkDir::new(site.place.path("repo/incoming"));
        incoming
            .into_iter()
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("chunk-"))
    });
    child
}

/// A node whose auto-scavenge a killed run has left paused.
fn left_paused() -> NodeSite {
    let site = site(AutoScavengeState::InProgress);
    let mut child = paused_by_a_run(&site);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(site.place.release_records(), 1);
    site
}

/// The node after a restart: another process, another port, and so another address.
fn restarted(site: &NodeSite) -> (Node, Server) {
    site.node.change_quirks(|quirks| quirks.never_answer = true);
    let node = Node::still(Version::new(26, 1), site.place.path("node")).unwrap();
    node.change_quirks(|quirks| {
        quirks.auto_scavenge = AutoScavenge::Licensed(AutoScavengeState::Paused);
    });
    let server = node.serve().unwrap();
    (node, server)
}

fn answer(site: &NodeSite, line: &str, code: i32) -> Value {
    let output = site.place.kbackup(&site.line(line)).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{line}: {stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn nodes_that_advertise_one_address_get_back_their_own() {
    let ours = left_paused();
    let theirs = site(AutoScavengeState::Paused);
    let full = format!("full --repo theirs --node {}", theirs.server.url());

    // Its operator has paused it.
    ours.place.kbackup(&full).assert().code(0);
    assert_eq!(
        theirs.node.auto_scavenge(),
        Some(AutoScavengeState::Paused),
        "resumed against its operator's will"
    );
    assert_eq!(ours.place.release_records(), 1);

    ours.place.kbackup("release").assert().code(0);
    assert_ne!(ours.node.auto_scavenge(), Some(AutoScavengeState::Paused));
    assert_eq!(theirs.node.auto_scavenge(), Some(AutoScavengeState::Paused));
    assert_eq!(ours.place.release_records(), 0);
}

#[test]
fn nodes_that_advertise_one_address_are_backed_up_at_the_same_time() {
    let ours = site(AutoScavengeState::InProgress);
    let theirs = site(AutoScavengeState::InProgress);
    let mut child = paused_by_a_run(&ours);

    let full = format!("full --repo theirs --node {}", theirs.server.url());
    ours.place.kbackup(&full).assert().code(0);

    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_restarted_node_with_a_new_advertised_address_gets_everything_back() {
    // A sidecar reaches its node under one URL, whatever the address of the pod is.
    let site = left_paused();
    let port = site.server.address().port();
    let NodeSite {
        node,
        server,
        place,
    } = site;
    drop((node, server));

    let node = Node::still(Version::new(26, 1), place.path("node")).unwrap();
    advertise(&node, "10.1.2.3:2113");
    node.change_quirks(|quirks| {
        quirks.auto_scavenge = AutoScavenge::Licensed(AutoScavengeState::Paused);
    });
    let server = serve_on(&node, port);
    let site = NodeSite {
        node,
        server,
        place,
    };

    site.place.kbackup("release").assert().code(0);
    assert_ne!(site.node.auto_scavenge(), Some(AutoScavengeState::Paused));
    assert_eq!(site.place.release_records(), 0);
}

fn serve_on(node: &Node, port: u16) -> Server {
    let listen = kbackup_testnode::Listen {
        address: ([127, 0, 0, 1], port).into(),
        ..kbackup_testnode::Listen::default()
    };
    // Until the connections of the server before are gone, the system may refuse its port.
    let end = Instant::now() + PATIENCE;
    loop {
        match node.serve_on(&listen) {
            Ok(server) => return server,
            Err(error) => assert!(Instant::now() < end, "{error:#}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_node_at_another_url_is_known_by_its_files() {
    let site = left_paused();
    let (node, server) = restarted(&site);

    answer(&site, "release --new-address --json", 2);
    let line = format!("release --node {} --json", server.url());
    answer(&site, &line, 0);
    assert_ne!(node.auto_scavenge(), Some(AutoScavengeState::Paused));
    assert_eq!(site.place.release_records(), 0);
}

#[test]
fn a_node_whose_files_kbackup_cannot_see_gets_everything_back_if_the_operator_says_so() {
    let site = left_paused();
    let (node, server) = restarted(&site);
    let url = server.url();
    for field in ["database", "directory"] {
        change_records(&site, |node| {
            node.insert(field.to_owned(), Value::Null);
        });
    }

    let left = answer(&site, &format!("release --node {url} --json"), 3);
    assert_eq!(left["nodes"].as_array().unwrap().len(), 0, "{left:#}");
    assert_eq!(
        (&left["untouched"][0]["node"], &left["untouched"][0]["what"]),
        (&site.server.url().into(), &"auto-scavenge".into()),
        "{left:#}"
    );
    let why = left["untouched"][0]["why"].as_str().unwrap();
    assert!(
        why.contains("may be about this node") && why.contains("--new-address"),
        "{why}"
    );
    let text = told(&site, &format!("release --node {url}"), 3);
    assert!(!text.contains("nothing has to be given back"), "{text}");
    assert_eq!(node.auto_scavenge(), Some(AutoScavengeState::Paused));

    let line = format!("release --node {url} --new-address --json");
    answer(&site, &line, 0);
    assert_ne!(node.auto_scavenge(), Some(AutoScavengeState::Paused));
    assert_eq!(site.place.release_records(), 0);
}

/// Two records that kbackup can neither prove nor disprove: it does not guess.
#[test]
fn the_operator_says_it_of_one_record_at_most() {
    let site = left_paused();
    let (node, server) = restarted(&site);
    change_records(&site, |node| {
        node.insert("database".to_owned(), Value::Null);
        node.insert("directory".to_owned(), Value::Null);
    });
    let record = records(&site).pop().unwrap();
    let other = std::fs::read_to_string(record).unwrap();
    let other = other.replace(&site.server.url(), "http://127.0.0.1:1");
    site.place.write("state/other.json", &other);

    let line = format!("release --node {} --new-address --json", server.url());
    let error = answer(&site, &line, 23);
    assert!(
        error["message"].as_str().unwrap().contains("more than one"),
        "{error:#}"
    );
    assert_eq!(node.auto_scavenge(), Some(AutoScavengeState::Paused));
    assert_eq!(site.place.release_records(), 2);
}

#[test]
fn a_release_whose_node_does_not_answer_says_what_it_did_not_look_at() {
    let site = left_paused();
    let line = "release --node http://127.0.0.1:1 --node-patience 1s";

    let text = told(&site, line, 3);
    assert!(!text.contains("nothing has to be given back"), "{text}");
    assert!(
        text.contains("not looked at") && text.contains("--new-address"),
        "{text}"
    );
    assert_eq!(site.place.release_records(), 1);
}

#[test]
fn a_node_can_be_named_by_its_advertised_address() {
    let site = left_paused();

    let error = answer(&site, "release --node 10.9.9.9:2113 --json", 2);
    assert!(
        error["hints"].to_string().contains("https://10.9.9.9:2113"),
        "{error:#}"
    );
    answer(&site, &format!("release --node {EVERYBODY} --json"), 0);
    assert_ne!(site.node.auto_scavenge(), Some(AutoScavengeState::Paused));
    assert_eq!(site.place.release_records(), 0);
}

/// A recorded node, whose database is not that of the others. A killed run has left its
/// auto-scavenge paused.
fn recorded_left_paused(recording: &str, place: &Place) -> NodeSite {
    let site = NodeSite::new(recording);
    advertise(&site.node, EVERYBODY);
    site.node.change_quirks(|quirks| {
        quirks.auto_scavenge = AutoScavenge::Licensed(AutoScavengeState::InProgress);
    });
    let repository = site.place.path("repo");
    place
        .kbackup(&format!(
            "full --new-repository --repo {} --node {}",
            repository.display(),
            site.server.url()
        ))
        .env("KBACKUP_FAULT", "create:chunk-000000:1:abort")
        .assert()
        .failure();
    assert_eq!(site.node.auto_scavenge(), Some(AutoScavengeState::Paused));
    site
}

/// After a restart of the machine, each of two unrelated nodes has another URL, and the first one
/// has the URL that the second one had.
#[test]
fn nodes_that_moved_in_a_row_get_back_their_own() {
    let place = Place::new();
    let first = recorded_left_paused("26.1-append", &place);
    let second = recorded_left_paused("24.10-append", &place);
    assert_eq!(place.release_records(), 2);

    let port = second.server.address().port();
    let NodeSite {
        node: second_node,
        server: second_server,
        place: _second_place,
    } = second;
    drop((first.server, second_server));
    let first_server = serve_on(&first.node, port);
    let second_server = second_node.serve().unwrap();
    for node in [&first.node, &second_node] {
        node.restart();
    }

    for (node, server) in [(&first.node, &first_server), (&second_node, &second_server)] {
        let line = format!("release --node {} --new-address --json", server.url());
        place.kbackup(&line).assert().code(0);
        assert_ne!(node.auto_scavenge(), Some(AutoScavengeState::Paused));
        if server.url() == first_server.url() {
            let waits = second_node.auto_scavenge();
            assert_eq!(waits, Some(AutoScavengeState::Paused));
            assert_eq!(place.release_records(), 1);
        }
    }
    assert_eq!(place.release_records(), 0);
}

#[test]
fn another_database_is_another_node_whatever_the_operator_says() {
    let place = Place::new();
    let ours = recorded_left_paused("26.1-append", &place);
    let theirs = NodeSite::new("24.10-append");
    advertise(&theirs.node, EVERYBODY);
    theirs.node.change_quirks(|quirks| {
        quirks.auto_scavenge = AutoScavenge::Licensed(AutoScavengeState::Paused);
    });
    ours.node.restart();

    let line = format!("release --node {} --new-address", theirs.server.url());
    let output = place.kbackup(&line).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("it is about another node: the database"),
        "{text}"
    );
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert_eq!(theirs.node.auto_scavenge(), Some(AutoScavengeState::Paused));
    assert_eq!(ours.node.auto_scavenge(), Some(AutoScavengeState::Paused));
    assert_eq!(place.release_records(), 1);
}

/// These nodes have one database, as members of a cluster have. The recorded one still lives.
#[test]
fn a_record_stays_while_its_own_process_answers() {
    let ours = left_paused();
    let theirs = site(AutoScavengeState::Paused);

    let line = format!(
        "release --node {} --new-address --json",
        theirs.server.url()
    );
    let left = answer(&ours, &line, 0);
    let why = left["untouched"][0]["why"].as_str().unwrap();
    assert!(why.contains("its process still answers at"), "{why}");
    assert_eq!(theirs.node.auto_scavenge(), Some(AutoScavengeState::Paused));
    assert_eq!(ours.place.release_records(), 1);
}

const FIRST: &str = "127.0.0.1:2113";
const SECOND: &str = "127.0.0.1:2213";

fn in_cluster(node: &Node, own: &str, other: &str) {
    let other: SocketAddr = other.parse().unwrap();
    advertise(node, own);
    node.change_quirks(|quirks| {
        quirks.members = vec![Member::new(
            "Follower",
            &other.ip().to_string(),
            other.port(),
        )];
    });
}

/// A member of a cluster with a backup, whose auto-scavenge a killed run has left paused. Then the
/// pods come back with each other's addresses.
pub(crate) fn swapped_addresses() -> NodeSite {
    let site = site(AutoScavengeState::Waiting);
    in_cluster(&site.node, FIRST, SECOND);
    let full = site.line("full --repo repo --node URL");
    site.place.kbackup(&full).assert().code(0);
    site.node.change_quirks(|quirks| {
        quirks.auto_scavenge = AutoScavenge::Licensed(AutoScavengeState::InProgress);
    });
    site.place
        .kbackup(&full)
        .env("KBACKUP_FAULT", "create:chunk-000000:1:abort")
        .assert()
        .failure();
    assert_eq!(site.node.auto_scavenge(), Some(AutoScavengeState::Paused));
    assert_eq!(site.place.release_records(), 1);

    site.node.restart();
    in_cluster(&site.node, SECOND, FIRST);
    site
}

#[test]
fn a_member_that_swapped_addresses_is_known_by_what_its_process_does() {
    let site = swapped_addresses();
    site.place.kbackup("release").assert().code(0);
    assert_ne!(site.node.auto_scavenge(), Some(AutoScavengeState::Paused));
    assert_eq!(site.place.release_records(), 0);
}

/// kbackup cannot see the process of the node, as from another container.
pub(crate) fn hide_process(site: &NodeSite) {
    site.node
        .change_quirks(|quirks| quirks.missing_fields = vec![("/stats/proc", "id")]);
}

#[test]
fn a_member_that_swapped_addresses_gets_everything_back_if_the_operator_says_so() {
    for line in [
        "release --node URL --new-address",
        "diff --repo repo --node URL --new-address",
    ] {
        let site = swapped_addresses();
        hide_process(&site);
        let error = answer(&site, "release --json", 23);
        assert!(
            error["hints"].to_string().contains("--new-address"),
            "{error:#}"
        );
        let status = told(&site, "status --repo repo", 3);
        assert!(status.contains("not given back yet"), "{status}");

        site.place.kbackup(&site.line(line)).assert().code(0);
        assert_ne!(
            site.node.auto_scavenge(),
            Some(AutoScavengeState::Paused),
            "{line}"
        );
        assert_eq!(site.place.release_records(), 0, "{line}");
    }
}

fn told(site: &NodeSite, line: &str, code: i32) -> String {
    let output = site.place.kbackup(&site.line(line)).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(code), "{line}: {text}");
    text
}

pub(crate) fn records(site: &NodeSite) -> Vec<std::path::PathBuf> {
    let mut records = Vec::new();
    for entry in std::fs::read_dir(site.place.path("state")).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            records.push(path);
        }
    }
    records
}

/// Changes what the records say of their nodes.
fn change_records(site: &NodeSite, change: impl Fn(&mut serde_json::Map<String, Value>)) {
    for path in records(site) {
        let mut record: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(record.get_mut("node").unwrap().as_object_mut().unwrap());
        std::fs::write(&path, record.to_string()).unwrap();
    }
}

#[test]
fn a_backup_at_a_new_address_gives_back_what_was_taken_at_the_old_one() {
    let site = left_paused();
    site.place
        .kbackup(&site.line("full --repo repo --node URL"))
        .assert()
        .code(0);
    site.node.change_quirks(|quirks| {
        quirks.auto_scavenge = AutoScavenge::Licensed(AutoScavengeState::InProgress);
    });
    let mut child = site.start("full --repo repo --node URL --limit-rate 4MiB");
    wait_until(|| site.node.auto_scavenge() == Some(AutoScavengeState::Paused));
    child.kill().unwrap();
    child.wait().unwrap();

    let (node, server) = restarted(&site);
    let diff = format!("diff --repo repo --node {} --new-address", server.url());
    site.place.kbackup(&diff).assert().code(0);
    assert_ne!(node.auto_scavenge(), Some(AutoScavengeState::Paused));
    assert_eq!(site.place.release_records(), 0);
}

#[test]
fn one_unreadable_record_does_not_block_the_others() {
    let site = left_paused();
    let broken = site.place.write("state/broken.json", "{\"format\": 1");

    let error = answer(&site, "release --json", 20);
    assert_eq!(error["on"], broken.to_str().unwrap(), "{error:#}");
    assert_ne!(site.node.auto_scavenge(), Some(AutoScavengeState::Paused));
    assert!(broken.exists());
    assert_eq!(site.place.release_records(), 1);

    let answered = answer(&site, "release --node URL --json", 3);
    assert_eq!(
        answered["untouched"][0]["record"],
        broken.to_str().unwrap(),
        "{answered:#}"
    );
    site.place
        .kbackup(&site.line("full --repo repo --node URL"))
        .assert()
        .code(0);
}

/// The records of older kbackups hold neither a database nor a directory.
#[test]
fn the_record_of_an_older_kbackup_is_given_back() {
    for line in ["release", "full --repo repo --node URL"] {
        let site = left_paused();
        for entry in std::fs::read_dir(site.place.path("state")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let mut record: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            let node = record["node"].as_object_mut().unwrap();
            for field in ["database", "directory", "own_directory"] {
                node.remove(field);
            }
            node.insert("instance".to_owned(), Value::Null);
            std::fs::remove_file(&path).unwrap();
            site.place.write("state/old-name.json", &record.to_string());
        }

        site.place.kbackup(&site.line(line)).assert().code(0);
        assert_ne!(site.node.auto_scavenge(), Some(AutoScavengeState::Paused));
        assert_eq!(site.place.release_records(), 0, "{line}");
    }
}
