//! Full and failing disks: any write, sync or rename may fail.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may end in a panic, and says what it leaves out"
)]

mod beneath;
mod lost_writes;
mod mounted;

use std::process::Output;

use kbackup::proof::Depth;
use kbackup::server::ServerLine;
use kbackup_testnode::AutoScavengeState;

use super::kill::busy_node;
use super::subject::{
    argument, assert_everything_released, assert_guarded_or_complete, assert_on_record,
    assert_restores, is_well, kbackup, listed, manifest, text,
};
use super::{Chance, amount, seed};
use crate::backup::bench::{Bench, small, workplace};
use crate::restore::handmade::HandmadeBackup;
use crate::restore::start::{Start, start};

/// ENOSPC, EIO, EROFS and EDQUOT, each with a part of its hint.
const ERRORS: [(u32, &str); 4] = [
    (28, "free space"),
    (5, "the disk reports a fault"),
    (30, "mounted read-only"),
    (122, "free space"),
];
const OPERATIONS: [&str; 6] = ["create", "write", "truncate", "sync", "rename", "link"];

/// Every error in the long form, a random one in the short form.
fn errors(chance: &mut Chance) -> Vec<(u32, &'static str)> {
    if amount(1, ERRORS.len()) == 1 {
        vec![*chance.of(&ERRORS)]
    } else {
        ERRORS.to_vec()
    }
}

fn assert_failed_with_hint(output: &Output, hint: &str, what: &str) {
    let text = text(output);
    assert_eq!(output.status.code(), Some(1), "{what}: {text}");
    assert!(
        text.contains("hint:") && text.contains(hint),
        "{what}: {text}"
    );
}

#[test]
fn a_backup_on_a_full_or_broken_disk_fails_and_harms_nothing() {
    let bench = Bench::new(&small());
    let repository = bench.path("repository");
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

    assert!(is_well(&kbackup(&line("full"), None)));
    bench.append(30_000);

    let mut chance = Chance::new(seed());
    let mut failures = 0;

    for operation in OPERATIONS {
        for verb in ["full", "diff"] {
            for (number, hint) in errors(&mut chance) {
                let (mut count, mut well) = (1, false);
                while !well {
                    let what = format!("{operation} {verb} {count}: error {number}");
                    let before = listed(&repository, Depth::Quick, &what);

                    let run = |effect: &str| {
                        kbackup(
                            &line(verb),
                            Some(&format!(
                                "{operation}:{}:{count}:{number}{effect}",
                                repository.display()
                            )),
                        )
                    };

                    let output = run("");

                    well = is_well(&output);
                    if !well {
                        failures += 1;
                        assert_failed_with_hint(&output, hint, &what);
                        assert_eq!(
                            listed(&repository, Depth::Quick, &what),
                            before,
                            "{what}: {}",
                            text(&output)
                        );

                        let once = run("!");

                        failures += usize::from(!is_well(&once));

                        let after = listed(&repository, Depth::Normal, &what);
                        if is_well(&once) {
                            // Three things may be lost without a failure: the request to the kernel
                            // to copy, the note beside the lock, and the progress of the recheck.
                            // A failed sync of the backup itself never is.
                            let beside =
                                (operation, number) == ("write", 5) || operation == "truncate";
                            let told = text(&once).contains(
                                "kbackup could not keep how far the stored files were hashed",
                            );
                            assert!(
                                beside || told,
                                "{what}: a retry hid the error: {}",
                                text(&once)
                            );
                            assert_eq!(after.len(), before.len() + 1, "{what}");
                        } else {
                            assert_failed_with_hint(&once, hint, &what);
                            assert_eq!(after, before, "{what}: {}", text(&once));
                        }
                    }

                    count = chance.next_moment(count, 60);
                }
            }
        }

        assert!(
            is_well(&kbackup(&line("diff"), None)),
            "the next run after {operation}"
        );
    }

    let newest = listed(&repository, Depth::Normal, "end").pop().unwrap();
    assert_restores(
        &repository,
        &newest,
        bench.line,
        &bench.path("restored"),
        "end",
    );

    println!("{failures} failures of full and diff");
}

#[test]
fn a_restore_onto_a_full_or_broken_disk_stays_guarded() {
    let handmade = HandmadeBackup::at("20.10-scavenge", workplace(), None, |_| ());
    let (repository, label) = (handmade.target("repository"), &handmade.manifest.label);
    let line = ServerLine::of_version("20.10").unwrap();
    let end = handmade.manifest.log.position.position().to_signed();

    let mut chance = Chance::new(seed());
    let mut failures = 0;

    for operation in ["create", "write", "truncate", "sync", "rename"] {
        for (number, hint) in errors(&mut chance) {
            let (mut count, mut well) = (1, false);
            while !well {
                for effect in ["", "!"] {
                    let what = format!("{operation} {count}: error {number}{effect}");
                    let target = handmade.target("target");
                    let fault =
                        format!("{operation}:{}:{count}:{number}{effect}", target.display());

                    let output = kbackup(
                        &[
                            "restore",
                            label.as_str(),
                            "--repo",
                            argument(&repository),
                            "--to",
                            argument(&target),
                        ],
                        Some(&fault),
                    );

                    if is_well(&output) {
                        well |= effect.is_empty();
                        assert!(
                            well || (operation, number) == ("write", 5),
                            "{what}: a retry hid the error"
                        );
                    } else {
                        failures += 1;
                        assert_failed_with_hint(&output, hint, &what);
                        let begun = start(&target, &manifest(&repository, label));
                        assert!(
                            !matches!(begun, Start::Opened { writer, .. } if writer == end),
                            "{what}: a server starts from a failed restore"
                        );
                    }

                    assert_guarded_or_complete(&repository, label, line, &target, &what);
                }
                count = chance.next_moment(count, 18);
            }
        }
    }

    println!("{failures} failures of restore");
}

