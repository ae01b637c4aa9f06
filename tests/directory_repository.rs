//! The particular behaviour of a repository in a plain directory: links, modes, foreign entries in it,
//! and leftovers of a crash.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may end in a panic"
)]

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use kbackup::error::{Error, Kind};
use kbackup::event::{Event, Observer};
use kbackup::fs;
use kbackup::manifest::{Blake3Hash, Label, RelativePath, Row};
use kbackup::repository::{DirectoryRepository, Ingest, Repository, given_numbers};
use kbackup::run::Run;

use crate::backup::bench::workplace;
use crate::conformance::{
    Source, at, begin, commit_one, content, labels, manifest, reuse, run, whole, with_mode,
    writable,
};
use crate::stores::opened_or_made;

const CHUNK: &str = "db/chunk-000000.000000";
/// The directory of a run in `incoming/`.
const RUN: &str = "0195d4a0-0000-7000-8000-000000000000";

struct Place {
    root: tempfile::TempDir,
    repository: DirectoryRepository,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let repository = DirectoryRepository::create(&root.path().join("repository")).unwrap();
        Self { root, repository }
    }

    fn path(&self, rest: &str) -> PathBuf {
        self.root.path().join("repository").join(rest)
    }

    fn stored(&self, label: &Label, path: &RelativePath) -> PathBuf {
        path.under(&self.path("backups").join(label.as_str()))
    }

    /// A directory outside the repository, which must not change.
    fn outside(&self) -> PathBuf {
        let outside = self.root.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::create_dir(outside.join("db")).unwrap();
        std::fs::write(outside.join("db/precious"), b"precious").unwrap();
        outside
    }
}

