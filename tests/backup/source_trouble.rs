//! Backups of sources that are damaged, incomplete or unusual.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::time::Duration;

use kbackup::backup::BackupRequest;
use kbackup::error::{Error, Kind};
use kbackup::event::Step;
use kbackup::manifest::{BackupKind, Role, SecondaryIndex};
use kbackup::proof::{self, Depth, StartOutcome};
use kbackup::repository::Repository as _;
use kbackup::server::ServerLine;
use kbackup_testnode::log::Log;
use kbackup_testnode::{Checkpoint, Synthetic};
use uuid::Uuid;

use super::bench::{Bench, at, begin_scavenge, files, flip, name, scavenge_state, small, writable};
use crate::executable;
use crate::stores::{in_every_store, in_stores_with_copies};

in_every_store! {
    zeros_below_the_writer_checkpoint_are_reported_after_three_attempts,
    a_damaged_chunk_stays_marked_however_often_the_run_starts_over,
    a_bad_table_costs_the_index_and_is_not_read_again_and_again,
    a_filter_that_a_server_would_discard_is_left_out,
    a_missing_index_map_costs_the_index,
    a_table_that_the_index_map_does_not_name_is_never_copied,
    a_missing_chunk_of_a_stopped_node_is_damage_of_the_source,
    a_log_that_ends_with_a_chunk_needs_no_next_file,
    a_log_may_end_after_a_scavenged_chunk,
    a_chunk_that_a_follower_has_just_received_is_no_damage,
    chunks_beyond_the_log_are_dropped,
    a_chunk_that_is_cut_during_the_copy_is_copied_again,
    files_of_an_earlier_attempt_alone_are_not_in_the_backup,
    a_fresh_node_with_only_its_first_epoch_is_backed_up,
}

in_stores_with_copies! {
    a_missing_stored_file_is_read_from_the_node_again,
}

fn failed<T>(result: Result<T, Error>, kind: Kind, words: &str) {
    let error = result.err().unwrap();
    let text = format!("{error} {:?}", error.causes());

    assert_eq!(error.kind(), kind, "{text}");
    assert!(text.contains(words), "{text}");
}

fn zeros_below_the_writer_checkpoint_are_reported_after_three_attempts() {
    let bench = Bench::new(&small());
    let writer = u64::try_from(bench.get(Checkpoint::Writer)).unwrap();
    let local = writer % (64 * 1024);
    writable(&bench.chunk(5, 0), |file| {
        std::os::unix::fs::FileExt::write_all_at(file, &[0; 1000], 128 + local - 2000).unwrap();
    });

    failed(
        bench.take(),
        Kind::SourceCorrupt,
        "the log is damaged at position",
    );

    assert_eq!(
        bench.said().matches("retry: ").count(),
        2,
        "{}",
        bench.said()
    );
    assert!(bench.manifests().is_empty());
}

fn a_damaged_chunk_stays_marked_however_often_the_run_starts_over() {
    let bench = Bench::new(&small());
    let events = bench.events();

    let good = bench.take().unwrap();
    flip(&bench.chunk(2, 0), 9_000);

    // The repository holds this chunk already, so a diff does not read it.
    assert_eq!(bench.take().unwrap().kind, BackupKind::Diff);
    failed(bench.full(), Kind::SourceCorrupt, "fails its own MD5");

    let accept = BackupRequest {
        accept_damaged: true,
        kind: BackupKind::Full,
        filter_max_age: Duration::ZERO,
        ..bench.request.clone()
    };

    let live = bench.serve();

    // A scavenge disturbs the first attempt. The second attempt finds the damaged chunk in the
    // backup that it resumes.
    let node = live.node.clone();
    let damaged = bench
        .live_as(
            &live,
            &accept,
            None,
            at(Step::Checkpoints, 1, move || begin_scavenge(&node)),
        )
        .unwrap();
    assert_eq!(damaged.retries, 1, "{}", bench.said());
    let manifest = bench.manifest(&damaged);
    assert_eq!(
        manifest
            .contents
            .damaged
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["db/chunk-000002.000000"]
    );
    assert!(!manifest.is_sound());

    // A damaged backup is never a parent.
    live.stop(&bench);
    let next = bench.take().unwrap();
    assert_ne!(next.parent, Some(damaged.label.clone()));
    bench.assert_restores(&good, &events);
}

