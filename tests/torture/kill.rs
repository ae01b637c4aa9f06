//! Runs that are killed at every operation that could be their last one, and at any moment.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may end in a panic"
)]

mod anytime;
mod expiring;

use std::path::Path;

use kbackup::proof::Depth;
use kbackup::server::ServerLine;
use kbackup_testnode::{AutoScavenge, AutoScavengeState};

use super::subject::{
    OPERATIONS, argument, assert_everything_released, assert_guarded_or_complete, assert_on_record,
    assert_restores, assert_unlocked, is_well, kbackup, listed, records, text,
};
use super::{Chance, amount, seed};
use crate::backup::bench::{Bench, small, workplace};
use crate::cli::NodeSite;
use crate::restore::handmade::HandmadeBackup;

#[test]
fn a_backup_that_dies_anywhere_is_never_listed_incomplete() {
    let bench = Bench::new(&small());
    let mut chance = Chance::new(seed());
    let mut deaths = 0;

    for operation in OPERATIONS {
        for verb in ["full", "diff"] {
            let repository = bench.path(&format!("{operation}-{verb}"));
            let line = |verb| {
                [
                    verb,
                    "--offline",
                    "--db",
                    argument(&bench.db),
                    "--repo",
                    argument(&repository),
                ]
            };

            let next_run_works = |before: &[kbackup::manifest::Label], what: &str| {
                // The first run may have died before it made the repository.
                let init = kbackup(&["init", "--repo", argument(&repository)], None);
                assert!(is_well(&init), "{what}: {}", text(&init));
                let output = kbackup(&line("diff"), None);
                assert!(is_well(&output), "{what}: {}", text(&output));
                let after = listed(&repository, Depth::Normal, what);
                assert!(
                    after.starts_with(before) && after.len() > before.len(),
                    "{what}: {before:?}, {after:?}"
                );
            };

            if operation == "link" {
                next_run_works(&[], "the first one");
            }

            let (mut count, mut alive, mut before) =
                (1, false, listed(&repository, Depth::Quick, "before"));

            while !alive {
                let what = format!("{operation} {verb} {count}");
                let fault = format!("{operation}:{}:{count}:abort", repository.display());
                alive = is_well(&kbackup(&line(verb), Some(&fault)));
                deaths += usize::from(!alive);

                let after = listed(&repository, Depth::Normal, &what);
                assert!(
                    after.starts_with(&before),
                    "{what}: an earlier backup is gone"
                );
                before = after;

                if !alive && chance.below(8) == 0 {
                    next_run_works(&before, &what);
                    before = listed(&repository, Depth::Quick, &what);
                }

                count = chance.next_moment(count, 40);
            }

            assert!(
                count > 2 || (operation, verb) == ("link", "full"),
                "no {operation} was seen"
            );

            next_run_works(&before, "end");
            assert_unlocked(&[&repository.join("state")], "end");

            if chance.below(amount(3, 1) as u64) == 0 {
                let newest = listed(&repository, Depth::Quick, "end").pop().unwrap();
                assert_restores(
                    &repository,
                    &newest,
                    bench.line,
                    &bench.path("restored"),
                    "end",
                );
            }

            std::fs::remove_dir_all(repository).unwrap();
        }
    }

    println!("{deaths} deaths of full and diff");
}

#[test]
fn no_server_starts_from_a_restore_that_died_anywhere() {
    // In memory if possible: the test makes hundreds of restores, and a sync costs nothing there.
    let handmade = HandmadeBackup::at("20.10-scavenge", workplace(), None, |_| ());
    let end = handmade.manifest.log.position.position();
    assert_eq!(
        handmade
            .plan(&handmade.request())
            .unwrap()
            .truncation
            .value(),
        Some(end),
        "the restore truncates, which is the harder case"
    );

    let repository = handmade.target("repository");
    let label = &handmade.manifest.label;
    let line = ServerLine::of_version("20.10").unwrap();

    let mut chance = Chance::new(seed());
    let mut deaths = 0;
    for operation in [
        "create", "write", "truncate", "sync", "rename", "setmode", "setowner", "remove",
    ] {
        let (mut count, mut alive) = (1, false);
        while !alive {
            let (what, target) = (
                format!("{operation} {count}"),
                handmade.target(&format!("{operation}-{count}")),
            );

            let fault = format!("{operation}:{}:{count}:abort", target.display());
            let line_of = [
                "restore",
                label.as_str(),
                "--repo",
                argument(&repository),
                "--to",
                argument(&target),
            ];

            alive = is_well(&kbackup(&line_of, Some(&fault)));
            deaths += usize::from(!alive);

            assert_guarded_or_complete(&repository, label, line, &target, &what);
            count = chance.next_moment(count, 12);
        }

        assert!(count > 1, "no {operation} was seen");
    }

    println!("{deaths} deaths of restore");
}

