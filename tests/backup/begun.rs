//! Files that are larger than what one pause of scavenging has time for. A run begins such a file in
//! its pause, and the next one finishes it before it quiesces the node.

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use kbackup::backup::{self, BackupRequest, BackupSummary, Source, SourceNode};
use kbackup::error::Error;
use kbackup::event::{Event, Observer, Step};
use kbackup::manifest::{BackupKind, Directories};
use kbackup::pace::Rate;
use kbackup::repository::Repository;
use kbackup::run::{Interruption, Run};
use kbackup_testnode::Synthetic;

use super::bench::{Bench, copy_tree, flip, name, small};
use crate::stores::in_every_store;

in_every_store! {
    the_beginning_of_another_file_is_not_used,
}

/// What a run may handle while the node is quiesced: less than one piece of a file.
const PAUSE: u64 = 900_000;

/// Chunks and tables of several pieces.
fn large() -> Synthetic {
    Synthetic {
        chunk_size: 2 << 20,
        completed_chunks: 3,
        table_entries: 50_000,
        ..small()
    }
}

/// Ends a run once it has handled more than [`PAUSE`] while the node is quiesced. That is what
/// `--max-pause` does at a given rate, and a test of it needs no clock.
struct ShortPause {
    run: Weak<Run>,
    said: Arc<Mutex<Vec<String>>>,
    /// The bytes that were handled since the node is quiesced.
    handled: Mutex<Option<u64>>,
}

impl Observer for ShortPause {
    fn observe(&self, event: &Event) {
        let mut handled = self.handled.lock().unwrap();
        match (event, *handled) {
            (Event::Step(Step::Quiesce), _) => *handled = Some(0),
            (Event::Progress { bytes }, Some(before)) => *handled = Some(before + bytes),
            (Event::Note(text), _) => self.said.lock().unwrap().push(text.clone()),
            _ => return,
        }

        if let Some(run) = self.run.upgrade()
            && handled.is_some_and(|handled| handled > PAUSE)
        {
            let limit = Duration::from_secs(1);
            run.interrupt(Interruption::PausedTooLong { limit });
        }
    }
}

/// Takes a backup whose pause is too short for most of its files. It copies one file after the
/// other. Also returns what it said.
fn take_in_short_pause(bench: &Bench, kind: BackupKind) -> (Result<BackupSummary, Error>, String) {
    let said: Arc<Mutex<Vec<String>>> = Arc::default();
    let run = Arc::new_cyclic(|run| {
        let pause = ShortPause {
            run: run.clone(),
            said: Arc::clone(&said),
            handled: Mutex::default(),
        };
        Run::new(pause).limited_to(Rate::new(16 << 20))
    });

    let source = Source {
        directories: Directories::new(&bench.db, None),
        server_version: None,
        node: SourceNode::Stopped,
    };
    let request = BackupRequest {
        kind,
        ..bench.request.clone()
    };
    let result = backup::take(&request, &source, &bench.repository, &run);
    let said = said.lock().unwrap().join("\n");
    (result, said)
}

/// Takes a backup that is interrupted in its pause.
fn begin(bench: &Bench) -> String {
    let (result, said) = take_in_short_pause(bench, BackupKind::Full);
    assert_eq!(result.unwrap_err().kind().name(), "paused-too-long");
    said
}

/// Repeats a backup until it succeeds, and asserts that no more than `most` runs are needed. Also
/// returns what they said.
fn finish(bench: &Bench, kind: BackupKind, most: usize) -> (BackupSummary, String) {
    let mut all_said = String::new();
    for number in 1..=most {
        let (result, said) = take_in_short_pause(bench, kind);
        all_said.push_str(&format!("run {number}: {said}\n"));
        let error = match result {
            Ok(summary) => {
                assert!(number > 1, "one pause was enough");
                assert_eq!(bench.repository.interrupted().unwrap(), None);
                return (summary, all_said);
            }
            Err(error) => error,
        };
        assert_eq!(error.kind().name(), "paused-too-long", "{error}");
    }
    panic!("{most} runs have not finished it: {all_said}");
}

/// The beginnings of files in `incoming/`.
fn begun(bench: &Bench) -> Vec<PathBuf> {
    let mut begun = Vec::new();
    for entry in walkdir::WalkDir::new(Path::new(&bench.repository.place()).join("incoming")) {
        let path = entry.unwrap().into_path();
        if name(&path).ends_with(".begun") {
            begun.push(path);
        }
    }
    begun
}