fn a_bad_table_costs_the_index_and_is_not_read_again_and_again() {
    let bench = Bench::new(&small());
    let table = bench.tables().remove(0);
    flip(&table, table.metadata().unwrap().len() / 2);

    let summary = bench.take().unwrap();
    assert!(!summary.index);

    assert!(
        bench.said().contains("carries no index"),
        "{}",
        bench.said()
    );
    let manifest = bench.manifest(&summary);
    assert!(
        !manifest
            .files
            .iter()
            .any(|row| matches!(row.role, Role::Table | Role::IndexMap | Role::TableFilter))
    );

    let everything = bench.db_bytes();
    assert!(
        summary.bytes_read < everything + 3 * table.metadata().unwrap().len() + 200_000,
        "{} of {everything}",
        summary.bytes_read
    );

    bench.assert_restores(&summary, &bench.events());
    bench.assert_sound();
}

fn a_filter_that_a_server_would_discard_is_left_out() {
    let bench = Bench::new(&small());
    let table_filter = files(&bench.index())
        .into_iter()
        .find(|path| name(path).ends_with(".bloomfilter"));
    let existence = bench.index().join("stream-existence");

    for length in [0, 7, 9, 100] {
        std::fs::write(existence.join("streamExistenceFilter.chk"), vec![0; length]).unwrap();
        let summary = bench.full().unwrap();
        assert!(
            bench
                .said()
                .contains("leaves the stream-existence filter out"),
            "{}",
            bench.said()
        );
        assert!(
            !bench
                .manifest(&summary)
                .files
                .iter()
                .any(|row| matches!(row.role, Role::StreamFilter | Role::StreamFilterCheckpoint))
        );
    }

    std::fs::write(
        existence.join("streamExistenceFilter.chk"),
        u64::MAX.to_le_bytes(),
    )
    .unwrap();
    std::fs::write(existence.join("streamExistenceFilter.dat"), b"not a filter").unwrap();
    if let Some(path) = table_filter {
        writable(&path, |file| file.set_len(10).unwrap());
    }

    let summary = bench.full().unwrap();
    assert!(summary.index);
    bench.assert_restores(&summary, &bench.events());
    bench.assert_sound();
}

fn a_missing_index_map_costs_the_index() {
    let bench = Bench::new(&small());
    std::fs::remove_file(bench.index().join("indexmap")).unwrap();
    let summary = bench.take().unwrap();
    assert!(!summary.index);

    std::fs::remove_dir_all(bench.index()).unwrap();
    let summary = bench.full().unwrap();
    assert!(!summary.index, "there is none to carry");
    bench.assert_restores(&summary, &bench.events());
    bench.assert_sound();
}

#[test]
fn an_index_map_that_is_replaced_all_the_time_fails_no_backup() {
    let bench = Bench::new(&small());
    let live = bench.serve();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (map, next) = (
        bench.index().join("indexmap"),
        bench.index().join("indexmap.x.indexmap.tmp"),
    );

    let bytes = std::fs::read(&map).unwrap();
    std::thread::scope(|scope| {
        let stopped = std::sync::Arc::clone(&stop);
        let map = &map;
        scope.spawn(move || {
            while !stopped.load(std::sync::atomic::Ordering::SeqCst) {
                std::fs::write(&next, &bytes).unwrap();
                std::fs::remove_file(map).unwrap();
                std::fs::rename(&next, map).unwrap();
            }
        });
        for _ in 0..15 {
            bench
                .live(&live, |_| ())
                .unwrap_or_else(|error| panic!("{error} {:?} {}", error.causes(), bench.said()));
        }
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
    });

    bench.assert_sound();
}

fn a_table_that_the_index_map_does_not_name_is_never_copied() {
    let bench = Bench::new(&small());
    let table = bench.tables().remove(0);
    let stranger = bench.index().join(Uuid::from_u128(77).to_string());
    std::fs::copy(&table, &stranger).unwrap();
    writable(&stranger, |file| file.set_len(1000).unwrap());

    let summary = bench.take().unwrap();
    assert!(
        !bench
            .manifest(&summary)
            .files
            .iter()
            .any(|row| row.path.file_name() == name(&stranger))
    );
    bench.assert_sound();
}

