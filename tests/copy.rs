//! Copies of backups in a second repository: the same backups, proven, and never half there.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may end in a panic"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, Weak};

use kbackup::backup::{BackupRequest, BackupSummary};
use kbackup::copy::{
    self, BackupCopyPlan, BackupCopyReport, BackupsToCopy, CopyRules, PlannedCopy,
};
use kbackup::error::{Error, Kind, Signal};
use kbackup::event::{Event, Observer, Silent};
use kbackup::manifest::{BackupKind, Label, Manifest, RelativePath};
use kbackup::proof::{Depth, Proven};
use kbackup::repository::{DirectoryRepository, Ingest, MemoryRepository, Repository, remembered};
use kbackup::restore::{self, RestoreRequest, RestoreTarget};
use kbackup::run::Run;
use kbackup::verify::{self, Which};
use kbackup_testnode::Synthetic;

use crate::backup::bench::{Bench, elect, flip, restore_over, small, workplace};
use crate::stores::{TestRepository, in_every_store, in_stores_with_copies};

in_every_store! {
    a_copy_is_the_same_backup_in_a_second_place,
    a_copy_reuses_what_its_parent_in_the_target_has,
    a_copied_full_shares_no_file,
    the_active_chunk_is_continued_from_the_parent,
    an_interrupted_copy_is_resumed,
    damage_in_the_source_is_found_and_nothing_is_listed,
    what_is_there_already_is_not_copied_again,
    another_backup_of_the_same_label_is_refused,
    a_backup_that_is_older_than_the_newest_is_not_copied,
    a_target_belongs_to_one_database,
    a_fork_that_the_source_knows_is_a_branch_of_the_target,
    a_fork_that_nobody_accepted_is_refused,
    one_copy_at_a_time_writes_to_a_target,
    a_copy_goes_on_with_backups_of_the_node,
}

in_stores_with_copies! {
    damage_in_the_parent_is_read_from_the_source,
}

fn quiet() -> Run {
    Run::new(Silent)
}

fn second(bench: &Bench) -> TestRepository {
    TestRepository::create(&bench.path("second"))
}

fn plan(
    from: &dyn Repository,
    to: &dyn Repository,
    which: &BackupsToCopy,
) -> Result<BackupCopyPlan, Error> {
    copy::plan(from, Some(to), which, CopyRules::default(), &quiet())
}

fn copied(
    from: &dyn Repository,
    to: &dyn Repository,
    which: &BackupsToCopy,
    run: &Run,
) -> Result<BackupCopyReport, Error> {
    let plan = plan(from, to, which)?;
    copy::execute(from, to, &plan, run)
}

fn copy_all(from: &dyn Repository, to: &dyn Repository) -> Result<BackupCopyReport, Error> {
    copied(from, to, &BackupsToCopy::All, &quiet())
}

fn labels(repository: &dyn Repository) -> Vec<Label> {
    let listed = repository.list().unwrap();
    listed.into_iter().map(|listed| listed.label).collect()
}

fn assert_sound(repository: &dyn Repository) {
    let report = verify::verify(repository, &Which::All, Depth::Deep, &quiet()).unwrap();
    assert!(report.is_sound(), "{:#?}", report.backups);
}

/// The bytes of every file of a restored directory, without the mark of the restore.
fn restored(repository: &dyn Repository, label: &Label) -> BTreeMap<String, Vec<u8>> {
    let place = workplace();
    let target = place.path().join("db");
    let request = RestoreRequest {
        label: Some(label.clone()),
        targets: vec![RestoreTarget {
            db: target.clone(),
            index: None,
        }],
        ..RestoreRequest::default()
    };
    let plan = restore::plan(repository, &request, &quiet()).unwrap();
    let report = restore::execute(repository, &plan, &quiet()).unwrap();
    assert!(report.failure().is_none(), "{report}");
    bytes_below(&target)
}

