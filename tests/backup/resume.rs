//! Interrupted backups, and the next backup. It copies the file in flight again, and resumes every
//! other file that it can prove.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use kbackup::backup::{self, BackupRequest, BackupSummary, Source, SourceNode};
use kbackup::error::{Error, Kind, Signal};
use kbackup::event::{Event, Observer, Step};
use kbackup::manifest::{BackupKind, Directories};
use kbackup::pace::Rate;
use kbackup::repository::{Interrupted, Repository};
use kbackup::run::{Interruption, Run};
use kbackup_testnode::{Checkpoint, Synthetic};
use rustix::process::{Pid, kill_process};

use super::bench::{Bench, copy_tree, files, flip, name, small, writable};
use crate::executable::kbackup;
use crate::stores::{TestRepository, in_every_store};

in_every_store! {
    a_diff_resumes_an_interrupted_full,
    a_run_may_be_interrupted_repeatedly,
    an_interrupted_run_keeps_only_files_that_can_be_proven,
    a_bad_chunk_of_the_source_is_refused_and_the_others_are_kept,
    other_contents_under_the_same_names_are_not_resumed,
    a_chunk_of_another_version_is_not_resumed,
    resumable_files_count_as_free_space,
    runs_whose_pause_is_too_short_finish_after_a_few,
    what_was_copied_costs_nothing_in_the_next_pause,
}

fn command(bench: &Bench, verb: &str) -> Command {
    let mut command = kbackup();
    command
        .args([verb, "--offline", "--json", "--db"])
        .arg(&bench.db)
        .arg("--repo")
        .arg(bench.repository.place());
    command
}

/// Runs a verb with a fault.
fn execute(bench: &Bench, verb: &str, fault: &str) -> Output {
    command(bench, verb)
        .env("KBACKUP_FAULT", fault)
        .output()
        .unwrap()
}