#[test]
fn odd_entries_in_the_directories_do_no_harm() {
    let bench = Bench::new(&small());
    let before = bench.events();
    for directory in [bench.db.clone(), bench.index()] {
        std::fs::write(
            directory.join(std::ffi::OsStr::from_bytes(b"chunk-\xff\xfe.000000")),
            b"x",
        )
        .unwrap();
        symlink("/etc/passwd", directory.join("a link")).unwrap();
        symlink("nowhere", directory.join("chunk-000099.000000")).unwrap();
        let _listener =
            std::os::unix::net::UnixListener::bind(directory.join("other.sock")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            directory.join("chunk-000098.000000"),
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        )
        .unwrap();
        std::fs::create_dir(directory.join("chunk-000097.000000")).unwrap();
        std::fs::create_dir(directory.join("lost+found")).unwrap();
        std::fs::write(directory.join("chunk-000001.000000.archive.bkup"), b"x").unwrap();
        std::fs::write(directory.join("chunk-000006.000000.0f.tmp"), b"x").unwrap();
    }

    let summary = bench.take().unwrap();
    bench.assert_restores(&summary, &before);
    bench.assert_sound();
}

fn a_missing_chunk_of_a_stopped_node_is_damage_of_the_source() {
    let bench = Bench::new(&small());
    std::fs::rename(bench.chunk(2, 0), bench.path("elsewhere")).unwrap();
    failed(bench.take(), Kind::SourceCorrupt, "chunk 2 is missing");

    symlink(bench.path("elsewhere"), bench.chunk(2, 0)).unwrap();
    let error = bench.take().unwrap_err();
    assert!(
        error.hints().iter().any(|hint| hint.contains("links")),
        "{error:?}"
    );

    std::fs::remove_file(bench.chunk(2, 0)).unwrap();
    let live = bench.serve();
    failed(
        bench.live(&live, |_| ()),
        Kind::Unstable,
        "chunk 2 is missing",
    );

    // The chunk returns between two attempts.
    let (from, to) = (bench.path("elsewhere"), bench.chunk(2, 0));
    let summary = bench
        .live(
            &live,
            at(Step::Index, 2, move || std::fs::rename(from, to).unwrap()),
        )
        .unwrap();
    assert_eq!(summary.retries, 1);
    bench.assert_sound();
}

#[test]
fn a_log_without_its_beginning_is_refused() {
    let bench = Bench::new(&small());
    std::fs::remove_file(bench.chunk(0, 0)).unwrap();
    failed(bench.take(), Kind::Refused, "chunks 0 to 0 are not here");
}

#[test]
fn an_encrypted_chunk_and_a_wrong_chunk_size_are_refused() {
    let bench = Bench::new(&small());
    writable(&bench.chunk(1, 0), |file| {
        std::os::unix::fs::FileExt::write_all_at(file, &[1], 35).unwrap();
    });

    failed(bench.take(), Kind::Refused, "encrypted");

    writable(&bench.chunk(1, 0), |file| {
        std::os::unix::fs::FileExt::write_all_at(file, &[0], 35).unwrap();
        std::os::unix::fs::FileExt::write_all_at(file, &(128 * 1024_u32).to_le_bytes(), 2).unwrap();
    });
    failed(bench.take(), Kind::SourceCorrupt, "chunk size");
}

#[test]
fn a_pending_truncation_is_waited_for_or_refused() {
    let bench = Bench::new(&small());
    bench.set(Checkpoint::Truncate, 70_000);
    failed(
        bench.take(),
        Kind::Refused,
        "truncation to 70000 is pending",
    );
    let live = bench.serve();
    failed(
        bench.live(&live, |_| ()),
        Kind::Unstable,
        "truncation to 70000 is pending",
    );
    bench.set(Checkpoint::Truncate, u64::MAX);

    // Another truncation comes while the chunks are copied.
    let truncate = bench.db.join("truncate.chk");
    failed(
        bench.live(
            &live,
            at(Step::Chunks, 1, move || {
                std::fs::write(truncate, 70_000_u64.to_le_bytes()).unwrap();
            }),
        ),
        Kind::Unstable,
        "truncation to 70000 is pending",
    );
    assert!(bench.manifests().is_empty());
}