fn inode(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().ino()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn failed<T>(result: Result<T, Error>) -> Error {
    result.err().unwrap()
}

#[test]
fn links_go_to_the_parent_and_never_to_the_source() {
    let place = Place::new();
    let run = run();
    let mut source = Source::new();
    let incoming = begin(&place.repository, None, &run).unwrap();

    let file = source.file("chunk", b"completed");
    let stored = incoming
        .ingest(
            &at(CHUNK),
            Ingest {
                attributes: with_mode(0o444),
                ..whole(&file)
            },
        )
        .unwrap();
    let row = source.keep(CHUNK, stored);
    let full = manifest(1, None, &source.rows);
    incoming.commit(&full).unwrap();

    let first = place.stored(&full.label, &row.path);
    assert_ne!(inode(&first), file.status().unwrap().inode);
    assert_eq!(file.status().unwrap().links, 1);

    let incoming = begin(&place.repository, Some(&full), &run).unwrap();
    reuse(&*incoming, &row).unwrap();
    let diff = manifest(2, Some(&full), &source.rows);
    assert_eq!(incoming.bytes_stored(), 0);
    incoming.commit(&diff).unwrap();
    assert_eq!(inode(&first), inode(&place.stored(&diff.label, &row.path)));

    // A full makes its own inodes, so that damage of the first does not reach it.
    let second = commit_one(&place.repository, 3, b"completed");
    assert_ne!(
        inode(&first),
        inode(&place.stored(&second.label, &row.path))
    );
}

/// A parent may have two names for one inode, such as after a repair by an earlier kbackup.
#[test]
fn a_diff_does_not_inherit_two_names_of_one_file() {
    let place = Place::new();
    let run = run();
    let mut source = Source::new();
    let incoming = begin(&place.repository, None, &run).unwrap();
    for path in [CHUNK, "db/chunk-000001.000000"] {
        source.ingest(&*incoming, path, b"the same bytes");
    }
    let full = manifest(1, None, &source.rows);
    incoming.commit(&full).unwrap();
    let stored = |label: &Label| [0, 1].map(|at: usize| place.stored(label, &full.files[at].path));
    let [one, other] = stored(&full.label);
    std::fs::remove_file(&other).unwrap();
    std::fs::hard_link(&one, &other).unwrap();

    let incoming = begin(&place.repository, Some(&full), &run).unwrap();
    for row in &full.files {
        reuse(&*incoming, row).unwrap();
    }
    let diff = manifest(2, Some(&full), &source.rows);
    incoming.commit(&diff).unwrap();

    let [one, other] = stored(&diff.label);
    assert_ne!(inode(&one), inode(&other));
    for path in [one, other] {
        assert_eq!(std::fs::read(&path).unwrap(), b"the same bytes");
        assert_eq!(mode(&path), source.rows[0].mode);
    }
}

#[test]
fn a_reused_file_is_never_written_to() {
    let place = Place::new();
    let full = commit_one(&place.repository, 1, b"0123456789");
    let stored = place.stored(&full.label, &at(CHUNK));
    let before = (
        std::fs::read(&stored).unwrap(),
        mode(&stored),
        std::fs::metadata(&stored).unwrap().modified().unwrap(),
    );

    let run = run();
    let source = Source::new();
    let file = source.file("other", b"other bytes");
    type Change<'a> =
        Box<dyn Fn(&dyn kbackup::repository::Incoming) -> Option<kbackup::repository::Stored> + 'a>;
    let changes: [Change<'_>; 5] = [
        Box::new(|_| None),
        Box::new(|incoming| Some(incoming.cut(&at(CHUNK), 3, 20, with_mode(0o600)).unwrap())),
        Box::new(|incoming| Some(incoming.ingest(&at(CHUNK), whole(&file)).unwrap())),
        Box::new(|incoming| {
            Some(
                incoming
                    .write(&at(CHUNK), b"new", with_mode(0o600))
                    .unwrap(),
            )
        }),
        Box::new(|incoming| {
            Some(
                incoming
                    .extend(&at(CHUNK), &full.files[0], 4, whole(&file))
                    .unwrap(),
            )
        }),
    ];
    for (sequence, change) in (2..).zip(changes) {
        let mut source = Source::new();
        source.rows.push(Row {
            mode: 0o600,
            modified: "2001-01-01T00:00:00Z".parse().unwrap(),
            ..full.files[0].clone()
        });
        let incoming = begin(&place.repository, Some(&full), &run).unwrap();
        reuse(&*incoming, &full.files[0]).unwrap();

        if let Some(stored) = change(&*incoming) {
            source.keep(CHUNK, stored);
        }
        incoming
            .commit(&manifest(sequence, Some(&full), &source.rows))
            .unwrap();

        let after = (
            std::fs::read(&stored).unwrap(),
            mode(&stored),
            std::fs::metadata(&stored).unwrap().modified().unwrap(),
        );
        assert_eq!(after, before, "change {sequence}");
    }
}

#[test]
fn a_stored_backup_has_the_files_and_modes_of_the_node() {
    let place = Place::new();
    let run = run();
    let mut source = Source::new();
    let incoming = begin(&place.repository, None, &run).unwrap();
    source.ingest(&*incoming, CHUNK, b"events");
    source.ingest(
        &*incoming,
        "index/stream-existence/streamExistenceFilter.dat",
        b"filter",
    );
    source.rows[0].mode = 0o6444;
    source.rows[1].mode = 0o200;
    let full = manifest(1, None, &source.rows);
    incoming.commit(&full).unwrap();

    let chunk = place.stored(&full.label, &at(CHUNK));
    assert_eq!(
        mode(&chunk),
        0o444,
        "the server's mode, without the bits that give rights to others"
    );
    assert_eq!(
        mode(&place.stored(&full.label, &source.rows[1].path)),
        0o600,
        "the owner can always read the file"
    );

    let modified =
        jiff::Timestamp::try_from(std::fs::metadata(&chunk).unwrap().modified().unwrap()).unwrap();
    assert_eq!(modified, source.rows[0].modified);

    for directory in ["", "backups", "incoming", "state"] {
        assert_eq!(mode(&place.path(directory)), 0o700, "{directory}");
    }
    for directory in chunk.ancestors().skip(1).take(2) {
        assert_eq!(mode(directory), 0o700, "{directory:?}");
    }

    assert_eq!(mode(&place.path("kbackup.json")), 0o600);
    assert_eq!(
        std::fs::read_dir(place.path("incoming")).unwrap().count(),
        0
    );
}

#[test]
fn links_in_a_repository_are_never_followed() {
    let place = Place::new();
    let outside = place.outside();
    let full = commit_one(&place.repository, 1, b"events");
    let row = &full.files[0];
    let backup = place.path("backups").join(full.label.as_str());
    let run = run();

    // A backup that is a link is not a backup.
    symlink(&backup, place.path("backups/20261121T070000Z-full")).unwrap();
    assert_eq!(labels(&place.repository), std::slice::from_ref(&full.label));
    assert_eq!(
        failed(
            place
                .repository
                .manifest(&"20261121T070000Z-full".parse().unwrap())
        )
        .kind(),
        Kind::Refused
    );

    // A file that is a link is damage.
    let file = place.stored(&full.label, &row.path);
    std::fs::rename(&file, outside.join("file")).unwrap();
    symlink(outside.join("file"), &file).unwrap();
    assert_eq!(
        failed(place.repository.open(&full.label, row)).kind(),
        Kind::StoredCorrupt
    );
    assert!(
        place
            .repository
            .files(&full.label)
            .unwrap()
            .files()
            .unwrap()
            .is_empty()
    );
    assert!(
        place
            .repository
            .files(&full.label)
            .unwrap()
            .open(&row.path)
            .is_err()
    );

    // A directory that is a link is damage to this backup.
    std::fs::rename(backup.join("db"), place.path("db")).unwrap();
    symlink(place.path("db"), backup.join("db")).unwrap();
    assert_eq!(
        failed(place.repository.open(&full.label, row)).kind(),
        Kind::StoredCorrupt
    );
    assert_eq!(
        failed(place.repository.files(&full.label).unwrap().files()).kind(),
        Kind::StoredCorrupt
    );

    let incoming = begin(&place.repository, Some(&full), &run).unwrap();
    assert_eq!(failed(reuse(&*incoming, row)).kind(), Kind::StoredCorrupt);
    drop(incoming);

    for name in ["incoming", "backups", "state"] {
        std::fs::rename(place.path(name), place.path("moved")).unwrap();
        symlink(&outside, place.path(name)).unwrap();
        assert_eq!(
            failed(begin(&place.repository, None, &run)).kind(),
            Kind::Refused,
            "{name}"
        );
        std::fs::remove_file(place.path(name)).unwrap();
        std::fs::rename(place.path("moved"), place.path(name)).unwrap();
    }

    std::fs::remove_file(place.path("state/lock")).unwrap();
    symlink(outside.join("db/precious"), place.path("state/lock")).unwrap();
    assert!(begin(&place.repository, None, &run).is_err());
    assert_eq!(
        std::fs::read(outside.join("db/precious")).unwrap(),
        b"precious"
    );
}

#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Observer for Notes {
    fn observe(&self, event: &Event) {
        if let Event::Note(text) = event {
            self.0.lock().unwrap().push(text.clone());
        }
    }
}