fn bytes_below(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in walkdir::WalkDir::new(directory) {
        let entry = entry.unwrap();
        let name = entry.path().strip_prefix(directory).unwrap();
        let name = name.display().to_string();
        if entry.file_type().is_file() && !name.contains("kbackup") {
            files.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
    files
}

/// Asserts that every backup of one repository is in the other, intact, and restores to the same
/// bytes.
fn assert_same_backups(from: &dyn Repository, to: &dyn Repository) {
    assert_eq!(labels(from), labels(to));
    assert_sound(to);
    for label in labels(from) {
        let original = from.manifest(&label).unwrap();
        assert!(
            to.manifest(&label).unwrap().is_copy_of(&original),
            "{label}"
        );
        assert_eq!(restored(from, &label), restored(to, &label), "{label}");
    }
}

/// A full, and a diff that has more log.
fn full_and_diff(bench: &Bench) -> (BackupSummary, BackupSummary) {
    let full = bench.full().unwrap();
    bench.append(200_000);
    (full, bench.take().unwrap())
}

fn a_copy_is_the_same_backup_in_a_second_place() {
    let bench = Bench::new(&small());
    let (full, diff) = full_and_diff(&bench);
    let second = second(&bench);

    let report = copy_all(&bench.repository, &second).unwrap();
    assert_eq!(report.copied.len(), 2);
    assert_same_backups(&bench.repository, &second);

    let heads: Vec<_> = second
        .list()
        .unwrap()
        .into_iter()
        .map(|listed| listed.head.unwrap())
        .collect();
    assert_eq!(
        heads.iter().map(|head| head.sequence).collect::<Vec<_>>(),
        [1, 2]
    );
    assert_eq!(heads[0].parent, None);
    assert_eq!(heads[1].parent, Some(full.label));
    assert_eq!(heads[1].label, diff.label);
}

fn a_copy_reuses_what_its_parent_in_the_target_has() {
    let bench = Bench::new(&small());
    let (full, diff) = full_and_diff(&bench);
    let second = second(&bench);

    // The plan says what the copy does.
    let plan = plan(&bench.repository, &second, &BackupsToCopy::All).unwrap();
    let report = copy::execute(&bench.repository, &second, &plan, &quiet()).unwrap();
    let facts = |planned: &PlannedCopy| {
        let PlannedCopy {
            label,
            sequence,
            branch,
            parent,
            files_to_copy,
            files_to_reuse,
            bytes_to_read,
            ..
        } = planned.clone();
        (
            label,
            sequence,
            branch,
            parent,
            files_to_copy,
            files_to_reuse,
            bytes_to_read,
        )
    };
    let planned: Vec<_> = plan.copies.iter().map(facts).collect();
    let mut done = Vec::new();
    for copied in report.copied.clone() {
        done.push((
            copied.label,
            copied.sequence,
            copied.branch,
            copied.parent,
            copied.files_copied,
            copied.files_linked,
            copied.bytes_read,
        ));
    }
    assert_eq!(planned, done);
    assert!(report.copied[1].files_linked >= 5, "{report:?}");
    // A store of objects keeps the rows as well.
    assert!(report.copied[1].bytes_stored <= plan.copies[1].bytes_to_write + 64 * 1024);

    let first_chunk = "db/chunk-000000.000000";
    assert_eq!(
        second.copy_id(&full.label, first_chunk),
        second.copy_id(&diff.label, first_chunk)
    );
}

fn a_copied_full_shares_no_file() {
    let bench = Bench::new(&small());
    bench.full().unwrap();
    let again = bench.full().unwrap();
    let second = second(&bench);

    let report = copy_all(&bench.repository, &second).unwrap();
    let copied = &report.copied[1];
    assert_eq!(
        (&copied.label, copied.parent.as_ref(), copied.files_linked),
        (&again.label, None, 0)
    );
    assert_same_backups(&bench.repository, &second);
}

fn the_active_chunk_is_continued_from_the_parent() {
    let bench = Bench::new(&small());
    bench.full().unwrap();
    let second = second(&bench);
    copy_all(&bench.repository, &second).unwrap();

    // The active chunk has room for this.
    bench.append(5_000);
    let diff = bench.take().unwrap();
    let report = copy_all(&bench.repository, &second).unwrap();
    let copied = &report.copied[0];
    assert_eq!(copied.label, diff.label);
    assert!(copied.bytes_read < 30_000, "{copied:?}");
    assert_same_backups(&bench.repository, &second);
}

/// Ends its run after so many files were copied.
struct Impatient {
    run: Weak<Run>,
    files: Mutex<usize>,
}

impl Observer for Impatient {
    fn observe(&self, event: &Event) {
        if !matches!(event, Event::Copied { .. } | Event::Resumed { .. }) {
            return;
        }
        let mut files = self.files.lock().unwrap();
        *files = files.saturating_sub(1);
        if let (0, Some(run)) = (*files, self.run.upgrade()) {
            run.interrupt(Signal::Terminate);
        }
    }
}

fn impatient(files: usize) -> Arc<Run> {
    Arc::new_cyclic(|run| {
        Run::new(Impatient {
            run: run.clone(),
            files: Mutex::new(files),
        })
    })
}

fn an_interrupted_copy_is_resumed() {
    let bench = Bench::new(&small());
    bench.full().unwrap();
    let second = second(&bench);
    let all = BackupsToCopy::All;

    // Every file with an MD5 is there after so many others.
    let run = impatient(14);
    let error = copied(&bench.repository, &second, &all, &run).unwrap_err();
    assert_eq!(error.kind().exit_code(), 143);
    assert_eq!(labels(&second), []);

    let report = copy_all(&bench.repository, &second).unwrap();
    let copied = &report.copied[0];
    assert!(copied.files_resumed > 0, "{copied:?}");
    let files = copied.files_copied + copied.files_resumed;
    assert_eq!(files, bench.manifests()[0].totals.files);
    assert_same_backups(&bench.repository, &second);
}

fn damage_in_the_source_is_found_and_nothing_is_listed() {
    let bench = Bench::new(&small());
    let full = bench.full().unwrap();
    let second = second(&bench);
    for path in ["db/chunk-000002.000000", "index/indexmap", "db/epoch.chk"] {
        let path: RelativePath = path.parse().unwrap();
        bench.repository.damage(&full.label, &path);
        let error = copy_all(&bench.repository, &second).unwrap_err();
        bench.repository.damage(&full.label, &path);

        assert_eq!(error.kind(), Kind::StoredCorrupt, "{error:?}");
        // Small files may be stored together, and then any of them may be the first that is read.
        let is_named = error.in_words().contains(path.file_name());
        assert!(is_named || path.file_name().len() < 12, "{error:?}");
        assert!(!error.hints().is_empty(), "{error:?}");
        assert_eq!(labels(&second), []);
    }

    copy_all(&bench.repository, &second).unwrap();
    assert_same_backups(&bench.repository, &second);

    let lost: RelativePath = "db/chunk-000001.000000".parse().unwrap();
    bench.repository.lose(&full.label, &lost);
    let third = TestRepository::create(&bench.path("third"));
    let error = copy_all(&bench.repository, &third).unwrap_err();
    assert_eq!(error.kind(), Kind::StoredCorrupt, "{error:?}");
    assert_eq!(labels(&third), []);
}

fn damage_in_the_parent_is_read_from_the_source() {
    let bench = Bench::new(&small());
    let full = bench.full().unwrap();
    let second = second(&bench);
    copy_all(&bench.repository, &second).unwrap();
    bench.append(5_000);
    let diff = bench.take().unwrap();

    // One that is reused, and the one that is continued.
    second.lose(&full.label, &"db/chunk-000001.000000".parse().unwrap());
    second.flip(&full.label, "db/chunk-000005.000000", 1000);
    let run = quiet();
    copied(&bench.repository, &second, &BackupsToCopy::All, &run).unwrap();

    let warnings = run.warnings().join("\n");
    assert!(warnings.contains("chunk-000001"), "{warnings}");
    assert!(warnings.contains("chunk-000005"), "{warnings}");
    assert!(
        remembered(&second, &full.label)
            .unwrap()
            .unwrap()
            .is_damaged()
    );
    let which = Which::Named(vec![diff.label.clone()]);
    let report = verify::verify(&second, &which, Depth::Deep, &quiet()).unwrap();
    assert!(report.is_sound(), "{report:#?}");
    assert_eq!(
        restored(&bench.repository, &diff.label),
        restored(&second, &diff.label)
    );
}

fn what_is_there_already_is_not_copied_again() {
    let bench = Bench::new(&small());
    let (full, diff) = full_and_diff(&bench);
    let second = second(&bench);
    let newest = copied(&bench.repository, &second, &BackupsToCopy::Newest, &quiet()).unwrap();
    assert_eq!(newest.copied[0].label, diff.label);
    assert_eq!(second.manifest(&diff.label).unwrap().sequence, 1);
    assert_eq!(second.manifest(&diff.label).unwrap().kind, BackupKind::Diff);

    // The same backup has another number there.
    for which in [
        BackupsToCopy::Newest,
        BackupsToCopy::Named(vec![diff.label.clone()]),
        BackupsToCopy::All,
    ] {
        let report = copied(&bench.repository, &second, &which, &quiet()).unwrap();
        assert_eq!(report.copied, []);
        assert_eq!(report.already_there, std::slice::from_ref(&diff.label));
        let left_out: Vec<&Label> = report.left_out.iter().map(|left| &left.label).collect();
        let older = if which == BackupsToCopy::All {
            vec![&full.label]
        } else {
            vec![]
        };
        assert_eq!(left_out, older);
    }
    assert_sound(&second);
}

/// A change of a manifest.
type Change = fn(&mut Manifest);

/// Puts a changed copy of a backup into a repository, as no run of kbackup would.
fn forge(from: &dyn Repository, to: &dyn Repository, label: &Label, change: Change) {
    let run = quiet();
    let mut manifest = from.manifest(label).unwrap();
    let incoming = to.writer(&run).unwrap().begin(None).unwrap();
    for row in &manifest.files {
        let source = from.open(label, row).unwrap();
        let ingest = Ingest {
            source: &*source,
            place: row.path.to_string(),
            length: row.size,
            full_length: row.size,
            md5: None,
            reads_every_byte: true,
            attributes: row.into(),
            follow: None,
        };
        incoming.ingest(&row.path, ingest).unwrap();
    }
    change(&mut manifest);
    incoming.commit(&Proven::unproven(manifest)).unwrap();
}

fn another_backup_of_the_same_label_is_refused() {
    let bench = Bench::new(&small());
    let full = bench.full().unwrap();
    let changes: [(Change, &str); 3] = [
        (
            |manifest| manifest.source.db.push('x'),
            "descriptions differ",
        ),
        (|manifest| manifest.files[0].mode ^= 0o20, "files differ"),
        (
            |manifest| manifest.source.identity.database = uuid::Uuid::from_u128(9),
            "of database",
        ),
    ];

    for (number, (change, why)) in changes.into_iter().enumerate() {
        let target = TestRepository::create(&bench.path(&format!("target-{number}")));
        forge(&bench.repository, &target, &full.label, change);
        for which in [BackupsToCopy::All, BackupsToCopy::Newest] {
            let error = plan(&bench.repository, &target, &which).unwrap_err();
            assert_eq!(error.kind(), Kind::Refused);
            assert!(
                error
                    .in_words()
                    .contains("another backup of the same label")
            );
            assert!(error.in_words().contains(why), "{error:?}");
        }
    }
}

fn a_backup_that_is_older_than_the_newest_is_not_copied() {
    let bench = Bench::new(&small());
    let (full, diff) = full_and_diff(&bench);
    let second = second(&bench);
    let named = |label: &Label| BackupsToCopy::Named(vec![label.clone()]);
    copied(&bench.repository, &second, &named(&diff.label), &quiet()).unwrap();

    let error = plan(&bench.repository, &second, &named(&full.label)).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(
        error.in_words().contains("older than the newest"),
        "{error:?}"
    );

    let unknown: Label = "20200101T000000Z-full".parse().unwrap();
    let error = plan(&bench.repository, &second, &named(&unknown)).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

fn a_target_belongs_to_one_database() {
    let bench = Bench::of("26.1-append");
    bench.full().unwrap();
    let other = Bench::of("24.10-append");
    let second = second(&bench);
    copy_all(&bench.repository, &second).unwrap();

    // Its label has to be later: that is not what is refused.
    while labels(&other.repository).last() <= labels(&second).last() {
        other.full().unwrap();
    }
    let error = copied(&other.repository, &second, &BackupsToCopy::Newest, &quiet()).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(
        error.in_words().contains("the target holds backups of"),
        "{error:?}"
    );
    assert_same_backups(&bench.repository, &second);
}

/// Sets the node back to a backup, and lets it go another way.
fn fork(bench: &Bench, to: &BackupSummary) {
    restore_over(bench, to);
    elect(&bench.db, 1, 22);
    bench.append(7_000);
}

fn a_fork_that_the_source_knows_is_a_branch_of_the_target() {
    let bench = Bench::new(&Synthetic {
        active_bytes: 3_000,
        ..small()
    });
    let full = bench.full().unwrap();
    elect(&bench.db, 1, 11);
    bench.append(5_000);
    bench.take().unwrap();
    let second = second(&bench);
    copy_all(&bench.repository, &second).unwrap();

    fork(&bench, &full);
    let request = BackupRequest {
        new_branch: true,
        ..bench.request.clone()
    };
    let forked = bench.take_with(&request, |_| ()).unwrap();
    assert_eq!(forked.branch, 2);

    let report = copy_all(&bench.repository, &second).unwrap();
    assert_eq!(report.copied[0].label, forked.label);
    assert_eq!(
        (report.copied[0].branch, &report.copied[0].parent),
        (2, &None)
    );
    assert_same_backups(&bench.repository, &second);
}

fn a_fork_that_nobody_accepted_is_refused() {
    let bench = Bench::new(&Synthetic {
        active_bytes: 3_000,
        ..small()
    });
    let full = bench.full().unwrap();
    elect(&bench.db, 1, 11);
    bench.append(5_000);
    bench.take().unwrap();
    let second = second(&bench);
    copy_all(&bench.repository, &second).unwrap();

    fork(&bench, &full);
    let elsewhere = TestRepository::create(&bench.path("elsewhere"));
    while labels(&elsewhere).last() <= labels(&second).last() {
        bench.take_to(&elsewhere).unwrap();
    }
    let newest = BackupsToCopy::Newest;
    let error = plan(&elsewhere, &second, &newest).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.hints()[0].contains("--new-branch"), "{error:?}");

    let rules = CopyRules {
        new_branch: true,
        ..CopyRules::default()
    };
    let plan = copy::plan(&elsewhere, Some(&second), &newest, rules, &quiet()).unwrap();
    let report = copy::execute(&elsewhere, &second, &plan, &quiet()).unwrap();
    assert_eq!(report.copied[0].branch, 2);
    assert_sound(&second);
}

fn one_copy_at_a_time_writes_to_a_target() {
    let bench = Bench::new(&small());
    bench.full().unwrap();
    let second = second(&bench);
    let run = quiet();
    let other = second.reopen();
    let writer = other.writer(&run).unwrap();

    let error = copy_all(&bench.repository, &second).unwrap_err();
    assert_eq!(error.kind(), Kind::Locked);
    drop(writer);
    copy_all(&bench.repository, &second).unwrap();

    // A plan that was made before another run copied the same backup.
    let third = TestRepository::create(&bench.path("third"));
    let stale = plan(&bench.repository, &third, &BackupsToCopy::All).unwrap();
    copy_all(&bench.repository, &third).unwrap();
    let report = copy::execute(&bench.repository, &third, &stale, &quiet()).unwrap();
    assert_eq!((report.copied.len(), report.already_there.len()), (0, 1));
}

fn a_copy_goes_on_with_backups_of_the_node() {
    let bench = Bench::new(&small());
    bench.full().unwrap();
    let second = second(&bench);
    copy_all(&bench.repository, &second).unwrap();

    bench.append(5_000);
    let direct = bench.take_to(&second).unwrap();
    assert_eq!(direct.kind, BackupKind::Diff);
    assert!(direct.files_linked > 5, "{direct:?}");
    assert_sound(&second);
}

#[test]
fn a_backup_may_go_from_any_kind_of_repository_into_any_other() {
    let bench = Bench::new(&small());
    full_and_diff(&bench);
    let memory = MemoryRepository::create();
    let directory = DirectoryRepository::create(&bench.path("back")).unwrap();

    copy_all(&bench.repository, &memory).unwrap();
    copy_all(&memory, &directory).unwrap();
    assert_same_backups(&bench.repository, &memory);
    assert_same_backups(&bench.repository, &directory);
}

#[test]
fn a_copy_of_a_real_nodes_backup_restores_to_the_same_bytes() {
    for name in ["26.1-append", "21.10-append"] {
        let bench = Bench::of(name);
        bench.full().unwrap();
        let memory = MemoryRepository::create();
        copy_all(&bench.repository, &memory).unwrap();
        assert_same_backups(&bench.repository, &memory);
    }
}

/// Ends its run in the middle of a file.
struct InAFile {
    run: Weak<Run>,
}

impl Observer for InAFile {
    fn observe(&self, event: &Event) {
        if let (Event::Progress { bytes }, Some(run)) = (event, self.run.upgrade())
            && *bytes > 100_000
        {
            run.interrupt(Signal::Terminate);
        }
    }
}

/// Bytes in memory are never cloned: a clone would have no use for what was begun.
#[test]
fn a_wrong_beginning_of_an_interrupted_copy_is_not_blamed_on_the_source() {
    let bench = Bench::new(&Synthetic {
        filter_bytes: 10_000,
        ..Synthetic::of_size(12 << 20, 4 << 20)
    });
    let memory = MemoryRepository::create();
    bench.take_to(&memory).unwrap();
    let directory = DirectoryRepository::create(&bench.path("second")).unwrap();

    let run = Arc::new_cyclic(|run| Run::new(InAFile { run: run.clone() }));
    let error = copied(&memory, &directory, &BackupsToCopy::All, &run).unwrap_err();
    assert_eq!(error.kind().exit_code(), 143);
    let mut begun = 0;
    for entry in walkdir::WalkDir::new(bench.path("second/incoming")) {
        let entry = entry.unwrap();
        if entry.path().to_string_lossy().ends_with(".begun") {
            flip(entry.path(), 5000);
            begun += 1;
        }
    }
    assert!(begun > 0);

    copy_all(&memory, &directory).unwrap();
    assert_same_backups(&memory, &directory);
}
