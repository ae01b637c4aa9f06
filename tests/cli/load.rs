//! The load of a run on the machine: its pace, its priority, its hours.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::{NodeSite, wait_until};
use jiff::{SignedDuration, Zoned};

/// The bytes of all chunks in a directory.
fn chunk_bytes(directory: &Path) -> u64 {
    let files = walkdir::WalkDir::new(directory).into_iter().flatten();
    let chunks = files.filter(|entry| {
        entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.contains("chunk-"))
    });
    chunks.map(|entry| entry.metadata().unwrap().len()).sum()
}

/// Tests every verb that reads much from the source or from the repository.
#[test]
fn no_verb_exceeds_its_rate_limit() {
    const RATE: u64 = 20 << 20;
    let site = NodeSite::scavenging();
    let bytes = chunk_bytes(&site.place.path("node"));
    assert!(bytes > 16 << 20);

    for line in [
        "full --repo repo --node URL --limit-rate 20MiB",
        "verify --repo repo --limit-rate 20MiB",
        "restore --repo repo --to restored --limit-rate 20MiB",
        "check restored --limit-rate 20MiB",
    ] {
        let started = Instant::now();
        site.place.kbackup(&site.line(line)).assert().code(0);

        // Only a part of the active chunk is copied. The budget of an eighth of a second may have
        // been saved up.
        let least = Duration::from_millis((bytes - (4 << 20)) * 1000 / RATE - 125);
        assert!(
            started.elapsed() >= least,
            "{line}: {:?} instead of {least:?}",
            started.elapsed()
        );
    }
}

/// The fields of a `/proc/…/stat`, from the third one on.
fn stat(path: &Path) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(
        text.rsplit_once(") ")?
            .1
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
    )
}

fn is_stopped(child: &Child) -> bool {
    let status = stat(Path::new(&format!("/proc/{}/stat", child.id())));
    status.is_some_and(|fields| fields.first().is_some_and(|state| state == "T"))
}

/// The nice value and the scheduling policy of each thread.
fn priorities(child: &Child) -> Vec<(String, String)> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id()))
        .unwrap()
        .flatten();
    tasks
        .filter_map(|task| stat(&task.path().join("stat")))
        .filter_map(|fields| Some((fields.get(16)?.clone(), fields.get(38)?.clone())))
        .collect()
}

#[test]
fn every_thread_has_the_priority_of_the_run() {
    /// The scheduling policies of `sched(7)`.
    const OTHER: &str = "0";
    const IDLE: &str = "5";
    let site = NodeSite::scavenging();
    let own = stat(Path::new("/proc/self/stat")).unwrap()[16]
        .parse::<i32>()
        .unwrap();
    for (said, nice, policy) in [
        ("", own.max(10), OTHER),
        ("--priority idle", 19, IDLE),
        ("--priority normal", own, OTHER),
    ] {
        // Each run makes a repository of its own.
        let repository = format!("repo-{nice}");
        let line = format!("full --repo {repository} --node URL {said}");
        let mut child = site
            .place
            .process(&site.line(&line))
            // The process stops itself while several threads copy.
            .env(
                "KBACKUP_FAULT",
                format!("write:{repository}/incoming/:8:stop"),
            )
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_until(|| is_stopped(&child));
        assert!(priorities(&child).len() >= 2, "{said}: nothing is copied");
        let threads = priorities(&child);
        child.kill().unwrap();
        child.wait().unwrap();

        assert!(
            threads
                .iter()
                .all(|thread| *thread == (nice.to_string(), policy.to_owned())),
            "{said}: {threads:?}"
        );

        site.place.kbackup("release").assert().code(0);
    }
}

/// A window, by the clock of the machine.
fn hours(from: SignedDuration, to: SignedDuration) -> String {
    let now = Zoned::now();
    let clock = |shift: SignedDuration| {
        now.checked_add(shift)
            .unwrap()
            .strftime("%H:%M:%S")
            .to_string()
    };
    format!("{}-{}", clock(from), clock(to))
}

const HOUR: SignedDuration = SignedDuration::from_hours(1);

#[test]
fn a_run_outside_its_window_does_nothing() {
    let site = NodeSite::scavenging();
    for verb in [
        "full --repo repo --node URL",
        "diff --repo repo --node URL",
        "verify --repo repo",
    ] {
        let line = format!("{} --window {}", site.line(verb), hours(HOUR, HOUR * 2));
        let output = site.place.kbackup(&line).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(143), "{stderr}");
        assert!(
            stderr.contains("is closed\n") && stderr.contains("hint: it opens at "),
            "{stderr}"
        );
    }

    assert!(site.node.requests().is_empty() && !site.place.path("repo").exists());
    let line = format!(
        "{} --json --window {}",
        site.line("full --repo repo --node URL"),
        hours(HOUR, HOUR * 2)
    );

    let output = site.place.kbackup(&line).output().unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();

    assert_eq!(
        (&answer["error"], &answer["exit_code"]),
        (&"window-closed".into(), &143.into()),
        "{answer}"
    );
}

#[test]
fn a_run_ends_cleanly_when_its_window_closes() {
    let site = NodeSite::scavenging();

    // A busy machine begins to copy later, but the window must close after that.
    let (window, child) = [2, 10, 40]
        .into_iter()
        .find_map(|seconds| {
            let window = hours(-HOUR, SignedDuration::from_secs(seconds));
            let mut child = site.start(&format!(
                "full --repo repo --node URL --limit-rate 256KiB --window {window}"
            ));
            let is_copying = || chunk_bytes(&site.place.path("repo/incoming")) > 0;
            let mut has_ended = false;
            while !is_copying() && !has_ended {
                std::thread::sleep(Duration::from_millis(5));
                has_ended = child.try_wait().unwrap().is_some();
            }
            (!has_ended).then_some((window, child))
        })
        .unwrap();

    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(143), "{stderr}");
    // kbackup leaves out the seconds of a full minute.
    let shown: kbackup::clock::Window = window.parse().unwrap();
    assert!(
        stderr.contains(&format!("error: the window {shown} is closed\n")),
        "{stderr}"
    );

    assert!(site.place.listed().is_empty() && site.place.release_records() == 0);
    assert!(
        !site.node.owes_scavenge() && site.node.current_scavenge().is_some(),
        "the scavenge was given back"
    );

    let line = site.line(&format!(
        "full --repo repo --node URL --window {}",
        hours(-HOUR, HOUR)
    ));
    site.place.kbackup(&line).assert().code(0);
    assert_eq!(site.place.listed().len(), 1);
}
