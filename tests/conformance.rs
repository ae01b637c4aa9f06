//! The behaviour that every repository must have, whatever stores it. A new kind of store gets its own
//! factory and a line with `every_behaviour!`: one test for each behaviour. This is one file because
//! the behaviours are one list.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may end in a panic"
)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use kbackup::clock::Timestamp;
use kbackup::error::{Kind, Result};
use kbackup::event::Silent;
use kbackup::format::{Boundary, ChunkSize, Epoch, LogPosition, Md5Hash, ReadAt, WriterPosition};
use kbackup::fs;
use kbackup::manifest::*;
use kbackup::pace::Rate;
use kbackup::proof::Proven;
use kbackup::repository::{
    self, Attributes, DirectoryRepository, Incoming, Ingest, MemoryRepository, ObjectRepository,
    ProvenCopy, Removal, Repository, Resumed, Stored,
};
use kbackup::run::Run;
use kbackup::transfer::{Follow, hash_file};

use crate::object_servers::{self, ObjectServer};
use crate::stores::on_server;

/// Makes repositories for the tests, and damages them.
pub(crate) trait Factory {
    /// The kind of repository that this factory makes.
    type Repository: Repository;

    /// Whether this machine has such a store.
    fn is_here(&self) -> bool {
        true
    }

    /// An empty repository.
    fn create(&self) -> Self::Repository;

    /// The same repository, as another process would open it.
    fn reopen(&self, repository: &Self::Repository) -> Self::Repository;

    /// Cuts a stored file in half.
    fn shorten(&self, repository: &Self::Repository, label: &Label, path: &RelativePath);

    /// Removes a stored file.
    fn lose(&self, repository: &Self::Repository, label: &Label, path: &RelativePath);

    /// Flips a bit of a stored manifest.
    fn damage_manifest(&self, repository: &Self::Repository, label: &Label);

    /// Removes a backup, as an operator may do by hand.
    fn delete(&self, repository: &Self::Repository, label: &Label);

    /// Whether the store looks at the bytes of a file before somebody reads them. A store where each
    /// look is a request does not: `verify` does.
    fn looks_before_reading(&self) -> bool {
        true
    }
}

/// Makes a test of every behaviour, for one kind of store.
macro_rules! every_behaviour {
    ($store:ident, $factory:expr) => {
        mod $store {
            use super::*;

            every_behaviour! {
                $factory,
                a_new_repository_is_empty,
                a_backup_is_listed_after_its_commit,
                a_manifest_that_cannot_be_read_back_is_not_committed,
                a_backup_of_a_log_with_very_many_elections_is_read_back,
                a_dropped_session_leaves_nothing,
                a_second_writer_is_locked_out,
                files_are_read_as_they_were_stored,
                a_diff_reuses_extends_and_cuts_files,
                several_threads_store_files_at_once,
                a_parent_can_be_deleted_alone,
                backups_are_listed_by_sequence,
                a_damaged_manifest_is_listed_with_its_error,
                lost_and_short_files_are_stored_corrupt,
                rows_and_files_must_agree,
                a_label_or_sequence_is_used_once,
                a_short_source_is_unstable,
                a_follower_sees_the_file_in_the_state_that_is_listed,
                an_interrupted_run_commits_nothing,
                damaged_files_are_replaced,
                a_reused_file_shares_its_copy_until_it_is_read_again,
                files_of_an_interrupted_run_are_resumed,
                files_that_are_not_proven_are_not_resumed,
                a_file_whose_proof_was_kept_is_not_read_again,
                a_file_that_was_begun_is_finished,
                a_removed_backup_is_gone_and_a_held_one_stays,
                state_is_kept,
            }
        }
    };
    ($factory:expr, $($behaviour:ident,)*) => {$(
        #[test]
        fn $behaviour() {
            let factory = $factory;
            if factory.is_here() {
                super::$behaviour(&factory);
            }
        }
    )*};
}

every_behaviour!(in_a_directory, Directories::new());
// In the usual case, the repository lies on another file system than the node.
every_behaviour!(in_a_directory_elsewhere, Directories::elsewhere());
every_behaviour!(in_memory, Memory);
every_behaviour!(in_objects, Objects::InMemory);
every_behaviour!(on_s3, Objects::on(object_servers::s3));
every_behaviour!(on_azure, Objects::on(object_servers::azure));

/// A source directory, and the rows of the files that were stored from it.
pub(crate) struct Source {
    directory: tempfile::TempDir,
    pub(crate) rows: Vec<Row>,
}

impl Source {
    pub(crate) fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> fs::File {
        let path = self.directory.path().join(name);
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, bytes).unwrap();
        fs::open_source(&path).unwrap()
    }

    pub(crate) fn keep(&mut self, path: &str, stored: Stored) -> Row {
        let row = row(path, stored);
        self.rows.retain(|other| other.path != row.path);
        self.rows.push(row.clone());
        self.rows.sort_by(|one, other| one.path.cmp(&other.path));
        row
    }

    pub(crate) fn ingest(
        &mut self,
        incoming: &(impl Incoming + ?Sized),
        path: &str,
        bytes: &[u8],
    ) -> Row {
        let source = self.file("source", bytes);
        let stored = incoming.ingest(&at(path), whole(&source)).unwrap();
        self.keep(path, stored)
    }
}

pub(crate) fn whole(source: &fs::File) -> Ingest<'_> {
    let length = source.status().unwrap().size;
    Ingest {
        source,
        place: source.path().display().to_string(),
        length,
        full_length: length,
        md5: None,
        reads_every_byte: false,
        attributes: with_mode(0o644),
        follow: None,
    }
}

pub(crate) fn with_mode(mode: u32) -> Attributes {
    Attributes {
        mode,
        modified: "2024-05-06T07:08:09Z".parse().unwrap(),
    }
}

pub(crate) fn at(path: &str) -> RelativePath {
    path.parse().unwrap()
}

pub(crate) fn run() -> Run {
    Run::new(Silent)
}

pub(crate) fn row(path: &str, stored: Stored) -> Row {
    Row {
        path: at(path),
        role: Role::Chunk,
        size: stored.size,
        mode: 0o444,
        modified: "2026-01-02T03:04:05.678Z".parse().unwrap(),
        captured: stored.captured,
        blake3: stored.blake3,
        chunk: None,
        table_md5: None,
    }
}