/// Each run begins one of the three tables or three chunks, and finishes the one before.
#[test]
fn files_that_do_not_fit_into_a_pause_are_finished_by_later_runs() {
    let bench = Bench::new(&large());
    let (summary, said) = finish(&bench, BackupKind::Full, 7);
    assert!(summary.files_resumed >= 3, "{summary:?}");
    assert!(summary.bytes_resumed > 4 << 20, "{summary:?}");
    assert!(!said.contains("does not prove"), "{said}");
    bench.assert_sound();
    bench.assert_restores(&summary, &bench.events());
}

/// The parent holds the beginning of a chunk that the node has completed since.
#[test]
fn a_diff_finishes_a_chunk_that_has_grown() {
    let bench = Bench::new(&large());
    bench.full().unwrap();
    bench.append(2_300_000);

    let (diff, said) = finish(&bench, BackupKind::Diff, 5);
    assert_eq!(diff.kind, BackupKind::Diff);
    assert!(
        said.contains("db/chunk-000003.000000: kbackup continues"),
        "{said}"
    );
    bench.assert_sound();
    bench.assert_restores(&diff, &bench.events());
}

/// What was begun is neither read from the node nor stored a second time.
#[test]
fn what_was_begun_is_not_read_from_the_node_again() {
    let bench = Bench::new(&large());
    begin(&bench);
    let [beginning] = &begun(&bench)[..] else {
        panic!("{:?}", begun(&bench));
    };
    let bytes = beginning.metadata().unwrap().len();
    assert!(bytes >= 1 << 20);

    let summary = bench.full().unwrap();
    assert!(summary.bytes_resumed >= bytes, "{}", bench.said());
    assert!(summary.bytes_read < bench.db_bytes() - summary.bytes_resumed + 40_000);
    bench.assert_sound();
    bench.assert_restores(&summary, &bench.events());
}

fn the_beginning_of_another_file_is_not_used() {
    let bench = Bench::new(&large());
    begin(&bench);
    assert!(bench.repository.interrupted().unwrap().is_some());
    let other = Bench::new(&Synthetic { seed: 8, ..large() });
    std::fs::remove_dir_all(&bench.db).unwrap();
    copy_tree(&other.db, &bench.db);

    let summary = bench.full().unwrap();
    assert_eq!(summary.bytes_resumed, 0, "{}", bench.said());
    assert!(!bench.said().contains("continues"), "{}", bench.said());
    assert_eq!(bench.repository.interrupted().unwrap(), None);
    bench.assert_sound();
    bench.assert_restores(&summary, &bench.events());
}

#[test]
fn a_flipped_byte_in_the_beginning_is_found() {
    for offset in [0, 700_000, (1 << 20) - 1] {
        let bench = Bench::new(&large());
        begin(&bench);
        let beginnings = begun(&bench);
        flip(&beginnings[0], offset);

        let summary = bench.full().unwrap();
        assert!(
            bench.said().contains("does not prove what"),
            "{}",
            bench.said()
        );
        assert!(summary.bytes_resumed < 1 << 20, "{summary:?}");
        bench.assert_sound();
        bench.assert_restores(&summary, &bench.events());
    }
}

/// kbackup writes to what it continues. So it must be a file of kbackup, under one name only.
#[test]
fn planted_links_are_not_continued() {
    let bench = Bench::new(&large());
    let full = bench.full().unwrap();
    let run = Path::new(&bench.repository.place())
        .join("incoming")
        .join(uuid::Uuid::now_v7().to_string());
    std::fs::create_dir_all(run.join("db")).unwrap();

    let planted = |number: u32| {
        let bytes = std::fs::read(bench.chunk(number, 0)).unwrap();
        let mut md5 = String::new();
        for byte in &bytes[bytes.len() - 16..] {
            md5.push_str(&format!("{byte:02x}"));
        }
        run.join(format!("db/.chunk-{number:06}.000000.{md5}.begun"))
    };
    let stored = bench.stored(&full).join("db/chunk-000000.000000");
    std::fs::hard_link(&stored, planted(0)).unwrap();
    symlink(bench.chunk(1, 0), planted(1)).unwrap();
    std::fs::create_dir(planted(2)).unwrap();

    let before = bench.db_bytes();
    let second = bench.full().unwrap();
    assert_eq!(second.bytes_resumed, 0);
    assert_eq!(bench.db_bytes(), before);
    assert_eq!(stored.metadata().unwrap().nlink(), 1);
    bench.assert_sound();
    bench.assert_restores(&second, &bench.events());
}
