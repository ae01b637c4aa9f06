//! Bad days. The status, the log and the journal show each of them, and the agent recovers without
//! help.
//!
//! This is one file, because all days start from one site and share the words for a status.

#![expect(clippy::print_stdout, reason = "a test says what it leaves out")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kbackup_testnode::{Listen, Node, Synthetic, Version};
use rustix::process::Signal;
use serde_json::Value;

use super::sidecar::{Sidecar, labels};
use crate::cli::{NodeSite, Place};

/// The node's appends are backed up soon, and no other job runs.
pub(super) const EAGER: &str =
    "--repo repo --node URL --node-patience 1s --diff-schedule 1s --verify-schedule off";
/// The node's appends are backed up soon. A failed backup is repeated only after a minute.
pub(super) const PATIENT: &str = "--repo repo --node URL --node-patience 1s --diff-schedule 1h \
                       --on-change 1s --verify-schedule off";

/// A small node that writes only what a test appends, and a place to work in.
pub(super) fn site() -> NodeSite {
    let place = Place::new();
    Synthetic {
        filter_bytes: 10_000,
        ..Synthetic::of_size(3 << 20, 1 << 20)
    }
    .make(place.path("node"))
    .unwrap();

    let node = Node::still(Version::new(26, 1), place.path("node")).unwrap();
    let server = node.serve().unwrap();

    NodeSite {
        node,
        server,
        place,
    }
}

fn start(place: &Place, url: &str, options: &str) -> Sidecar {
    Sidecar::start(place.process(&format!("agent {}", options.replace("URL", url))))
}

pub(super) fn begin(site: &NodeSite, options: &str) -> Sidecar {
    start(&site.place, &site.server.url(), options)
}

pub(super) fn append(place: &Place) {
    Synthetic::append(place.path("node"), 30_000).unwrap();
}

pub(super) fn level(status: &Value) -> &str {
    status["verdict"]["level"].as_str().unwrap()
}

pub(super) fn is_safe(status: &Value) -> bool {
    level(status) == "safe"
}

pub(super) fn concerns(status: &Value) -> String {
    let mut concerns = String::new();
    for concern in status["verdict"]["concerns"].as_array().unwrap() {
        concerns += concern["what"].as_str().unwrap();
        concerns.push('\n');
    }
    concerns
}

pub(super) fn job<'a>(status: &'a Value, name: &str) -> &'a Value {
    let mut jobs = status["jobs"].as_array().unwrap().iter();
    jobs.find(|job| job["job"] == name).unwrap()
}

/// The number of runs of a job with this outcome.
pub(super) fn runs(status: &Value, name: &str, outcome: &str) -> usize {
    let history = status["history"].as_array().unwrap();
    history
        .iter()
        .filter(|record| record["job"] == name && record["outcome"] == outcome)
        .count()
}

/// True if everything is in a backup, and there are this many backups.
pub(super) fn has(status: &Value, backups: usize) -> bool {
    labels(status).len() == backups
        && status["exposure"]["bytes"] == 0
        && status["running"].is_null()
}

pub(super) fn kept(sidecar: &Sidecar, backups: usize) -> Value {
    sidecar.shows(
        &format!("{backups} backups, and nothing outside of them"),
        |status| has(status, backups),
    )
}

/// Restores each backup, and checks the restored directory.
fn assert_restorable(place: &Place) {
    for label in place.listed() {
        let target = place.path("restored");
        place
            .kbackup(&format!(
                "restore {label} --repo repo --to {}",
                target.display()
            ))
            .assert()
            .code(0);
        place
            .kbackup(&format!("check {} --deep", target.display()))
            .assert()
            .code(0);
        std::fs::remove_dir_all(target).unwrap();
    }
}

#[test]
fn the_first_backup_is_a_full_and_an_idle_node_needs_no_other() {
    let site = site();
    let sidecar = begin(&site, EAGER);
    let status = kept(&sidecar, 1);
    assert_eq!(status["repository"]["points"][0]["kind"], "full");
    assert_eq!(status["history"][0]["trigger"], "first");

    let status = sidecar.shows("nothing to do", |status| {
        runs(status, "diff", "up-to-date") > 1
    });
    assert!(
        is_safe(&status)
            && status["verdict"]["sentence"]
                .as_str()
                .unwrap()
                .contains("everything it has written is backed up"),
        "{status:#}"
    );

    append(&site.place);
    let status = kept(&sidecar, 2);
    assert_eq!(status["repository"]["points"][1]["kind"], "diff");

    sidecar.ends_well();
    assert_eq!(site.place.listed().len(), 2);
    assert_restorable(&site.place);
}