/// The manifest with this sequence number, one second after the one before it.
pub(crate) fn manifest(
    sequence: u64,
    parent: Option<&Manifest>,
    files: &[Row],
) -> Proven<Manifest> {
    let first: Timestamp = "2026-11-21T06:00:00Z".parse().unwrap();
    let time = first + std::time::Duration::from_secs(sequence);
    let kind = if parent.is_some() {
        BackupKind::Diff
    } else {
        BackupKind::Full
    };

    let head = Head {
        format: FORMAT,
        label: Label::new(time, kind),
        sequence,
        kind,
        parent: parent.map(|parent| parent.label.clone()),
        branch: 1,
        tool: "conformance".to_owned(),
        started: time,
        finished: time,
        source: SourceRecord {
            server_version: None,
            identity: Identity {
                database: uuid::Uuid::nil(),
                endpoint: None,
            },
            instance: None,
            state: None,
            db: String::new(),
            index: String::new(),
            owner: None,
            online: false,
            restored: None,
            missing_bytes: None,
        },
        log: LogRecord {
            chunk_size: ChunkSize::new(256 * 1024 * 1024).unwrap(),
            position: Boundary::ZERO,
            last_event: None,
            lineage: kbackup::format::Lineage::default(),
            read: ReadCheckpoints {
                writer: WriterPosition(LogPosition::ZERO),
                chaser: LogPosition::ZERO,
                epoch: None,
                proposal: None,
            },
            stored: StoredCheckpoints {
                epoch: None,
                proposal: None,
            },
            index_commit: None,
        },
        scavenging: Scavenging {
            quiet: Quiet::Offline,
            stopped: None,
            auto_paused: false,
            auto_found: None,
        },
        contents: Contents {
            index: false,
            secondary_index: SecondaryIndex::Absent,
            archive: false,
            damaged: Vec::new(),
        },
        cost: Cost::default(),
        totals: Totals::of(files),
    };
    Proven::unproven(Manifest {
        head,
        files: files.to_vec(),
    })
}

pub(crate) fn labels(repository: &impl Repository) -> Vec<Label> {
    let listed = repository.list().unwrap();
    listed.into_iter().map(|listed| listed.label).collect()
}

pub(crate) fn content(repository: &impl Repository, label: &Label, row: &Row) -> Vec<u8> {
    let file = repository.open(label, row).unwrap();
    let mut bytes = vec![0; usize::try_from(file.size()).unwrap()];
    file.read_exact_at(0, &mut bytes).unwrap();
    bytes
}

/// The text of a manifest, valid or not.
pub(crate) fn text(manifest: &Manifest) -> Vec<u8> {
    let mut text = Vec::new();
    manifest.write(&mut text).unwrap();
    text
}

/// Opens a stored file for writing, whatever its mode is.
pub(crate) fn writable(path: &Path) -> std::fs::File {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::OpenOptions::new().write(true).open(path).unwrap()
}

/// Begins a backup, as the only writer.
pub(crate) fn begin<'a>(
    repository: &'a impl Repository,
    parent: Option<&'a Manifest>,
    run: &'a Run,
) -> Result<Box<dyn Incoming + 'a>> {
    repository.writer(run)?.begin(parent)
}

/// Reuses one file of the parent, and opens it. Asserts that the store shows the file once.
pub(crate) fn reuse(incoming: &dyn Incoming, row: &Row) -> Result<Box<dyn ReadAt>> {
    let shown = std::sync::Mutex::new(Vec::new());
    let reused = incoming.reuse(&[row], &|row, stored| {
        shown
            .lock()
            .unwrap()
            .push((row.path.clone(), stored.size()));
    });
    reused.into_iter().next().unwrap()?;

    assert_eq!(shown.into_inner().unwrap(), [(row.path.clone(), row.size)]);
    Ok(incoming.open(&row.path)?.unwrap())
}

/// Commits a backup with one file.
pub(crate) fn commit_one(repository: &impl Repository, sequence: u64, bytes: &[u8]) -> Manifest {
    let run = run();
    let mut source = Source::new();
    let incoming = begin(repository, None, &run).unwrap();
    source.ingest(&*incoming, "db/chunk-000000.000000", bytes);
    let manifest = manifest(sequence, None, &source.rows);
    incoming.commit(&manifest).unwrap();
    Manifest::clone(&manifest)
}

fn a_new_repository_is_empty(factory: &impl Factory) {
    let repository = factory.create();
    assert!(labels(&repository).is_empty());
    assert_eq!(factory.reopen(&repository).id(), repository.id());
    assert_ne!(factory.create().id(), repository.id());

    let label = "20261121T060000Z-full".parse().unwrap();
    assert_eq!(
        repository.manifest(&label).unwrap_err().kind(),
        Kind::NotFound
    );
    assert_eq!(
        repository.files(&label).err().unwrap().kind(),
        Kind::NotFound
    );
}

fn a_backup_is_listed_after_its_commit(factory: &impl Factory) {
    let repository = factory.create();
    let (run, mut source) = (run(), Source::new());
    let incoming = begin(&repository, None, &run).unwrap();
    source.ingest(&*incoming, "db/chunk-000000.000000", b"events");
    source.ingest(
        &*incoming,
        "index/stream-existence/streamExistenceFilter.dat",
        b"filter",
    );

    assert!(labels(&repository).is_empty(), "not before the commit");
    assert_eq!(incoming.files().unwrap().len(), 2);
    assert!(incoming.bytes_stored() >= 12);

    let manifest = manifest(1, None, &source.rows);
    incoming.commit(&manifest).unwrap();

    let repository = factory.reopen(&repository);
    assert_eq!(labels(&repository), std::slice::from_ref(&manifest.label));
    assert_eq!(repository.manifest(&manifest.label).unwrap(), *manifest);
    let files = repository.files(&manifest.label).unwrap();
    let names: Vec<_> = files
        .files()
        .unwrap()
        .into_iter()
        .map(|entry| entry.path)
        .collect();
    let expected: Vec<_> = manifest.files.iter().map(|row| row.path.clone()).collect();
    assert_eq!(names, expected);
    assert_eq!(
        content(&repository, &manifest.label, &manifest.files[0]),
        b"events"
    );
}

fn a_dropped_session_leaves_nothing(factory: &impl Factory) {
    let repository = factory.create();
    let (run, mut source) = (run(), Source::new());
    let incoming = begin(&repository, None, &run).unwrap();
    source.ingest(&*incoming, "db/chunk-000000.000000", b"events");
    drop(incoming);
    assert!(labels(&repository).is_empty());
    let incoming = begin(&repository, None, &run).unwrap();
    assert!(
        incoming.files().unwrap().is_empty(),
        "a new run begins without files"
    );
}

