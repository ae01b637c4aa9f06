//! Silent damage on the repository's disk: kbackup finds it, copies it into no new backup, and
//! repairs it from any right copy.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use kbackup::backup::{BackupRequest, BackupSummary, RecheckShare};
use kbackup::error::{Kind, Result};
use kbackup::event::Silent;
use kbackup::format::ReadAt;
use kbackup::fs::CopyId;
use kbackup::manifest::{BackupKind, FileSet, Label, Manifest, Role, Row};
use kbackup::proof::Depth;
use kbackup::repository::{DirectoryRepository, Held, Listed, Repository, Writer, remembered};
use kbackup::restore;
use kbackup::run::Run;
use kbackup::verify::{self, Repaired, Which};
use kbackup_testnode::{Checkpoint, Synthetic};

use super::bench::{Bench, flip, small, writable};
use crate::executable;
use crate::stores::{TestRepository, in_every_store, in_stores_with_copies};

in_every_store! {
    no_file_of_a_damaged_parent_is_reused_unread,
    a_filter_that_lacks_streams_is_left_out,
    the_filters_of_real_nodes_are_kept,
    a_table_filter_with_damaged_lines_is_left_out,
}

in_stores_with_copies! {
    the_next_diff_finds_a_flipped_byte_and_serves_to_repair_it,
    every_file_is_rechecked_in_turn,
    a_file_that_a_diff_extends_is_proven_whole,
    the_cost_of_marking_does_not_multiply_files_and_backups,
}

const CHUNK: &str = "db/chunk-000002.000000";

/// True if a verification has found damage in this backup.
fn is_known_damaged(bench: &Bench, summary: &BackupSummary) -> bool {
    remembered(&bench.repository, &summary.label)
        .unwrap()
        .is_some_and(|known| known.is_damaged())
}

fn repair(bench: &Bench) -> Repaired {
    verify::repair(
        &bench.repository,
        &Which::All,
        Depth::Normal,
        &Run::new(Silent),
    )
    .unwrap()
}

/// Which stored copy of the chunk a backup has.
fn copy_id(bench: &Bench, summary: &BackupSummary) -> CopyId {
    bench.repository.copy_id(&summary.label, CHUNK)
}

fn diff(bench: &Bench, share: RecheckShare) -> BackupSummary {
    let summary = bench
        .take_with(
            &BackupRequest {
                recheck: share,
                ..bench.request.clone()
            },
            |_| (),
        )
        .unwrap();

    assert_eq!(summary.kind, BackupKind::Diff);
    summary
}

fn the_next_diff_finds_a_flipped_byte_and_serves_to_repair_it() {
    let bench = Bench::new(&small());
    let full = bench.full().unwrap();
    bench.append(30_000);
    let first = bench.take().unwrap();
    let events = bench.events();
    assert_eq!(copy_id(&bench, &full), copy_id(&bench, &first));

    bench.repository.flip(&full.label, CHUNK, 9_000);
    bench.append(30_000);
    let second = bench.take().unwrap();
    let said = bench.said();
    assert!(
        said.contains(&format!(
            "{CHUNK} is damaged in {}, {}: ",
            full.label, first.label
        )),
        "{said}"
    );
    assert_eq!(said.matches("is damaged in").count(), 1, "{said}");
    assert!(
        is_known_damaged(&bench, &full)
            && is_known_damaged(&bench, &first)
            && !is_known_damaged(&bench, &second)
    );
    assert_ne!(copy_id(&bench, &first), copy_id(&bench, &second));

    bench.assert_restores(&second, &bench.events());
    let report = verify::verify(
        &bench.repository,
        &Which::All,
        Depth::Normal,
        &Run::new(Silent),
    )
    .unwrap();
    let sound: Vec<bool> = report
        .backups
        .iter()
        .map(|backup| backup.findings.is_empty())
        .collect();
    assert_eq!(sound, [false, false, true], "{report:#?}");

    let plan = verify::plan_repair(
        &bench.repository,
        &Which::All,
        Depth::Normal,
        &Run::new(Silent),
    )
    .unwrap();
    assert_eq!((plan.replacements.len(), plan.lost.len()), (1, 0));
    assert_ne!(
        copy_id(&bench, &first),
        copy_id(&bench, &second),
        "a plan repairs nothing"
    );

    let repaired = repair(&bench);
    assert!(repaired.report.is_sound(), "{repaired:#?}");
    assert_eq!(repaired.replaced, plan.replacements);
    let [replaced] = repaired.replaced.as_slice() else {
        panic!("{repaired:#?}")
    };
    assert_eq!(
        (replaced.path.to_string(), &replaced.from, &replaced.into),
        (
            CHUNK.to_owned(),
            &second.label,
            &vec![full.label.clone(), first.label.clone()]
        )
    );
    assert_eq!(replaced.from_path.to_string(), CHUNK);
    assert!(!is_known_damaged(&bench, &full) && !is_known_damaged(&bench, &first));
    bench.assert_sound();
    bench.assert_restores(&first, &events);

    // Nothing is left to repair.
    assert!(repair(&bench).replaced.is_empty());
}

