//! Nodes that go back, move or are replaced: which branch and which node a backup belongs to.

use std::path::Path;

use kbackup::backup::BackupRequest;
use kbackup::clock;
use kbackup::error::{Error, Kind};
use kbackup::manifest::{BackupKind, Label, Manifest};
use kbackup_testnode::Synthetic;

use super::bench::{Bench, copy_tree, elect, restore_over, small};
use crate::stores::in_every_store;

in_every_store! {
    a_node_that_was_set_back_is_on_another_branch,
    after_a_restore_every_file_is_proven_once,
    an_older_copy_of_the_node_is_reported_and_builds_on_an_older_parent,
    an_older_copy_that_no_backup_ends_in_is_read_whole,
    a_repository_belongs_to_one_node,
    the_same_database_at_another_address_is_another_member,
    a_new_address_is_kept_from_then_on,
    a_new_address_does_not_excuse_another_database,
    new_branch_may_be_set_for_good,
}

fn assert_refused<T>(result: Result<T, Error>, hint: &str) {
    let error = result.err().unwrap();
    assert_eq!(error.kind(), Kind::Refused, "{error} {:?}", error.causes());
    assert!(
        error.hints().iter().any(|line| line.contains(hint)),
        "{:?}",
        error.hints()
    );
}

fn a_node_that_was_set_back_is_on_another_branch() {
    let bench = Bench::new(&Synthetic {
        active_bytes: 3_000,
        ..small()
    });
    let first = bench.take().unwrap();

    elect(&bench.db, 1, 11);
    bench.append(5_000);
    let (second, events_of_second) = (bench.take().unwrap(), bench.events());
    assert_eq!(second.kind, BackupKind::Diff);

    restore_over(&bench, &first);
    elect(&bench.db, 1, 22);
    bench.append(7_000);
    assert_refused(bench.take(), "--new-branch");
    let events_of_third = bench.events();

    let third = bench
        .take_with(
            &BackupRequest {
                new_branch: true,
                ..bench.request.clone()
            },
            |_| (),
        )
        .unwrap();
    assert_eq!((third.branch, third.kind), (2, BackupKind::Full));

    bench.append(4_000);
    let fourth = bench.take().unwrap();
    assert_eq!(
        (fourth.branch, fourth.kind, fourth.parent.as_ref()),
        (2, BackupKind::Diff, Some(&third.label))
    );

    bench.assert_restores(&fourth, &bench.events());
    bench.assert_restores(&second, &events_of_second);
    bench.assert_restores(&third, &events_of_third);

    // The node is back on the first branch.
    restore_over(&bench, &second);
    bench.append(2_000);
    let fifth = bench.take().unwrap();
    assert_eq!((fifth.branch, fifth.kind), (1, BackupKind::Full));
    bench.assert_restores(&fifth, &bench.events());
    bench.assert_sound();
}

fn after_a_restore_every_file_is_proven_once() {
    let bench = Bench::new(&small());
    bench.take().unwrap();
    let newest = bench.take().unwrap();

    restore_over(&bench, &newest);
    bench.append(2_000);
    let first = bench.take().unwrap();
    assert_eq!(first.kind, BackupKind::Full);

    assert!(
        bench.said().contains("was restored since the last backup"),
        "{}",
        bench.said()
    );

    assert_eq!(bench.take().unwrap().kind, BackupKind::Diff);
    bench.assert_sound();
}

fn an_older_copy_of_the_node_is_reported_and_builds_on_an_older_parent() {
    let bench = Bench::new(&small());
    copy_tree(&bench.db, &bench.path("older"));
    let first = bench.take().unwrap();
    bench.append(100_000);
    bench.take().unwrap();
    copy_tree(&bench.db, &bench.path("newer"));
    std::fs::remove_dir_all(&bench.db).unwrap();
    std::fs::rename(bench.path("older"), &bench.db).unwrap();

    let old = bench.take().unwrap();
    assert!(
        bench.said().contains("is this an older copy of the node?"),
        "{}",
        bench.said()
    );
    assert_eq!(
        old.parent,
        Some(first.label),
        "the newest backup that ends in this log"
    );
    assert!(old.bytes_read < 80_000, "{}", old.bytes_read);

    bench.assert_restores(&old, &bench.events());
    bench.assert_sound();
}

fn an_older_copy_that_no_backup_ends_in_is_read_whole() {
    let bench = Bench::new(&small());

    copy_tree(&bench.db, &bench.path("older"));
    bench.append(100_000);
    bench.take().unwrap();
    std::fs::remove_dir_all(&bench.db).unwrap();
    std::fs::rename(bench.path("older"), &bench.db).unwrap();

    let old = bench.take().unwrap();
    assert_eq!(old.kind, BackupKind::Full);
    assert!(
        bench.said().contains("is this an older copy of the node?"),
        "{}",
        bench.said()
    );

    bench.assert_restores(&old, &bench.events());
}