fn a_second_writer_is_locked_out(factory: &impl Factory) {
    let repository = factory.create();
    let other = factory.reopen(&repository);

    let run = run();
    let first = begin(&repository, None, &run).unwrap();
    let error = begin(&other, None, &run).err().unwrap();
    assert_eq!(error.kind(), Kind::Locked);
    assert!(
        error
            .causes()
            .concat()
            .contains(&std::process::id().to_string()),
        "the error names the other run: {:?}",
        error.causes()
    );

    assert!(other.list().is_ok(), "readers do not wait for the writer");
    drop(first);
    begin(&other, None, &run).unwrap();
}

fn files_are_read_as_they_were_stored(factory: &impl Factory) {
    let repository = factory.create();
    let (run, mut source) = (run(), Source::new());
    let incoming = begin(&repository, None, &run).unwrap();

    let bytes: Vec<u8> = (0..3_000_000_u32)
        .map(|number| (number % 251) as u8)
        .collect();
    let file = source.file("chunk", &bytes);
    let ingest = Ingest {
        length: 2_000_000,
        full_length: 2_500_000,
        md5: Some(Md5Hash([0; 16])),
        ..whole(&file)
    };
    let stored = incoming
        .ingest(&at("db/chunk-000000.000000"), ingest)
        .unwrap();
    let mut expected = bytes[..2_000_000].to_vec();
    expected.resize(2_500_000, 0);
    assert_eq!(stored.size, 2_500_000);
    assert_eq!(stored.blake3, Blake3Hash::of(&expected));
    let md5 = <md5::Md5 as md5::Digest>::digest(&expected[..2_500_000 - 16]);
    assert_eq!(stored.md5.unwrap().0, <[u8; 16]>::from(md5));
    let chunk = source.keep("db/chunk-000000.000000", stored);

    let stored = incoming
        .write(&at("db/writer.chk"), b"12345678", with_mode(0o644))
        .unwrap();
    assert_eq!(
        (stored.size, stored.blake3),
        (8, Blake3Hash::of(b"12345678"))
    );
    let checkpoint = source.keep("db/writer.chk", stored);

    // A file that is stored twice is there once. A removed file is gone.
    source.ingest(&*incoming, "index/indexmap", b"old");
    let map = source.ingest(&*incoming, "index/indexmap", b"newer");
    incoming
        .write(&at("index/other"), b"x", with_mode(0o644))
        .unwrap();
    incoming.remove(&at("index/other")).unwrap();
    incoming.remove(&at("index/other")).unwrap();

    let manifest = manifest(1, None, &source.rows);
    incoming.commit(&manifest).unwrap();
    assert_eq!(content(&repository, &manifest.label, &chunk), expected);
    assert_eq!(
        content(&repository, &manifest.label, &checkpoint),
        b"12345678"
    );
    assert_eq!(content(&repository, &manifest.label, &map), b"newer");
    assert!(
        repository
            .files(&manifest.label)
            .unwrap()
            .open(&at("index/other"))
            .unwrap()
            .is_none()
    );
}

fn a_diff_reuses_extends_and_cuts_files(factory: &impl Factory) {
    let repository = factory.create();
    let run = run();
    let mut full_source = Source::new();
    let incoming = begin(&repository, None, &run).unwrap();
    let done: Vec<u8> = (0..700_000_u32)
        .map(|number| (number % 241) as u8)
        .collect();
    let completed = full_source.ingest(&*incoming, "db/chunk-000000.000000", &done);
    let old = [vec![1; 100_000], vec![0; 900_000]].concat();

    let file = full_source.file("active", &old);
    let stored = incoming.ingest(
        &at("db/chunk-000001.000000"),
        Ingest {
            length: 100_000,
            full_length: 1_000_000,
            reads_every_byte: true,
            ..whole(&file)
        },
    );
    let active = full_source.keep("db/chunk-000001.000000", stored.unwrap());
    let full = manifest(1, None, &full_source.rows);
    incoming.commit(&full).unwrap();

    let mut source = Source::new();
    let incoming = begin(&repository, Some(&full), &run).unwrap();
    reuse(&*incoming, &completed).unwrap();
    source.rows.push(completed.clone());

    // The first bytes must come from the parent, because those of this source differ.
    let grown = [vec![9; 100_000], vec![2; 200_000], vec![0; 700_000]].concat();
    let file = source.file("active", &grown);

    let before = incoming.bytes_stored();
    let ingest = || Ingest {
        length: 300_000,
        full_length: 1_000_000,
        reads_every_byte: true,
        ..whole(&file)
    };
    let stored = incoming
        .extend(&at("db/chunk-000001.000000"), &active, 100_000, ingest())
        .unwrap();
    let extended = [vec![1; 100_000], vec![2; 200_000], vec![0; 700_000]].concat();
    assert_eq!(
        (stored.size, stored.blake3),
        (1_000_000, Blake3Hash::of(&extended))
    );
    assert!(incoming.bytes_stored() > before);
    source.keep("db/chunk-000001.000000", stored);

    let beyond = |prefix| {
        incoming
            .extend(&at("db/x"), &active, prefix, ingest())
            .unwrap_err()
            .kind()
    };
    assert_eq!(beyond(300_001), Kind::Failed);
    assert_eq!(beyond(1_000_001), Kind::Failed);

    // A reused file that is cut is cut in this backup only.
    let stored = incoming
        .cut(
            &at("db/chunk-000000.000000"),
            300_000,
            500_000,
            with_mode(0o644),
        )
        .unwrap();
    let cut = [done[..300_000].to_vec(), vec![0; 200_000]].concat();
    assert_eq!(
        (stored.size, stored.blake3),
        (500_000, Blake3Hash::of(&cut))
    );
    source.keep("db/chunk-000000.000000", stored);
    let diff = manifest(2, Some(&full), &source.rows);
    incoming.commit(&diff).unwrap();

    assert_eq!(content(&repository, &full.label, &full.files[0]), done);
    assert_eq!(content(&repository, &full.label, &full.files[1]), old);
    assert_eq!(content(&repository, &diff.label, &diff.files[0]), cut);
    assert_eq!(content(&repository, &diff.label, &diff.files[1]), extended);
}