fn every_file_is_rechecked_in_turn() {
    let bench = Bench::new(&small());
    let full = bench.full().unwrap();
    let mut rows = bench.manifest(&full).files;
    rows.retain(|row| !matches!(row.role, Role::Checkpoint | Role::IndexMap));
    let files = rows.len();

    bench.repository.flip(&full.label, CHUNK, 9_000);
    diff(&bench, RecheckShare::Bytes(0));
    assert!(!is_known_damaged(&bench, &full), "no run read the file");

    let mut needed = 0;
    while !is_known_damaged(&bench, &full) {
        diff(&bench, RecheckShare::Bytes(1));
        needed += 1;
        assert!(needed <= files, "{needed} of {files}");
    }
    assert!(needed > 1);

    // All backups share the file, except the last one.
    let backups = bench.manifests();
    let sound = backups.iter().filter(|manifest| {
        let known = remembered(&bench.repository, &manifest.label).unwrap();
        !known.is_some_and(|known| known.is_damaged())
    });
    assert_eq!(
        sound.map(|manifest| &manifest.label).collect::<Vec<_>>(),
        [&backups.last().unwrap().label]
    );

    assert!(repair(&bench).report.is_sound());
    bench.assert_sound();
}

/// A repository that counts how often it is asked for the files of a backup.
struct Counting<'a> {
    inner: &'a dyn Repository,
    asked: AtomicUsize,
}

impl Repository for Counting<'_> {
    fn id(&self) -> uuid::Uuid {
        self.inner.id()
    }

    fn place(&self) -> String {
        self.inner.place()
    }

    fn list(&self) -> Result<Vec<Listed>> {
        self.inner.list()
    }

    fn manifest(&self, label: &Label) -> Result<Manifest> {
        self.inner.manifest(label)
    }

    fn files(&self, label: &Label) -> Result<Box<dyn FileSet + '_>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.inner.files(label)
    }

    fn open(&self, label: &Label, row: &Row) -> Result<Box<dyn ReadAt>> {
        self.inner.open(label, row)
    }

    fn writer<'b>(&'b self, run: &'b Run) -> Result<Box<dyn Writer<'b> + 'b>> {
        self.inner.writer(run)
    }

    fn hold(&self, label: &Label) -> Result<Box<dyn Held>> {
        self.inner.hold(label)
    }

    fn is_held(&self, label: &Label) -> Result<bool> {
        self.inner.is_held(label)
    }

    fn would_free(&self, labels: &[&Label]) -> Result<Vec<u64>> {
        self.inner.would_free(labels)
    }

    fn state(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.inner.state(key)
    }

    fn set_state(&self, key: &str, value: Option<&[u8]>) -> Result<()> {
        self.inner.set_state(key, value)
    }

    fn free_space(&self) -> Result<Option<u64>> {
        self.inner.free_space()
    }

    fn shares_device_with(&self, path: &Path) -> Result<bool> {
        self.inner.shares_device_with(path)
    }
}

/// Each backup is gone through once, however many files are damaged.
fn the_cost_of_marking_does_not_multiply_files_and_backups() {
    const BACKUPS: usize = 6;
    let bench = Bench::new(&small());
    let full = bench.full().unwrap();
    for _ in 1..BACKUPS {
        bench.take().unwrap();
    }
    for number in 0..5 {
        let chunk = format!("db/chunk-{number:06}.000000");
        bench.repository.flip(&full.label, &chunk, 9_000);
    }

    let counting = Counting {
        inner: &bench.repository,
        asked: AtomicUsize::new(0),
    };
    let diff = bench.take_to(&counting).unwrap();
    assert_eq!(bench.said().matches("is damaged in").count(), 5);
    for manifest in bench.manifests() {
        let known = remembered(&bench.repository, &manifest.label).unwrap();
        let is_damaged = known.is_some_and(|known| known.is_damaged());
        assert_eq!(
            is_damaged,
            manifest.label != diff.label,
            "{}",
            manifest.label
        );
    }

    // Once for the place of each damaged file, once for each backup, and a few times besides.
    let asked = counting.asked.into_inner();
    assert!(asked <= 5 + BACKUPS + 4, "{asked}");
}