#[test]
fn checkpoints_that_no_server_writes_are_named() {
    let bench = Bench::new(&small());
    for checkpoint in Checkpoint::ALL {
        let path = bench.db.join(checkpoint.file_name());
        let good = std::fs::read(&path).unwrap();
        for length in [0, 7, 9, 100, 10_000] {
            std::fs::write(&path, vec![0; length]).unwrap();
            let error = bench.take().unwrap_err();
            assert_eq!(
                error.kind(),
                Kind::SourceCorrupt,
                "{checkpoint:?} {length}: {error} {:?}",
                error.causes()
            );
            assert!(
                format!("{error}").contains(checkpoint.file_name()),
                "{error}"
            );
        }
        std::fs::write(&path, good).unwrap();
    }

    let writer = u64::try_from(bench.get(Checkpoint::Writer)).unwrap();
    bench.set(Checkpoint::Chaser, writer + 1);
    failed(bench.take(), Kind::SourceCorrupt, "is beyond writer.chk");
    bench.set(Checkpoint::Chaser, writer);
    bench.set(Checkpoint::Epoch, 1234);
    failed(bench.take(), Kind::SourceCorrupt, "");
    for gone in [
        Checkpoint::Epoch,
        Checkpoint::Proposal,
        Checkpoint::Truncate,
    ] {
        std::fs::remove_file(bench.db.join(gone.file_name())).unwrap();
    }

    let summary = bench.take().unwrap();
    bench.assert_restores(&summary, &bench.events());
    bench.assert_sound();
}

#[test]
fn a_chaser_behind_the_writer_loses_no_event() {
    let bench = Bench::new(&small());
    bench.set(Checkpoint::Chaser, 1000);
    let summary = bench.take().unwrap();
    bench.assert_restores(&summary, &bench.events());
}

fn a_log_that_ends_with_a_chunk_needs_no_next_file() {
    let bench = Bench::new(&Synthetic {
        active_bytes: 0,
        ..small()
    });

    let events = bench.events();
    let with = bench.take().unwrap();
    bench.assert_restores(&with, &events);

    std::fs::remove_file(bench.chunk(5, 0)).unwrap();
    let without = bench.take().unwrap();
    assert_eq!(without.position, with.position);
    bench.assert_restores(&without, &events);
    bench.assert_sound();
}

fn a_log_may_end_after_a_scavenged_chunk() {
    let bench = Bench::new(&Synthetic {
        active_bytes: 0,
        completed_chunks: 4,
        merged_chunks: 3,

        ..small()
    });
    for chunk in [3, 4] {
        std::fs::remove_file(bench.chunk(chunk, 0)).unwrap();
    }
    for checkpoint in [Checkpoint::Writer, Checkpoint::Chaser] {
        bench.set(checkpoint, 3 * 64 * 1024);
    }
    std::fs::remove_dir_all(bench.index()).unwrap();

    let summary = bench.take().unwrap();
    assert_eq!(summary.position.get(), 3 * 64 * 1024);
    bench.assert_restores(&summary, &bench.events());
    bench.assert_sound();

    // No server starts from a writer checkpoint inside this chunk.
    bench.set(Checkpoint::Chaser, 100_000);
    bench.set(Checkpoint::Writer, 100_000);
    failed(bench.full(), Kind::SourceCorrupt, "has been scavenged");
}