fn several_threads_store_files_at_once(factory: &impl Factory) {
    let repository = factory.create();
    let run = run();
    let full = commit_one(&repository, 1, &[8; 3_000_000]);
    let mut source = Source::new();
    let mut files: Vec<(String, fs::File)> = Vec::new();
    for number in 0..8_u8 {
        let file = source.file(&format!("{number}"), &vec![number; 2_500_000]);
        files.push((format!("db/chunk-00001{number}.000000"), file));
    }
    let incoming = begin(&repository, Some(&full), &run).unwrap();

    let stored: Vec<Stored> = std::thread::scope(|scope| {
        let put = |path: &str, file| {
            let ingest = Ingest {
                md5: md5_at_end(file),
                ..whole(file)
            };
            incoming.ingest(&at(path), ingest).unwrap()
        };
        let threads: Vec<_> = files
            .iter()
            .map(|(path, file)| scope.spawn(move || put(path, file)))
            .collect();
        reuse(&*incoming, &full.files[0]).unwrap();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });

    source.rows.push(full.files[0].clone());
    for ((path, _), stored) in files.iter().zip(stored) {
        source.keep(path, stored);
    }

    let diff = manifest(2, Some(&full), &source.rows);
    assert!(incoming.bytes_stored() > 0);
    incoming.commit(&diff).unwrap();
    for row in &diff.files {
        assert_eq!(
            Blake3Hash::of(&content(&repository, &diff.label, row)),
            row.blake3
        );
    }
}

fn a_parent_can_be_deleted_alone(factory: &impl Factory) {
    let repository = factory.create();
    let full = commit_one(&repository, 1, b"events");
    let run = run();
    let incoming = begin(&repository, Some(&full), &run).unwrap();
    reuse(&*incoming, &full.files[0]).unwrap();
    let diff = manifest(2, Some(&full), &full.files);
    incoming.commit(&diff).unwrap();

    factory.delete(&repository, &full.label);
    assert_eq!(labels(&repository), std::slice::from_ref(&diff.label));
    assert_eq!(content(&repository, &diff.label, &diff.files[0]), b"events");
    assert_eq!(
        begin(&repository, Some(&full), &run).err().unwrap().kind(),
        Kind::NotFound,
        "the parent is gone"
    );
}

fn backups_are_listed_by_sequence(factory: &impl Factory) {
    let repository = factory.create();
    let made: Vec<Label> = [1, 2, 10, 11]
        .map(|sequence| commit_one(&repository, sequence, b"events").head.label)
        .to_vec();
    assert_eq!(labels(&repository), made);
}

/// A fault of kbackup must not become a backup that nobody can read.
fn a_manifest_that_cannot_be_read_back_is_not_committed(factory: &impl Factory) {
    let repository = factory.create();
    let (run, mut source) = (run(), Source::new());
    let incoming = begin(&repository, None, &run).unwrap();
    source.ingest(&*incoming, "db/chunk-000000.000000", b"events");

    let mut wrong = Manifest::clone(&manifest(1, None, &source.rows));
    wrong.totals.bytes += 1;
    let error = incoming.commit(&Proven::unproven(wrong)).unwrap_err();

    assert_eq!(error.kind(), Kind::Failed, "{error}");
    assert!(error.to_string().contains("cannot be read back"), "{error}");
    assert!(labels(&repository).is_empty());
}

/// So many elections that the head is longer than kbackup 0.1.0 reads.
fn a_backup_of_a_log_with_very_many_elections_is_read_back(factory: &impl Factory) {
    let repository = factory.create();
    for (sequence, elections, format) in [(1, 140_000, 1), (2, 300_000, 2)] {
        let mut epochs = Vec::new();
        for number in 0..elections {
            epochs.push(Epoch {
                position: LogPosition::new(u64::try_from(number).unwrap() * 100_000_000).unwrap(),
                number,
                id: uuid::Uuid::from_u128(u128::MAX / 3 + u128::try_from(number).unwrap()),
            });
        }

        let (run, mut source) = (run(), Source::new());
        let incoming = begin(&repository, None, &run).unwrap();
        source.ingest(&*incoming, "db/chunk-000000.000000", b"events");
        let mut many = Manifest::clone(&manifest(sequence, None, &source.rows));
        many.log.lineage = epochs.try_into().unwrap();
        many.format = many.oldest_format().unwrap();
        assert_eq!(many.format, format, "{elections}");
        assert!(text(&many).len() < usize::try_from(elections).unwrap() * 64);

        let many = Proven::unproven(many);
        incoming.commit(&many).unwrap();
        assert_eq!(repository.manifest(&many.label).unwrap(), *many);
        let newest = repository.list().unwrap().pop().unwrap();
        assert_eq!(newest.head.unwrap(), many.head);
    }
}

fn a_damaged_manifest_is_listed_with_its_error(factory: &impl Factory) {
    let repository = factory.create();
    let made = [1, 2, 3].map(|sequence| commit_one(&repository, sequence, b"events").head.label);

    factory.damage_manifest(&repository, &made[1]);
    let listed = repository.list().unwrap();
    let labels: Vec<Label> = listed.iter().map(|one| one.label.clone()).collect();
    assert_eq!(labels, made);

    assert_eq!(
        listed[1].head.as_ref().unwrap_err().kind(),
        Kind::StoredCorrupt
    );
    assert_eq!(
        repository.manifest(&made[1]).unwrap_err().kind(),
        Kind::StoredCorrupt
    );
    assert!(listed[0].head.is_ok() && listed[2].head.is_ok());
}

fn lost_and_short_files_are_stored_corrupt(factory: &impl Factory) {
    for harm in [Factory::lose, Factory::shorten] {
        let repository = factory.create();
        let full = commit_one(&repository, 1, b"events");
        harm(factory, &repository, &full.label, &full.files[0].path);
        let run = run();
        let read = repository
            .open(&full.label, &full.files[0])
            .and_then(|stored| hash_file(&*stored, false, &run));
        assert_eq!(read.unwrap_err().kind(), Kind::StoredCorrupt);
        if !factory.looks_before_reading() {
            continue;
        }
        let opened = repository.open(&full.label, &full.files[0]);
        assert_eq!(opened.err().unwrap().kind(), Kind::StoredCorrupt);

        let incoming = begin(&repository, Some(&full), &run).unwrap();
        assert_eq!(
            reuse(&*incoming, &full.files[0]).err().unwrap().kind(),
            Kind::StoredCorrupt
        );

        let source = Source::new();
        let file = source.file("active", b"events and more");
        let extended = incoming.extend(
            &at("db/chunk-000000.000000"),
            &full.files[0],
            6,
            whole(&file),
        );
        assert_eq!(extended.unwrap_err().kind(), Kind::StoredCorrupt);
    }
}

