use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use kbackup::node::{ReleaseRecord, ReleaseRecords};
use kbackup_testnode::{AutoScavenge, AutoScavengeState};

use super::{Cut, Watched, assert_success, kbackup};
use crate::cli::NodeSite;

/// A node that scavenges, by hand and by itself.
fn scavenging(recording: &str) -> (NodeSite, String) {
    let site = NodeSite::new(recording);
    site.node.change_quirks(|quirks| {
        quirks.auto_scavenge = AutoScavenge::Licensed(AutoScavengeState::Waiting);
    });
    let scavenge = site.node.start_scavenge(None).unwrap().to_string();
    (site, scavenge)
}

fn command(site: &NodeSite, verb: &[&str], watched: &Path) -> Command {
    let mut command = kbackup(verb, &[("--state-dir", &watched.join("new/state"))]);
    if verb != ["release"] {
        command
            .args(["--node", &site.server.url()])
            .arg("--repo")
            .arg(watched.join("repository"));
    }
    command
}

/// When something was owed: from the first request that takes it until the last that gives it back;
/// from the beginning where an earlier run took it.
struct Owed {
    what: &'static str,
    from: u128,
    until: u128,
    is_on_record: fn(&ReleaseRecord, &str) -> bool,
}

fn nanoseconds(time: SystemTime) -> u128 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_nanos()
}

fn owed(site: &NodeSite) -> [Owed; 2] {
    let requests = site.node.requests();
    let times = |method: &str, part: &str| -> Vec<u128> {
        requests
            .iter()
            .filter(|one| one.method == method && one.path.contains(part))
            .map(|one| nanoseconds(one.at))
            .collect()
    };
    let owed = |what, taken: Vec<u128>, given: Vec<u128>, is_on_record| Owed {
        what,
        from: *taken
            .first()
            .unwrap_or_else(|| panic!("{what} was not taken")),
        until: *given
            .last()
            .unwrap_or_else(|| panic!("{what} was not given back")),
        is_on_record,
    };
    [
        owed(
            "the scavenge",
            times("DELETE", "/admin/scavenge"),
            times("POST", "/admin/scavenge"),
            |debt, id| {
                debt.scavenge
                    .as_ref()
                    .is_some_and(|scavenge| scavenge.id == id)
            },
        ),
        owed(
            "auto-scavenge",
            times("POST", "/auto-scavenge/pause"),
            times("POST", "/auto-scavenge/resume"),
            |debt, _| debt.auto_scavenge.is_some(),
        ),
    ]
}

/// The question of the state directory: what is owed at that moment is on record, and a record that
/// is there can be read.
fn ask(owed: &[Owed], scavenge: &str, times: &[u128], cut: &Cut<'_>) {
    let ledger = ReleaseRecords::open(&cut.disk.join("new/state")).unwrap();
    let records = ledger
        .records()
        .unwrap_or_else(|error| panic!("{}: {error} {:?}", cut.what, error.causes()));
    let (since, until) = (
        cut.made.checked_sub(1).map_or(0, |last| times[last]),
        times.get(cut.made).copied().unwrap_or(u128::MAX),
    );
    for debt in owed {
        // The power may be lost at any time from the last change that was made to the first that
        // was not.
        if until > debt.from && since < debt.until {
            let known = records
                .iter()
                .any(|record| (debt.is_on_record)(&record.record, scavenge));
            assert!(
                known,
                "{}: {} is owed, and forgotten: {records:?}",
                cut.what, debt.what
            );
        }
    }
}

fn lose_power(name: &str, site: &NodeSite, scavenge: &str, watched: &Watched, short: usize) {
    let owed = owed(site);
    let times: Vec<u128> = watched.records().iter().map(|record| record.at).collect();
    watched.lose_power(name, short, |cut| ask(&owed, scavenge, &times, cut));
}

#[test]
fn nothing_that_was_taken_is_forgotten() {
    let (site, scavenge) = scavenging("26.1-append");
    let watched = Watched::new(&site.place.path("watched"));
    assert_success(&watched.watch(&mut command(&site, &["full"], &watched.place)));
    lose_power("full of a scavenging node", &site, &scavenge, &watched, 400);
}

/// A killed run's debts, given back by hand.
#[test]
fn a_release() {
    let (site, scavenge) = scavenging("26.1-append");
    let watched = Watched::new(&site.place.path("watched"));
    let fault = format!(
        "create:{}/repository/incoming:6:abort",
        watched.place.display()
    );
    let killed =
        watched.watch(command(&site, &["full"], &watched.place).env("KBACKUP_FAULT", fault));
    assert!(
        !killed.status.success() && site.node.owes_scavenge(),
        "it was not killed in time"
    );
    assert_success(&watched.watch(&mut command(&site, &["release"], &watched.place)));
    assert!(!site.node.owes_scavenge());
    lose_power("release", &site, &scavenge, &watched, 400);
}