/// Turns the file of a completed chunk into a scavenged one that has lost nothing, as a leader sends
/// it to a follower. Returns the number of bytes of its records.
fn scavenge(bench: &Bench, number: u32) -> u64 {
    let old = bench.chunk(number, 0);
    let bytes = std::fs::read(&old).unwrap();
    let size = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let physical = size(bytes.len() - 127);
    let data = &bytes[128..128 + usize::try_from(physical).unwrap()];

    let mut map = Vec::new();
    let mut at = 0;
    while at < physical {
        map.extend(at.to_le_bytes());
        map.extend(u64::from(at).to_le_bytes());
        at += size(128 + usize::try_from(at).unwrap()) + 8;
    }

    let mut scavenged = bytes[..128].to_vec();
    scavenged[14] = 1;
    scavenged.extend_from_slice(data);
    scavenged.extend_from_slice(&map);
    scavenged.resize((scavenged.len() + 128).next_multiple_of(4096) - 128, 0);
    scavenged.push(3);
    scavenged.extend(physical.to_le_bytes());
    scavenged.extend(u64::from(physical).to_le_bytes());
    scavenged.extend(u32::try_from(map.len()).unwrap().to_le_bytes());
    scavenged.resize(scavenged.len().next_multiple_of(4096) - 16, 0);
    let md5 = <md5::Md5 as md5::Digest>::digest(&scavenged);
    scavenged.extend_from_slice(&md5);

    std::fs::remove_file(old).unwrap();
    std::fs::write(bench.chunk(number, 1), scavenged).unwrap();
    u64::from(physical)
}

/// What a server of this line would do with the node's directory.
fn start_of(bench: &Bench, line: ServerLine) -> StartOutcome {
    let options = proof::ExamineOptions {
        version: Some(line),
        depth: Depth::Deep,
        in_use: false,
    };
    let directories = kbackup::manifest::Directories::new(&bench.db, None);
    let run = kbackup::run::Run::new(kbackup::event::Silent);
    let examination = proof::examine(&directories, &options, &run).unwrap();
    examination.versions[0].outcome
}

/// A follower gets a scavenged chunk as a whole. It puts the file in its place, and moves its writer
/// checkpoint over the chunk only after that (disk-format §6.7).
fn a_chunk_that_a_follower_has_just_received_is_no_damage() {
    let bench = Bench::new(&small());
    std::fs::remove_dir_all(bench.index()).unwrap();
    std::fs::remove_file(bench.chunk(5, 0)).unwrap();
    let records = scavenge(&bench, 4);
    let begin = 4 * 64 * 1024;
    for checkpoint in [Checkpoint::Chaser, Checkpoint::Writer] {
        bench.set(checkpoint, begin + records);
    }

    let mut log = Log::read(&bench.db).unwrap();
    let all: HashSet<Uuid> = log.event_ids().collect();
    log.records.retain(|record| record.end <= begin);
    let before: HashSet<Uuid> = log.event_ids().collect();

    // The writer checkpoint still stands where the chunk begins. The backup ends there, so servers
    // of every line start from it.
    for checkpoint in [Checkpoint::Writer, Checkpoint::Chaser] {
        bench.set(checkpoint, begin);
    }
    assert_eq!(start_of(&bench, ServerLine::V26_1), StartOutcome::Starts);
    assert_eq!(start_of(&bench, ServerLine::V23_10), StartOutcome::Refuses);
    let summary = bench.take().unwrap();
    assert_eq!(summary.position.get(), begin);
    bench.assert_restores(&summary, &before);

    // Before 24.6 servers expected it at the end of the chunk's records, and moved it to the end of
    // the chunk.
    for checkpoint in [Checkpoint::Writer, Checkpoint::Chaser] {
        bench.set(checkpoint, begin + records);
    }
    assert_eq!(start_of(&bench, ServerLine::V26_1), StartOutcome::Refuses);
    assert_eq!(start_of(&bench, ServerLine::V23_10), StartOutcome::Starts);
    let summary = bench.take().unwrap();
    assert_eq!(summary.position.get(), 5 * 64 * 1024);
    bench.assert_restores(&summary, &all);

    // No server accepts any other place in the chunk.
    bench.set(Checkpoint::Chaser, begin + 1000);
    bench.set(Checkpoint::Writer, begin + 1000);
    for line in [ServerLine::V23_10, ServerLine::V26_1] {
        assert_eq!(start_of(&bench, line), StartOutcome::Refuses);
    }
    failed(bench.take(), Kind::SourceCorrupt, "has been scavenged");
    bench.assert_sound();
}