fn damaged_files_are_replaced(factory: &impl Factory) {
    for harm in [Factory::lose, Factory::shorten] {
        let repository = factory.create();
        let run = run();
        let first = commit_one(&repository, 1, b"events");
        let second = commit_one(&repository, 2, b"events");
        let (good, bad) = (
            (&second.label, &second.files[0]),
            (&first.label, &first.files[0]),
        );

        let is_shared = copy_id(&repository, good) == copy_id(&repository, bad);
        harm(factory, &repository, &first.label, &first.files[0].path);
        let writer = repository.writer(&run).unwrap();
        assert_eq!(
            factory
                .reopen(&repository)
                .writer(&run)
                .err()
                .unwrap()
                .kind(),
            Kind::Locked
        );
        if is_shared {
            // A store that keeps equal bytes only once has no other copy.
            let error = writer.replace(bad.0, bad.1, good).unwrap_err();
            assert_eq!(error.kind(), Kind::StoredCorrupt);
            continue;
        }

        writer.replace(bad.0, bad.1, good).unwrap();
        assert_eq!(content(&repository, bad.0, bad.1), b"events");

        // A right file may be replaced again, even by itself.
        writer.replace(bad.0, bad.1, good).unwrap();
        writer.replace(good.0, good.1, good).unwrap();
        let names = |label| repository.files(label).unwrap().files().unwrap().len();
        assert_eq!((names(&first.label), names(&second.label)), (1, 1));

        harm(factory, &repository, &first.label, &first.files[0].path);
        let error = writer.replace(good.0, good.1, bad).unwrap_err();
        assert_eq!(error.kind(), Kind::StoredCorrupt);
        drop(writer);

        // The lock is free, and no file is left over.
        let incoming = begin(&repository, None, &run).unwrap();
        assert!(incoming.files().unwrap().is_empty());
    }
}

fn copy_id(repository: &impl Repository, (label, row): (&Label, &Row)) -> Option<fs::CopyId> {
    repository.open(label, row).unwrap().copy_id()
}

fn a_reused_file_shares_its_copy_until_it_is_read_again(factory: &impl Factory) {
    let repository = factory.create();
    let run = run();
    let full = commit_one(&repository, 1, b"events");
    let incoming = begin(&repository, Some(&full), &run).unwrap();
    let reused = reuse(&*incoming, &full.files[0]).unwrap();
    let listed = incoming.files().unwrap();
    assert_eq!(
        (reused.stamp(), reused.size()),
        (listed[0].stamp, 6),
        "an unchanged file has the stamp that it had when it was opened"
    );

    incoming
        .commit(&manifest(2, Some(&full), &full.files))
        .unwrap();

    let [first, second] = [1, 2].map(|sequence| {
        let label = labels(&repository)[sequence - 1].clone();
        copy_id(&repository, (&label, &full.files[0]))
    });
    assert!(first.is_some() && first == second);

    // A damaged copy is never taken for a good one.
    factory.shorten(&repository, &full.label, &full.files[0].path);
    let third = commit_one(&repository, 3, b"events");
    assert_eq!(
        content(&repository, &third.label, &third.files[0]),
        b"events"
    );
    // Either there is a good copy beside it now, or it was stored again.
    let repeated = copy_id(&repository, (&third.label, &third.files[0]));
    if repeated == first {
        assert_eq!(content(&repository, &full.label, &full.files[0]), b"events");
    }
}

fn rows_and_files_must_agree(factory: &impl Factory) {
    let repository = factory.create();
    let run = run();
    let wrongs: [fn(&mut Vec<Row>); 3] = [
        |rows| rows.clear(),
        |rows| rows[0].size += 1,
        |rows| {
            let other = Row {
                path: at("db/chunk-000009.000000"),
                ..rows[0].clone()
            };
            rows.push(other);
        },
    ];
    for wrong in wrongs {
        let mut source = Source::new();
        let incoming = begin(&repository, None, &run).unwrap();

        source.ingest(&*incoming, "db/chunk-000000.000000", b"events");
        wrong(&mut source.rows);
        assert!(incoming.commit(&manifest(1, None, &source.rows)).is_err());
        assert!(labels(&repository).is_empty());
    }
}

fn a_label_or_sequence_is_used_once(factory: &impl Factory) {
    let repository = factory.create();
    let first = commit_one(&repository, 5, b"events");
    let run = run();
    let same_label = manifest(5, None, &first.files);
    let mut same_sequence = Manifest::clone(&manifest(6, None, &first.files));
    same_sequence.sequence = 5;
    for again in [same_label, Proven::unproven(same_sequence)] {
        let mut source = Source::new();
        let incoming = begin(&repository, None, &run).unwrap();
        source.ingest(&*incoming, "db/chunk-000000.000000", b"events");
        assert!(incoming.commit(&again).is_err());
        assert_eq!(labels(&repository), std::slice::from_ref(&first.label));
        assert_eq!(repository.manifest(&first.label).unwrap(), first);
    }
}

fn a_short_source_is_unstable(factory: &impl Factory) {
    let repository = factory.create();
    let (run, source) = (run(), Source::new());
    let incoming = begin(&repository, None, &run).unwrap();

    let file = source.file("chunk", &[7; 5000]);
    for reads_every_byte in [false, true] {
        let ingest = Ingest {
            length: 5001,
            full_length: 8192,
            reads_every_byte,
            ..whole(&file)
        };
        let error = incoming
            .ingest(&at("db/chunk-000000.000000"), ingest)
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Unstable);
        assert_eq!(error.place(), file.path().to_str());
    }
}

/// Keeps what it is shown at the end of a copy.
#[derive(Default)]
struct Shown(Vec<Vec<u8>>);

impl Follow for Shown {
    fn follow(&mut self, _: &dyn ReadAt, _: u64) {}

    fn finish(&mut self, stored: &dyn ReadAt) {
        let mut bytes = vec![0; usize::try_from(stored.size()).unwrap()];
        stored.read_exact_at(0, &mut bytes).unwrap();
        self.0.push(bytes);
    }
}

fn a_follower_sees_the_file_in_the_state_that_is_listed(factory: &impl Factory) {
    let repository = factory.create();
    let (run, source) = (run(), Source::new());
    let incoming = begin(&repository, None, &run).unwrap();
    let path = at("db/chunk-000000.000000");
    let listed = || incoming.files().unwrap()[0].stamp;

    let mut stamps = Vec::new();
    for seed in [7, 8] {
        let file = source.file("chunk", &[seed; 5000]);
        let mut shown = Shown::default();
        let ingest = Ingest {
            full_length: 8192,
            follow: Some(&mut shown),
            ..whole(&file)
        };
        let stored = incoming.ingest(&path, ingest).unwrap();

        assert_eq!(shown.0, [[vec![seed; 5000], vec![0; 3192]].concat()]);
        assert!(stored.stamp.is_some());
        assert_eq!(stored.stamp, listed());
        stamps.push(stored.stamp);
    }
    assert_ne!(stamps[0], stamps[1], "it is another file");

    incoming.cut(&path, 100, 8192, with_mode(0o644)).unwrap();
    assert_ne!(listed(), stamps[1], "it was cut");
}

