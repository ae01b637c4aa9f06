use std::time::Duration;

use uuid::Uuid;

use super::*;
use crate::backup::recheck::RecheckShare;
use crate::event::Silent;
use crate::format::Epoch;
use crate::manifest::samples;

const DATABASE: Uuid = Uuid::from_u128(0xdb);

/// Epochs that begin at these positions.
fn lineage(epochs: &[u64]) -> Lineage {
    let mut found = Vec::new();
    for (number, position) in (0..).zip(epochs) {
        found.push(Epoch {
            position: LogPosition::new(*position).unwrap(),
            number,
            id: Uuid::from_u128(u128::from(*position)),
        });
    }
    Lineage::try_from(found).unwrap()
}

fn identity(endpoint: Option<&str>) -> Identity {
    Identity {
        database: DATABASE,
        endpoint: endpoint.map(str::to_owned),
    }
}

/// A backup whose log ends at `end` and has these epochs.
fn backup(sequence: u64, branch: u32, end: u64, epochs: &[u64]) -> Head {
    let mut head = samples::head(end);
    head.sequence = sequence;
    head.label = format!("20261121T0600{sequence:02}Z-full").parse().unwrap();
    head.started = format!("2026-11-21T06:00:{sequence:02}Z").parse().unwrap();
    head.finished = head.started;
    head.branch = branch;

    head.source.identity = identity(Some("node:2113"));
    head.log.lineage = lineage(epochs);
    head
}

fn existing(backups: Vec<Head>) -> ExistingBackups {
    let mut existing = ExistingBackups::default();
    for backup in &backups {
        existing.given.sequence = existing.given.sequence.max(backup.sequence);
        existing.given.branch = existing.given.branch.max(backup.branch);
    }
    existing.backups = backups;
    existing
}

fn diff() -> BackupRequest {
    BackupRequest {
        kind: BackupKind::Diff,
        attempts: 1,
        filter_max_age: Duration::ZERO,
        catch_up: Duration::ZERO,
        accept_damaged: false,
        new_branch: false,
        new_address: false,
        recheck: RecheckShare::Bytes(0),
    }
}

/// The parentage of a log that ends at `end` and has these epochs, and the warnings about it.
fn find(
    existing: &ExistingBackups,
    request: &BackupRequest,
    end: u64,
    epochs: &[u64],
) -> (Result<Parentage>, Vec<String>) {
    let run = Run::new(Silent);
    let (identity, lineage) = (identity(Some("node:2113")), lineage(epochs));
    let log = SourceLog {
        identity: &identity,
        lineage: &lineage,
        end: LogPosition::new(end).unwrap(),
        restored: None,
    };
    let found = Parentage::find(existing, log, request, &run);
    (found, run.warnings())
}

fn found(existing: &ExistingBackups, end: u64, epochs: &[u64]) -> Parentage {
    find(existing, &diff(), end, epochs).0.unwrap()
}

#[test]
fn the_first_diff_is_a_full_of_the_first_branch() {
    let first = found(&ExistingBackups::default(), 900, &[0]);
    assert_eq!(first, Parentage::without_parent(1, 1, None));
}

#[test]
fn a_diff_has_the_newest_backup_of_its_branch_as_parent() {
    let backups = existing(vec![backup(1, 1, 500, &[0]), backup(2, 1, 900, &[0, 600])]);
    let diff = found(&backups, 1000, &[0, 600]);
    assert_eq!((diff.branch, diff.sequence), (1, 3));
    assert_eq!(diff.kind, BackupKind::Diff);
    assert_eq!(diff.parent, Some(backups.backups[1].label.clone()));
    assert_eq!(diff.parent_end, LogPosition::new(900));
}

#[test]
fn a_full_has_no_parent_and_knows_how_much_of_the_log_is_held() {
    let backups = existing(vec![backup(1, 1, 500, &[0])]);
    let request = BackupRequest {
        kind: BackupKind::Full,
        ..diff()
    };
    let full = find(&backups, &request, 900, &[0]).0.unwrap();
    assert_eq!((full.kind, full.parent), (BackupKind::Full, None));
    assert_eq!(full.parent_end, LogPosition::new(500));
}

#[test]
fn a_damaged_parent_is_passed_over() {
    let mut backups = existing(vec![backup(1, 1, 500, &[0]), backup(2, 1, 900, &[0])]);
    let (older, newer) = (
        backups.backups[0].label.clone(),
        backups.backups[1].label.clone(),
    );
    let damage = Error::new(Kind::StoredCorrupt, "damaged");
    backups.mark_damaged(newer, &damage, &Run::new(Silent));
    assert_eq!(found(&backups, 1000, &[0]).parent, Some(older));
}

#[test]
fn a_log_that_is_shorter_than_the_newest_backup_builds_on_an_earlier_one() {
    let backups = existing(vec![backup(1, 1, 500, &[0]), backup(2, 1, 900, &[0])]);
    let (parentage, warnings) = find(&backups, &diff(), 700, &[0]);
    assert_eq!(
        parentage.unwrap().parent,
        Some(backups.backups[0].label.clone())
    );
    assert!(warnings[0].contains("an older copy of the node"));
}

#[test]
fn a_log_that_left_its_branch_begins_another_one_only_on_demand() {
    // The backup holds the log up to 900. The node was set back to 600, where an epoch began.
    let backups = existing(vec![backup(1, 1, 900, &[0])]);
    let refused = find(&backups, &diff(), 1000, &[0, 600]).0.unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused);
    assert!(refused.to_string().contains("position 600"), "{refused}");

    let request = BackupRequest {
        new_branch: true,
        ..diff()
    };
    let parentage = find(&backups, &request, 1000, &[0, 600]).0.unwrap();
    assert_eq!(parentage, Parentage::without_parent(2, 2, None));
}

#[test]
fn a_node_goes_on_with_the_newest_branch_that_it_continues() {
    // The newest backup of branch 1 is of a copy from before the fork, so both logs continue it.
    // Branch 1 also holds what this log does not have.
    let backups = existing(vec![
        backup(1, 1, 900, &[0]),
        backup(2, 2, 1000, &[0, 600]),
        backup(3, 1, 400, &[0]),
    ]);
    assert_eq!(found(&backups, 1200, &[0, 600]).branch, 2);
    assert_eq!(found(&backups, 1200, &[0, 900]).branch, 1);
}

#[test]
fn a_repository_holds_one_database_and_one_address() {
    let backups = existing(vec![backup(1, 1, 500, &[0])]);
    let run = Run::new(Silent);

    let mut other = identity(Some("node:2113"));
    other.database = Uuid::from_u128(1);
    let refused = check_identity(&backups.backups, &other, true, &run).unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused);

    let moved = identity(Some("elsewhere:2113"));
    let refused = check_identity(&backups.backups, &moved, false, &run).unwrap_err();
    assert!(refused.hints().concat().contains("--new-address"));
    check_identity(&backups.backups, &moved, true, &run).unwrap();

    // A stopped node tells no address.
    check_identity(&backups.backups, &identity(None), false, &run).unwrap();
}

#[test]
fn the_sequence_numbers_do_not_overflow() {
    let mut last = backup(1, 1, 500, &[0]);
    last.sequence = u64::MAX;
    let refused = find(&existing(vec![last]), &diff(), 900, &[0])
        .0
        .unwrap_err();
    assert_eq!(refused.kind(), Kind::StoredCorrupt);
}
