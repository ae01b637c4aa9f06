//! The node gets back what was taken from it, whatever became of its address; and only that node
//! does.

use std::net::SocketAddr;
use std::process::Child;
use std::time::{Duration, Instant};

use kbackup_testnode::{AutoScavenge, AutoScavengeState, Node, Server, Version};
use serde_json::Value;

use super::{NodeSite, PATIENCE, wait_until};

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
fn a_node_at_another_url_gets_everything_back_if_the_operator_says_so() {
    let site = left_paused();
    let (node, server) = restarted(&site);
    let url = server.url();

    let left = answer(&site, &format!("release --node {url} --json"), 0);
    assert_eq!(left["nodes"].as_array().unwrap().len(), 0, "{left:#}");
    assert_eq!(
        (&left["untouched"][0]["node"], &left["untouched"][0]["what"]),
        (&site.server.url().into(), &"auto-scavenge".into()),
        "{left:#}"
    );
    assert_eq!(node.auto_scavenge(), Some(AutoScavengeState::Paused));

    answer(&site, "release --new-address --json", 2);
    answer(
        &site,
        &format!("release --node {url} --new-address --json"),
        0,
    );
    assert_ne!(node.auto_scavenge(), Some(AutoScavengeState::Paused));
    assert_eq!(site.place.release_records(), 0);
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