fn an_interrupted_run_commits_nothing(factory: &impl Factory) {
    let repository = factory.create();
    let (run, mut source) = (run(), Source::new());
    let incoming = begin(&repository, None, &run).unwrap();
    source.ingest(&*incoming, "db/chunk-000000.000000", b"events");

    run.interrupt(kbackup::error::Signal::Terminate);
    let file = source.file("more", b"more");
    let error = incoming
        .ingest(&at("db/chunk-000001.000000"), whole(&file))
        .unwrap_err();
    assert_eq!(error.kind().exit_code(), 143);

    incoming.remove(&at("db/chunk-000001.000000")).unwrap();
    let error = incoming
        .commit(&manifest(1, None, &source.rows))
        .unwrap_err();
    assert_eq!(error.kind().exit_code(), 143);
    assert!(labels(&repository).is_empty());
}

/// Bytes that end like a file of the server: with the MD5 of all bytes before it.
pub(crate) fn sealed(bytes: &[u8]) -> (Vec<u8>, Md5Hash) {
    let md5 = <[u8; 16]>::from(<md5::Md5 as md5::Digest>::digest(bytes));
    ([bytes, &md5].concat(), Md5Hash(md5))
}

/// The last 16 bytes of a file.
fn md5_at_end(file: &fs::File) -> Option<Md5Hash> {
    let mut last = [0; 16];
    let offset = file.status().unwrap().size.checked_sub(16)?;
    file.read_exact_at(offset, &mut last).unwrap();
    Some(Md5Hash(last))
}

/// Stores these files, and ends before the commit.
pub(crate) fn leave(repository: &impl Repository, files: &[(&str, &[u8])]) {
    let (run, source) = (run(), Source::new());
    let incoming = begin(repository, None, &run).unwrap();
    for (path, bytes) in files {
        let file = source.file("left", bytes);
        incoming
            .ingest(
                &at(path),
                Ingest {
                    md5: md5_at_end(&file),
                    ..whole(&file)
                },
            )
            .unwrap();
    }
}

/// Ends a run once it has copied so many bytes.
struct StopsAfter {
    run: std::sync::Weak<Run>,
    left: std::sync::atomic::AtomicI64,
}

impl kbackup::event::Observer for StopsAfter {
    fn observe(&self, event: &kbackup::event::Event) {
        let kbackup::event::Event::Progress { bytes } = event else {
            return;
        };
        let bytes = i64::try_from(*bytes).unwrap();
        let left = self
            .left
            .fetch_sub(bytes, std::sync::atomic::Ordering::SeqCst);
        if let Some(run) = self.run.upgrade()
            && left <= bytes
        {
            run.interrupt(kbackup::error::Signal::Terminate);
        }
    }
}

/// A run that ends once it has copied so many bytes.
fn stops_after(bytes: i64) -> std::sync::Arc<Run> {
    std::sync::Arc::new_cyclic(|run| {
        Run::new(StopsAfter {
            run: run.clone(),
            left: bytes.into(),
        })
    })
}

/// A file of several pieces: each run copies a part of it.
fn a_file_that_was_begun_is_finished(factory: &impl Factory) {
    let repository = factory.create();
    let source = Source::new();
    let (bytes, md5) = sealed(
        &(0..1_700_000_u32)
            .flat_map(u32::to_le_bytes)
            .collect::<Vec<_>>(),
    );
    let (_, other_md5) = sealed(b"another file");
    let file = source.file("chunk", &bytes);
    let path = at("db/chunk-000000.000000");
    // Bytes in memory are never cloned: a clone would have no use for what was begun.
    let ingest = |md5, reads_every_byte| Ingest {
        source: &bytes,
        md5: Some(md5),
        reads_every_byte,
        ..whole(&file)
    };

    let mut before = 0;
    // The last run is interrupted while it reads back what the others have copied.
    for copied in [1_000_000, 3_500_000, 100_000] {
        let run = stops_after(copied);
        let incoming = begin(&repository, None, &run).unwrap();
        let error = incoming.ingest(&path, ingest(md5, false)).unwrap_err();
        assert_eq!(error.kind().exit_code(), 143);
        drop(incoming);

        let run = self::run();
        let begun = begin(&repository, None, &run).unwrap().begun().unwrap();
        let [begun] = &begun[..] else {
            // A store may keep nothing.
            return assert_eq!(begun, []);
        };
        assert_eq!((&begun.path, begun.md5), (&path, md5));
        assert!(
            begun.bytes >= before && begun.bytes > 0,
            "{begun:?}, {before}"
        );
        before = begun.bytes;
    }
    assert!(before >= 2_000_000, "{before}");
    assert_eq!(repository.interrupted().unwrap().unwrap().files, 1);

    let repository = factory.reopen(&repository);
    let run = run();
    let incoming = begin(&repository, None, &run).unwrap();
    for (md5, reads_every_byte, begun) in [
        (other_md5, false, 0),
        (md5, true, 0),
        (md5, false, before),
        (md5, false, 0),
    ] {
        let stored = incoming
            .ingest(&path, ingest(md5, reads_every_byte))
            .unwrap();
        assert_eq!(stored.begun, begun);
        assert_eq!(stored.blake3, Blake3Hash::of(&bytes));
        assert_eq!(stored.md5, md5_at_end(&file));
    }
    drop(incoming);
    assert_eq!(repository.interrupted().unwrap().unwrap().files, 1);
}

