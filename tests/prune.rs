//! Deleting what no backup needs: nothing that a backup, a run in progress or a later resumption
//! needs is ever deleted, whatever dies, waits or lies in between.

#![expect(clippy::unwrap_used, reason = "a test may end in a panic")]

use std::time::Duration;

use kbackup::error::Kind;
use kbackup::event::Silent;
use kbackup::manifest::Manifest;
use kbackup::prune::{self, PruneReport};
use kbackup::repository::{MemoryRepository, ObjectRepository, Prunable, Removal, Repository};
use kbackup::run::Run;

use crate::conformance::{
    Source, begin, commit_one, content, labels, leave, manifest, run, sealed,
};

const DAY: Duration = Duration::from_hours(24);

fn objects() -> ObjectRepository {
    ObjectRepository::create_in_memory().unwrap()
}

fn remove(repository: &impl Repository, backup: &Manifest) {
    let run = run();
    let removal = repository.writer(&run).unwrap().remove(&backup.label);
    assert_eq!(removal.unwrap(), Removal::LeftToPrune);
}

fn prunable(repository: &impl Repository, grace: Duration) -> Prunable {
    repository.prunable(grace).unwrap().unwrap()
}

fn prune(repository: &impl Repository, grace: Duration) -> PruneReport {
    prune::execute(repository, grace, &run()).unwrap()
}

fn stored(repository: &ObjectRepository) -> Vec<String> {
    let mut keys = repository.keys("data/").unwrap();
    keys.extend(repository.keys("sections/").unwrap());
    keys
}

/// Bytes that fill several cells, all different.
fn several_cells(seed: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    for block in 0..50_u8 {
        bytes.extend([seed, block].repeat(4096));
    }
    bytes
}

/// A repository with a marked backup that is gone, and the bytes of its file.
fn with_marks() -> (ObjectRepository, Vec<u8>) {
    let repository = objects();
    let gone = commit_one(&repository, 1, &several_cells(1));
    remove(&repository, &gone);
    let report = prune(&repository, Duration::ZERO);
    assert_eq!(
        report.pruned.objects, 0,
        "what is not marked is not deleted"
    );
    assert!(report.pruned.marked > 3);
    (repository, several_cells(1))
}

#[test]
fn what_a_removed_backup_leaves_is_marked_first_and_deleted_after_the_grace_time() {
    let repository = objects();
    let gone = commit_one(&repository, 1, &several_cells(1));
    let stays = commit_one(&repository, 2, &several_cells(2));
    assert_eq!(prunable(&repository, DAY), Prunable::default());
    let needed = {
        let all = stored(&repository);
        remove(&repository, &gone);
        assert_eq!(stored(&repository), all, "a removal deletes nothing");
        all.len() / 2
    };

    let found = prunable(&repository, DAY);
    assert_eq!((found.due_objects, found.removed_heads), (0, 1));
    assert_eq!(found.waiting_objects, found.unmarked_objects);
    assert_eq!(found.waiting_objects, needed as u64);
    assert!(found.waiting_bytes > 400_000 && found.next.is_some());
    assert_eq!(prunable(&repository, DAY).unmarked_objects, needed as u64);

    prune(&repository, DAY);
    let found = prunable(&repository, DAY);
    assert_eq!((found.due_objects, found.unmarked_objects), (0, 0));
    assert_eq!(prune(&repository, DAY).pruned.objects, 0);

    let found = prunable(&repository, Duration::ZERO);
    let report = prune(&repository, Duration::ZERO);
    assert_eq!(
        (report.pruned.objects, report.pruned.bytes),
        (found.due_objects, found.due_bytes)
    );
    assert_eq!(found.due_objects, needed as u64);
    assert_eq!(prunable(&repository, DAY), Prunable::default());
    assert_eq!(
        content(&repository, &stays.label, &stays.files[0]),
        several_cells(2)
    );
}

#[test]
fn a_backup_that_needs_a_marked_object_keeps_it() {
    let (repository, bytes) = with_marks();

    let again = commit_one(&repository, 2, &bytes);
    for _ in 0..2 {
        assert_eq!(prune(&repository, Duration::ZERO).pruned.refused, 0);
        assert_eq!(content(&repository, &again.label, &again.files[0]), bytes);
    }
}