/// Some file systems have reported data as holes that was not on the disk yet. Reading gives the
/// data all the same.
#[test]
fn data_that_the_file_system_reports_as_holes_is_copied() {
    let bench = Bench::of("26.1-scavenge");
    let repository = bench.path("other");

    // ENXIO: no data from here to the end of the file.
    let output = executable::kbackup_with_fault("seek::1:6")
        .args(["full", "--offline", "--new-repository"])
        .args(["--db", executable::argument(&bench.db)])
        .args(["--repo", executable::argument(&repository)])
        .output()
        .unwrap();
    let said = executable::stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");

    let repository = kbackup::repository::DirectoryRepository::open(&repository).unwrap();
    let label = repository.list().unwrap()[0].label.clone();
    let mut compared = 0;
    for row in repository.manifest(&label).unwrap().files {
        if matches!(row.role, Role::Checkpoint | Role::StreamFilterCheckpoint) {
            continue;
        }
        let stored = repository.open(&label, &row).unwrap();
        let mut bytes = vec![0; usize::try_from(row.size).unwrap()];
        stored.read_exact_at(0, &mut bytes).unwrap();

        let mut wanted = std::fs::read(row.path.under(bench.db.parent().unwrap()));
        if row.path.root() == kbackup::manifest::Root::Index {
            wanted = std::fs::read(bench.index().join(row.path.below_root()));
        }
        let is_active = row.chunk.is_some_and(|chunk| chunk.md5.is_none());
        assert!(is_active || bytes == wanted.unwrap(), "{}", row.path);
        compared += 1;
    }
    assert!(compared > 10, "{compared}");
}

fn chunks_beyond_the_log_are_dropped() {
    let bench = Bench::new(&small());
    let events = bench.events();
    std::fs::copy(bench.chunk(5, 0), bench.chunk(6, 0)).unwrap();
    writable(&bench.chunk(6, 0), |file| {
        for offset in [6, 10] {
            std::os::unix::fs::FileExt::write_all_at(file, &6_u32.to_le_bytes(), offset).unwrap();
        }
    });

    let summary = bench.take().unwrap();
    assert!(
        !bench
            .manifest(&summary)
            .files
            .iter()
            .any(|row| row.path.file_name() == "chunk-000006.000000")
    );

    bench.assert_restores(&summary, &events);
}

#[test]
fn an_unreadable_table_filter_costs_only_the_index() {
    let bench = Bench::new(&small());
    let filter = bench.tables()[0].with_extension("bloomfilter");
    let elsewhere = bench.path("filter");
    std::fs::rename(&filter, &elsewhere).unwrap();
    symlink(&elsewhere, &filter).unwrap();

    let summary = bench.take().unwrap();
    assert!(
        !summary.index && bench.said().contains("carries no index"),
        "{}",
        bench.said()
    );

    bench.assert_sound();
    bench.assert_restores(&summary, &bench.events());
}

fn a_chunk_that_is_cut_during_the_copy_is_copied_again() {
    let bench = Bench::new(&small());
    let live = bench.serve();

    // Between the listing and the copy, the chunk becomes shorter. Then it is whole again.
    let (chunk, other) = (bench.chunk(5, 0), bench.path("whole"));

    std::fs::copy(&chunk, &other).unwrap();
    let shorter = chunk.clone();
    let cut = at(Step::Chunks, 1, move || {
        std::fs::OpenOptions::new()
            .write(true)
            .open(shorter)
            .unwrap()
            .set_len(20_000)
            .unwrap();
    });
    let repair = at(Step::Index, 2, {
        let chunk = chunk.clone();
        move || assert!(std::fs::copy(other, chunk).is_ok())
    });

    let summary = bench
        .live(&live, move |event| {
            cut(event);
            repair(event);
        })
        .unwrap();

    assert_eq!(summary.retries, 1, "{}", bench.said());
    bench.assert_restores(&summary, &bench.events());
    bench.assert_sound();
}