#[test]
fn leftovers_are_removed_and_foreign_entries_stay() {
    let place = Place::new();
    let outside = place.outside();
    let full = commit_one(&place.repository, 1, b"events");
    let left = place.path(&format!("incoming/{RUN}"));
    std::fs::create_dir_all(left.join("db")).unwrap();
    std::fs::hard_link(
        place.stored(&full.label, &at(CHUNK)),
        left.join("db/chunk-000000.000000"),
    )
    .unwrap();

    symlink(&outside, left.join("index")).unwrap();
    symlink(&outside, place.path("incoming/link")).unwrap();
    std::fs::create_dir(place.path("backups/mine")).unwrap();
    std::fs::write(place.path("backups/notes.txt"), b"notes").unwrap();
    std::fs::write(place.path("backups/20261121T090000Z-full"), b"a file").unwrap();

    let notes = Notes::default();
    let run = Run::new(notes.clone());
    assert_eq!(labels(&place.repository), std::slice::from_ref(&full.label));
    drop(begin(&place.repository, None, &run).unwrap());
    assert!(!left.exists());
    assert_eq!(
        std::fs::read_dir(place.path("incoming")).unwrap().count(),
        1,
        "the link stays"
    );
    let notes = notes.0.lock().unwrap().join("\n");
    for name in [
        "incoming/link",
        "`mine`",
        "`notes.txt`",
        "`20261121T090000Z-full`",
    ] {
        assert!(notes.contains(name), "{name} in {notes}");
    }

    assert_eq!(
        std::fs::read(place.path("backups/notes.txt")).unwrap(),
        b"notes"
    );
    assert_eq!(
        std::fs::read(outside.join("db/precious")).unwrap(),
        b"precious"
    );
    assert_eq!(
        content(&place.repository, &full.label, &full.files[0]),
        b"events"
    );
}

