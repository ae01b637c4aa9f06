//! Each recording replays, step by step, into the directory that an independent replay makes and that
//! the node left.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use kbackup_testnode::log::{self, Kind};
use kbackup_testnode::{Action, Checkpoint, Mark, Node, Phase, Recording, Speed};
use rustix::fs::FlockOperation;

/// An independent replay that works on bytes in memory only.
fn replay_in_memory(recording: &Recording) -> BTreeMap<String, Vec<u8>> {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for step in &recording.steps {
        match &step.action {
            Action::Create { path, truncate, .. } => {
                let file = files.entry(path.clone()).or_default();
                if *truncate {
                    file.clear();
                }
            }
            Action::Write {
                path,
                offset,
                length,
                data,
            } => {
                let file = files.get_mut(path).expect("written before it was created");
                let (start, length) = (*offset as usize, *length as usize);
                if file.len() < start + length {
                    file.resize(start + length, 0);
                }
                match data {
                    Some(data) => file[start..start + length]
                        .copy_from_slice(recording.bytes(*data, length as u64)),
                    None => file[start..start + length].fill(0),
                }
            }
            Action::Truncate { path, size } => {
                files.get_mut(path).unwrap().resize(*size as usize, 0)
            }
            Action::Rename { path, to } => {
                let file = files.remove(path).unwrap();
                files.insert(to.clone(), file);
            }
            Action::Copy {
                path,
                source_offset,
                to,
                offset,
                length,
            } => {
                let (from, length) = (*source_offset as usize, *length as usize);
                let bytes = files[path][from..from + length].to_vec();
                let file = files.get_mut(to).unwrap();
                let start = *offset as usize;
                if file.len() < start + length {
                    file.resize(start + length, 0);
                }
                file[start..start + length].copy_from_slice(&bytes);
            }
            Action::Unlink { path } => {
                files.remove(path).unwrap();
            }
            Action::Link { path, to } => {
                let file = files[path].clone();
                files.insert(to.clone(), file);
            }
            Action::Operator { path, value } => {
                files.get_mut(path).unwrap()[..8].copy_from_slice(&value.to_le_bytes());
            }
            _ => {}
        }
    }
    files
}

fn read_tree(root: &Path, prefix: &str, into: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(root).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type().unwrap().is_dir() {
            read_tree(&entry.path(), &format!("{name}/"), into);
        } else {
            into.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
}

fn prove_directory(db: &Path, name: &str) {
    let checkpoint =
        |file: &str| i64::from_le_bytes(std::fs::read(db.join(file)).unwrap().try_into().unwrap());
    let writer = checkpoint("writer.chk");
    assert!(checkpoint("chaser.chk") <= writer, "{name}");
    assert_eq!(checkpoint("truncate.chk"), -1, "{name}");

    let mut last = None;
    for chunk in log::chunks(db).unwrap() {
        if chunk.footer.is_some() {
            assert!(
                chunk.md5_is_right().unwrap(),
                "{name}: {}",
                chunk.path.display()
            );
        }
        for record in chunk.records(writer as u64).unwrap() {
            if let Some(last) = last {
                assert!(record.position > last, "{name}: positions go backwards");
            }
            last = Some(record.position);
        }
    }

    assert!(last.is_some_and(|last| last < writer as u64));
    let epochs = log::lineage(db, checkpoint("epoch.chk")).unwrap();
    assert_eq!(epochs.first().unwrap().position, 0, "{name}");

    let map = std::fs::read_to_string(db.join("index/indexmap")).unwrap();
    for line in map.lines().skip(4) {
        let table = line.split(',').nth(2).unwrap();
        assert!(
            log::md5_is_right(&db.join("index").join(table)).unwrap(),
            "{name}: {table}"
        );
    }
}

#[test]
fn every_recording_makes_the_directory_that_it_recorded() {
    for name in Recording::names().unwrap() {
        let recording = Recording::named(&name).unwrap();
        let wanted = replay_in_memory(&recording);

        let directory = tempfile::tempdir().unwrap();
        let node = Node::start(recording, directory.path()).unwrap();
        node.advance_to_end()
            .unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert_eq!(node.phase(), Phase::Down);

        let mut found = BTreeMap::new();
        read_tree(directory.path(), "", &mut found);
        assert_eq!(
            found.keys().collect::<Vec<_>>(),
            wanted.keys().collect::<Vec<_>>(),
            "{name}"
        );
        for (path, bytes) in &wanted {
            assert!(found[path] == *bytes, "{name}: {path} differs");
        }

        prove_directory(&node.db(), &name);
        assert_eq!(node.lock_conflicts(), Vec::<String>::new());
    }
}

#[test]
fn completed_chunks_and_tables_are_read_only() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(Recording::named("26.1-append").unwrap(), directory.path()).unwrap();
    let last = node.recording().find_mark(Mark::Stopped, 0).unwrap();
    // When the node stops, it makes tables writable again.
    node.advance_to(last - 60).unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;

    let chunks = log::chunks(&node.db()).unwrap();
    for chunk in &chunks {
        let wanted = if chunk.footer.is_some() { 0o444 } else { 0o644 };
        assert_eq!(mode(&chunk.path), wanted, "{}", chunk.path.display());
    }
    assert!(chunks.len() > 3);
}

