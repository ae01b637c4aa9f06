//! The standard output holds only the answer. The log and the progress go to standard error. A run
//! works even if nobody reads either.

use std::io::Read;
use std::process::Stdio;

use kbackup_testnode::Synthetic;

use super::{NodeSite, Place};

#[test]
fn logs_can_be_quiet_and_machine_readable() {
    let site = NodeSite::new("26.1-append");
    let output = site
        .place
        .kbackup(&site.line("full --repo repo --node URL --log error"))
        .output()
        .unwrap();
    assert_eq!(
        (output.status.code(), output.stderr.as_slice()),
        (Some(0), b"".as_slice())
    );

    let output = site
        .place
        .kbackup(&site.line("full --repo repo --node URL --log debug --log-format json --json"))
        .output()
        .unwrap();

    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["schema"], "kbackup.summary/1");

    let mut lines: Vec<serde_json::Value> = Vec::new();
    for line in String::from_utf8(output.stderr).unwrap().lines() {
        lines.push(serde_json::from_str(line).unwrap());
    }
    assert!(
        lines
            .iter()
            .all(|line| line["timestamp"].is_string() && line["level"].is_string())
    );
    assert!(
        lines
            .iter()
            .any(|line| line["message"] == "committed" && line["label"] == answer["label"])
    );

    assert!(
        lines
            .iter()
            .any(|line| line["message"] == "copied" && line["bytes"].is_u64())
    );
}

#[test]
fn a_run_whose_output_nobody_reads_works() {
    let site = NodeSite::new("26.1-append");

    // The other ends of both pipes are closed before the run writes anything.
    for line in [
        "full --repo repo --node URL --log debug",
        "list --repo repo",
        "show --repo repo --files",
        "list --repo missing --json",
    ] {
        let code = if line.contains("missing") { 10 } else { 0 };

        let mut child = site
            .place
            .process(&site.line(line))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop((child.stdout.take(), child.stderr.take()));
        assert_eq!(child.wait().unwrap().code(), Some(code), "{line}");
    }

    assert_eq!(site.place.listed().len(), 1);
}

#[test]
fn an_answer_that_cannot_be_written_fails_the_run() {
    let site = NodeSite::backed_up("26.1-append");
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();

    let mut child = site
        .place
        .process("list --repo repo")
        .stdout(full)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();

    let mut stderr = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .unwrap();

    assert_eq!(child.wait().unwrap().code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("error: cannot write the answer"),
        "{stderr}"
    );
}

#[test]
fn a_backup_whose_summary_cannot_be_written_succeeds_with_a_warning() {
    let site = NodeSite::new("26.1-append");
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();

    let line = site.line("full --repo repo --node URL");
    let mut child = site
        .place
        .process(&line)
        .stdout(full)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();

    let mut stderr = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3), "{stderr}");

    let listed = site.place.listed();
    assert_eq!(listed.len(), 1);
    assert!(
        stderr.contains(&format!(
            "{} is committed, but its summary could not be printed",
            listed[0]
        )),
        "{stderr}"
    );
}

/// `script` makes a pseudo-terminal: a bar disappears, and log lines stay.
#[test]
fn a_terminal_shows_a_bar() {
    let place = Place::new();
    Synthetic {
        filter_bytes: 1 << 20,
        ..Synthetic::of_size(256 << 20, 16 << 20)
    }
    .make(place.path("node"))
    .unwrap();
    let executable = crate::executable::PATH;
    let line = format!("{executable} full --repo repo --offline --db node/db >answer");
    let mut command = assert_cmd::Command::new("script");
    command
        .args(["--quiet", "--return", "--command", &line, "typescript"])
        .current_dir(place.path(""))
        .timeout(super::PATIENCE);
    command
        .envs(crate::executable::ENVIRONMENT)
        .env("KBACKUP_STATE_DIR", place.path("state"))
        .env("TERM", "xterm")
        .env("COLUMNS", "100")
        .env("SHELL", "/bin/sh");
    let output = command.output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    let seen = std::fs::read_to_string(place.path("typescript")).unwrap();
    assert!(seen.contains("chunks") && seen.contains(" of "), "{seen:?}");
    assert!(seen.contains("committed"), "{seen:?}");
    let answer = std::fs::read_to_string(place.path("answer")).unwrap();
    assert!(
        answer.contains("proven and durable") && !answer.contains('\u{1b}'),
        "{answer:?}"
    );
    // The last output on the bar's line removes the bar.
    let after = seen.rsplit_once("committed").unwrap().1;
    assert!(!after.contains(" of "), "{after:?}");

    // Without a terminal there is no bar.
    let output = place
        .kbackup("full --repo repo --offline --db node/db")
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        !stderr.contains('\u{1b}') && !stderr.contains('\r'),
        "{stderr:?}"
    );
}
