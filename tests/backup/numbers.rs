//! The numbers of backups: none is given twice, whatever could not be read meanwhile.

use std::path::{Path, PathBuf};

use kbackup::backup::BackupSummary;
use kbackup::clock::{self, Zone};
use kbackup::error::Kind;
use kbackup::event::Silent;
use kbackup::expire::{self, KeepRule, Policy};
use kbackup::repository::Repository;
use kbackup::restore::{self, AcceptedRisks, RestoreRequest, RestoreTarget};
use kbackup::run::Run;

use super::bench::{Bench, small};

/// A full and a diff.
fn two_backups() -> (Bench, BackupSummary, BackupSummary) {
    let bench = Bench::new(&small());
    let first = bench.take().unwrap();
    bench.append(3_000);
    let second = bench.take().unwrap();
    bench.append(3_000);
    (bench, first, second)
}

fn backup(bench: &Bench, summary: &BackupSummary) -> PathBuf {
    let backups = Path::new(&bench.repository.place()).join("backups");
    backups.join(summary.label.as_str())
}

fn sequences(bench: &Bench) -> Vec<u64> {
    let manifests = bench.manifests();
    manifests.iter().map(|head| head.sequence).collect()
}

/// What `restore latest` would bring.
fn latest(bench: &Bench) -> kbackup::error::Result<String> {
    let request = RestoreRequest {
        label: None,
        targets: vec![RestoreTarget {
            db: bench.path("restored"),
            index: None,
        }],
        ready: false,
        owner: None,
        server_version: None,
        accept: AcceptedRisks {
            archive: false,
            older_server: false,
            unsure_whether_in_use: false,
        },
    };
    let plan = restore::plan(&bench.repository, &request, &Run::new(Silent))?;
    Ok(plan.backup.label.to_string())
}

#[test]
fn the_number_of_a_backup_that_cannot_be_read_is_not_given_again() {
    let (bench, _, second) = two_backups();
    let manifest = backup(&bench, &second).join("manifest.json");
    let good = std::fs::read(&manifest).unwrap();

    std::fs::write(&manifest, "{").unwrap();
    let third = bench.take().unwrap();
    std::fs::write(&manifest, good).unwrap();

    assert_eq!(sequences(&bench), [1, 2, 3]);
    assert_eq!(latest(&bench).unwrap(), third.label.to_string());
}

#[test]
fn the_number_of_a_backup_that_is_gone_is_not_given_again() {
    let (bench, _, second) = two_backups();
    std::fs::remove_dir_all(backup(&bench, &second)).unwrap();

    bench.take().unwrap();
    assert_eq!(sequences(&bench), [1, 3]);
}

/// All of this happens within a second or two.
#[test]
fn the_label_of_a_backup_that_is_gone_is_not_given_again() {
    let (bench, _, second) = two_backups();
    std::fs::remove_dir_all(backup(&bench, &second)).unwrap();

    let third = bench.take().unwrap();
    assert!(third.label > second.label, "{}", third.label);
}

/// A repository of an earlier version has no counter.
#[test]
fn without_the_counter_every_manifest_must_be_readable() {
    let (bench, _, second) = two_backups();
    let counter = Path::new(&bench.repository.place()).join("state/numbers");
    std::fs::remove_file(&counter).unwrap();
    let manifest = backup(&bench, &second).join("manifest.json");
    let good = std::fs::read(&manifest).unwrap();

    std::fs::write(&manifest, "{").unwrap();
    let error = bench.take().unwrap_err();
    assert_eq!(error.kind(), Kind::StoredCorrupt);
    let hints = error.hints().concat();
    assert!(hints.contains(second.label.as_str()), "{hints}");

    std::fs::write(&manifest, good).unwrap();
    bench.take().unwrap();
    assert_eq!(sequences(&bench), [1, 2, 3]);
    assert!(counter.is_file());
}

