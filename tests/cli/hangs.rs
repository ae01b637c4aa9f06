//! The node gets back what a run stopped even if the run itself cannot do anything any more: a disk
//! does not answer, nobody reads its log, or the process stands still.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::time::Instant;

use kbackup_testnode::{AutoScavenge, AutoScavengeState, Node, Synthetic, Version};
use rustix::process::{Pid, Signal, kill_process};

use super::{NodeSite, Place, wait_until};

/// The repository does not answer when the run begins to store the first chunk.
const FROZEN: &str = "create:chunk-000000:1:hang";

fn scavenging(site: &NodeSite) {
    site.node.change_quirks(|quirks| {
        quirks.auto_scavenge = AutoScavenge::Licensed(AutoScavengeState::InProgress);
    });
}

fn is_paused(site: &NodeSite) -> bool {
    site.node.auto_scavenge() == Some(AutoScavengeState::Paused)
}

fn start_frozen(site: &NodeSite, line: &str) -> Child {
    let child = site
        .place
        .process(&site.line(line))
        .env("KBACKUP_FAULT", FROZEN)
        .env("KBACKUP_HANG", site.place.write("frozen", ""))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until(|| site.place.path("frozen.waits").exists());
    assert!(is_paused(site));
    child
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn max_pause_holds_while_the_repository_does_not_answer() {
    let site = NodeSite::still();
    scavenging(&site);

    let mut child = start_frozen(&site, "full --repo repo --node URL --max-pause 10s");
    wait_until(|| !is_paused(&site));
    wait_until(|| site.place.release_records() == 0);
    assert!(child.try_wait().unwrap().is_none(), "the run still hangs");

    // The guard tells of it a moment after it has given back.
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(log.any(|line| line.unwrap().contains("the run hung")));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_signal_gives_back_and_ends_a_run_whose_repository_does_not_answer() {
    let site = NodeSite::still();
    scavenging(&site);

    let child = start_frozen(&site, "full --repo repo --node URL");
    send(&child, Signal::TERM);
    wait_until(|| !is_paused(&site));

    let output = child.wait_with_output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(143), "{log}");
    assert!(log.contains("did not end by itself"), "{log}");
    assert_eq!(site.place.release_records(), 0);
    assert!(site.place.listed().is_empty());
}

/// The log of this run is longer than what a pipe holds.
#[test]
fn a_log_that_nobody_reads_holds_up_nothing() {
    let place = Place::new();
    Synthetic {
        filter_bytes: 10_000,
        ..Synthetic::of_size(8 << 20, 8 << 10)
    }
    .make(place.path("node"))
    .unwrap();
    let node = Node::still(Version::new(26, 1), place.path("node")).unwrap();
    let server = node.serve().unwrap();
    let site = NodeSite {
        node,
        server,
        place,
    };
    scavenging(&site);

    let mut child = site
        .place
        .process(&site.line("full --repo repo --node URL --log debug"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() && begun.elapsed() < super::PATIENCE {
        std::thread::yield_now();
    }
    // This does nothing to a run that has ended.
    child.kill().unwrap();

    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!is_paused(&site));
    let mut log = Vec::new();
    child.stderr.take().unwrap().read_to_end(&mut log).unwrap();
    assert!(log.len() >= 60_000, "the pipe was full: {}", log.len());
}

/// Somebody stopped the process of a backup, and then went home.
#[test]
fn a_release_can_be_forced_while_a_run_stands_still() {
    let site = NodeSite::still();
    scavenging(&site);
    let mut child = start_frozen(&site, "full --repo repo --node URL");
    send(&child, Signal::STOP);

    let skipped = site.place.kbackup("release").output().unwrap();
    let text = String::from_utf8(skipped.stdout).unwrap();
    assert!(
        text.contains("a running backup will give it back"),
        "{text}"
    );
    assert!(is_paused(&site));

    let forced = site.place.kbackup("release --force").output().unwrap();
    let text = String::from_utf8(forced.stdout).unwrap();
    assert!(text.contains("auto-scavenge: given back"), "{text}");
    assert!(!is_paused(&site));
    assert_eq!(site.place.release_records(), 0);

    child.kill().unwrap();
    child.wait().unwrap();
}

/// A run hangs, its operator gives back, and somebody pauses auto-scavenge on purpose. Then the disk
/// answers again.
#[test]
fn a_run_that_goes_on_leaves_alone_what_was_paused_after_a_forced_release() {
    let site = NodeSite::still();
    scavenging(&site);
    let child = start_frozen(&site, "full --repo repo --node URL");

    site.place.kbackup("release --force").assert().code(0);
    assert!(!is_paused(&site));
    site.node.change_quirks(|quirks| {
        quirks.auto_scavenge = AutoScavenge::Licensed(AutoScavengeState::Paused);
    });
    site.node.forget_requests();
    std::fs::remove_file(site.place.path("frozen")).unwrap();

    let output = child.wait_with_output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{log}");
    assert!(
        log.contains("given scavenging back"),
        "it starts over: {log}"
    );
    assert!(log.contains("is left as it is"), "{log}");
    assert!(is_paused(&site), "resumed against its operator's will");
    assert_eq!(site.place.release_records(), 0);
}

/// The guard of a run that still hangs must not do it either.
#[test]
fn a_signal_after_a_forced_release_gives_back_nothing() {
    let site = NodeSite::still();
    scavenging(&site);
    let child = start_frozen(&site, "full --repo repo --node URL");

    site.place.kbackup("release --force").assert().code(0);
    site.node.change_quirks(|quirks| {
        quirks.auto_scavenge = AutoScavenge::Licensed(AutoScavengeState::Paused);
    });
    send(&child, Signal::TERM);

    let output = child.wait_with_output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(143), "{log}");
    assert!(is_paused(&site), "resumed against its operator's will");
}