fn a_file_that_a_diff_extends_is_proven_whole() {
    // The damage lies in the bytes that are compared with the source, before them, or in the hole
    // behind them.
    for damaged_at in [399_000, 2_000, 900_000] {
        let bench = Bench::new(&Synthetic {
            chunk_size: 1 << 20,
            active_bytes: 400_000,
            ..small()
        });
        let full = bench.full().unwrap();
        let active = "db/chunk-000005.000000";

        bench.repository.flip(&full.label, active, damaged_at);
        bench.append(5_000);

        let second = diff(&bench, RecheckShare::Bytes(0));

        let end = 128 + usize::try_from(bench.get(Checkpoint::Writer)).unwrap() % (1 << 20);
        let (stored, source) = (
            bench.repository.read(&second.label, active),
            std::fs::read(bench.db.join(active.trim_start_matches("db/"))).unwrap(),
        );

        assert!(
            stored.get(..end) == source.get(..end),
            "the damage is in the new backup"
        );
        assert!(
            stored.get(end..).unwrap().iter().all(|byte| *byte == 0),
            "the damage is in the new backup"
        );
        assert!(
            is_known_damaged(&bench, &full) && !is_known_damaged(&bench, &second),
            "{damaged_at}"
        );

        bench.assert_restores(&second, &bench.events());
    }
}

fn no_file_of_a_damaged_parent_is_reused_unread() {
    let bench = Bench::new(&small());
    let full = bench.full().unwrap();
    bench.repository.flip(&full.label, CHUNK, 9_000);
    verify::verify(
        &bench.repository,
        &Which::All,
        Depth::Normal,
        &Run::new(Silent),
    )
    .unwrap();

    let second = diff(&bench, RecheckShare::Bytes(0));
    bench.assert_restores(&second, &bench.events());
    // Objects have one copy of these bytes, which the diff has mended.
    if !matches!(bench.repository, TestRepository::Objects(_)) {
        assert_ne!(copy_id(&bench, &full), copy_id(&bench, &second));
    }

    // The next diff has a sound parent.
    let third = diff(&bench, RecheckShare::Bytes(0));
    assert_eq!(copy_id(&bench, &third), copy_id(&bench, &second));
}

#[test]
fn lost_short_and_flipped_files_are_repaired_from_another_full() {
    let bench = Bench::new(&small());
    let full = bench.full().unwrap();
    let first = bench.take().unwrap();
    let other = bench.full().unwrap();

    flip(&bench.stored(&full).join(CHUNK), 9_000);
    std::fs::remove_file(bench.stored(&first).join("db/chunk-000001.000000")).unwrap();
    writable(
        &bench.stored(&full).join("db/chunk-000003.000000"),
        |file| file.set_len(100).unwrap(),
    );
    std::fs::remove_dir_all(bench.stored(&other).join("index/stream-existence")).unwrap();

    let repaired = repair(&bench);
    assert!(repaired.report.is_sound(), "{repaired:#?}");
    assert!(repaired.lost.is_empty());
    for path in [CHUNK, "db/chunk-000003.000000"] {
        let replaced = repaired
            .replaced
            .iter()
            .find(|replaced| replaced.path.to_string() == path)
            .unwrap();
        assert_eq!(
            (&replaced.from, &replaced.into),
            (&other.label, &vec![full.label.clone(), first.label.clone()])
        );
    }

    assert!(repaired.replaced.len() >= 4, "{repaired:#?}");
    bench.assert_sound();
}

/// The inodes of a stored backup's files, by their paths.
fn inodes(bench: &Bench, summary: &BackupSummary) -> BTreeMap<PathBuf, u64> {
    let top = bench.stored(summary);
    let mut inodes = BTreeMap::new();
    for entry in walkdir::WalkDir::new(&top) {
        let entry = entry.unwrap();
        if entry.file_type().is_file() {
            let below = entry.path().strip_prefix(&top).unwrap();
            inodes.insert(below.to_owned(), entry.metadata().unwrap().ino());
        }
    }
    inodes
}