#[test]
fn only_a_repository_is_opened_and_only_an_empty_directory_becomes_one() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("repository");
    let missing = failed(DirectoryRepository::open(&path));
    assert_eq!(missing.kind(), Kind::NotFound);
    assert!(missing.hints().concat().contains("--repo"));

    std::fs::create_dir(&path).unwrap();
    let empty = failed(DirectoryRepository::open(&path));
    assert_eq!(empty.kind().exit_code(), 10);
    assert!(
        empty.hints().concat().contains("mounted"),
        "{:?}",
        empty.hints()
    );

    std::fs::write(path.join("thesis.txt"), b"do not mix").unwrap();
    assert_eq!(
        failed(DirectoryRepository::create(&path)).kind(),
        Kind::Refused
    );
    assert_eq!(failed(opened_or_made(&path)).kind(), Kind::Refused);

    assert_eq!(std::fs::read_dir(&path).unwrap().count(), 1);
    std::fs::remove_file(path.join("thesis.txt")).unwrap();

    // The directory may be a new disk, or come from a run that ended while it made the repository.
    std::fs::create_dir(path.join("lost+found")).unwrap();
    std::fs::create_dir(path.join("backups")).unwrap();
    let made = opened_or_made(&path).unwrap();
    assert_eq!(opened_or_made(&path).unwrap().id(), made.id());
    assert_eq!(
        failed(DirectoryRepository::create(&path)).kind(),
        Kind::Refused
    );
    assert!(made.shares_device_with(root.path()).unwrap());
    assert!(!made.shares_device_with(Path::new("/proc")).unwrap());
    assert!(made.free_space().unwrap().unwrap() > 0);

    let marker = path.join("kbackup.json");
    let good = std::fs::read_to_string(&marker).unwrap();
    std::fs::write(&marker, good.replace("\"format\": 1", "\"format\": 2")).unwrap();
    let newer = failed(DirectoryRepository::open(&path));
    assert_eq!(
        (newer.kind(), newer.kind().exit_code()),
        (Kind::Refused, 23)
    );
    assert_eq!(failed(opened_or_made(&path)).kind(), Kind::Refused);

    std::fs::write(&marker, &good.as_bytes()[..20]).unwrap();
    assert_eq!(
        failed(DirectoryRepository::open(&path)).kind(),
        Kind::StoredCorrupt
    );

    std::fs::remove_file(&marker).unwrap();
    symlink("/etc/hostname", &marker).unwrap();
    assert!(DirectoryRepository::open(&path).is_err());
}

#[test]
fn a_dead_process_does_not_keep_the_lock() {
    let place = Place::new();
    // A killed run leaves a text in the lock file, but no lock.
    std::fs::write(
        place.path("state/lock"),
        br#"{"pid":1,"host":"h","user":"u","command":"full","since":"2026-01-01T00:00:00Z"}"#,
    )
    .unwrap();
    begin(&place.repository, None, &run()).unwrap();
    assert_eq!(
        std::fs::metadata(place.path("state/lock")).unwrap().len(),
        0,
        "the lock was given back"
    );
}

#[test]
fn a_copy_that_differs_from_its_row_is_not_reused() {
    let place = Place::new();
    let full = commit_one(&place.repository, 1, b"events");
    let row = Row {
        blake3: Blake3Hash::of(b"others"),
        ..full.files[0].clone()
    };
    under_fault(
        "a_copy_that_differs_from_its_row_is_not_reused",
        "link:incoming:1:1",
        || {
            let run = run();
            let incoming = begin(&place.repository, Some(&full), &run).unwrap();
            assert_eq!(failed(reuse(&*incoming, &row)).kind(), Kind::StoredCorrupt);
        },
    );
}

#[test]
fn without_hard_links_files_are_copied() {
    under_fault(
        "without_hard_links_files_are_copied",
        "link:incoming:1:31",
        || {
            let place = Place::new();
            let full = commit_one(&place.repository, 1, b"events");
            let run = run();

            let incoming = begin(&place.repository, Some(&full), &run).unwrap();
            reuse(&*incoming, &full.files[0]).unwrap();
            let diff = manifest(2, Some(&full), &full.files);
            incoming.commit(&diff).unwrap();
            assert_eq!(
                content(&place.repository, &diff.label, &diff.files[0]),
                b"events"
            );

            let [one, other] = [&full, &diff].map(|backup| place.stored(&backup.label, &at(CHUNK)));
            assert_ne!(inode(&one), inode(&other));
            assert_eq!(mode(&one), mode(&other));
        },
    );
}

/// Runs `body` in its own process, in which the door to the file system injects `fault`.
fn under_fault(test: &str, fault: &str, body: impl FnOnce()) {
    if std::env::var_os("KBACKUP_FAULT").is_some() {
        return body();
    }
    let output = child(test).env("KBACKUP_FAULT", fault).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

fn child(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            &format!("directory_repository::{test}"),
            "--exact",
            "--nocapture",
            "--test-threads=1",
        ])
        .env("RUST_BACKTRACE", "0");
    command
}