/// Two backups with one number, as an earlier version could make them: the second one was out of
/// sight while the third one was taken.
fn equal_numbers() -> (Bench, BackupSummary, BackupSummary) {
    let (bench, _, second) = two_backups();
    let counter = Path::new(&bench.repository.place()).join("state/numbers");
    let aside = bench.path("aside");

    std::fs::rename(backup(&bench, &second), &aside).unwrap();
    std::fs::remove_file(counter).unwrap();
    // A full has another label, also in the same second.
    let third = bench.full().unwrap();
    std::fs::rename(&aside, backup(&bench, &second)).unwrap();

    assert_eq!(sequences(&bench), [1, 2, 2]);
    (bench, second, third)
}

#[test]
fn with_equal_numbers_no_backup_is_removed() {
    let (bench, second, third) = equal_numbers();
    let policy = Policy {
        last: 1,
        ..Policy::default()
    };
    let run = Run::new(Silent);

    let plan = expire::plan(
        &bench.repository,
        &policy,
        clock::now(),
        &Zone::system(),
        &run,
    )
    .unwrap();
    assert!(plan.goes.is_empty(), "{:?}", plan.goes);
    let mut reasons = plan.stays.iter().flat_map(|staying| &staying.reasons);
    assert!(reasons.any(|reason| reason.rule == KeepRule::SameNumber));
    let warnings = run.warnings().concat();
    assert!(warnings.contains(second.label.as_str()), "{warnings}");
    assert!(warnings.contains(third.label.as_str()), "{warnings}");

    let report = expire::execute(&bench.repository, &plan, &run).unwrap();
    assert!(report.removed.is_empty());
    assert_eq!(sequences(&bench), [1, 2, 2]);
}

#[test]
fn with_equal_numbers_a_restore_asks_for_a_label() {
    let (bench, second, third) = equal_numbers();

    let error = latest(&bench).unwrap_err();
    assert_eq!(error.kind(), Kind::StoredCorrupt);
    let hints = error.hints().concat();
    assert!(hints.contains(second.label.as_str()), "{hints}");
    assert!(hints.contains(third.label.as_str()), "{hints}");

    // Once one of them is out of the way, everything goes on.
    std::fs::remove_dir_all(backup(&bench, &second)).unwrap();
    assert_eq!(latest(&bench).unwrap(), third.label.to_string());
    bench.append(3_000);
    bench.take().unwrap();
    assert_eq!(sequences(&bench), [1, 2, 3]);
}

/// The two are older than the newest backup, which nobody doubts.
#[test]
fn with_equal_numbers_the_hint_names_the_newest_backup_first() {
    let (bench, second, third) = equal_numbers();
    bench.append(3_000);
    let newest = bench.take().unwrap();
    assert_eq!(sequences(&bench), [1, 2, 2, 3]);

    let error = latest(&bench).unwrap_err();
    assert_eq!(error.kind(), Kind::StoredCorrupt);
    let first = error.hints()[0].as_str();
    assert!(first.contains(newest.label.as_str()), "{first}");
    assert!(!first.contains(second.label.as_str()), "{first}");
    let hints = error.hints().concat();
    assert!(hints.contains(third.label.as_str()), "{hints}");

    // Something that cannot be read may be newer.
    std::fs::write(backup(&bench, &newest).join("manifest.json"), "{").unwrap();
    let hints = latest(&bench).unwrap_err().hints().concat();
    assert!(!hints.contains("newest"), "{hints}");
}

/// A branch has a number, too.
#[test]
fn the_number_of_a_branch_is_not_given_again() {
    let (bench, first, _) = two_backups();
    let branch_of = |bench: &Bench| bench.manifests().last().unwrap().branch;
    let request = kbackup::backup::BackupRequest {
        new_branch: true,
        ..bench.request.clone()
    };

    let set_back = |name: &str, id: u128| {
        super::bench::restore_over(&bench, &first);
        super::bench::elect(&bench.db, 1, id);
        bench.append(5_000);
        let _ = name;
        bench.take_with(&request, |_| ()).unwrap()
    };
    let second_branch = set_back("second", 11);
    assert_eq!(branch_of(&bench), 2);

    // Its manifest cannot be read while a third one begins.
    let manifest = backup(&bench, &second_branch).join("manifest.json");
    let good = std::fs::read(&manifest).unwrap();
    std::fs::write(&manifest, "{").unwrap();
    set_back("third", 22);
    std::fs::write(&manifest, good).unwrap();
    assert_eq!(branch_of(&bench), 3);
}