fn assert_no_twins(bench: &Bench, backups: &[&BackupSummary]) {
    for summary in backups {
        let inodes = inodes(bench, summary);
        let different: BTreeSet<u64> = inodes.values().copied().collect();
        assert_eq!(
            different.len(),
            inodes.len(),
            "{}: {inodes:?}",
            summary.label
        );
    }
}

/// Writer and chaser hold the same eight bytes. A server that gets them as one file writes to both.
#[test]
fn a_repair_never_makes_two_files_of_a_backup_one() {
    for damaged in [
        &["db/writer.chk", "db/chaser.chk"][..],
        &["db/writer.chk"],
        &["db/chaser.chk"],
    ] {
        let bench = Bench::new(&small());
        let full = bench.full().unwrap();
        let other = bench.full().unwrap();
        for path in damaged {
            flip(&bench.stored(&full).join(path), 3);
        }

        let repaired = repair(&bench);
        assert!(repaired.report.is_sound(), "{repaired:#?}");
        let paths: Vec<String> = repaired
            .replaced
            .iter()
            .map(|replaced| replaced.path.to_string())
            .collect();
        let mut expected = damaged.to_vec();
        expected.sort_unstable();
        assert_eq!(paths, expected);
        assert_no_twins(&bench, &[&full, &other]);
        bench.assert_sound();
    }

    // The only intact copy has another path.
    let bench = Bench::new(&small());
    let full = bench.full().unwrap();
    let other = bench.full().unwrap();
    for summary in [&full, &other] {
        flip(&bench.stored(summary).join("db/chaser.chk"), 3);
    }
    let repaired = repair(&bench);
    assert!(repaired.report.is_sound());
    let [replaced] = repaired.replaced.as_slice() else {
        panic!("{repaired:#?}")
    };
    assert_eq!(
        (replaced.path.to_string(), replaced.from_path.to_string()),
        ("db/chaser.chk".to_owned(), "db/writer.chk".to_owned())
    );
    assert_no_twins(&bench, &[&full, &other]);
}

/// An earlier kbackup, or a script, has made two names of a backup one file.
#[test]
fn two_names_of_one_file_are_a_warning_and_a_repair_separates_them() {
    let bench = Bench::new(&small());
    let full = bench.full().unwrap();
    let (writer, chaser) = (
        bench.stored(&full).join("db/writer.chk"),
        bench.stored(&full).join("db/chaser.chk"),
    );
    std::fs::remove_file(&writer).unwrap();
    std::fs::hard_link(&chaser, &writer).unwrap();

    let place = PathBuf::from(bench.repository.place());
    for (options, code) in [
        (&[][..], 3),
        (&["--repair", "--dry-run"], 3),
        (&["--repair"], 0),
        (&[], 0),
    ] {
        let mut command = executable::kbackup();
        command.args(["verify", "--repo"]).arg(&place).args(options);
        let output = command.output().unwrap();
        let said = executable::stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{options:?}: {said}");
        assert_eq!(
            said.contains("is one file with another name"),
            code == 3,
            "{options:?}: {said}"
        );
    }
    assert_no_twins(&bench, &[&full]);
    bench.assert_sound();
}

/// `cp -a` and `rsync -H` bring links into a source.
#[test]
fn a_backup_of_linked_files_has_a_file_for_each_name() {
    let bench = Bench::new(&small());
    std::fs::remove_file(bench.db.join("writer.chk")).unwrap();
    std::fs::hard_link(bench.db.join("chaser.chk"), bench.db.join("writer.chk")).unwrap();

    let full = bench.full().unwrap();
    let diff = bench.take().unwrap();
    assert_no_twins(&bench, &[&full, &diff]);
    bench.assert_sound();

    let target = bench.restore(&diff, "target", true);
    let inode = |name: &str| target.join(name).metadata().unwrap().ino();
    assert_ne!(inode("writer.chk"), inode("chaser.chk"));
}