#[test]
fn a_backup_of_bytes_that_are_marked_uploads_none_of_them() {
    let (repository, bytes) = with_marks();
    let before = repository.requests().unwrap();

    let (run, mut source) = (run(), Source::new());
    let incoming = begin(&repository, None, &run).unwrap();
    source.ingest(&*incoming, "db/chunk-000000.000000", &bytes);
    assert_eq!(incoming.bytes_stored(), 0, "they are in the store");
    drop(incoming);
    let after = repository.requests().unwrap();
    assert!(after.puts > before.puts, "it asked by writing");
}

/// A backup holds the lease, so nobody prunes beside it. If its machine stands still for long, it
/// loses the lease, and the objects that it found may go.
#[test]
fn a_backup_that_lost_its_place_is_not_committed_if_objects_were_deleted_meanwhile() {
    let (repository, bytes) = with_marks();
    let (run, mut source) = (run(), Source::new());
    let incoming = begin(&repository, None, &run).unwrap();
    source.ingest(&*incoming, "db/chunk-000000.000000", &bytes);

    let elsewhere = repository.reopen().unwrap();
    let locked = prune::execute(&elsewhere, Duration::ZERO, &run).unwrap_err();
    assert_eq!(locked.kind(), Kind::Locked);
    repository.forget_lease().unwrap();
    assert!(prune(&elsewhere, Duration::ZERO).pruned.objects > 0);

    let error = incoming
        .commit(&manifest(2, None, &source.rows))
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Locked);
    assert!(error.to_string().contains("prune"), "{error}");
    assert!(labels(&elsewhere).is_empty());

    let again = commit_one(&elsewhere, 3, &bytes);
    assert_eq!(content(&elsewhere, &again.label, &again.files[0]), bytes);
}

#[test]
fn a_backup_that_lost_its_place_is_committed_if_nothing_was_deleted() {
    let repository = objects();
    let gone = commit_one(&repository, 1, &several_cells(1));
    commit_one(&repository, 2, &several_cells(2));
    let (run, mut source) = (run(), Source::new());
    let incoming = begin(&repository, None, &run).unwrap();
    source.ingest(&*incoming, "db/chunk-000000.000000", &several_cells(3));

    // What the run has stored so far is named by nobody, and is marked.
    repository.forget_lease().unwrap();
    let elsewhere = repository.reopen().unwrap();
    assert!(prune(&elsewhere, DAY).pruned.marked > 3);

    let third = manifest(3, None, &source.rows);
    incoming.commit(&third).unwrap();
    remove(&elsewhere, &gone);
    prune(&elsewhere, Duration::ZERO);
    prune(&elsewhere, Duration::ZERO);
    assert_eq!(
        content(&elsewhere, &third.label, &third.files[0]),
        several_cells(3)
    );
}

#[test]
fn a_prune_that_died_between_two_deletions_is_finished_by_the_next_one() {
    let (repository, _) = with_marks();
    let stays = commit_one(&repository, 2, &several_cells(2));
    let before = stored(&repository).len();

    repository.fail_deletions(Some(Kind::Unreachable), 2, "data/");
    let error = prune::execute(&repository, Duration::ZERO, &run()).unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable);
    let between = stored(&repository).len();
    assert!(between < before, "it had begun");
    repository.fail_deletions(None, 0, "");

    let next = repository.reopen().unwrap();
    let report = prune(&next, Duration::ZERO);
    let deleted = usize::try_from(report.pruned.objects).unwrap();
    assert_eq!(deleted + stored(&next).len(), between);
    assert_eq!(prunable(&next, Duration::ZERO), Prunable::default());
    assert_eq!(
        content(&next, &stays.label, &stays.files[0]),
        several_cells(2)
    );
}

#[test]
fn what_an_interrupted_run_left_waits_for_the_run_that_resumes_it() {
    let repository = objects();
    let (chunk, md5) = sealed(&several_cells(1));
    leave(&repository, &[("db/chunk-000000.000000", &chunk)]);
    let left = stored(&repository);
    assert!(left.len() > 3);

    for _ in 0..3 {
        prune(&repository, Duration::ZERO);
    }
    assert_eq!(stored(&repository), left);

    let (run, source) = (run(), Source::new());
    let path = crate::conformance::at("db/chunk-000000.000000");
    let incoming = begin(&repository, None, &run).unwrap();
    let resumed = incoming.resume(&path, chunk.len() as u64, md5, None);
    let resumed = resumed.unwrap().unwrap();
    drop(source);
    let row = crate::conformance::row("db/chunk-000000.000000", resumed.stored);
    let made = manifest(1, None, &[row]);
    incoming.commit(&made).unwrap();
    for _ in 0..2 {
        prune(&repository, Duration::ZERO);
    }
    assert_eq!(content(&repository, &made.label, &made.files[0]), chunk);
}