#[test]
fn a_node_that_was_down_is_backed_up_soon_after_it_is_back() {
    let NodeSite {
        node,
        server,
        place,
    } = site();

    let url = server.url();
    let sidecar = start(&place, &url, PATIENT);
    kept(&sidecar, 1);

    let listen = Listen {
        address: server.address(),
        unix_socket: None,
    };

    drop(server);
    append(&place);

    let status = sidecar.shows("a failure", |status| runs(status, "diff", "failed") == 1);
    assert_eq!(job(&status, "diff")["last"]["kind"], "unreachable");

    let status = sidecar.shows("the node is missed", |status| {
        concerns(status).contains("the node does not answer")
    });
    assert!(concerns(&status).contains("`diff` failed"), "{status:#}");
    assert_eq!(level(&status), "attention");

    let (now, due) = (
        status["at"].as_str().unwrap().to_owned(),
        job(&status, "diff")["due"].as_str().unwrap().to_owned(),
    );
    assert!(
        seconds_between(&now, &due) > 30,
        "the agent does not retry again and again: {now} {due}"
    );

    let _server = node.serve_on(&listen).unwrap();
    let status = sidecar.shows("a backup", |status| has(status, 2) && is_safe(status));
    assert_eq!(
        (
            runs(&status, "diff", "failed"),
            runs(&status, "diff", "done")
        ),
        (1, 2)
    );

    sidecar.ends_well();
    assert_restorable(&place);
}

fn seconds_between(from: &str, to: &str) -> i64 {
    let (from, to): (kbackup::clock::Timestamp, kbackup::clock::Timestamp) =
        (from.parse().unwrap(), to.parse().unwrap());
    to.duration_since(from).as_secs()
}

#[test]
fn a_node_that_is_down_and_has_written_nothing_causes_no_failure() {
    let NodeSite { server, place, .. } = site();
    let sidecar = start(&place, &server.url(), EAGER);
    kept(&sidecar, 1);

    drop(server);
    let status = sidecar.shows("the node is missed", |status| {
        concerns(status).contains("the node does not answer")
            && runs(status, "diff", "up-to-date") > 0
    });
    assert_eq!(runs(&status, "diff", "failed"), 0);

    sidecar.ends_well();
}

/// A separate disk for a repository. It is unmounted when it is dropped.
pub(super) struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    /// Prints a note and returns `None` if this user cannot mount.
    pub(super) fn new(place: &'a Path, mebibytes: u64) -> Option<Self> {
        std::fs::create_dir_all(place).unwrap();

        let disk = Self(place);
        if !disk.mount(&format!("size={mebibytes}m")) {
            println!("SKIPPED: only root can mount a file system");
            return None;
        }

        Some(disk)
    }

    pub(super) fn mount(&self, options: &str) -> bool {
        rustix::process::geteuid().is_root()
            && succeeds(
                Command::new("mount")
                    .args(["-t", "tmpfs", "-o", options, "tmpfs"])
                    .arg(self.0),
            )
    }

    pub(super) fn try_remount(&self, how: &str) -> bool {
        succeeds(
            Command::new("mount")
                .args(["-o", &format!("remount,{how}")])
                .arg(self.0),
        )
    }

    pub(super) fn remount(&self, how: &str) {
        assert!(self.try_remount(how), "remount,{how}");
    }

    /// Unmounts the upper file system. The one below it is visible again.
    pub(super) fn unmount(&self) {
        assert!(succeeds(Command::new("umount").arg("-l").arg(self.0)));
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        while succeeds(Command::new("umount").arg("-l").arg(self.0)) {}
    }
}