fn files_of_an_interrupted_run_are_resumed(factory: &impl Factory) {
    let repository = factory.create();
    let (bytes, md5) = sealed(&[7; 100_000]);
    let (other, other_md5) = sealed(b"a table");
    assert_eq!(repository.interrupted().unwrap(), None);
    leave(
        &repository,
        &[("db/chunk-000000.000000", &bytes), ("index/table", &other)],
    );
    let repository = factory.reopen(&repository);
    let (run, mut source) = (run(), Source::new());
    let kept = repository.interrupted().unwrap();

    let incoming = begin(&repository, None, &run).unwrap();
    assert!(
        incoming.files().unwrap().is_empty(),
        "a new run resumes only files that it asks for"
    );
    let path = at("db/chunk-000000.000000");
    let left = incoming.left().unwrap();
    let resumed = incoming.resume(&path, bytes.len() as u64, md5, None);
    let Some(Resumed { stored, .. }) = resumed.unwrap() else {
        // A store may keep nothing. Then it says so.
        return assert_eq!((kept, left), (None, Vec::new()));
    };
    let sizes = [
        (&path, bytes.len() as u64),
        (&at("index/table"), other.len() as u64),
    ];
    assert_eq!(left, sizes.map(|(path, size)| (path.clone(), size)));
    assert_eq!(kept.unwrap().files, 2);
    assert_eq!(
        (stored.size, stored.blake3, stored.md5),
        (bytes.len() as u64, Blake3Hash::of(&bytes), Some(md5))
    );

    assert_eq!(incoming.bytes_stored(), 0);
    assert_eq!(
        incoming
            .resume(&path, bytes.len() as u64, md5, None)
            .unwrap(),
        None,
        "a file is resumed once"
    );

    source.keep("db/chunk-000000.000000", stored);
    let full = manifest(1, None, &source.rows);
    incoming.commit(&full).unwrap();
    assert_eq!(content(&repository, &full.label, &full.files[0]), bytes);
    assert_eq!(repository.interrupted().unwrap(), None);

    let incoming = begin(&repository, None, &run).unwrap();
    assert_eq!(
        incoming
            .resume(&at("index/table"), other.len() as u64, other_md5, None)
            .unwrap(),
        None,
        "the commit removed the rest"
    );
    assert_eq!(
        incoming
            .resume(&path, bytes.len() as u64, md5, None)
            .unwrap(),
        None,
        "a committed file is no leftover"
    );
}

fn files_that_are_not_proven_are_not_resumed(factory: &impl Factory) {
    let repository = factory.create();
    let (good, md5) = sealed(&[7; 5000]);
    let mut bad = good.clone();
    bad[100] ^= 1;
    let (other, _) = sealed(&[8; 5000]);
    let path = at("db/chunk-000000.000000");

    let run = run();
    let size = good.len() as u64;
    for wrong in [
        &bad,
        &other,
        &good[..4000].to_vec(),
        &[good.clone(), vec![0]].concat(),
    ] {
        leave(&repository, &[("db/chunk-000000.000000", wrong)]);
        let incoming = begin(&repository, None, &run).unwrap();
        assert_eq!(incoming.resume(&path, size, md5, None).unwrap(), None);
        assert!(incoming.open(&path).unwrap().is_none());
    }

    // A file during whose proof the run is interrupted stays for the next run.
    leave(&repository, &[("db/chunk-000000.000000", &good)]);
    let told = self::run();
    let incoming = begin(&repository, None, &told).unwrap();
    told.interrupt(kbackup::error::Signal::Terminate);
    if let Err(error) = incoming.resume(&path, size, md5, None) {
        assert_eq!(error.kind().exit_code(), 143);
        drop(incoming);
        assert!(
            begin(&repository, None, &run)
                .unwrap()
                .resume(&path, size, md5, None)
                .unwrap()
                .is_some()
        );
    }
}

fn a_file_whose_proof_was_kept_is_not_read_again(factory: &impl Factory) {
    let repository = factory.create();
    let mut files = Vec::new();
    for (path, fill) in [("index/table", 7), ("index/other", 8)] {
        let (bytes, md5) = sealed(&[fill; 100_000]);
        let proof = ProvenCopy {
            size: bytes.len() as u64,
            blake3: Blake3Hash::of(&bytes),
            md5,
            records: None,
        };
        files.push((at(path), bytes, proof));
    }
    let limited = || run().limited_to(Rate::new(1 << 30));

    // The proof of one file is kept with the copy, that of the other one when it is resumed.
    let (first, source) = (run(), Source::new());
    let incoming = begin(&repository, None, &first).unwrap();
    for (path, bytes, _) in &files {
        let file = source.file("table", bytes);
        let ingest = Ingest {
            md5: md5_at_end(&file),
            ..whole(&file)
        };
        incoming.ingest(path, ingest).unwrap();
    }
    incoming
        .keep_proof(&files[0].0, files[0].2.clone())
        .unwrap();
    drop(incoming);

    let repository = factory.reopen(&repository);
    for read in [files[1].2.size, 0] {
        let run = limited();
        let incoming = begin(&repository, None, &run).unwrap();
        for (path, _, proof) in &files {
            let resumed = incoming.resume(path, proof.size, proof.md5, None).unwrap();
            let Some(Resumed { stored, records }) = resumed else {
                // A store may keep nothing.
                return assert_eq!(incoming.left().unwrap(), []);
            };
            assert_eq!((stored.size, stored.md5), (proof.size, Some(proof.md5)));
            assert_eq!((stored.blake3, records), (proof.blake3, None));
            incoming.keep_proof(path, proof.clone()).unwrap();
        }
        // A store may prove each file while it is stored, and then it reads none again.
        assert!(run.pace().spent() <= read);
    }

    // A proof does not help against another file of the source.
    let run = limited();
    let incoming = begin(&repository, None, &run).unwrap();
    let (path, _, proof) = &files[0];
    let wrong = incoming.resume(path, proof.size, sealed(b"another").1, None);
    assert_eq!(wrong.unwrap(), None);
}

fn a_removed_backup_is_gone_and_a_held_one_stays(factory: &impl Factory) {
    let repository = factory.create();
    let first = commit_one(&repository, 1, &[1; 100_000]);
    let run = run();
    let incoming = begin(&repository, Some(&first), &run).unwrap();
    reuse(&*incoming, &first.files[0]).unwrap();
    let second = manifest(2, Some(&first), &first.files);
    incoming.commit(&second).unwrap();
    repository::remember_damage(&repository, &first.label).unwrap();

    let elsewhere = factory.reopen(&repository);
    let held = elsewhere.hold(&first.label).unwrap();
    let also = repository.hold(&first.label).unwrap();
    let expiring = repository.writer(&run).unwrap();
    assert_eq!(
        begin(&elsewhere, None, &run).err().unwrap().kind(),
        Kind::Locked
    );
    for reader in [held, also] {
        assert!(
            repository.is_held(&first.label).unwrap()
                && !repository.is_held(&second.label).unwrap()
        );
        assert_eq!(expiring.remove(&first.label).unwrap(), Removal::InUse);
        drop(reader);
    }

    let would = repository
        .would_free(&[&first.label, &second.label])
        .unwrap();
    assert!(
        would[0] < 100_000 && would[1] >= 100_000,
        "{would:?}: the second backup shares the file"
    );
    let removal = if repository.leaves_space_to_prune() {
        Removal::LeftToPrune
    } else {
        Removal::Freed(would[0])
    };
    assert_eq!(expiring.remove(&first.label).unwrap(), removal);
    assert_eq!(
        expiring.remove(&first.label).unwrap_err().kind(),
        Kind::NotFound
    );

    drop(expiring);
    assert_eq!(labels(&elsewhere), std::slice::from_ref(&second.label));
    assert_eq!(
        content(&elsewhere, &second.label, &second.files[0]),
        [1; 100_000]
    );

    assert_eq!(
        repository::remembered(&elsewhere, &first.label).unwrap(),
        None,
        "its verification result is gone"
    );

    for gone in [
        elsewhere.hold(&first.label).err(),
        elsewhere.would_free(&[&first.label]).err(),
    ] {
        assert_eq!(gone.unwrap().kind(), Kind::NotFound);
    }

    let third = commit_one(&repository, 3, b"goes on");
    assert_eq!(
        labels(&repository),
        [second.label.clone(), third.label.clone()]
    );
}