#[test]
fn nothing_is_deleted_while_a_head_or_a_section_cannot_be_read() {
    let (repository, _) = with_marks();
    let damaged = commit_one(&repository, 2, &several_cells(2));
    let before = stored(&repository);
    repository
        .damage_manifest(&damaged.label, |_| b"{".to_vec())
        .unwrap();

    let error = prune::execute(&repository, Duration::ZERO, &run()).unwrap_err();
    assert_eq!(error.kind(), Kind::StoredCorrupt);
    assert!(error.to_string().contains("backups/0000000002"), "{error}");
    assert!(!error.hints().is_empty());
    assert_eq!(
        repository.prunable(Duration::ZERO).unwrap_err().kind(),
        Kind::StoredCorrupt
    );
    assert_eq!(stored(&repository), before);

    let (repository, _) = with_marks();
    let before = repository.keys("sections/").unwrap();
    commit_one(&repository, 2, &several_cells(2));
    for section in repository.keys("sections/").unwrap() {
        if !before.contains(&section) {
            repository.put(&section, b"damage").unwrap();
        }
    }
    let before = stored(&repository);
    let elsewhere = repository.reopen().unwrap();
    let error = prune::execute(&elsewhere, Duration::ZERO, &run()).unwrap_err();
    assert_eq!(error.kind(), Kind::StoredCorrupt);
    assert!(error.to_string().contains("tell what this backup needs"));
    assert_eq!(stored(&repository), before);
}

#[test]
fn a_locked_object_is_a_line_in_the_plan_and_goes_when_its_lock_ends() {
    let (repository, _) = with_marks();
    repository.fail_deletions(Some(Kind::Denied), 2, "data/");
    let first = prune(&repository, Duration::ZERO).pruned;
    assert!(first.objects >= 2 && first.refused > 0, "{first:?}");
    assert_eq!(first.refused, first.marked);

    let found = prunable(&repository, Duration::ZERO);
    assert_eq!(found.refused_objects, first.refused);
    assert_eq!(found.due_objects, first.refused);

    // Whoever may delete nothing hears it.
    let run = Run::new(Silent);
    prune::execute(&repository, Duration::ZERO, &run).unwrap();
    assert!(run.warnings()[0].contains("may not delete"));

    repository.fail_deletions(None, 0, "");
    let last = prune(&repository, Duration::ZERO).pruned;
    assert_eq!((last.objects, last.refused), (first.refused, 0));
    assert!(stored(&repository).is_empty());
}

#[test]
fn objects_that_kbackup_did_not_make_stay() {
    let (repository, _) = with_marks();
    let others = ["data/1/aa/future", "data/README", "sections/0/notes.txt"];
    for key in others {
        repository.put(key, b"not ours").unwrap();
    }

    prune(&repository, Duration::ZERO);
    prune(&repository, Duration::ZERO);
    assert_eq!(stored(&repository), others);
}

#[test]
fn the_number_of_a_removed_backup_is_not_given_again() {
    let repository = objects();
    let first = commit_one(&repository, 1, b"one");
    let second = commit_one(&repository, 2, b"two");
    remove(&repository, &first);
    remove(&repository, &second);
    prune(&repository, Duration::ZERO);
    assert_eq!(
        repository.keys("backups/").unwrap(),
        ["backups/0000000002"],
        "the highest number stays taken"
    );

    let run = run();
    let incoming = begin(&repository, None, &run).unwrap();
    for taken in [1, 2] {
        assert_eq!(incoming.check_next(taken).unwrap_err().kind(), Kind::Locked);
    }
    incoming.check_next(3).unwrap();
}

#[test]
fn a_store_where_nothing_stays_behind_needs_no_prune() {
    let repository = MemoryRepository::create();
    commit_one(&repository, 1, b"events");

    let plan = prune::plan(&repository, DAY, &run()).unwrap();
    assert!(!plan.needs_prune && !plan.has_work());
    assert_eq!(repository.prunable(DAY).unwrap(), None);
    assert_eq!(prune(&repository, DAY).pruned.objects, 0);
}