#[test]
fn damage_without_a_right_copy_is_marked_and_latest_is_refused() {
    let bench = Bench::new(&small());
    let first = bench.full().unwrap();
    let second = bench.full().unwrap();

    for summary in [&first, &second] {
        flip(&bench.stored(summary).join(CHUNK), 9_000);
    }
    let third = bench.full().unwrap();
    std::fs::remove_dir_all(bench.stored(&third)).unwrap();

    let repaired = repair(&bench);
    assert!(!repaired.report.is_sound() && repaired.replaced.is_empty());
    assert_eq!(
        repaired
            .lost
            .iter()
            .map(|lost| lost.backups.clone())
            .collect::<Vec<_>>(),
        [vec![first.label.clone(), second.label.clone()]]
    );

    let request = |label: Option<Label>| restore::RestoreRequest {
        label,
        targets: vec![restore::RestoreTarget {
            db: bench.path("target"),
            index: None,
        }],
        ..restore::RestoreRequest::default()
    };
    let plan = |label| restore::plan(&bench.repository, &request(label), &Run::new(Silent));

    let error = plan(None).unwrap_err();
    assert_eq!(error.kind(), Kind::StoredCorrupt);
    assert!(
        error.to_string().contains(second.label.as_str())
            && error.hints().concat().contains("verify --all --repair"),
        "{error:?}"
    );

    // The operator may insist, and gets a warning.
    assert!(
        plan(Some(second.label.clone()))
            .unwrap()
            .warnings
            .concat()
            .contains("damage was found")
    );

    // A diff reads the damaged files again. From then on `latest` means this diff, and the older
    // backups can be repaired from it.
    let diff = bench.take().unwrap();
    assert_eq!(plan(None).unwrap().backup.label, diff.label);

    flip(&bench.stored(&diff).join("db/chunk-000001.000000"), 9_000);
    verify::verify(
        &bench.repository,
        &Which::Newest,
        Depth::Normal,
        &Run::new(Silent),
    )
    .unwrap();
    assert!(
        plan(None)
            .unwrap_err()
            .hints()
            .concat()
            .contains("every other backup")
    );

    assert!(repair(&bench).report.is_sound());
    assert_eq!(plan(None).unwrap().backup.label, diff.label);
    bench.assert_sound();
}

fn a_filter_that_lacks_streams_is_left_out() {
    for (name, wrong) in [("lacks streams", 0), ("has damaged lines", 0xff)] {
        let bench = Bench::of("26.1-append");
        let good = bench.full().unwrap();
        let has_filter =
            |summary: &BackupSummary| {
                bench.manifest(summary).files.iter().any(|row| {
                    matches!(row.role, Role::StreamFilter | Role::StreamFilterCheckpoint)
                })
            };
        assert!(has_filter(&good), "{}", bench.said());

        writable(
            &bench
                .index()
                .join("stream-existence/streamExistenceFilter.dat"),
            |file| {
                let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
                std::os::unix::fs::FileExt::write_all_at(file, &vec![wrong; length - 64], 64)
                    .unwrap();
            },
        );

        // The filter claims to be complete up to the end of the log.

        let end = u64::try_from(bench.get(Checkpoint::Writer)).unwrap();
        std::fs::write(
            bench
                .index()
                .join("stream-existence/streamExistenceFilter.chk"),
            end.to_le_bytes(),
        )
        .unwrap();

        let bad = bench.full().unwrap();
        assert!(!has_filter(&bad), "{name}");
        assert!(
            bench
                .said()
                .contains("leaves the stream-existence filter out"),
            "{name}: {}",
            bench.said()
        );

        bench.assert_sound();
        bench.assert_restores(&bad, &bench.events());
    }
}

fn the_filters_of_real_nodes_are_kept() {
    for name in [
        "20.10-append",
        "21.10-scavenge",
        "22.10-truncate",
        "23.10-append",
        "24.10-scavenge",
        "26.1-truncate",
    ] {
        let bench = Bench::of(name);
        let there = bench
            .index()
            .join("stream-existence/streamExistenceFilter.dat")
            .exists();

        let full = bench.full().unwrap();
        assert_eq!(
            bench
                .manifest(&full)
                .files
                .iter()
                .any(|row| row.role == Role::StreamFilter),
            there,
            "{name}: {}",
            bench.said()
        );

        bench.assert_sound();
    }
}

fn a_table_filter_with_damaged_lines_is_left_out() {
    let bench = Bench::of("26.1-append");
    let filter = super::bench::files(&bench.index())
        .into_iter()
        .find(|path| super::bench::name(path).ends_with(".bloomfilter"))
        .unwrap();

    writable(&filter, |file| {
        let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
        std::os::unix::fs::FileExt::write_all_at(file, &vec![0xff; length - 64], 64).unwrap();
    });

    let full = bench.full().unwrap();
    assert!(
        full.index && bench.said().contains("the server does without it"),
        "{}",
        bench.said()
    );

    bench.assert_sound();
}