fn a_repository_belongs_to_one_node() {
    let bench = Bench::of("26.1-append");
    bench.take().unwrap();
    std::fs::remove_dir_all(&bench.db).unwrap();

    copy_tree(&Bench::of("24.10-append").db, &bench.db);
    assert_refused(bench.take(), "repository of its own");
    assert_refused(
        bench.take_with(
            &BackupRequest {
                new_branch: true,
                ..bench.request.clone()
            },
            |_| (),
        ),
        "repository of its own",
    );
}

fn the_same_database_at_another_address_is_another_member() {
    let bench = Bench::new(&small());
    let live = bench.serve();
    bench.live(&live, |_| ()).unwrap();
    live.stop(&bench);

    // A stopped node does not tell its address.
    assert_eq!(bench.take().unwrap().kind, BackupKind::Diff);

    let other = bench.serve();
    assert_refused(bench.live(&other, |_| ()), "repository of its own");
    assert_refused(bench.live(&other, |_| ()), "--new-address");
}

fn a_new_address_is_kept_from_then_on() {
    let bench = Bench::new(&small());
    let old = bench.serve();
    bench.live(&old, |_| ()).unwrap();
    old.stop(&bench);

    let new = bench.serve();
    let moved = BackupRequest {
        new_address: true,
        ..bench.request.clone()
    };
    assert_eq!(
        bench.live_as(&new, &moved, None, |_| ()).unwrap().kind,
        BackupKind::Diff,
        "its log proves that it is the same node"
    );
    assert!(bench.said().contains("from now on"), "{}", bench.said());
    assert_eq!(bench.live(&new, |_| ()).unwrap().kind, BackupKind::Diff);

    // The option does nothing if the address has not changed.
    bench.live_as(&new, &moved, None, |_| ()).unwrap();
    assert!(!bench.said().contains("from now on"), "{}", bench.said());

    new.stop(&bench);
    bench.take().unwrap();
    let third = bench.serve();
    assert_refused(bench.live(&third, |_| ()), "--new-address");
    bench.assert_sound();
}

fn a_new_address_does_not_excuse_another_database() {
    let bench = Bench::of("26.1-append");
    bench.take().unwrap();
    std::fs::remove_dir_all(&bench.db).unwrap();
    copy_tree(&Bench::of("24.10-append").db, &bench.db);
    let all = BackupRequest {
        new_address: true,
        new_branch: true,
        ..bench.request.clone()
    };

    let error = bench.take_with(&all, |_| ()).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(
        !error.hints().concat().contains("--new"),
        "{:?}",
        error.hints()
    );
}

/// An agent may have this option in its configuration for good.
fn new_branch_may_be_set_for_good() {
    let bench = Bench::new(&Synthetic {
        active_bytes: 3_000,
        ..small()
    });
    let always = BackupRequest {
        new_branch: true,
        ..bench.request.clone()
    };
    let take = || bench.take_with(&always, |_| ()).unwrap();

    let first = take();
    for _ in 0..3 {
        bench.append(2_000);
        let next = take();
        assert_eq!((next.branch, next.kind), (1, BackupKind::Diff));
    }

    elect(&bench.db, 1, 11);
    bench.append(2_000);
    let (newest, events_of_newest) = (take(), bench.events());
    assert_eq!(
        (newest.branch, newest.kind),
        (1, BackupKind::Diff),
        "an election starts no new branch"
    );

    restore_over(&bench, &first);

    // The node wrote nothing since the restore, so the log has not forked yet.
    assert_eq!(take().branch, 1);

    elect(&bench.db, 1, 22);
    bench.append(7_000);
    let parted = take();
    assert_eq!((parted.branch, parted.kind), (2, BackupKind::Full));

    bench.append(2_000);
    let next = take();
    assert_eq!(
        (next.branch, next.kind, next.parent),
        (2, BackupKind::Diff, Some(parted.label))
    );

    bench.assert_sound();
    bench.assert_restores(&newest, &events_of_newest);
}

#[test]
fn labels_grow_if_the_clock_goes_back() {
    let bench = Bench::new(&small());
    let first = bench.take().unwrap();

    // The backup claims to be from tomorrow.
    let tomorrow = clock::now().as_second() + 86_400;

    let mut manifest: Manifest = bench.manifest(&first);
    manifest.label = Label::new(
        clock::Timestamp::from_second(tomorrow).unwrap(),
        BackupKind::Full,
    );

    let backups =
        Path::new(&kbackup::repository::Repository::place(&bench.repository)).join("backups");
    std::fs::write(
        backups.join(first.label.as_str()).join("manifest.json"),
        crate::conformance::text(&manifest),
    )
    .unwrap();
    std::fs::rename(
        backups.join(first.label.as_str()),
        backups.join(manifest.label.as_str()),
    )
    .unwrap();

    for count in 1..4 {
        let next = bench.take().unwrap();
        assert_eq!(next.label.time().as_second(), tomorrow + count);
        assert_eq!(bench.manifests().last().unwrap().label, next.label);
    }

    // The label of an unreadable backup is not used again.
    let newest = bench.manifests().pop().unwrap().label;
    std::fs::write(backups.join(newest.as_str()).join("manifest.json"), b"{}").unwrap();
    let next = bench.take().unwrap();
    assert!(next.label > newest, "{} after {newest}", next.label);
}
