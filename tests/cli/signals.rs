//! A signal ends a backup within two seconds: nothing is listed, and the stopped scavenging is given
//! back. After a kill, the next run repairs everything.

use std::os::unix::process::ExitStatusExt;
use std::process::Child;
use std::time::{Duration, Instant};

use kbackup_testnode::{AutoScavenge, AutoScavengeState};
use rustix::process::{Pid, Signal, kill_process};

use super::{NodeSite, wait_until};
use crate::timing::assert_soon;

const SOON: Duration = Duration::from_secs(2);

/// A full that is slow enough to be interrupted in the middle.
const FULL: &str = "full --repo repo --node URL --limit-rate 8MiB";

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// True if a chunk of the backup lies in the repository.
fn is_copying(site: &NodeSite) -> bool {
    let incoming = walkdir::WalkDir::new(site.place.path("repo/incoming"));
    incoming.into_iter().flatten().any(|entry| {
        entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with("chunk-"))
    })
}

/// The bytes that a process has read by system calls.
fn bytes_read(child: &Child) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/io", child.id())).unwrap();
    text.lines()
        .find_map(|line| line.strip_prefix("rchar: "))
        .unwrap()
        .parse()
        .unwrap()
}

fn is_stopping_a_scavenge(site: &NodeSite) -> bool {
    site.node
        .requests()
        .iter()
        .any(|request| request.method == "DELETE")
}

fn posts(site: &NodeSite, part: &str) -> usize {
    site.node
        .requests()
        .iter()
        .filter(|request| request.method == "POST" && request.path.contains(part))
        .count()
}

/// Asserts that the run ends with this code, and that nothing is listed and no release record is left.
/// Returns how long the end took.
#[must_use]
fn ends_cleanly(site: &NodeSite, child: Child, code: i32) -> Duration {
    let sent = Instant::now();

    let output = child.wait_with_output().unwrap();
    let (took, stderr) = (sent.elapsed(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains("error: interrupted\n"), "{stderr}");
    assert!(stderr.contains("hint: "), "{stderr}");

    assert!(output.stdout.is_empty());
    assert!(site.place.listed().is_empty());
    assert!(site.place.unfinished() <= 1);
    assert!(
        !walkdir::WalkDir::new(site.place.path("repo/incoming"))
            .into_iter()
            .flatten()
            .any(|entry| is_draft(&entry)),
        "an incomplete file is left"
    );

    assert_eq!(site.place.release_records(), 0);
    assert!(!site.node.owes_scavenge());
    took
}

fn is_draft(entry: &walkdir::DirEntry) -> bool {
    entry
        .file_name()
        .to_str()
        .is_some_and(|name| name.ends_with(".part"))
}

fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .unwrap();
    u64::from_str_radix(ignored.trim(), 16).unwrap() & 1 == 1
}

#[test]
fn a_signal_during_the_copy_ends_the_run() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 143)] {
        assert_soon(SOON, || interrupted_while_copying(signal, code));
    }
}

fn interrupted_while_copying(signal: Signal, code: i32) -> Duration {
    let site = NodeSite::scavenging();

    let child = site.start(FULL);
    wait_until(|| is_copying(&site));
    // Under `nohup`, the tests pass on that the terminal's signal does not count.
    send(
        &child,
        if signal == Signal::HUP && ignores_hangup() {
            Signal::TERM
        } else {
            signal
        },
    );

    let took = ends_cleanly(&site, child, code);
    assert_eq!(posts(&site, "/admin/scavenge"), 1);
    assert!(site.node.current_scavenge().is_some(), "it goes on");

    let waiting = String::from_utf8(
        site.place
            .kbackup("list --repo repo")
            .output()
            .unwrap()
            .stdout,
    )
    .unwrap();
    assert!(waiting.contains("an interrupted backup left"), "{waiting}");

    let output = site
        .place
        .kbackup(&site.line("full --repo repo --node URL"))
        .output()
        .unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && told.contains("resumed from an interrupted backup"),
        "{told}"
    );
    assert_eq!(site.place.unfinished(), 0);
    took
}

#[test]
fn a_second_signal_changes_nothing() {
    assert_soon(SOON, interrupted_by_three_signals);
}

fn interrupted_by_three_signals() -> Duration {
    let site = NodeSite::scavenging();

    let child = site.start(FULL);
    wait_until(|| is_copying(&site));
    send(&child, Signal::INT);
    send(&child, Signal::INT);
    // If two signals wait for a busy process, their order is not known.
    wait_until(|| posts(&site, "/admin/scavenge") > 0);
    send(&child, Signal::TERM);

    let took = ends_cleanly(&site, child, 130);
    assert_eq!(posts(&site, "/admin/scavenge"), 1);
    took
}

#[test]
fn a_signal_during_quiescing_ends_the_run() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        assert_soon(SOON, || interrupted_while_quiescing(signal, code));
    }
}