/// Kills a run before it writes this file.
fn die_at(bench: &Bench, verb: &str, file: &str) {
    let output = execute(bench, verb, &format!("write:{file}:1:abort"));
    assert_eq!(
        output.status.signal(),
        Some(6),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn incoming(bench: &Bench) -> PathBuf {
    Path::new(&bench.repository.place()).join("incoming")
}

fn interrupted(bench: &Bench) -> Option<Interrupted> {
    bench.repository.interrupted().unwrap()
}

/// The chunks and tables that lie in `incoming/` under their names, with their bytes. The next run
/// can resume all of them, except the active chunk.
fn left(bench: &Bench) -> BTreeMap<String, (PathBuf, u64)> {
    let active = format!("chunk-{:06}.000000", small().completed_chunks);
    let mut left = BTreeMap::new();
    for entry in walkdir::WalkDir::new(incoming(bench)) {
        let entry = entry.unwrap();
        let name = name(entry.path());
        let is_table = uuid::Uuid::parse_str(name).is_ok();
        let is_chunk = name.starts_with("chunk-") && name != active;
        if !entry.file_type().is_file() || !(is_table || is_chunk) {
            continue;
        }

        let found = entry.metadata().unwrap();
        if found.nlink() == 1 {
            left.insert(name.to_owned(), (entry.path().to_owned(), found.len()));
        }
    }
    left
}

/// The names and lengths of what the next run can resume, wherever it is kept.
fn left_sizes(bench: &Bench) -> BTreeMap<String, u64> {
    let mut sizes = BTreeMap::new();
    let kept = match &bench.repository {
        TestRepository::Memory(repository) => Some(repository.leftovers()),
        TestRepository::Objects(repository) => Some(repository.leftovers().unwrap()),
        TestRepository::Directory(_) => None,
    };
    if let Some(kept) = kept {
        for (path, size) in kept {
            sizes.insert(path.file_name().to_owned(), size);
        }
        return sizes;
    }

    for (name, (_, size)) in left(bench) {
        sizes.insert(name, size);
    }
    sizes
}

fn left_bytes(bench: &Bench) -> u64 {
    left_sizes(bench).values().sum()
}

/// Stops the run as soon as it has copied or resumed one file.
struct StopsAt {
    run: Weak<Run>,
    file: &'static str,
}

impl Observer for StopsAt {
    fn observe(&self, event: &Event) {
        let (Event::Copied { path, .. } | Event::Resumed { path, .. }) = event else {
            return;
        };

        if let Some(run) = self.run.upgrade()
            && path.ends_with(self.file)
        {
            run.interrupt(Signal::Terminate);
        }
    }
}

/// Stops the run after it has copied or resumed a number of files. kbackup copies files in parallel,
/// so a test that uses this must not expect particular files.
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

/// Takes a backup that is interrupted after so many files.
fn stop_after(bench: &Bench, kind: BackupKind, files: usize) -> Result<BackupSummary, Error> {
    let run = Arc::new_cyclic(|run| {
        Run::new(Impatient {
            run: run.clone(),
            files: Mutex::new(files),
        })
    });

    take_in(bench, kind, &run)
}

/// Interrupts a full when everything that the next run can resume is there. The active chunk is
/// copied after all tables and all completed chunks.
fn stop_with_all_copied(bench: &Bench) {
    let run = Arc::new_cyclic(|run| {
        Run::new(StopsAt {
            run: run.clone(),
            file: "chunk-000005.000000",
        })
    });

    assert_interrupted(take_in(bench, BackupKind::Full, &run));
    assert_eq!(left_sizes(bench).len(), 8, "five chunks and three tables");
}

fn take_in(bench: &Bench, kind: BackupKind, run: &Run) -> Result<BackupSummary, Error> {
    let source = Source {
        directories: Directories::new(&bench.db, None),
        server_version: None,
        node: SourceNode::Stopped,
    };
    backup::take(
        &BackupRequest {
            kind,
            ..bench.request.clone()
        },
        &source,
        &bench.repository,
        run,
    )
}

fn assert_interrupted(result: Result<BackupSummary, Error>) {
    assert_eq!(result.unwrap_err().kind().exit_code(), 143);
}

/// Asserts that the next backup resumes every file that is left, does not read these files from the
/// node, is sound, and leaves nothing behind.
fn assert_goes_on(bench: &Bench, what: &str) -> BackupSummary {
    let (files, bytes) = (left_sizes(bench).len() as u64, left_bytes(bench));
    let summary = bench.full().unwrap();
    assert_eq!(
        (summary.files_resumed, summary.bytes_resumed),
        (files, bytes),
        "{what}: {}",
        bench.said()
    );

    // It also reads identities, checkpoints and small files.
    assert!(
        summary.bytes_read <= bench.db_bytes() - bytes + 40_000,
        "{what}: {} read, {bytes} resumed",
        summary.bytes_read
    );

    bench.assert_sound();
    bench.assert_restores(&summary, &bench.events());
    summary
}

#[test]
fn a_killed_run_loses_only_the_file_in_flight() {
    let mut most = 0;
    for operation in ["create", "write", "truncate", "sync", "rename"] {
        let mut count = 1;
        loop {
            let bench = Bench::new(&small());
            let output = execute(
                &bench,
                "full",
                &format!("{operation}:/incoming/:{count}:abort"),
            );
            if output.status.success() {
                break;
            }

            assert_eq!(output.status.signal(), Some(6));
            let what = format!("{operation} {count}");
            most = most.max(assert_goes_on(&bench, &what).files_resumed);
            count += 7;
        }
        assert!(count > 1, "no {operation} was seen");
    }
    assert_eq!(most, 8, "five chunks and three tables");
}

#[test]
fn runs_that_are_killed_repeatedly_leave_each_file_once() {
    let bench = Bench::new(&small());
    for _ in 0..4 {
        // The active chunk is in flight, and everything else is there.
        die_at(&bench, "full", "chunk-000005");
    }

    let mut names = Vec::new();
    for entry in walkdir::WalkDir::new(incoming(&bench)) {
        let entry = entry.unwrap();
        // The proofs of a run outlive the files, until the next run removes what is empty.
        if entry.file_type().is_file() && name(entry.path()) != "proofs" {
            names.push(name(entry.path()).to_owned());
        }
    }
    names.sort();

    let mut once = names.clone();
    once.dedup();
    assert!(
        names.contains(&".chunk-000005.000000.part".to_owned()),
        "{names:?}"
    );
    assert_eq!(names, once, "each file is there once");
}

#[test]
fn a_diff_resumes_a_killed_diff() {
    let bench = Bench::new(&small());
    let full = bench.full().unwrap();

    // The node completes three more chunks. The diff dies at the parent's active chunk, which comes
    // last of them.
    bench.append(200_000);
    die_at(&bench, "diff", "chunk-000005");
    let names: Vec<String> = left(&bench).into_keys().collect();
    assert!(
        names.contains(&"chunk-000006.000000".to_owned())
            && !names.contains(&"chunk-000005.000000".to_owned()),
        "{names:?}"
    );
    assert!(
        !names.contains(&"chunk-000000.000000".to_owned()),
        "this file is the full's: {names:?}"
    );

    let diff = bench.take().unwrap();
    assert_eq!(
        (diff.kind, diff.parent.as_ref()),
        (BackupKind::Diff, Some(&full.label))
    );
    assert!(diff.files_resumed >= 1, "{}", bench.said());
    assert!(diff.files_linked >= 5);
    bench.assert_sound();
    bench.assert_restores(&diff, &bench.events());
}

#[test]
fn a_full_resumes_a_killed_diff_and_shares_no_file() {
    let bench = Bench::new(&small());
    let first = bench.full().unwrap();
    bench.append(200_000);
    die_at(&bench, "diff", "chunk-000005");

    let second = bench.full().unwrap();
    assert!(second.files_resumed >= 1, "{}", bench.said());
    assert_eq!(second.files_linked, 0);
    for file in files(&bench.stored(&second).join("db")) {
        assert_eq!(file.metadata().unwrap().nlink(), 1, "{file:?}");
    }
    assert_eq!(files(&bench.stored(&first).join("db")).len(), 11);
    bench.assert_sound();
    bench.assert_restores(&second, &bench.events());
}

fn a_diff_resumes_an_interrupted_full() {
    let bench = Bench::new(&small());
    let full = bench.full().unwrap();
    bench.append(200_000);
    assert_interrupted(stop_after(&bench, BackupKind::Full, 11));
    let diff = bench.take().unwrap();

    // The diff links the files that the parent has.
    assert_eq!(diff.parent.as_ref(), Some(&full.label));
    assert!(diff.files_linked >= 8, "{diff:?}");
    bench.assert_sound();
    bench.assert_restores(&diff, &bench.events());
}

fn a_run_may_be_interrupted_repeatedly() {
    let bench = Bench::new(&small());
    let mut before = 0;
    for files in [1, 3, 5, 2, 7, 9] {
        assert_interrupted(stop_after(&bench, BackupKind::Full, files));
        let now = left_sizes(&bench).len();
        assert!(now >= before, "{before} files were left, now {now}");
        before = now;
    }
    stop_with_all_copied(&bench);
    assert_goes_on(&bench, "in the end");
}

fn an_interrupted_run_keeps_only_files_that_can_be_proven() {
    let bench = Bench::new(&small());
    assert_eq!(interrupted(&bench), None);
    assert_interrupted(stop_after(&bench, BackupKind::Full, 9));
    let kept = interrupted(&bench).unwrap();
    assert_eq!(
        kept.files,
        left_sizes(&bench).len() as u64,
        "no filters and no incomplete files"
    );
    assert!(kept.bytes > 0);

    bench.full().unwrap();
    assert_eq!(interrupted(&bench), None);

    // A run that did nothing leaves nothing.
    let run = bench.run(|_| ());

    drop(
        bench
            .repository
            .writer(&run)
            .and_then(|writer| writer.begin(None))
            .unwrap(),
    );
    assert_eq!(interrupted(&bench), None);
}

/// A file whose process died in the middle of it: it has its full length and its end, and a hole in
/// between.
#[test]
fn an_incomplete_file_of_full_length_is_copied_again() {
    for (from, to) in [(30_000, 60_000), (0, 128), (30_000, u64::MAX)] {
        let bench = Bench::new(&small());
        stop_with_all_copied(&bench);
        let count = left(&bench).len() as u64;
        let (half, length) = left(&bench)["chunk-000001.000000"].clone();

        let to = to.min(length);
        writable(&half, |file| {
            let zeros = vec![0; usize::try_from(to - from).unwrap()];
            std::os::unix::fs::FileExt::write_all_at(file, &zeros, from).unwrap();
        });

        let summary = bench.full().unwrap();
        assert_eq!(summary.files_resumed, count - 1);

        // kbackup does not even read a chunk without an MD5 at its end.
        let looked_at = bench.said().contains(
            "chunk-000001.000000: kbackup does not resume what an interrupted run left of it",
        );
        assert_eq!(looked_at, to < length, "{}", bench.said());

        bench.assert_sound();
        bench.assert_restores(&summary, &bench.events());
    }
}

#[test]
fn a_flipped_byte_anywhere_is_found() {
    for file in 0..8 {
        let bench = Bench::new(&small());
        die_at(&bench, "full", "chunk-000005");
        let left = left(&bench);
        let (path, length) = left.values().nth(file).unwrap();
        flip(path, [0, 130, length / 2, length - 1][file % 4]);

        let summary = bench.full().unwrap();
        assert_eq!(
            summary.files_resumed,
            left.len() as u64 - 1,
            "{path:?}: {}",
            bench.said()
        );

        bench.assert_sound();
        bench.assert_restores(&summary, &bench.events());
    }
}

fn a_bad_chunk_of_the_source_is_refused_and_the_others_are_kept() {
    let bench = Bench::new(&small());
    flip(&bench.chunk(3, 0), 30_000);
    assert_eq!(bench.full().unwrap_err().kind(), Kind::SourceCorrupt);
    let left = left_sizes(&bench);
    assert!(left.contains_key("chunk-000002.000000") && !left.contains_key("chunk-000003.000000"));
    flip(&bench.chunk(3, 0), 30_000);
    assert_goes_on(&bench, "repaired");
}

#[test]
fn planted_links_and_foreign_files_are_not_resumed() {
    let bench = Bench::new(&small());
    let full = bench.full().unwrap();
    let run = incoming(&bench).join(uuid::Uuid::now_v7().to_string());
    std::fs::create_dir_all(run.join("db")).unwrap();

    // A file of a backup is planted by its name, by a symbolic link, and behind a linked directory.
    std::fs::hard_link(
        bench.stored(&full).join("db/chunk-000000.000000"),
        run.join("db/chunk-000000.000000"),
    )
    .unwrap();

    symlink(bench.chunk(1, 0), run.join("db/chunk-000001.000000")).unwrap();

    rustix::fs::mknodat(
        rustix::fs::CWD,
        run.join("db/chunk-000002.000000"),
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();

    std::fs::create_dir(run.join("db/chunk-000003.000000")).unwrap();
    symlink(bench.index(), run.join("index")).unwrap();
    std::fs::write(run.join("manifest.json"), b"{}").unwrap();

    let other = incoming(&bench).join(uuid::Uuid::now_v7().to_string());
    symlink(&bench.db, &other).unwrap();

    let before = bench.db_bytes();
    let second = bench.full().unwrap();
    assert_eq!(second.files_resumed, 0);
    assert_eq!(bench.db_bytes(), before);

    let inode = |summary: &BackupSummary| {
        bench
            .stored(summary)
            .join("db/chunk-000000.000000")
            .metadata()
            .unwrap()
            .ino()
    };
    assert_ne!(inode(&full), inode(&second));
    bench.assert_sound();
    bench.assert_restores(&second, &bench.events());
}

/// O7: a chunk with the same name, and even the same length, may be another chunk.
fn other_contents_under_the_same_names_are_not_resumed() {
    let bench = Bench::new(&small());
    stop_with_all_copied(&bench);
    let other = Bench::new(&Synthetic { seed: 8, ..small() });

    std::fs::remove_dir_all(&bench.db).unwrap();
    copy_tree(&other.db, &bench.db);

    let summary = bench.full().unwrap();
    assert_eq!(summary.files_resumed, 0, "{}", bench.said());
    bench.assert_sound();
    bench.assert_restores(&summary, &bench.events());
}

fn a_chunk_of_another_version_is_not_resumed() {
    let bench = Bench::new(&small());
    stop_with_all_copied(&bench);
    let count = left_sizes(&bench).len() as u64;
    std::fs::rename(bench.chunk(1, 0), bench.chunk(1, 1)).unwrap();

    let summary = bench.full().unwrap();
    assert_eq!(summary.files_resumed, count - 1);
    bench.assert_sound();
    bench.assert_restores(&summary, &bench.events());
}

/// The active chunk was left in full length. When the node completes it, it is another file.
#[test]
fn an_active_chunk_is_never_resumed() {
    let bench = Bench::new(&small());
    die_at(&bench, "full", "manifest.json");
    assert!(
        walkdir::WalkDir::new(incoming(&bench))
            .into_iter()
            .any(|entry| name(entry.unwrap().path()) == "chunk-000005.000000")
    );

    bench.append(100_000);
    assert!(bench.get(Checkpoint::Writer) > 6 * 64 * 1024);
    let summary = bench.full().unwrap();
    assert_eq!(summary.files_resumed, 8, "{}", bench.said());
    bench.assert_sound();
    bench.assert_restores(&summary, &bench.events());
}

/// If the storage itself fails, kbackup trusts no byte of it again, and a full disk gets its space
/// back.
#[test]
fn nothing_is_resumed_after_the_storage_failed() {
    for (operation, file, number) in [
        ("sync", "chunk-000003", 5),
        ("write", "chunk-000003", 28),
        ("rename", "chunk-000003", 5),
        ("create", "chunk-000003", 28),
        ("truncate", "chunk-000003", 5),
        ("sync", "/incoming/", 5),
        ("write", "manifest.json", 28),
        ("rename", "/backups/", 5),
        ("sync", "/backups", 5),
    ] {
        let what = format!("{operation} {file} {number}");
        let bench = Bench::new(&small());
        assert_interrupted(stop_after(&bench, BackupKind::Full, 5));
        assert!(interrupted(&bench).is_some());

        let output = execute(&bench, "full", &format!("{operation}:{file}:1:{number}"));
        assert_eq!(
            output.status.code(),
            Some(1),
            "{what}: {}",
            String::from_utf8_lossy(&output.stdout)
        );
        assert_eq!(
            std::fs::read_dir(incoming(&bench)).unwrap().count(),
            0,
            "{what}"
        );
        assert_eq!(assert_goes_on(&bench, &what).files_resumed, 0, "{what}");
    }
}

/// The process is killed after a failed sync. Then the file has no name yet.
#[test]
fn a_file_that_could_not_be_synced_gets_no_name() {
    let bench = Bench::new(&small());
    // The last act of this process is the removal after the failed sync.
    let run = execute(&bench, "full", "sync:chunk-000003:1:abort");
    assert_eq!(run.status.signal(), Some(6));
    let names = left(&bench);
    assert!(!names.contains_key("chunk-000003.000000"), "{names:?}");

    // The order of the threads decides which other chunks are there.
    let is_written = walkdir::WalkDir::new(incoming(&bench))
        .into_iter()
        .any(|entry| name(entry.unwrap().path()) == ".chunk-000003.000000.part");
    assert!(
        is_written,
        "the chunk was copied, and only its name is missing"
    );
    assert_goes_on(&bench, "sync");
}

fn resumable_files_count_as_free_space() {
    let bench = Bench::new(&small());
    assert_interrupted(stop_after(&bench, BackupKind::Full, 9));
    let kept = interrupted(&bench).unwrap();
    assert!(
        kept.bytes >= left_bytes(&bench) / 2 && kept.bytes < 2 * left_bytes(&bench) + 64 * 4096,
        "{kept:?}"
    );

    // While a run is at work, the files in `incoming/` belong to it.
    let run = bench.run(|_| ());
    let working = bench
        .repository
        .writer(&run)
        .and_then(|writer| writer.begin(None))
        .unwrap();
    assert_eq!(interrupted(&bench), None);
    drop(working);
    assert_eq!(interrupted(&bench), Some(kept));
}

/// Manifests of the first version do not count resumed files.
#[test]
fn a_manifest_of_an_earlier_version_is_read() {
    let bench = Bench::new(&small());
    let full = bench.full().unwrap();

    let path = bench.stored(&full).join("manifest.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = text.split_once(",\n  \"head_checksum\"").unwrap();
    let lines: Vec<&str> = head
        .lines()
        .filter(|line| !line.contains("_resumed\""))
        .collect();
    assert_eq!(lines.len() + 2, head.lines().count());
    let head = lines.join("\n");
    let (_, rest) = rest.split_once("\"files\"").unwrap();
    let (rows, _) = rest.split_once(",\n  \"checksum\"").unwrap();

    let body = format!(
        "{head},\n  \"head_checksum\": \"{}\",\n  \"files\"{rows}",
        blake3::hash(head.as_bytes())
    );
    let sealed = format!(
        "{body},\n  \"checksum\": \"{}\"\n}}\n",
        blake3::hash(body.as_bytes())
    );

    let before = bench.manifest(&full);
    std::fs::write(&path, sealed).unwrap();
    assert_eq!(bench.manifest(&full), before);
    assert_eq!(before.cost.files_resumed, 0);

    // This manifest serves as a parent.
    let diff = bench.take().unwrap();
    assert_eq!(diff.parent, Some(full.label));
    bench.assert_sound();
}

/// Ends a run once it has handled so many bytes while the node is quiesced. That is what
/// `--max-pause` does at a given rate, and a test of it needs no clock.
struct ShortPause {
    run: Weak<Run>,
    bytes: u64,
    /// The bytes that were handled since the node is quiesced.
    handled: Mutex<Option<u64>>,
}

impl Observer for ShortPause {
    fn observe(&self, event: &Event) {
        let mut handled = self.handled.lock().unwrap();
        match (event, *handled) {
            (Event::Step(Step::Quiesce), _) => *handled = Some(0),
            (Event::Progress { bytes }, Some(before)) => *handled = Some(before + bytes),
            _ => return,
        }

        if let Some(run) = self.run.upgrade()
            && handled.is_some_and(|handled| handled > self.bytes)
        {
            let limit = Duration::from_secs(1);
            run.interrupt(Interruption::PausedTooLong { limit });
        }
    }
}

/// So slow that kbackup copies one file after the other, and so fast that no test waits for it.
fn slow() -> Option<Rate> {
    Rate::new(4 << 20)
}

/// The whole backup takes several times as long as one pause may last.
fn runs_whose_pause_is_too_short_finish_after_a_few() {
    let bench = Bench::new(&Synthetic {
        completed_chunks: 12,
        ..small()
    });

    let mut before = 0;
    for number in 1.. {
        assert!(number <= 14, "each run copies about a chunk");
        let run = Arc::new_cyclic(|run| {
            let pause = ShortPause {
                run: run.clone(),
                bytes: 400_000,
                handled: Mutex::default(),
            };
            Run::new(pause).limited_to(slow())
        });

        let error = match take_in(&bench, BackupKind::Full, &run) {
            Err(error) => error,
            Ok(summary) => {
                assert!(number > 2, "one pause was enough");
                assert!(summary.files_resumed >= 12, "{summary:?}");
                bench.assert_sound();
                return bench.assert_restores(&summary, &bench.events());
            }
        };
        assert_eq!(error.kind().name(), "paused-too-long");

        // Bytes, not files: a run may end in the middle of a file, and the next one right behind it.
        let now = interrupted(&bench).unwrap().bytes;
        assert!(
            now > before,
            "run {number}: {before} bytes were there, now {now}: {:?}",
            left_sizes(&bench)
        );
        before = now;
    }
}

/// The bytes of the run's budget that were spent before the node was quiesced, and while it was.
#[derive(Debug, Default, Clone, Copy)]
struct Spent {
    before: u64,
    quiesced: u64,
}

struct Accountant {
    run: Weak<Run>,
    spent: Arc<Mutex<Spent>>,
}

impl Observer for Accountant {
    fn observe(&self, event: &Event) {
        let Some(run) = self.run.upgrade() else {
            return;
        };

        let (mut spent, all) = (self.spent.lock().unwrap(), run.pace().spent());
        match event {
            Event::Step(Step::Quiesce) => spent.before = all,
            Event::Step(Step::Release) => spent.quiesced = all - spent.before,
            _ => {}
        }
    }
}

/// Takes a full at a given rate, which resumes everything that is left. Returns what it has spent.
fn account_for(bench: &Bench) -> Spent {
    let left = left_sizes(bench).len() as u64;
    let spent = Arc::new(Mutex::new(Spent::default()));
    let run = Arc::new_cyclic(|run| {
        let accountant = Accountant {
            run: run.clone(),
            spent: Arc::clone(&spent),
        };
        Run::new(accountant).limited_to(slow())
    });

    let summary = take_in(bench, BackupKind::Full, &run).unwrap();
    assert_eq!(summary.files_resumed, left, "{summary:?}");
    bench.assert_sound();
    bench.assert_restores(&summary, &bench.events());
    *spent.lock().unwrap()
}

/// What an account may hold besides the files that are left: the other files, and their proof.
fn others(bench: &Bench) -> u64 {
    bench.db_bytes() - left_bytes(bench) + 40_000
}

/// kbackup neither hashes it again nor reads its records again.
fn what_was_copied_costs_nothing_in_the_next_pause() {
    let bench = Bench::new(&small());
    stop_with_all_copied(&bench);
    let others = others(&bench);

    let spent = account_for(&bench);
    assert!(spent.quiesced < others, "{spent:?}, {others}");
    assert!(spent.before < 40_000, "{spent:?}");
}

#[test]
fn a_killed_run_leaves_its_proofs_to_the_next() {
    let bench = Bench::new(&small());
    die_at(&bench, "full", "chunk-000005");
    let others = others(&bench);

    let spent = account_for(&bench);
    assert!(spent.quiesced < others, "{spent:?}, {others}");
    assert!(spent.before < 40_000, "{spent:?}");
}

/// An earlier version kept no proofs, and a loss of power can take them.
#[test]
fn files_without_a_kept_proof_are_read_before_the_pause_and_at_the_given_rate() {
    let bench = Bench::new(&small());
    stop_with_all_copied(&bench);
    let (bytes, others) = (left_bytes(&bench), others(&bench));
    for run in std::fs::read_dir(incoming(&bench)).unwrap() {
        std::fs::remove_file(run.unwrap().path().join("proofs")).unwrap();
    }

    // The proof is kept with the first run that makes it, also if that run copies nothing.
    let run = Arc::new_cyclic(|run| {
        let pause = ShortPause {
            run: run.clone(),
            bytes: 0,
            handled: Mutex::default(),
        };
        Run::new(pause).limited_to(slow())
    });
    take_in(&bench, BackupKind::Full, &run).unwrap_err();
    let spent = run.pace().spent();
    assert!(spent >= bytes, "{bytes} bytes to prove, {spent} spent");
    assert!(spent < bytes + others, "each file is read once: {spent}");

    let spent = account_for(&bench);
    assert!(spent.quiesced < others, "{spent:?}, {others}");
    assert!(spent.before < 40_000, "{spent:?}");
}

/// The list of a backup holds its files and its manifest, and nothing else.
#[test]
fn a_listed_backup_holds_no_proofs() {
    let bench = Bench::new(&small());
    stop_with_all_copied(&bench);
    let summary = bench.full().unwrap();

    let mut names: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(bench.stored(&summary)).unwrap() {
        names.push(entry.unwrap().file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(names, ["db", "index", "manifest.json"]);
}

/// Real signals arrive at any moment. Every run resumes the one before, and the last one succeeds.
#[test]
fn a_run_may_be_killed_at_any_moment() {
    let bench = Bench::new(&Synthetic {
        filter_bytes: 1 << 20,
        ..Synthetic::of_size(96 << 20, 4 << 20)
    });
    let (mut files, mut kills) = (0, 0);
    let mut quickest = Duration::MAX;
    for (round, signal) in [rustix::process::Signal::KILL, rustix::process::Signal::TERM]
        .into_iter()
        .cycle()
        .enumerate()
        .take(8)
    {
        let mut child = command(&bench, "full")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();

        let end = Instant::now() + Duration::from_secs(60);
        // The signal comes after the run has copied something more.
        while left_of_any(&bench) < files + 2 && child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end);
            std::thread::sleep(Duration::from_millis(2));
        }

        let sent = Instant::now();
        if child.try_wait().unwrap().is_none() {
            kill_process(Pid::from_child(&child), signal).unwrap();
        }

        let status = child.wait().unwrap();
        if status.success() {
            break;
        }

        quickest = quickest.min(sent.elapsed());
        assert!(
            status.signal() == Some(9) || status.code() == Some(143),
            "{status}"
        );

        let now = left_of_any(&bench);
        assert!(
            now >= files,
            "round {round}: {files} files were there, now {now}"
        );
        (files, kills) = (now, kills + 1);
    }

    assert!(kills >= 3, "only {kills} runs were interrupted");
    // On a busy machine, some of the runs end late.
    assert!(quickest < Duration::from_secs(2), "{quickest:?}");

    let there = left_of_any(&bench) as u64;
    let output = command(&bench, "full").output().unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["files_resumed"].as_u64().unwrap(), there, "{answer}");
    assert!(
        answer["bytes_read"].as_u64().unwrap() + answer["bytes_resumed"].as_u64().unwrap()
            < bench.db_bytes() + 200_000
    );
    bench.assert_sound();
}

/// The number of chunks and tables in `incoming/` under their names. The active chunk of the source
/// is copied last.
fn left_of_any(bench: &Bench) -> usize {
    let mut chunks: Vec<PathBuf> = files(&bench.db);
    chunks.retain(|path| name(path).starts_with("chunk-"));
    let active = chunks.into_iter().max().unwrap();
    let is_provable = |path: &str| {
        let is_table = uuid::Uuid::parse_str(path).is_ok();
        is_table || path.starts_with("chunk-") && path != name(&active)
    };

    walkdir::WalkDir::new(incoming(bench))
        .into_iter()
        .flatten()
        .filter(|entry| entry.file_type().is_file() && is_provable(name(entry.path())))
        .count()
}