fn files_of_an_earlier_attempt_alone_are_not_in_the_backup() {
    let bench = Bench::new(&Synthetic {
        merged_chunks: 0,
        ..small()
    });
    let live = bench.serve();

    // A newer version of the last completed chunk exists in the first attempt, but not in the
    // second. A scavenge disturbs the first attempt.
    let (old, new) = (bench.chunk(4, 0), bench.chunk(4, 1));

    std::fs::copy(&old, &new).unwrap();
    let node = live.node.clone();
    let away = at(Step::Prove, 1, move || {
        std::fs::remove_file(&new).unwrap();
        begin_scavenge(&node);
    });

    let summary = bench.live(&live, away).unwrap();
    assert_eq!(summary.retries, 1);

    let names: Vec<String> = bench
        .manifest(&summary)
        .files
        .iter()
        .map(|row| row.path.to_string())
        .collect();
    assert!(
        names.contains(&"db/chunk-000004.000000".to_owned())
            && !names.contains(&"db/chunk-000004.000001".to_owned()),
        "{names:?}"
    );

    bench.assert_restores(&summary, &bench.events());
    bench.assert_sound();
}

#[test]
fn only_a_closed_scavenge_state_is_copied() {
    let bench = Bench::new(&small());
    let directory = bench.index().join("scavenging");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("scavenging.db"), scavenge_state(&[])).unwrap();
    let has = |summary: &kbackup::backup::BackupSummary| {
        bench
            .manifest(summary)
            .files
            .iter()
            .any(|row| row.role == Role::ScavengeState)
    };

    for journal in ["-wal", "-journal", "-shm"] {
        let path = directory.join(format!("scavenging.db{journal}"));
        std::fs::write(&path, b"").unwrap();
        assert!(!has(&bench.take().unwrap()), "{journal}");
        std::fs::remove_file(path).unwrap();
    }

    assert!(has(&bench.take().unwrap()));
    let second = bench.take().unwrap();
    assert!(
        has(&second) && second.bytes_read < 80_000,
        "{}",
        second.bytes_read
    );
}

#[test]
fn the_secondary_index_of_a_running_node_is_left_out() {
    let bench = Bench::of("26.1-append");
    std::fs::write(bench.db.join("kurrent.ddb.wal"), vec![4; 100]).unwrap();

    let offline = bench.manifest(&bench.take().unwrap());
    assert_eq!(offline.contents.secondary_index, SecondaryIndex::Included);
    assert_eq!(
        offline
            .files
            .iter()
            .filter(|row| row.role == Role::SecondaryIndex)
            .count(),
        2
    );

    let live = bench.serve();
    let online = bench.manifest(&bench.live(&live, |_| ()).unwrap());
    assert_eq!(online.contents.secondary_index, SecondaryIndex::LeftOut);
    assert!(
        !online
            .files
            .iter()
            .any(|row| row.role == Role::SecondaryIndex)
    );
}

#[test]
fn real_directories_of_every_version_are_backed_up_whole() {
    for version in ["20.10", "21.10", "22.10", "23.10", "24.10", "26.1"] {
        for scenario in ["append", "scavenge", "truncate", "killed"] {
            let name = format!("{version}-{scenario}");
            if !kbackup_testnode::fixtures()
                .join("directories")
                .join(format!("{name}.json"))
                .exists()
            {
                continue;
            }

            let bench = Bench::of(&name);
            let summary = bench
                .take()
                .unwrap_or_else(|error| panic!("{name}: {error} {:?}", error.causes()));
            bench.assert_restores(&summary, &bench.events());

            let again = bench.take().unwrap();
            assert_eq!(again.position, summary.position);
            bench.assert_sound();
        }
    }
}