#[test]
fn a_running_node_holds_its_locks_and_a_killed_one_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(Recording::named("26.1-kill").unwrap(), directory.path()).unwrap();
    let busy = |path: &Path| {
        let file = File::open(path).unwrap();
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err()
    };

    node.advance_to_mark(Mark::Ready).unwrap();
    let filter = node
        .index()
        .join("stream-existence/streamExistenceFilter.chk");
    for checkpoint in Checkpoint::ALL {
        assert!(busy(&node.db().join(checkpoint.file_name())));
    }
    assert!(busy(&filter));

    let before = node.instance_id();
    node.advance_to_mark(Mark::Killed).unwrap();
    assert_eq!(node.phase(), Phase::Down);
    for checkpoint in Checkpoint::ALL {
        assert!(!busy(&node.db().join(checkpoint.file_name())));
    }
    assert!(!busy(&filter));

    node.advance_to_mark(Mark::Ready).unwrap();
    assert!(busy(&node.db().join("writer.chk")));
    assert_ne!(node.instance_id(), before);
}

#[test]
fn a_node_that_truncates_exits_and_starts_again() {
    let recording = Recording::named("26.1-truncate").unwrap();
    let exits = |recording: &Recording| {
        recording
            .steps
            .iter()
            .filter(|step| matches!(step.action, Action::Mark { what: Mark::Exited }))
            .count()
    };
    assert_eq!(exits(&recording), 1);
    assert_eq!(exits(&Recording::named("24.10-truncate").unwrap()), 1);
    assert_eq!(exits(&Recording::named("23.10-truncate").unwrap()), 0);

    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(recording, directory.path()).unwrap();
    node.advance_to_mark(Mark::Exited).unwrap();
    assert_eq!(node.phase(), Phase::Down);
}

#[test]
fn every_value_of_a_checkpoint_is_known_before_the_replay() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(Recording::named("22.10-append").unwrap(), directory.path()).unwrap();
    let values = node.recording().values_of(Checkpoint::Writer);
    assert!(values.len() > 200);
    for (steps, value) in values.into_iter().step_by(37) {
        node.advance_to(steps).unwrap();
        assert_eq!(node.checkpoint(Checkpoint::Writer), Some(value));
    }
}

