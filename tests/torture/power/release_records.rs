//! Power loss around the release record: what kbackup stopped at the node is never forgotten.

use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use kbackup::node::{ReleaseRecord, ReleaseRecords};
use kbackup_testnode::{AutoScavenge, AutoScavengeState};

use super::{Cut, Watched, assert_success, kbackup};
use crate::cli::NodeSite;

/// A node with a running scavenge and with auto-scavenge.
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

/// Something that kbackup stopped, from the first request that stopped it until the last that gave
/// it back. The time begins at the start if an earlier run stopped it.
struct Stopped {
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

/// When a request of this kind was made.
fn times(site: &NodeSite, method: &str, part: &str) -> Vec<u128> {
    let mut requests = site.node.requests();
    requests.retain(|one| one.method == method && one.path.contains(part));
    requests.iter().map(|one| nanoseconds(one.at)).collect()
}

fn stopped(site: &NodeSite) -> [Stopped; 2] {
    let times = |method, part| times(site, method, part);
    let stopped = |what, taken: Vec<u128>, given: Vec<u128>, is_on_record| Stopped {
        what,
        from: *taken
            .first()
            .unwrap_or_else(|| panic!("{what} was not stopped")),
        until: *given
            .last()
            .unwrap_or_else(|| panic!("{what} was not given back")),
        is_on_record,
    };

    [
        stopped(
            "the scavenge",
            times("DELETE", "/admin/scavenge"),
            times("POST", "/admin/scavenge"),
            |record, id| {
                record
                    .scavenge
                    .as_ref()
                    .is_some_and(|scavenge| scavenge.id == id)
            },
        ),
        stopped(
            "auto-scavenge",
            times("POST", "/auto-scavenge/pause"),
            times("POST", "/auto-scavenge/resume"),
            |record, _| record.auto_scavenge.is_some(),
        ),
    ]
}

/// Asserts that everything that is stopped at the moment of the power loss is on record, and that
/// every record can be read.
fn assert_on_record(stopped: &[Stopped], scavenge: &str, times: &[u128], cut: &Cut<'_>) {
    let ledger = ReleaseRecords::open(&cut.disk.join("new/state")).unwrap();
    let listing = ledger.list().unwrap();
    assert!(
        listing.unreadable.is_empty(),
        "{}: {:?}",
        cut.what,
        listing.unreadable
    );
    let records = listing.readable;
    let (since, until) = (
        cut.made.checked_sub(1).map_or(0, |last| times[last]),
        times.get(cut.made).copied().unwrap_or(u128::MAX),
    );

    for one in stopped {
        // The power may fail at any time between the last change that was made and the first that
        // was not.
        if until > one.from && since < one.until {
            let is_known = records
                .iter()
                .any(|record| (one.is_on_record)(&record.record, scavenge));
            assert!(
                is_known,
                "{}: no record names {}: {records:?}",
                cut.what, one.what
            );
        }
    }
}

fn lose_power(name: &str, site: &NodeSite, scavenge: &str, watched: &Watched, short: usize) {
    let stopped = stopped(site);
    let times: Vec<u128> = watched.records().iter().map(|record| record.at).collect();
    watched.lose_power(name, short, |cut| {
        assert_on_record(&stopped, scavenge, &times, cut);
    });
}

#[test]
fn a_power_loss_during_a_backup_forgets_nothing_to_be_given_back() {
    let (site, scavenge) = scavenging("26.1-append");
    let watched = Watched::new(&site.place.path("watched"));
    assert_success(&watched.watch(&mut command(&site, &["full"], &watched.place)));
    lose_power("full of a scavenging node", &site, &scavenge, &watched, 400);
}

/// A killed run has stopped the scavenges, and `release` gives them back.
#[test]
fn a_power_loss_during_a_release_forgets_nothing_to_be_given_back() {
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
        "the run was not killed in time"
    );
    assert_success(&watched.watch(&mut command(&site, &["release"], &watched.place)));
    assert!(!site.node.owes_scavenge());
    lose_power("release", &site, &scavenge, &watched, 400);
}
