//! The agent's manners towards auto-scavenge, and what counts as a change of the node.

use std::time::Duration;

use kbackup_testnode::{AutoScavenge, AutoScavengeState};

use super::days::{append, begin, job, kept, runs, site};
use crate::cli::NodeSite;

fn licensed(state: AutoScavengeState) -> NodeSite {
    let site = site();
    becomes(&site, state);
    site
}

fn becomes(site: &NodeSite, state: AutoScavengeState) {
    site.node
        .change_quirks(|quirks| quirks.auto_scavenge = AutoScavenge::Licensed(state));
}

fn pauses(site: &NodeSite) -> usize {
    let requests = site.node.requests();
    requests
        .iter()
        .filter(|request| request.path == "/auto-scavenge/pause")
        .count()
}

/// The pause and the resume of each backup are events in the node's log.
#[test]
fn what_kbackup_itself_makes_the_node_write_is_no_change() {
    let site = licensed(AutoScavengeState::Waiting);
    site.node
        .change_quirks(|quirks| quirks.notes_auto_scavenge = true);

    let sidecar = begin(
        &site,
        "--repo repo --node URL --diff-schedule off --on-change 1B --verify-schedule off",
    );
    kept(&sidecar, 1);
    append(&site.place);
    let status = kept(&sidecar, 2);

    assert_eq!(site.node.failure(), None);
    assert_eq!(
        (runs(&status, "diff", "done"), pauses(&site)),
        (2, 2),
        "{status:#}"
    );
    sidecar.ends_well();
}

#[test]
fn an_auto_scavenge_that_only_waits_is_not_paused() {
    let site = licensed(AutoScavengeState::Waiting);
    site.node
        .change_quirks(|quirks| quirks.next_cycle = Some(Duration::from_secs(40 * 3600)));

    let sidecar = begin(
        &site,
        "--repo repo --node URL --diff-schedule 1s --verify-schedule off",
    );
    let status = kept(&sidecar, 1);
    assert_eq!(pauses(&site), 0);
    let node = &status["node"];
    assert_eq!(
        (&node["auto_scavenge"], &node["scavenging"]),
        (&"Waiting".into(), &serde_json::Value::Null)
    );
    sidecar.ends_well();
}

#[test]
fn a_cycle_on_any_member_counts_as_a_running_scavenge() {
    let site = site();
    let sidecar = begin(
        &site,
        "--repo repo --node URL --diff-schedule 1s --verify-schedule off --max-age 8s \
         --scavenge-rest 1h",
    );
    kept(&sidecar, 1);

    // No scavenge runs on this member.
    becomes(&site, AutoScavengeState::InProgress);
    append(&site.place);
    sidecar.shows("the reason of the wait", |status| {
        job(status, "diff")["hold"].as_str().is_some_and(|hold| {
            hold.contains("auto-scavenge runs a cycle") && hold.contains("nothing is older than")
        })
    });
    assert_eq!(pauses(&site), 0);

    let status = kept(&sidecar, 2);
    assert_eq!(pauses(&site), 1);
    let mut history = status["history"].as_array().unwrap().iter();
    let pause = history.find_map(|run| run["pauses"].get(0)).unwrap();
    assert_eq!(
        (&pause["what"], &pause["interrupted"]),
        (&"auto-scavenge".into(), &true.into())
    );

    becomes(&site, AutoScavengeState::InProgress);
    append(&site.place);
    sidecar.shows("the rest", |status| {
        job(status, "diff")["hold"]
            .as_str()
            .is_some_and(|hold| hold.contains("one was stopped within the last 1h"))
    });
    assert_eq!(pauses(&site), 1);
    sidecar.ends_well();
}

#[test]
fn the_table_of_a_job_says_what_it_does_about_scavenges() {
    let site = NodeSite::scavenging();
    let configuration = site.place.write(
        "kbackup.toml",
        "scavenge = \"skip\"\n[diff]\nscavenge = \"stop\"\n",
    );
    let options = format!(
        "--repo repo --node URL --diff-schedule off --full-schedule 1s --verify-schedule off \
         --max-age 1s --config {}",
        configuration.display()
    );

    let sidecar = begin(&site, &options);
    sidecar.shows("the full that is never taken", |status| {
        job(status, "full")["hold"]
            .as_str()
            .is_some_and(|hold| hold.contains("no backup is taken meanwhile"))
    });
    sidecar.ends_well();
    assert!(!site.node.owes_scavenge());

    let sidecar = begin(
        &site,
        &options.replace("--diff-schedule off", "--diff-schedule 1s"),
    );
    sidecar.ran("diff", "done");
    sidecar.ends_well();
    assert!(site.node.current_scavenge().is_some());
}
