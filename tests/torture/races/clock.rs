//! A clock that jumps, between runs and during a run. Backups are ordered by their sequence numbers,
//! and no run waits for a time that never comes.

use kbackup::manifest::Role;
use kbackup::repository::Repository;
use serde_json::Value;

use super::Chance;
use super::process::kbackup;
use crate::backup::bench::{Bench, small};

const DAY: i64 = 86_400;

struct Answer {
    code: i32,
    text: String,
    error: String,
}

/// Runs a verb with a clock that is wrong by `seconds` from its n-th reading on.
fn run(bench: &Bench, line: &[&str], seconds: i64, from: usize) -> Answer {
    let repository = bench.path("repository").display().to_string();
    let mut command = kbackup(&bench.path(""), line);
    let output = command
        .args(["--repo", &repository])
        .env("KBACKUP_CLOCK", format!("{seconds}@{from}"))
        .output()
        .unwrap();

    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Answer {
        code: output.status.code().unwrap(),
        text: text(output.stdout),
        error: text(output.stderr),
    }
}

fn take(bench: &Bench, verb: &str, seconds: i64, from: usize) -> Value {
    let db = bench.db.display().to_string();
    let answer = run(
        bench,
        &[verb, "--offline", "--db", &db, "--json"],
        seconds,
        from,
    );

    assert!(
        matches!(answer.code, 0 | 3),
        "{verb} {seconds}@{from}: {}",
        answer.error
    );
    serde_json::from_str(&answer.text).unwrap()
}

/// The clock of a machine without a battery may start in any year.
#[test]
fn a_clock_before_1970_stops_no_run() {
    let bench = Bench::new(&small());
    let first = take(&bench, "full", -2_500_000_000, 1);
    let second = take(&bench, "diff", -2_500_000_000, 1);
    assert_eq!(second["parent"], first["label"]);
    assert_eq!(run(&bench, &["verify", "--all"], -2_500_000_000, 1).code, 0);
    assert_eq!(run(&bench, &["list"], -2_500_000_000, 1).code, 0);
    assert_eq!(take(&bench, "diff", 0, 1)["parent"], second["label"]);
}

#[test]
fn a_clock_that_jumps_does_not_change_the_order_of_backups() {
    let (bench, mut chance) = (Bench::new(&small()), Chance::new(super::seed()));
    let mut last: Option<String> = None;
    for count in 0..super::amount(10, 300) {
        let seconds = [-DAY, DAY, -400 * DAY, 40 * DAY, 0][chance.place(5)];
        let from = 1 + chance.place(40);
        let what = format!("seed {}, {count}: {seconds}@{from}", super::seed());
        if count % 3 == 1 {
            bench.append_other(3_000, chance.number());
        }

        let summary = take(
            &bench,
            if count == 0 { "full" } else { "diff" },
            seconds,
            from,
        );

        let label = summary["label"].as_str().unwrap().to_owned();
        assert!(
            last.as_ref().is_none_or(|last| *last < label),
            "{what}: {label} after {last:?}"
        );
        assert_eq!(summary["parent"].as_str(), last.as_deref(), "{what}");
        assert!(
            summary["seconds"].as_i64().unwrap() >= 0,
            "{what}: {summary}"
        );
        last = Some(label.clone());

        let list = run(&bench, &["list"], -seconds, 1);
        assert_eq!(list.code, 0, "{what}: {}", list.error);
        let lines = list.text.lines().skip(1);
        let ages: Vec<&str> = lines
            .filter_map(|line| line.split_whitespace().nth(1))
            .collect();
        // With a wrong clock, nobody knows the age.
        let is_age = |age: &&str| *age == "?" || age.parse::<u64>().is_ok();
        assert!(
            ages.len() == count + 1 && ages.iter().all(is_age),
            "{what}: {}",
            list.text
        );

        let shown = run(&bench, &["show", "--json"], -seconds, 1);
        let shown: Value = serde_json::from_str(&shown.text).unwrap();
        assert_eq!(
            shown["label"].as_str(),
            Some(label.as_str()),
            "{what}: not the newest"
        );
        assert!(
            shown["finished"].as_str() >= shown["started"].as_str(),
            "{what}: {} {}",
            shown["started"],
            shown["finished"]
        );
    }

    let newest = bench.manifests().pop().unwrap();
    assert_eq!(Some(newest.label.to_string()), last);
    bench.assert_sound();
}

/// A filter that was read while the clock was ahead is not fresh until then.
#[test]
fn a_filter_from_the_future_is_read_again() {
    let bench = Bench::new(&small());
    take(&bench, "full", 4000 * DAY, 1);
    let captured = || {
        let newest = bench.manifests().pop().unwrap().label;
        let manifest = bench.repository.manifest(&newest).unwrap();
        let row = manifest
            .files
            .iter()
            .find(|row| row.role == Role::StreamFilter)
            .unwrap();
        row.captured
    };

    assert!(captured() > kbackup::clock::now());
    take(&bench, "diff", 0, 1);
    assert!(
        captured() <= kbackup::clock::now(),
        "the filter would be reused for years"
    );

    let before = captured();
    take(&bench, "diff", 0, 1);
    assert_eq!(captured(), before, "the filter is reused again");
}

/// A machine whose clock was a year ahead took a backup. Its age is not known, so nobody calls the
/// node safe. The next backup corrects that.
#[test]
fn a_backup_from_the_future_is_a_warning_until_the_next_one() {
    let bench = Bench::new(&small());
    take(&bench, "full", 365 * DAY, 1);

    let status = run(&bench, &["status"], 0, 1);
    assert_eq!(status.code, 3, "{}", status.text);
    assert!(status.text.contains("from the future"), "{}", status.text);
    let plugin = run(&bench, &["status", "--monitoring-plugin"], 0, 1);
    assert_eq!(plugin.code, 1, "{}", plugin.text);
    let list = run(&bench, &["list"], 0, 1);
    let note = "from the future, by 36";
    assert!(list.text.contains(note), "{}", list.text);
    assert!(
        !list.text.contains("  -36"),
        "a negative age: {}",
        list.text
    );

    take(&bench, "diff", 0, 1);
    let status = run(&bench, &["status"], 0, 1);
    assert_eq!(status.code, 0, "{}", status.text);
}