fn succeeds(command: &mut Command) -> bool {
    command
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[test]
fn a_disk_that_is_not_mounted_never_becomes_a_new_repository() {
    let site = site();
    let mount = site.place.path("disk");
    let Some(disk) = Disk::new(&mount, 8) else {
        return;
    };

    // The agent has only seen the repository. It has not made a backup there.
    let repository = EAGER.replace("--repo repo", "--repo disk/repo");
    site.place
        .kbackup(&site.line("full --repo disk/repo --node URL"))
        .assert()
        .code(0);

    let sidecar = begin(&site, &repository);
    kept(&sidecar, 1);

    // Another file system hides the repository, as if its disk were not mounted.
    assert!(disk.mount("size=8m"));
    append(&site.place);
    let status = sidecar.shows("the failure", |status| {
        runs(status, "diff", "failed") > 0 && level(status) == "danger"
    });
    assert_eq!(job(&status, "diff")["last"]["kind"], "refused");
    assert!(
        concerns(&status).contains("its repository cannot be read"),
        "{status:#}"
    );
    assert!(!mount.join("repo").exists());
    sidecar.ends_well();

    // A restarted agent that finds no repository there makes none either.
    let sidecar = begin(&site, &repository);
    sidecar.shows("the failure", |status| {
        runs(status, "diff", "failed") > 1 && level(status) == "danger"
    });
    assert!(!mount.join("repo").exists());

    // It does not use another repository in that place either.
    site.place
        .kbackup(&site.line("full --repo disk/repo --node URL --state-dir elsewhere"))
        .assert()
        .code(0);
    let status = sidecar.shows("another repository", |status| {
        concerns(status)
            .contains("this repository has another id than the repository of earlier runs")
    });
    assert_eq!(level(&status), "danger");

    disk.unmount();
    let status = sidecar.shows("the backup that was missing", |status| has(status, 2));
    assert_ne!(level(&status), "danger", "{status:#}");

    sidecar.ends_well();
}

/// Without the key `new-repository` the agent waits for `kbackup init`.
#[test]
fn an_agent_makes_no_repository_unless_it_is_told_to() {
    let site = site();
    let options = EAGER.replace("URL", &site.server.url());
    let mut command = site.place.process(&format!("agent {options}"));
    command.env_remove("KBACKUP_NEW_REPOSITORY");

    let sidecar = Sidecar::start(command);
    let status = sidecar.shows("a failure", |status| {
        runs(status, "diff", "failed") > 0 && level(status) == "danger"
    });
    assert_eq!(job(&status, "diff")["last"]["kind"], "not-found");
    assert!(!site.place.path("repo").exists());

    site.place.kbackup("init --repo repo").assert().code(0);
    kept(&sidecar, 1);
    sidecar.ends_well();
}

#[test]
fn a_disk_that_is_full_or_read_only_loses_nothing() {
    let site = site();
    let mount = site.place.path("disk");
    let Some(disk) = Disk::new(&mount, 8) else {
        return;
    };

    let sidecar = begin(&site, &EAGER.replace("--repo repo", "--repo disk/repo"));
    kept(&sidecar, 1);

    let filler = mount.join("filler");
    let full = std::io::copy(
        &mut std::io::repeat(1),
        &mut std::fs::File::create(&filler).unwrap(),
    );
    assert!(full.is_err());

    append(&site.place);
    let status = sidecar.shows("a failure", |status| {
        concerns(status).contains("the repository has 0 bytes of free space")
            && concerns(status).contains("the repository has 0 B left")
    });
    assert!(
        job(&status, "diff")["failures"].as_u64().unwrap() > 0 && level(&status) == "attention",
        "{status:#}"
    );
    assert_eq!(labels(&status).len(), 1);

    std::fs::remove_file(filler).unwrap();
    kept(&sidecar, 2);

    disk.remount("ro");
    append(&site.place);
    let status = sidecar.shows("a failure", |status| {
        job(status, "diff")["last"]["outcome"] == "failed"
            && concerns(status).contains("Read-only file system")
    });
    assert_eq!(labels(&status).len(), 2);

    disk.remount("rw");
    let status = kept(&sidecar, 3);
    assert!(!concerns(&status).contains("failed"), "{status:#}");

    sidecar.ends_well();
    site.place
        .kbackup("verify --all --repo disk/repo")
        .assert()
        .code(0);
}

#[test]
fn a_clock_that_jumps_costs_one_run() {
    let site = site();
    let clock = site.place.write("clock", "0");
    let hourly = EAGER.replace("--diff-schedule 1s", "--diff-schedule 1h");
    let mut command = site.place.process(&site.line(&format!("agent {hourly}")));
    command.env("KBACKUP_CLOCK", &clock);
    let sidecar = Sidecar::start(command);
    kept(&sidecar, 1);

    for (round, offset) in [(2, "86400"), (3, "0"), (4, "-86400"), (5, "0")] {
        append(&site.place);
        std::fs::write(&clock, offset).unwrap();
        let status = kept(&sidecar, round);
        assert!(status["exposure"]["since"].is_null());
    }

    // Each jump cost one run.
    let status = sidecar.status();
    assert_eq!(
        (
            runs(&status, "diff", "done"),
            runs(&status, "diff", "up-to-date"),
            runs(&status, "diff", "failed")
        ),
        (5, 0, 0),
        "{status:#}"
    );

    sidecar.ends_well();
    assert_restorable(&site.place);
}

#[test]
fn a_password_that_changes_is_read_again() {
    let site = site();
    let wanted = |password: &str| {
        let credentials = kbackup_testnode::Credentials::operator("ops", password);
        site.node
            .change_quirks(|quirks| quirks.credentials = Some(credentials));
    };
    wanted("correct-horse");

    let password = site.place.write("password", "correct-horse\n");
    let sidecar = begin(
        &site,
        &format!(
            "{PATIENT} --user ops --password-file {}",
            password.display()
        ),
    );
    kept(&sidecar, 1);

    wanted("battery-staple");
    append(&site.place);
    let status = sidecar.shows("a failure", |status| {
        runs(status, "diff", "failed") > 0 && concerns(status).contains("does not answer")
    });
    assert_eq!(job(&status, "diff")["last"]["kind"], "denied");
    assert!(!status.to_string().contains("horse") && !sidecar.log().contains("horse"));

    std::fs::write(&password, "battery-staple\n").unwrap();
    let status = kept(&sidecar, 2);
    assert!(is_safe(&status), "{status:#}");

    sidecar.ends_well();
}

#[test]
fn two_agents_on_one_repository_take_turns() {
    let site = site();
    let first = begin(&site, EAGER);

    let second = begin(&site, &format!("{EAGER} --state-dir other"));

    for _ in 0..4 {
        append(&site.place);
        for sidecar in [&first, &second] {
            let status = sidecar.shows("nothing in no backup", |status| {
                status["exposure"]["bytes"] == 0
            });
            assert!(!concerns(&status).contains("failed"), "{status:#}");
        }
    }

    for sidecar in [first, second] {
        let status = sidecar.shows("rest", |status| status["running"].is_null());
        let history = status["history"].as_array().unwrap();
        let others = history
            .iter()
            .filter(|record| record["outcome"] == "failed" && record["kind"] != "locked");
        assert_eq!(others.count(), 0, "{status:#}");
        sidecar.ends_well();
    }

    assert!(!site.node.owes_scavenge());
    assert_restorable(&site.place);
}

/// The node scavenges, the agent copies slowly, and a signal comes at different moments.
#[test]
fn the_agent_can_be_told_to_end_at_any_moment() {
    let site = NodeSite::scavenging();
    let configuration = site
        .place
        .write("kbackup.toml", "[diff]\nlimit-rate = \"8MiB\"\n");
    let options = format!(
        "{EAGER} --max-age 1s --scavenge-rest 0s --config {}",
        configuration.display()
    );
    for moment in [0, 130, 410, 690, 1100] {
        let sidecar = begin(&site, &options);
        std::thread::sleep(Duration::from_millis(moment));
        let log = sidecar.ends_well();
        assert!(log.contains("told to end"), "{log}");
        assert_eq!(site.place.release_records(), 0, "after {moment} ms: {log}");
        assert!(
            !site.node.owes_scavenge() && site.node.current_scavenge().is_some(),
            "after {moment} ms: {log}"
        );
    }

    let sidecar = begin(&site, &options);
    kept(&sidecar, 1);
    sidecar.ends_well();
    assert!(site.node.current_scavenge().is_some() && site.place.release_records() == 0);
}

#[test]
fn a_scavenge_that_a_killed_run_stopped_is_given_back_at_once() {
    let site = NodeSite::scavenging();
    site.place
        .kbackup(&site.line("full --repo repo --node URL"))
        .assert()
        .code(0);

    for node_is_up in [true, false] {
        let fault = format!(
            "create:{}/incoming:9:abort",
            site.place.path("repo").display()
        );
        site.place
            .kbackup(&site.line("full --repo repo --node URL"))
            .env("KBACKUP_FAULT", fault)
            .assert()
            .failure();
        assert!(site.node.owes_scavenge() && site.place.release_records() == 1);

        site.node
            .change_quirks(|quirks| quirks.status = (!node_is_up).then_some(500));
        let sidecar = begin(
            &site,
            "--repo repo --node URL --node-patience 1s --diff-schedule @monthly \
             --max-age 32d --verify-schedule off",
        );
        if !node_is_up {
            let status = sidecar.shows("the stopped scavenge", |status| {
                concerns(status).contains("it is not given back yet")
            });
            assert!(concerns(&status).contains("scavenge"), "{status:#}");
            site.node.change_quirks(|quirks| quirks.status = None);
        }

        let status = sidecar.shows("that everything was given back", |status| {
            site.place.release_records() == 0 && status["agent"]["owed"].is_null()
        });
        assert!(!site.node.owes_scavenge() && site.node.current_scavenge().is_some());
        assert!(
            status["history"].as_array().unwrap().is_empty(),
            "{status:#}"
        );
        assert!(sidecar.ends_well().contains("scavenge given back"));
    }
}

#[test]
fn an_invalid_configuration_changes_nothing() {
    let site = site();
    let configuration = site.place.write("kbackup.toml", "repo = \"repo\"\n");
    let sidecar = begin(
        &site,
        &format!("{EAGER} --config {}", configuration.display()),
    );
    kept(&sidecar, 1);

    std::fs::write(&configuration, "repo = [1\n").unwrap();
    sidecar.signal(Signal::HUP);
    let status = sidecar.shows("a refusal", |status| {
        !status["agent"]["configuration"].is_null()
    });
    assert!(
        level(&status) == "attention"
            && concerns(&status).contains("its configuration was changed and cannot be used"),
        "{status:#}"
    );

    append(&site.place);
    kept(&sidecar, 2);

    std::fs::write(&configuration, "repo = \"repo\"\n").unwrap();
    sidecar.signal(Signal::HUP);
    sidecar.shows("no refusal", |status| {
        is_safe(status) && status["agent"]["configuration"].is_null()
    });

    sidecar.ends_well();
}

#[test]
fn a_backup_waits_for_a_scavenge_and_stops_it_once_when_it_would_be_too_old() {
    let site = site();
    let options = EAGER.replace(
        "--diff-schedule 1s",
        "--diff-schedule 1s --max-age 8s --scavenge-rest 1h",
    );
    let sidecar = begin(&site, &options);
    kept(&sidecar, 1);

    site.node
        .change_quirks(|quirks| quirks.scavenge_duration = Duration::from_secs(3600));
    let scavenge = site.node.start_scavenge(None).unwrap();
    append(&site.place);
    let status = sidecar.shows("the reason of the wait", |status| {
        job(status, "diff")["hold"]
            .as_str()
            .is_some_and(|hold| hold.contains("nothing is older than"))
    });
    assert!(
        job(&status, "diff")["hold"]
            .as_str()
            .unwrap()
            .contains(&scavenge.to_string()),
        "{status:#}"
    );

    let status = kept(&sidecar, 2);
    let stops = |site: &NodeSite| {
        let requests = site.node.requests();
        requests
            .iter()
            .filter(|request| request.method == "DELETE")
            .count()
    };
    assert_eq!(stops(&site), 1);
    assert_eq!(
        status["history"].as_array().unwrap().last().unwrap()["pauses"][0]["what"],
        "scavenge"
    );
    assert!(!site.node.owes_scavenge() && site.node.current_scavenge().is_some());

    append(&site.place);
    let status = sidecar.shows("the reason of the wait", |status| {
        level(status) == "danger"
            && job(status, "diff")["hold"]
                .as_str()
                .is_some_and(|hold| hold.contains("one was stopped within the last 1h"))
    });
    assert_eq!(stops(&site), 1, "{status:#}");
    sidecar.ends_well();
}

#[test]
fn scavenging_that_was_stopped_too_long_is_given_back_and_left_alone() {
    let site = NodeSite::scavenging();
    let configuration = site.place.write(
        "kbackup.toml",
        "[diff]\nlimit-rate = \"1MiB\"\nmax-pause = \"2s\"\n",
    );
    let sidecar = begin(
        &site,
        &format!(
            "{PATIENT} --scavenge-rest 0s --config {}",
            configuration.display()
        ),
    );

    let status = sidecar.shows("a failure", |status| runs(status, "diff", "failed") == 1);
    assert_eq!(job(&status, "diff")["last"]["kind"], "paused-too-long");
    assert!(!site.node.owes_scavenge() && site.place.release_records() == 0);

    let requests = site.node.requests();
    let stops = requests
        .iter()
        .filter(|request| request.method == "DELETE")
        .count();
    let due = job(&status, "diff")["due"].as_str().unwrap();
    assert!(
        seconds_between(job(&status, "diff")["last"]["ended"].as_str().unwrap(), due) >= 60,
        "{status:#}"
    );
    assert_eq!(stops, 1);

    sidecar.ends_well();
}

#[test]
fn a_lost_or_unwritable_journal_is_reported_and_costs_no_backup() {
    let site = site();
    let mut command = site.place.process(&site.line(&format!("agent {EAGER}")));
    command.env("KBACKUP_FAULT", "write:agent-:1:28");
    let sidecar = Sidecar::start(command);
    let status = kept(&sidecar, 1);
    assert!(
        concerns(&status).contains("the agent's journal cannot be written"),
        "{status:#}"
    );

    append(&site.place);
    kept(&sidecar, 2);

    let log = sidecar.ends_well();
    assert_eq!(
        log.matches("the journal cannot be written").count(),
        1,
        "{log}"
    );

    let journal = || {
        let entries = std::fs::read_dir(site.place.path("state")).unwrap();
        entries.map(|entry| entry.unwrap().path()).find(|path| {
            path.extension()
                .is_some_and(|extension| extension == "jsonl")
        })
    };
    for (round, content) in [
        (3, None),
        (4, Some(&b"{\"job\":\"di"[..])),
        (5, Some(b"\0\xff\n\n[]\n{}\n")),
    ] {
        match (content, journal()) {
            (None, Some(path)) => std::fs::remove_file(path).unwrap(),
            (Some(content), Some(path)) => std::fs::write(path, content).unwrap(),
            (_, None) => {}
        }

        append(&site.place);
        let sidecar = begin(&site, EAGER);
        let status = kept(&sidecar, round);
        assert!(is_safe(&status), "{status:#}");
        sidecar.ends_well();
    }
}

/// The supervisor that read the agent's log has died.
#[test]
fn an_agent_whose_log_nobody_reads_works() {
    let site = site();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = site
        .place
        .process(&site.line(&format!("agent {EAGER} --listen off --log debug")));
    let mut child = command
        .stdout(writer.try_clone().unwrap())
        .stderr(writer)
        .spawn()
        .unwrap();
    drop(command);

    let end = std::time::Instant::now() + Duration::from_secs(30);
    for backups in 1..4 {
        while site.place.listed().len() < backups {
            assert!(std::time::Instant::now() < end, "the agent makes no backup");
            std::thread::sleep(Duration::from_millis(50));
        }
        append(&site.place);
    }

    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// A machine sleeps, or a disk hangs, so everything stops for a while.
#[test]
fn the_agent_continues_after_a_stall() {
    let site = site();
    let sidecar = begin(&site, EAGER);
    kept(&sidecar, 1);

    append(&site.place);
    sidecar.signal(Signal::STOP);
    std::thread::sleep(Duration::from_secs(2));
    sidecar.signal(Signal::CONT);
    let status = kept(&sidecar, 2);
    assert!(is_safe(&status), "{status:#}");

    site.node
        .change_quirks(|quirks| quirks.delay = Duration::from_millis(300));
    append(&site.place);
    kept(&sidecar, 3);

    sidecar.ends_well();
}