/// Makes two backups in the repository at `path`. The second one does everything that a diff does.
fn two_backups(path: &Path) -> Result<(), Error> {
    let repository = opened_or_made(path)?;
    let run = run();
    let mut source = Source::new();
    let taken = repository.list()?;
    // A run that died may have used up a number.
    let sequence = given_numbers(&repository, &taken)?.sequence + 1;

    let incoming = begin(&repository, None, &run)?;
    let active = source.file("active", &[vec![1; 3000], vec![0; 5000]].concat());
    for (name, reads_every_byte) in [
        (CHUNK, false),
        ("db/chunk-000001.000000", true),
        ("index/indexmap", false),
    ] {
        let stored = incoming.ingest(
            &at(name),
            Ingest {
                length: 3000,
                full_length: 8000,

                reads_every_byte,
                md5: (!reads_every_byte).then_some(kbackup::format::Md5Hash([0; 16])),
                ..whole(&active)
            },
        )?;
        source.keep(name, stored);
    }
    let full = manifest(sequence, None, &source.rows);
    incoming.commit(&full)?;
    repository.set_state("verified", Some(b"yes"))?;

    let incoming = begin(&repository, Some(&full), &run)?;
    reuse(&*incoming, &source.rows[0])?;

    let held = source.rows[1].clone();
    let active = source.file("active", &[vec![1; 3000], vec![2; 5000]].concat());
    let stored = incoming.extend(
        &held.path,
        &held,
        3000,
        Ingest {
            reads_every_byte: true,
            ..whole(&active)
        },
    )?;

    source.keep("db/chunk-000001.000000", stored);
    let stored = incoming.write(&at("index/indexmap"), b"map", with_mode(0o644))?;
    source.keep("index/indexmap", stored);
    let stored = incoming.cut(&at("index/indexmap"), 2, 3, with_mode(0o644))?;
    source.keep("index/indexmap", stored);
    incoming.commit(&manifest(sequence + 1, Some(&full), &source.rows))
}

/// Asserts that every listed backup is whole. Returns how many there are.
fn assert_listed_are_whole(path: &Path) -> usize {
    let Ok(repository) = DirectoryRepository::open(path) else {
        return 0;
    };
    let listed = repository.list().unwrap();
    for backup in &listed {
        assert!(backup.head.is_ok());
        let manifest = repository.manifest(&backup.label).unwrap();
        for row in &manifest.files {
            assert_eq!(
                Blake3Hash::of(&content(&repository, &manifest.label, row)),
                row.blake3,
                "{}",
                row.path
            );
        }
        let files = repository.files(&manifest.label).unwrap();
        assert_eq!(files.files().unwrap().len(), manifest.files.len());
    }
    listed.len()
}

/// Ends or fails the n-th operation, for every n, or for every `step`-th one. Listed backups must be
/// whole, and the next run must work as if there had been no fault.
fn every_operation(test: &str, effect: &str, step: usize) {
    if let Some(path) = std::env::var_os("KBACKUP_TEST_REPOSITORY") {
        return two_backups(Path::new(&path)).unwrap();
    }
    let mut seen = [0; 3];
    for number in (1..).step_by(step) {
        // In memory if possible: only the order of the steps counts here, and syncing is slow.
        let root = workplace();
        let path = root.path().join("repository");

        let mut child = child(test);
        child
            .env("KBACKUP_TEST_REPOSITORY", &path)
            .env("KBACKUP_FAULT", format!("::{number}:{effect}"));

        let output = child.output().unwrap();
        let whole = assert_listed_are_whole(&path);
        seen[whole] += 1;

        two_backups(&path).unwrap_or_else(|error| {
            panic!(
                "after a fault at operation {number}: {error}: {:?}",
                error.causes()
            )
        });
        assert_eq!(
            assert_listed_are_whole(&path),
            whole + 2,
            "operation {number}"
        );
        if output.status.success() {
            assert_eq!(whole, 2);
            break;
        }
    }
    assert!(
        seen.iter().all(|times| *times > 0),
        "faults hit before, between and after the commits: {seen:?}"
    );
}

#[test]
fn a_kill_at_any_moment_leaves_whole_backups() {
    every_operation("a_kill_at_any_moment_leaves_whole_backups", "abort", 1);
}

#[test]
fn a_full_disk_at_any_moment_leaves_whole_backups() {
    every_operation("a_full_disk_at_any_moment_leaves_whole_backups", "28", 3);
}