#[test]
fn acknowledged_events_lie_before_the_writer_checkpoint() {
    for name in ["20.10-append", "22.10-append", "26.1-append"] {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::start(Recording::named(name).unwrap(), directory.path()).unwrap();
        node.advance_to(node.len() * 2 / 3).unwrap();
        let writer = node.checkpoint(Checkpoint::Writer).unwrap() as u64;

        let mut events = std::collections::HashSet::new();
        for chunk in log::chunks(&node.db()).unwrap() {
            for record in chunk.records(writer).unwrap() {
                if let Kind::Prepare { event, .. } = record.kind {
                    events.insert(event);
                }
            }
        }

        let acked = node.acked();
        assert!(acked.len() > 100);
        for id in acked.iter().flat_map(|acked| &acked.ids) {
            assert!(events.contains(id), "{name}: {id}");
        }
    }
}

#[test]
fn the_background_thread_can_be_held_and_resumed() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(Recording::named("23.10-append").unwrap(), directory.path()).unwrap();
    node.hold_at(500);
    node.run(Speed::Fastest);
    node.wait_for_step(500, Duration::from_secs(20)).unwrap();
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(node.step(), 500);

    node.resume();
    node.wait_for_step(900, Duration::from_secs(20)).unwrap();
    node.hold();
    let held = node.step();
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(node.step(), held);

    node.resume();
    node.wait_for_end(Duration::from_secs(20)).unwrap();
}

#[test]
fn a_scavenge_waits_while_the_node_is_quiet() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(Recording::named("26.1-scavenge").unwrap(), directory.path()).unwrap();
    let first = node.recording().scavenges[0].clone();
    node.quiet(true);

    node.run(Speed::Fastest);
    node.wait_for_step(first.begin, Duration::from_secs(20))
        .unwrap();
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(node.step(), first.begin);
    assert_eq!(node.current_scavenge(), None);
    assert!(node.advance_to(first.begin + 1).is_err());

    node.hold_at(first.begin + 5);
    node.quiet(false);
    node.wait_for_step(first.begin + 5, Duration::from_secs(20))
        .unwrap();
    assert_eq!(node.current_scavenge(), Some(first.id));
}

#[test]
fn the_scavenges_of_every_recording_are_found() {
    for name in Recording::names().unwrap() {
        let recording = Recording::named(&name).unwrap();
        let wanted = match recording.scenario.as_str() {
            "scavenge" => 2,
            "scavenge-stopped" => 1,
            _ => 0,
        };
        assert_eq!(recording.scavenges.len(), wanted, "{name}");
        for scavenge in &recording.scavenges {
            assert!(scavenge.begin + 10 < scavenge.end, "{name}: {scavenge:?}");
            assert_eq!(scavenge.stopped, recording.scenario == "scavenge-stopped");
        }
    }
}

#[test]
fn a_lock_of_another_process_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(Recording::named("26.1-kill").unwrap(), directory.path()).unwrap();
    node.advance_to_mark(Mark::Killed).unwrap();
    let file = File::open(node.db().join("writer.chk")).unwrap();
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
    let releasing = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        drop(file);
    });

    node.advance_to_mark(Mark::Ready).unwrap();
    releasing.join().unwrap();
    assert_eq!(node.lock_conflicts(), ["db/writer.chk"]);
}

#[test]
fn the_writer_checkpoint_may_lie_inside_an_append_up_to_22_10() {
    // O38.
    for (name, some) in [
        ("21.10-append", true),
        ("22.10-append", true),
        ("23.10-append", false),
        ("26.1-append", false),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let recording = std::sync::Arc::new(Recording::named(name).unwrap());
        let steps = recording.steps_inside_appends(directory.path()).unwrap();
        assert_eq!(!steps.is_empty(), some, "{name}: {steps:?}");

        let again = tempfile::tempdir().unwrap();
        let node = Node::start(recording, again.path()).unwrap();
        for step in steps {
            node.advance_to(step).unwrap();
            let log = log::Log::read(&node.db()).unwrap();
            assert!(!log.ends_at_boundary());
            assert!(log.last_boundary() < log.writer);
        }
    }
}
