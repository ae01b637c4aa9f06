//! `--scavenge`: what a backup does if a scavenge runs.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use super::{NodeSite, wait_until};

fn stops(site: &NodeSite) -> usize {
    let requests = site.node.requests();
    requests
        .iter()
        .filter(|request| request.method == "DELETE")
        .count()
}

/// Runs a command line that ends by itself. Returns its exit code and its log.
fn run(site: &NodeSite, line: &str) -> (Option<i32>, String) {
    let output = site.place.kbackup(&site.line(line)).output().unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

/// Starts a command line, and waits until its log says something.
fn begin(site: &NodeSite, line: &str, says: &str) -> Child {
    let mut child = site
        .place
        .process(&site.line(line))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();

    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut log = String::new();
    while !log.contains(says) {
        let line = lines.next();
        assert!(line.is_some(), "it ended: {log}");
        log += &line.unwrap().unwrap();
        log.push('\n');
    }
    // The process must not block, or die, because nobody reads its log.
    std::thread::spawn(move || lines.for_each(drop));
    child
}

#[test]
fn a_backup_can_be_skipped_while_a_scavenge_runs() {
    let site = NodeSite::scavenging();
    let line = "full --new-repository --repo repo --node URL --scavenge skip";

    let (code, log) = run(&site, line);
    assert_eq!(code, Some(22), "{log}");
    assert!(
        log.contains("scavenge") && log.contains("--scavenge wait"),
        "{log}"
    );
    assert!(site.place.listed().is_empty() && stops(&site) == 0);

    let output = site
        .place
        .kbackup(&site.line(&format!("{line} --json")))
        .output()
        .unwrap();
    let error: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(error["error"], "scavenging");

    site.node.end_scavenge();
    assert_eq!(run(&site, line).0, Some(0));
}

#[test]
fn a_backup_waits_until_the_scavenge_has_ended() {
    let site = NodeSite::still();
    assert_eq!(
        run(&site, "full --new-repository --repo repo --node URL").0,
        Some(0)
    );
    site.node.start_scavenge(None).unwrap();

    let line = "diff --repo repo --node URL --scavenge wait";
    let mut child = begin(&site, line, "waiting until it has ended");
    assert_eq!(site.place.listed().len(), 1);
    site.node.end_scavenge();

    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!((site.place.listed().len(), stops(&site)), (2, 0));
}

#[test]
fn a_backup_that_is_too_old_does_not_wait_but_leaves_the_server_its_rest() {
    let site = NodeSite::scavenging();
    let line = "full --new-repository --repo repo --node URL --scavenge wait --max-age 0s --scavenge-rest 1h";

    // There is no backup at all.
    let (code, log) = run(&site, line);
    assert_eq!((code, stops(&site)), (Some(0), 1), "{log}");
    assert!(site.node.current_scavenge().is_some(), "it was given back");

    let mut child = begin(&site, line, "one was stopped within the last 1h");
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&child),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert_eq!(stops(&site), 1);

    let (code, log) = run(&site, &line.replace("1h", "0s"));
    assert_eq!((code, stops(&site)), (Some(0), 2), "{log}");

    let (code, log) = run(&site, "diff --repo repo --node URL");
    assert_eq!((code, stops(&site)), (Some(0), 3), "{log}");
    wait_until(|| !site.node.owes_scavenge());
}