/// The disk fails for good at one operation after the other, even between the rename that commits and
/// the rename that takes the commit back.
#[test]
fn a_commit_that_cannot_be_taken_back_is_reported() {
    if let Some(path) = std::env::var_os("KBACKUP_TEST_REPOSITORY") {
        let (run, mut source) = (run(), Source::new());
        let attempt = || -> Result<(), Error> {
            let repository = opened_or_made(Path::new(&path))?;
            let incoming = begin(&repository, None, &run)?;
            let file = source.file("chunk", b"events");
            let stored = incoming.ingest(&at(CHUNK), whole(&file))?;
            source.keep(CHUNK, stored);
            incoming.commit(&manifest(1, None, &source.rows))
        };
        let mut attempt = attempt;
        return attempt()
            .unwrap_or_else(|error| panic!("{error} {:?} {:?}", error.causes(), error.hints()));
    }

    let mut told = 0;
    for number in 1.. {
        let root = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();

        let path = root.path().join("repository");
        let mut child = child("a_commit_that_cannot_be_taken_back_is_reported");
        child
            .env("KBACKUP_TEST_REPOSITORY", &path)
            .env("KBACKUP_FAULT", format!(":{}:{number}:5", path.display()));
        let output = child.output().unwrap();

        let whole = assert_listed_are_whole(&path);
        let said = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        if output.status.success() {
            assert_eq!(whole, 1);
            break;
        }
        assert_eq!(
            said.contains("failed, but the backup is still listed"),
            whole == 1,
            "operation {number}: {said}"
        );
        told += whole;
    }
    assert!(told > 0);
}

#[test]
fn temporary_files_of_killed_runs_are_removed() {
    let place = Place::new();
    let plant = |name: &str, age: u64| {
        let file = std::fs::File::create(place.path("state").join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(age))
            .unwrap();
    };
    plant(".aB3xY9.tmp", 7200);
    plant(".cD4zW8.tmp", 60);
    plant(".notes.tmp", 7200);
    plant("verified", 7200);

    drop(begin(&place.repository, None, &run()).unwrap());
    let mut names: Vec<String> = std::fs::read_dir(place.path("state"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [".cD4zW8.tmp", ".notes.tmp", "lock", "verified"],
        "a young file may belong to another run, and a file of another name does"
    );
}

#[test]
fn leftovers_that_no_run_can_resume_are_removed_at_once() {
    let place = Place::new();
    let table = "0a1b2c3d-0000-4000-8000-000000000001";
    let top = place
        .path("incoming")
        .join(uuid::Uuid::now_v7().to_string());
    let plant = |name: &str, bytes: &[u8]| {
        let path = top.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    let (completed, _) = crate::conformance::sealed(&[7; 1000]);
    let active = [vec![7; 1000], vec![0; 1000]].concat();
    for (name, bytes) in [
        ("db/.chunk-000003.000000.part", &completed),
        ("db/chunk-000002.000000", &active),
        ("db/writer.chk", &completed),
        ("db/kurrent.ddb", &completed),
        ("index/indexmap", &completed),
        (&format!("index/{table}.bloomfilter"), &completed),
        (
            "index/stream-existence/streamExistenceFilter.dat",
            &completed,
        ),
        ("index/scavenging/scavenging.db", &completed),
        ("manifest.json", &completed),
        (".aB3xY9.tmp", &completed),
        ("db/chunk-000000.000000", &completed),
        (&format!("index/{table}"), &completed),
    ] {
        plant(name, bytes);
    }

    assert_eq!(place.repository.interrupted().unwrap().unwrap().files, 12);
    drop(begin(&place.repository, None, &run()).unwrap());
    let left = place.repository.interrupted().unwrap().unwrap();
    assert_eq!(left.files, 2);
    assert!(top.join("db/chunk-000000.000000").exists() && top.join("index").join(table).exists());
}

#[test]
fn errors_name_the_path() {
    let place = Place::new();
    let full = commit_one(&place.repository, 1, b"events");
    let stored = place.stored(&full.label, &at(CHUNK));
    writable(&stored).set_len(5).unwrap();
    let error = failed(place.repository.open(&full.label, &full.files[0]));
    assert_eq!(error.place(), stored.to_str());
    assert!(
        error.causes().concat().contains("5 bytes, not 6"),
        "{:?}",
        error.causes()
    );

    let gone = place.path("gone");
    assert!(fs::open(&gone).is_err_and(|error| error.path == gone));
}