#[test]
fn a_node_that_died_inside_an_append_is_backed_up_until_before_it() {
    let recording =
        std::sync::Arc::new(kbackup_testnode::Recording::named("22.10-append").unwrap());
    let scratch = super::bench::workplace();
    let begin = recording
        .find_mark(kbackup_testnode::Mark::Ready, 0)
        .unwrap();
    let mut cuts = 0;
    let mut inside = recording.steps_inside_appends(scratch.path()).unwrap();
    inside.retain(|step| *step > begin);
    for step in inside.into_iter().step_by(3) {
        let bench = Bench::of("22.10-append");
        std::fs::remove_dir_all(&bench.db).unwrap();
        let replayed = super::bench::workplace();
        let node = kbackup_testnode::Node::start(
            std::sync::Arc::clone(&recording),
            replayed.path().join("node"),
        )
        .unwrap();
        node.advance_to(step).unwrap();
        super::bench::copy_tree(&node.db(), &bench.db);

        let events = bench.events();
        let writer = u64::try_from(bench.get(Checkpoint::Writer)).unwrap();
        for _ in 0..2 {
            let summary = bench
                .take()
                .unwrap_or_else(|error| panic!("step {step}: {error} {:?}", error.causes()));
            if summary.position.get() / (256 * 1024) != writer / (256 * 1024) {
                cuts += 1;
                let last = bench
                    .manifest(&summary)
                    .files
                    .into_iter()
                    .rfind(|row| row.role == Role::Chunk)
                    .unwrap();
                assert_eq!(
                    (last.size, last.mode & 0o200),
                    (256 * 1024 + 4096, 0o200),
                    "step {step}"
                );
                assert_eq!(
                    u64::from(last.chunk.unwrap().end.0),
                    summary.position.get() / (256 * 1024)
                );
            }
            bench.assert_restores(&summary, &events);
        }

        bench.assert_sound();
    }

    assert!(cuts > 0, "no step of O38 was tested");
}

fn a_fresh_node_with_only_its_first_epoch_is_backed_up() {
    let bench = Bench::new(&small());

    for chunk in 1..=5 {
        std::fs::remove_file(bench.chunk(chunk, 0)).unwrap();
    }
    std::fs::remove_dir_all(bench.index()).unwrap();

    // The log holds the epoch record, but not the event about it. Before the epoch, the log is
    // empty.
    let bytes = std::fs::read(bench.chunk(0, 0)).unwrap();
    let epoch = 8 + u64::from(u32::from_le_bytes(bytes[128..132].try_into().unwrap()));
    std::fs::remove_file(bench.chunk(0, 0)).unwrap();
    let mut fresh = vec![0; 64 * 1024 + 4096];
    fresh[..usize::try_from(128 + epoch).unwrap()]
        .copy_from_slice(&bytes[..usize::try_from(128 + epoch).unwrap()]);
    std::fs::write(bench.chunk(0, 0), fresh).unwrap();

    for checkpoint in [Checkpoint::Writer, Checkpoint::Chaser] {
        bench.set(checkpoint, epoch);
    }
    let summary = bench
        .take()
        .unwrap_or_else(|error| panic!("{error} {:?}", error.causes()));
    assert_eq!(summary.position.get(), 0);
    bench.assert_sound();

    let restored = bench.restore(&summary, "restored", true);

    let options = proof::ExamineOptions {
        version: Some(ServerLine::V26_1),
        depth: Depth::Deep,
        in_use: false,
    };

    let directories = kbackup::manifest::Directories::new(&restored, None);
    let examination = proof::examine(
        &directories,
        &options,
        &kbackup::run::Run::new(kbackup::event::Silent),
    )
    .unwrap();

    assert_eq!(examination.kind(), None, "{:#?}", examination.findings);

    // The node goes on.
    bench.append(20_000);
    assert_eq!(bench.take().unwrap().kind, BackupKind::Diff);
    bench.assert_sound();
}

fn a_missing_stored_file_is_read_from_the_node_again() {
    let bench = Bench::new(&small());
    let first = bench.take().unwrap();
    let table = format!("index/{}", name(&bench.tables()[0]));
    let lost = [
        "db/chunk-000001.000000",
        "db/chunk-000005.000000",
        "index/stream-existence/streamExistenceFilter.dat",
        &table,
    ];

    // A store of blobs keeps equal files once, and so loses them together.
    let copy_of = |path: &str| bench.repository.copy_id(&first.label, path);
    let copies = lost.map(copy_of);
    let mut are_gone = 0;
    for row in &bench.manifest(&first).files {
        are_gone += usize::from(copies.contains(&copy_of(&row.path.to_string())));
    }
    for path in lost {
        bench.repository.lose(&first.label, &path.parse().unwrap());
    }

    let second = bench
        .take()
        .unwrap_or_else(|error| panic!("{error} {:?}", error.causes()));
    assert_eq!(second.kind, BackupKind::Diff);
    assert_eq!(
        bench.said().matches("reads it from the node again").count(),
        are_gone,
        "{}",
        bench.said()
    );

    bench.assert_restores(&second, &bench.events());
}
