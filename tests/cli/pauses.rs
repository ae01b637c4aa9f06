//! The node comes first: a pause of scavenging that lasts too long ends, and the backup fails.

use std::time::Duration;

use kbackup_testnode::{AutoScavenge, AutoScavengeState};
use serde_json::Value;

use super::NodeSite;

/// A full of 24 MiB takes three times as long as the pause may last.
const SLOW: &str = "full --repo repo --node URL --json --limit-rate 8MiB --max-pause 2s";

fn answer(site: &NodeSite, line: &str) -> (Option<i32>, Value, String) {
    let output = site.place.kbackup(&site.line(line)).output().unwrap();
    (
        output.status.code(),
        serde_json::from_slice(&output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn a_pause_that_lasts_too_long_ends_and_the_next_run_resumes() {
    let site = NodeSite::scavenging();
    let (code, error, log) = answer(&site, SLOW);
    assert_eq!(
        (code, &error["error"], &error["exit_code"]),
        (Some(22), &"paused-too-long".into(), &22.into()),
        "{error:#} {log}"
    );
    assert!(
        error["message"].as_str().unwrap().contains("for 2s"),
        "{error:#}"
    );
    assert!(
        error["hints"].to_string().contains("--limit-rate")
            && error["hints"].to_string().contains("--max-pause"),
        "{error:#}"
    );
    assert!(site.place.listed().is_empty());
    assert!(
        site.node.current_scavenge().is_some() && !site.node.owes_scavenge(),
        "it goes on"
    );
    assert_eq!(site.place.release_records(), 0);
    assert!(log.contains("scavenge given back after="), "{log}");

    let (code, summary, log) = answer(&site, "full --repo repo --node URL --json --max-pause 1m");
    assert_eq!(code, Some(0), "{log}");
    assert!(
        summary["files_resumed"].as_u64().unwrap() > 0,
        "{summary:#}"
    );
    assert!(site.node.current_scavenge().is_some());
}

#[test]
fn a_run_without_a_pause_has_no_limit() {
    let site = NodeSite::still();
    let (code, _, log) = answer(&site, &SLOW.replace("2s", "0s"));
    assert_eq!(code, Some(0), "{log}");
}

/// A pause costs the node nothing before the next cycle would begin.
#[test]
fn a_long_backup_before_the_next_cycle_has_no_limit() {
    for (minutes, is_paused) in [(5, true), (24 * 60, false)] {
        let site = NodeSite::still();
        site.node.change_quirks(|quirks| {
            quirks.auto_scavenge = AutoScavenge::Licensed(AutoScavengeState::Waiting);
            quirks.next_cycle = Some(Duration::from_secs(minutes * 60));
        });

        let (code, _, log) = answer(&site, &SLOW.replace("2s", "0s"));
        assert_eq!(code, Some(0), "{log}");
        assert_eq!(log.contains("auto-scavenge paused"), is_paused, "{log}");
        assert_eq!(
            log.contains("the server leaves that cycle out"),
            is_paused,
            "{log}"
        );
        assert_eq!(
            log.contains("auto-scavenge is not paused: its next cycle begins in"),
            !is_paused,
            "{log}"
        );
        assert_eq!(site.node.auto_scavenge(), Some(AutoScavengeState::Waiting));
    }
}