fn execute(repository: &Path, fault: Option<String>) -> Output {
    let mut command = match fault {
        Some(fault) => executable::kbackup_with_fault(fault),
        None => executable::kbackup(),
    };
    command
        .args(["verify", "--all", "--repair", "--repo"])
        .arg(repository)
        .output()
        .unwrap()
}

/// The damage of each backup, file by file.
fn damages(repository: &Path) -> BTreeSet<(String, Option<String>)> {
    let repository = DirectoryRepository::open(repository).unwrap();
    let report =
        verify::verify(&repository, &Which::All, Depth::Normal, &Run::new(Silent)).unwrap();
    let mut damages = BTreeSet::new();
    for backup in report.backups {
        for finding in backup.findings {
            let path = finding.path.map(|path| path.to_string());
            damages.insert((backup.label.to_string(), path));
        }
    }
    damages
}

/// A repository in which two backups share a damaged file, one backup lacks a file, and a third
/// backup holds everything once more.
struct Damaged {
    bench: Bench,
    template: PathBuf,
}

impl Damaged {
    fn new() -> Self {
        let bench = Bench::new(&small());
        let full = bench.full().unwrap();
        let first = bench.take().unwrap();

        bench.full().unwrap();
        flip(&bench.stored(&full).join(CHUNK), 9_000);
        std::fs::remove_file(bench.stored(&first).join("db/chunk-000001.000000")).unwrap();

        let template = PathBuf::from(bench.repository.place());
        Self { bench, template }
    }

    /// Copies the repository with its links.
    fn again(&self, name: &str) -> PathBuf {
        let place = self.bench.path(name);
        assert!(
            Command::new("cp")
                .arg("-a")
                .args([&self.template, &place])
                .status()
                .unwrap()
                .success()
        );
        place
    }
}

#[test]
fn a_repair_that_dies_anywhere_makes_nothing_worse() {
    let damaged = Damaged::new();
    let before = damages(&damaged.template);
    assert!(before.len() >= 3, "{before:?}");

    // Each operation on a backup, and the first ones that store the findings.

    for (operation, part) in [
        ("link", "/incoming/"),
        ("rename", "/backups/"),
        ("sync", "/backups/"),
        ("sync", "/incoming"),
        ("rename", "/state/"),
    ] {
        let (mut count, mut alive) = (1, false);
        while !alive && count < 5 {
            let what = format!("{operation}-{count}");
            let repository = damaged.again(&what);
            let output = execute(
                &repository,
                Some(format!("{operation}:{part}:{count}:abort")),
            );
            alive = output.status.code().is_some();

            let after = damages(&repository);
            assert!(after.is_subset(&before), "{what}: {after:?}");

            let output = execute(&repository, None);
            assert_eq!(
                output.status.code(),
                Some(0),
                "{what}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            assert_eq!(
                std::fs::read_dir(repository.join("incoming"))
                    .unwrap()
                    .count(),
                0,
                "{what}"
            );

            std::fs::remove_dir_all(repository).unwrap();
            count += 1;
        }
        assert!(count > 2, "no {operation} was seen");
    }
}

#[test]
fn a_repair_survives_a_full_disk_the_limit_of_links_and_another_run() {
    let damaged = Damaged::new();

    // The file takes no more links (EMLINK), so a copy must do.
    let repository = damaged.again("links");
    let output = execute(
        &repository,
        Some(format!("link:{}:1:31", repository.display())),
    );
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(damages(&repository).is_empty());

    // There is no room for a copy either (ENOSPC, only for a new file).
    let repository = damaged.again("full");
    let before = damages(&repository);
    let output = execute(&repository, Some("link:/incoming/:1:28".to_owned()));
    assert_eq!(output.status.code(), Some(20));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("cannot be repaired"),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(damages(&repository), before);

    // Another run uses the repository.
    let held = DirectoryRepository::open(&repository).unwrap();
    let run = Run::new(Silent);
    let incoming = held
        .writer(&run)
        .and_then(|writer| writer.begin(None))
        .unwrap();
    assert_eq!(execute(&repository, None).status.code(), Some(11));
    assert_eq!(damages(&repository), before);
    drop(incoming);
    assert_eq!(execute(&repository, None).status.code(), Some(0));
}