#[test]
fn a_verification_that_dies_anywhere_leaves_the_repository_as_it_was() {
    let bench = Bench::new(&small());
    let labels = [bench.full().unwrap().label, bench.take().unwrap().label];
    let repository = bench.path("repository");

    let mut deaths = 0;
    for operation in ["create", "write", "truncate", "sync", "rename", "remove"] {
        let (mut count, mut alive) = (1, false);
        while !alive {
            let what = format!("{operation} {count}");
            let fault = format!("{operation}:{}:{count}:abort", repository.display());
            let line = ["verify", "--all", "--repo", argument(&repository)];

            alive = is_well(&kbackup(&line, Some(&fault)));
            deaths += usize::from(!alive);

            assert!(
                is_well(&kbackup(&["list", "--repo", argument(&repository)], None)),
                "{what}"
            );
            assert!(is_well(&kbackup(&line, None)), "{what}");

            count += 1;
        }
    }

    assert!(deaths >= 8, "{deaths}");
    assert_eq!(listed(&repository, Depth::Normal, "end"), labels);
    println!("{deaths} deaths of verify");
}

/// A node with an auto-scavenge and a long scavenge.
pub(super) fn busy_node() -> NodeSite {
    let site = NodeSite::new("26.1-append");
    site.node.change_quirks(|quirks| {
        quirks.auto_scavenge = AutoScavenge::Licensed(AutoScavengeState::Waiting);
        quirks.pausing_for = std::time::Duration::ZERO;
        quirks.cancel_delay = std::time::Duration::ZERO;
        quirks.scavenge_duration = std::time::Duration::from_secs(3600);
    });

    site.node.start_scavenge(None).unwrap();
    site
}

/// Makes a record so old that no scavenge of that time can run.
fn age(record: &Path) {
    let text = std::fs::read_to_string(record).unwrap();
    let mut release_record: serde_json::Value = serde_json::from_str(&text).unwrap();
    release_record["scavenge"]["since"] = "2026-01-01T00:00:00Z".into();
    std::fs::write(record, release_record.to_string()).unwrap();
}

#[test]
fn a_run_that_dies_anywhere_around_the_record_loses_nothing_to_be_given_back() {
    let site = busy_node();
    let (repository, state, url) = (
        site.place.path("repo"),
        site.place.path("state"),
        site.server.url(),
    );

    let full = [
        "full",
        "--repo",
        argument(&repository),
        "--node",
        &url,
        "--state-dir",
        argument(&state),
    ];
    let release = ["release", "--state-dir", argument(&state)];

    let mut chance = Chance::new(seed());
    let mut deaths = [0, 0];
    for operation in ["create", "write", "sync", "rename", "remove", "lock"] {
        for (number, verb) in [full.as_slice(), release.as_slice()]
            .into_iter()
            .enumerate()
        {
            let (mut count, mut alive) = (1, false);
            while !alive {
                let what = format!("{operation} {} {count}", verb[0]);

                if number == 1 {
                    // This run dies in the middle of copying, after it stopped everything.
                    kbackup(
                        &full,
                        Some(&format!("create:{}/incoming:9:abort", repository.display())),
                    );
                    assert_on_record(&site.node, &state, &what);
                    assert!(site.node.owes_scavenge(), "{what}");
                }

                let fault = format!("{operation}:{}:{count}:abort", state.display());
                alive = is_well(&kbackup(verb, Some(&fault)));
                deaths[number] += usize::from(!alive);

                assert_on_record(&site.node, &state, &what);

                let output = kbackup(&release, None);
                if !is_well(&output) {
                    // The run died between the record and the request. So nobody knows whether the
                    // scavenge was told to stop. The record stays until that is known, or until
                    // the next backup stops the scavenge itself and gives it back.

                    assert!(
                        text(&output).contains("does not know whether it was told to stop"),
                        "{what}: {}",
                        text(&output)
                    );
                    assert_on_record(&site.node, &state, &what);

                    let again = if chance.below(2) == 0 {
                        full.as_slice()
                    } else {
                        release.as_slice()
                    };
                    records(&state).iter().for_each(|record| age(record));
                    assert!(is_well(&kbackup(again, None)), "{what}");
                }

                assert_everything_released(&site.node, &state, &what);
                assert!(
                    site.node.current_scavenge().is_some(),
                    "{what}: the scavenge does not run"
                );
                assert_unlocked(&[&repository.join("state"), &state], &what);
                listed(&repository, Depth::Quick, &what);

                count = chance.next_moment(count, 2);
            }
        }
    }

    assert!(deaths.iter().all(|deaths| *deaths >= 6), "{deaths:?}");
    println!(
        "{} deaths of full and {} of release around the record",
        deaths[0], deaths[1]
    );

    listed(&repository, Depth::Normal, "end");
}