/// When their sync fails, the last eight bytes of a restore may be on the disk or not. The error
/// message is true in both cases.
#[test]
fn no_server_starts_from_a_restore_whose_last_sync_failed() {
    let handmade = HandmadeBackup::new("20.10-scavenge");
    let (repository, target, label) = (
        handmade.target("repository"),
        handmade.target("target"),
        handmade.manifest.label.as_str(),
    );
    let mut told = Vec::new();

    for count in 1.. {
        let line = [
            "restore",
            label,
            "--repo",
            argument(&repository),
            "--to",
            argument(&target),
        ];

        let output = kbackup(
            &line,
            Some(&format!("sync:{}/writer.chk:{count}:5!", target.display())),
        );

        if is_well(&output) {
            break;
        }

        assert_eq!(
            start(&target, &handmade.manifest),
            Start::Refused,
            "{count}"
        );

        told.push(text(&output).contains(
            "run the same restore again to resume it; until then no server starts from this target",
        ));
    }

    // There is one sync before the guard stands, and one more if the owner is set. After it, there
    // are the two syncs of the last writes.
    let (before, after) = told.split_at(told.len() - 2);
    assert!(
        (1..=2).contains(&before.len()) && !before.contains(&true) && after == [true, true],
        "{told:?}"
    );
}

#[test]
fn a_verification_on_a_full_or_broken_disk_tells_the_truth() {
    let bench = Bench::new(&small());
    bench.full().unwrap();
    let repository = bench.path("repository");
    let line = ["verify", "--all", "--repo", argument(&repository)];

    let mut chance = Chance::new(seed());
    for operation in ["create", "write", "sync", "rename"] {
        for (number, _) in errors(&mut chance) {
            for effect in ["", "!"] {
                let what = format!("{operation}: error {number}{effect}");

                let output = kbackup(
                    &line,
                    Some(&format!(
                        "{operation}:{}:1:{number}{effect}",
                        repository.display()
                    )),
                );

                assert_eq!(output.status.code(), Some(3), "{what}: {}", text(&output));
                assert!(
                    text(&output).contains("the result of the verification cannot be kept"),
                    "{what}: {}",
                    text(&output)
                );
            }
        }
    }

    assert_eq!(kbackup(&line, None).status.code(), Some(0));
}

/// kbackup must not stop a scavenge that it cannot record. It gives back what it stopped, recorded or
/// not.
#[test]
fn a_full_or_broken_disk_of_the_state_directory_does_not_harm_the_node() {
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

    let has_everything = || {
        !site.node.owes_scavenge() && site.node.auto_scavenge() == Some(AutoScavengeState::Waiting)
    };

    let mut chance = Chance::new(seed());
    let mut failures = [0, 0];
    for operation in ["create", "write", "sync", "rename", "remove"] {
        for (number, hint) in errors(&mut chance) {
            for effect in ["", "!"] {
                let (mut count, mut done) = (1, false);
                while !done {
                    let what = format!("{operation} {count}: error {number}{effect}");
                    let fault = format!("{operation}:{}:{count}:{number}{effect}", state.display());

                    site.node.forget_requests();
                    let before = listed(&repository, Depth::Quick, &what).len();
                    let output = kbackup(&full, Some(&fault));
                    let after = listed(&repository, Depth::Quick, &what).len();

                    assert!(has_everything(), "{what}: {}", text(&output));

                    if is_well(&output) {
                        assert_eq!(after, before + 1, "{what}");
                        done = output.status.code() == Some(0);
                        assert!(
                            done || text(&output).contains("kbackup release"),
                            "{what}: {}",
                            text(&output)
                        );
                    } else {
                        failures[0] += 1;
                        assert_failed_with_hint(&output, hint, &what);
                        assert_eq!(after, before, "{what}");
                    }

                    let requests = site.node.requests();
                    let was_touched = requests.iter().any(|request| request.method != "GET");
                    assert!(
                        operation == "remove" || count > 1 || !was_touched,
                        "{what}: kbackup stopped something without a record"
                    );

                    assert!(is_well(&kbackup(&release, None)), "{what}");
                    assert_everything_released(&site.node, &state, &what);

                    count = chance.next_moment(count, 2);
                }

                // The same while `release` gives back what a killed run stopped.
                let what = format!("release: {operation}: error {number}{effect}");
                kbackup(
                    &full,
                    Some(&format!("create:{}/incoming:9:abort", repository.display())),
                );
                assert!(site.node.owes_scavenge(), "{what}");

                let output = kbackup(
                    &release,
                    Some(&format!(
                        "{operation}:{}:{}:{number}{effect}",
                        state.display(),
                        1 + chance.below(2)
                    )),
                );

                if !is_well(&output) {
                    failures[1] += 1;
                    assert_failed_with_hint(&output, hint, &what);
                }

                assert_on_record(&site.node, &state, &what);
                assert!(is_well(&kbackup(&release, None)), "{what}");
                assert_everything_released(&site.node, &state, &what);
            }
        }
    }

    assert!(failures[0] > 4 && failures[1] > 2, "{failures:?}");
    println!(
        "{} failures of full and {} of release around the record",
        failures[0], failures[1]
    );
}