fn interrupted_while_quiescing(signal: Signal, code: i32) -> Duration {
    let site = NodeSite::new("26.1-append");
    site.node.change_quirks(|quirks| {
        quirks.auto_scavenge = AutoScavenge::Licensed(AutoScavengeState::Waiting);
        quirks.cancel_delay = Duration::from_millis(300);
        quirks.pausing_for = Duration::ZERO;
    });
    site.node.start_scavenge(None).unwrap();

    let child = site.start("full --repo repo --node URL");
    wait_until(|| is_stopping_a_scavenge(&site));
    send(&child, signal);

    let took = ends_cleanly(&site, child, code);
    assert_eq!(site.node.auto_scavenge(), Some(AutoScavengeState::Waiting));
    assert_eq!(
        (
            posts(&site, "/admin/scavenge"),
            posts(&site, "/auto-scavenge/resume")
        ),
        (1, 1)
    );
    took
}

/// A scavenge cleans up for longer than a supervisor waits. Everything else is given back, and the
/// scavenge stays on record.
#[test]
fn a_signal_during_a_long_stop_leaves_a_release_record() {
    assert_soon(SOON, interrupted_while_a_scavenge_does_not_stop);
}

fn interrupted_while_a_scavenge_does_not_stop() -> Duration {
    let site = NodeSite::new("26.1-append");
    site.node
        .change_quirks(|quirks| quirks.cancel_delay = Duration::from_secs(4));
    site.node.start_scavenge(None).unwrap();

    let child = site.start("full --repo repo --node URL");
    wait_until(|| is_stopping_a_scavenge(&site));
    send(&child, Signal::TERM);
    let sent = Instant::now();
    let output = child.wait_with_output().unwrap();
    let took = sent.elapsed();
    assert_eq!(output.status.code(), Some(143));
    assert!(site.place.listed().is_empty());

    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("run `kbackup release`"), "{stderr}");
    assert_eq!(site.place.release_records(), 1);
    site.place.kbackup("release").assert().code(0);
    assert_eq!(
        (
            site.place.release_records(),
            posts(&site, "/admin/scavenge")
        ),
        (0, 1)
    );
    assert!(!site.node.owes_scavenge());
    took
}

#[test]
fn a_signal_during_a_slow_answer_ends_the_run() {
    assert_soon(SOON, interrupted_while_the_node_is_silent);
}

fn interrupted_while_the_node_is_silent() -> Duration {
    let site = NodeSite::new("26.1-append");
    site.node.change_quirks(|quirks| quirks.never_answer = true);

    let child = site.start("full --repo repo --node URL");
    wait_until(|| !site.node.requests().is_empty());
    send(&child, Signal::INT);
    ends_cleanly(&site, child, 130)
}

#[test]
fn a_signal_ends_restore_and_verify() {
    let site = NodeSite::scavenging();
    site.place
        .kbackup(&site.line("full --repo repo --node URL"))
        .assert()
        .code(0);

    let child = site.start("restore --repo repo --to restored --limit-rate 8MiB");
    wait_until(|| site.place.path("restored/chunk-000000.000000").exists());
    send(&child, Signal::TERM);
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(143),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // No server starts from the target, and the same restore resumes it.
    site.place.kbackup("check restored").assert().code(20);
    site.place
        .kbackup("restore --repo repo --to restored")
        .assert()
        .code(0);

    let child = site.start("verify --repo repo --limit-rate 8MiB");
    wait_until(|| bytes_read(&child) > 2 << 20);
    send(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(130),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_release_repairs_a_kill() {
    let site = NodeSite::scavenging();
    let mut child = site.start(FULL);
    wait_until(|| is_copying(&site));
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    assert_eq!(
        (
            site.place.release_records(),
            site.place.unfinished(),
            site.place.listed().len()
        ),
        (1, 1, 0)
    );
    assert!(site.node.owes_scavenge());

    site.place.kbackup("release --dry-run").assert().code(0);
    assert_eq!(posts(&site, "/admin/scavenge"), 0);
    site.place.kbackup("release").assert().code(0);
    assert_eq!(
        (
            posts(&site, "/admin/scavenge"),
            site.place.release_records()
        ),
        (1, 0)
    );
    assert!(!site.node.owes_scavenge());
    // A release needs no repository. So the next backup removes the copy of the record there.
    let copy = site.place.path("repo/state/debt.json");
    assert!(copy.exists());

    site.place
        .kbackup(&site.line("full --repo repo --node URL"))
        .assert()
        .code(0);
    assert_eq!(
        (
            site.place.release_records(),
            site.place.unfinished(),
            site.place.listed().len()
        ),
        (0, 0, 1)
    );
    assert!(!copy.exists());
}

#[test]
fn the_next_backup_repairs_a_kill_too() {
    let site = NodeSite::scavenging();
    let mut child = site.start(FULL);
    wait_until(|| is_copying(&site));
    child.kill().unwrap();
    child.wait().unwrap();

    site.place
        .kbackup(&site.line("diff --repo repo --node URL"))
        .assert()
        .code(0);

    assert_eq!(
        (
            site.place.release_records(),
            site.place.unfinished(),
            site.place.listed().len()
        ),
        (0, 0, 1)
    );

    assert!(!site.node.owes_scavenge());
    assert_eq!(posts(&site, "/admin/scavenge"), 1);
}