fn state_is_kept(factory: &impl Factory) {
    let repository = factory.create();
    assert_eq!(repository.state("debt").unwrap(), None);
    repository.set_state("debt", Some(b"one")).unwrap();
    repository.set_state("debt", Some(b"two")).unwrap();
    repository
        .set_state("verified-20261121T060000Z-full.json", Some(b"{}"))
        .unwrap();
    assert_eq!(
        factory.reopen(&repository).state("debt").unwrap().unwrap(),
        b"two"
    );
    repository.set_state("debt", None).unwrap();
    repository.set_state("debt", None).unwrap();
    assert_eq!(repository.state("debt").unwrap(), None);
    for key in [
        "",
        "..",
        ".hidden",
        "a/b",
        "../x",
        "lock",
        "readers",
        "a b",
        &"x".repeat(101),
    ] {
        assert!(
            repository.state(key).is_err() && repository.set_state(key, Some(b"x")).is_err(),
            "{key}"
        );
    }
}

/// Makes repositories in directories.
struct Directories {
    root: tempfile::TempDir,
}

impl Directories {
    fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
        }
    }

    fn elsewhere() -> Self {
        let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self {
            root: root.unwrap(),
        }
    }

    fn path(&self, repository: &DirectoryRepository, label: &Label) -> PathBuf {
        Path::new(&repository.place())
            .join("backups")
            .join(label.as_str())
    }
}

impl Factory for Directories {
    type Repository = DirectoryRepository;

    fn create(&self) -> DirectoryRepository {
        DirectoryRepository::create(&self.root.path().join(uuid::Uuid::new_v4().to_string()))
            .unwrap()
    }

    fn reopen(&self, repository: &DirectoryRepository) -> DirectoryRepository {
        DirectoryRepository::open(Path::new(&repository.place())).unwrap()
    }

    fn shorten(&self, repository: &DirectoryRepository, label: &Label, path: &RelativePath) {
        let path = path.under(&self.path(repository, label));
        let size = std::fs::metadata(&path).unwrap().len();
        writable(&path).set_len(size / 2).unwrap();
    }

    fn lose(&self, repository: &DirectoryRepository, label: &Label, path: &RelativePath) {
        std::fs::remove_file(path.under(&self.path(repository, label))).unwrap();
    }

    fn damage_manifest(&self, repository: &DirectoryRepository, label: &Label) {
        let path = self.path(repository, label).join("manifest.json");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("\"conformance\"", "\"conformancf\"")).unwrap();
    }

    fn delete(&self, repository: &DirectoryRepository, label: &Label) {
        std::fs::remove_dir_all(self.path(repository, label)).unwrap();
    }
}

/// Makes repositories in memory.
struct Memory;

impl Factory for Memory {
    type Repository = MemoryRepository;

    fn create(&self) -> MemoryRepository {
        MemoryRepository::create()
    }

    fn reopen(&self, repository: &MemoryRepository) -> MemoryRepository {
        repository.clone()
    }

    fn shorten(&self, repository: &MemoryRepository, label: &Label, path: &RelativePath) {
        let half = |mut bytes: Vec<u8>| {
            bytes.truncate(bytes.len() / 2);
            Some(bytes)
        };
        repository.damage(label, path, half).unwrap();
    }

    fn lose(&self, repository: &MemoryRepository, label: &Label, path: &RelativePath) {
        repository.damage(label, path, |_| None).unwrap();
    }

    fn damage_manifest(&self, repository: &MemoryRepository, label: &Label) {
        repository.damage_manifest(label, |bytes| {
            let text = String::from_utf8(bytes).unwrap();
            text.replace("\"conformance\"", "\"conformancf\"")
                .into_bytes()
        });
    }

    fn delete(&self, repository: &MemoryRepository, label: &Label) {
        repository.delete(label);
    }
}

/// Makes repositories of objects.
enum Objects {
    InMemory,
    /// In the store that is named, if it runs here.
    On(fn() -> Option<ObjectServer>),
}

impl Objects {
    fn on(server: fn() -> Option<ObjectServer>) -> Self {
        Self::On(server)
    }
}

impl Factory for Objects {
    type Repository = ObjectRepository;

    fn is_here(&self) -> bool {
        match self {
            Self::InMemory => true,
            Self::On(server) => server().is_some(),
        }
    }

    fn create(&self) -> ObjectRepository {
        match self {
            Self::InMemory => ObjectRepository::create_in_memory().unwrap(),
            Self::On(server) => on_server(&server().unwrap()),
        }
    }

    fn reopen(&self, repository: &ObjectRepository) -> ObjectRepository {
        repository.reopen().unwrap()
    }

    fn shorten(&self, repository: &ObjectRepository, label: &Label, path: &RelativePath) {
        let half = |mut bytes: Vec<u8>| {
            bytes.truncate(bytes.len() / 2);
            Some(bytes)
        };
        repository.damage(label, path, half).unwrap();
    }

    fn lose(&self, repository: &ObjectRepository, label: &Label, path: &RelativePath) {
        repository.damage(label, path, |_| None).unwrap();
    }

    fn damage_manifest(&self, repository: &ObjectRepository, label: &Label) {
        let flip = |mut bytes: Vec<u8>| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            bytes
        };
        repository.damage_manifest(label, flip).unwrap();
    }

    fn delete(&self, repository: &ObjectRepository, label: &Label) {
        repository.delete(label).unwrap();
    }

    fn looks_before_reading(&self) -> bool {
        false
    }
}
