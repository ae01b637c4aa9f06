//! Synthetic directories follow the same rules as the real ones.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use kbackup_testnode::index::{self, Entry};
use kbackup_testnode::log::{self, Kind, Record};
use kbackup_testnode::{Checkpoint, Mark, Node, Recording, Synthetic, Version};

/// Reads a directory's whole log and index, and proves everything about them that can be proven.
fn prove(db: &Path, writer: u64) -> Vec<Record> {
    let chunks = log::chunks(db).unwrap();
    let mut records: Vec<Record> = Vec::new();
    let mut next_chunk = 0;
    for (number, chunk) in chunks.iter().enumerate() {
        assert_eq!(chunk.header.start, next_chunk);
        next_chunk = chunk.header.end + 1;
        let size = u64::from(chunk.header.chunk_size);
        if number + 1 < chunks.len() {
            let footer = chunk.footer.expect("completed");
            assert_eq!(
                chunk.length,
                log::align(256 + u64::from(footer.physical) + u64::from(footer.map))
            );
            assert!(chunk.md5_is_right().unwrap(), "{}", chunk.path.display());
        } else {
            assert_eq!(chunk.length, log::align(256 + size));
        }
        records.extend(chunk.records(writer).unwrap());
    }
    assert_eq!(records.last().unwrap().end, writer);
    assert!(
        records
            .windows(2)
            .all(|pair| pair[0].end <= pair[1].position)
    );
    assert!(records.last().unwrap().is_boundary());

    let mut places: HashMap<u64, Entry> = HashMap::new();
    for record in &records {
        if let Kind::Prepare { stream, number, .. } = &record.kind {
            let entry = Entry {
                hash: index::stream_hash(stream),
                number: *number,
                position: record.position as i64,
            };
            places.insert(record.position, entry);
        }
    }

    let map = std::fs::read_to_string(db.join("index/indexmap")).unwrap();
    let lines: Vec<&str> = map.lines().collect();
    let commit: u64 = lines[2].split('/').nth(1).unwrap().parse().unwrap();
    assert!(commit < writer);

    let mut listed = HashSet::new();
    for line in &lines[4..] {
        let name = line.split(',').nth(2).unwrap();
        let path = db.join("index").join(name);
        assert!(log::md5_is_right(&path).unwrap());
        let entries = index::read_table(&path).unwrap();
        assert!(
            entries.windows(2).all(|pair| pair[0] >= pair[1]),
            "{name} is not sorted"
        );
        for entry in entries {
            assert_eq!(places.get(&(entry.position as u64)), Some(&entry));
            assert!(listed.insert(entry.position));
        }
    }

    let wanted = places
        .keys()
        .filter(|position| **position <= commit)
        .count();
    assert_eq!(
        listed.len(),
        wanted,
        "every event up to the commit checkpoint is in a table"
    );
    records
}

fn small() -> Synthetic {
    Synthetic {
        chunk_size: 1 << 20,
        completed_chunks: 3,
        active_bytes: 300_000,
        event_bytes: 1000,
        streams: 20,
        table_entries: 700,
        filter_bytes: 10_000,
        ..Synthetic::default()
    }
}

#[test]
fn stream_hashes_are_those_of_real_tables() {
    for name in ["20.10-append", "26.1-append"] {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::start(Recording::named(name).unwrap(), directory.path()).unwrap();
        node.advance_to_mark(Mark::Stopped).unwrap();

        let writer = node.checkpoint(Checkpoint::Writer).unwrap() as u64;
        let records = prove(&node.db(), writer);
        let streams: HashSet<&String> = records
            .iter()
            .filter_map(|record| match &record.kind {
                Kind::Prepare { stream, .. } => Some(stream),
                _ => None,
            })
            .collect();
        assert!(streams.len() > 5, "{streams:?}");
    }
}

#[test]
fn an_indexmap_looks_like_the_nodes() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(Recording::named("26.1-append").unwrap(), directory.path()).unwrap();
    node.advance_to_end().unwrap();
    let real = std::fs::read_to_string(node.index().join("indexmap")).unwrap();
    let lines: Vec<&str> = real.lines().collect();
    let (prepare, commit) = lines[2].split_once('/').unwrap();
    let mut tables: Vec<(u32, u32, String)> = Vec::new();
    for line in &lines[4..] {
        let parts: Vec<&str> = line.split(',').collect();
        let (level, number) = (parts[0].parse().unwrap(), parts[1].parse().unwrap());
        tables.push((level, number, parts[2].to_owned()));
    }
    assert_eq!(
        index::indexmap(prepare.parse().unwrap(), commit.parse().unwrap(), &tables),
        real
    );
}

#[test]
fn a_synthetic_directory_is_valid() {
    let directory = tempfile::tempdir().unwrap();
    let made = small().make(directory.path()).unwrap();
    let records = prove(&made.db, made.writer);
    assert_eq!(records.len() as u64, made.events + 1);
    assert!(made.indexed > made.events / 2);

    let epochs = log::lineage(&made.db, 0).unwrap();
    assert_eq!(epochs.len(), 1);
    let filter = made
        .index
        .join("stream-existence/streamExistenceFilter.dat");
    assert_eq!(std::fs::metadata(filter).unwrap().len(), 10_752);
}

#[test]
fn a_merged_chunk_has_its_map() {
    let directory = tempfile::tempdir().unwrap();
    let made = Synthetic {
        merged_chunks: 2,
        ..small()
    }
    .make(directory.path())
    .unwrap();
    prove(&made.db, made.writer);
    let merged = &log::chunks(&made.db).unwrap()[0];
    assert!(merged.header.scavenged);
    assert_eq!(
        (merged.header.start, merged.header.end, merged.version),
        (0, 1, 1)
    );
    assert_eq!(log::epoch_at(&made.db, 0).unwrap().number, 0);
}

#[test]
fn an_append_completes_full_chunks() {
    let directory = tempfile::tempdir().unwrap();
    let made = small().make(directory.path()).unwrap();
    let before = std::fs::read(made.db.join("chunk-000003.000000")).unwrap();

    let small_step = Synthetic::append(directory.path(), 100_000).unwrap();
    assert!(small_step >= made.writer + 100_000);
    prove(&made.db, small_step);
    let after = std::fs::read(made.db.join("chunk-000003.000000")).unwrap();
    let kept = 128 + (made.writer % (1 << 20)) as usize;
    assert!(before[..kept] == after[..kept]);

    let writer = Synthetic::append(directory.path(), 3_000_000).unwrap();
    prove(&made.db, writer);
    assert_eq!(log::chunks(&made.db).unwrap().len(), 7);
}

#[test]
fn the_data_does_not_compress_and_depends_on_the_seed() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());

    let made = small().make(one.path()).unwrap();
    let other = Synthetic { seed: 2, ..small() }.make(two.path()).unwrap();
    let chunk = |db: &Path| std::fs::read(db.join("chunk-000001.000000")).unwrap();
    assert!(chunk(&made.db) != chunk(&other.db));
    let compressed = zstd::bulk::compress(&chunk(&made.db), 9).unwrap();
    assert!(compressed.len() > 900_000, "{}", compressed.len());
}

#[test]
fn a_node_can_serve_a_synthetic_directory() {
    let directory = tempfile::tempdir().unwrap();
    let made = small().make(directory.path()).unwrap();
    let node = Node::still(Version::new(26, 1), directory.path()).unwrap();
    assert_eq!(node.db(), made.db);
    let _server = node.serve().unwrap();
    assert_eq!(
        node.checkpoint(Checkpoint::Writer),
        Some(made.writer as i64)
    );
}

#[test]
fn filled_filters_hold_the_hashes_of_their_lines() {
    let directory = tempfile::tempdir().unwrap();
    let made = Synthetic {
        filled_filters: true,
        ..small()
    }
    .make(directory.path())
    .unwrap();
    let mut filters = vec![
        made.index
            .join("stream-existence/streamExistenceFilter.dat"),
    ];

    filters.extend(
        std::fs::read_dir(&made.index)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension() == Some("bloomfilter".as_ref())),
    );

    assert!(filters.len() > 2, "{filters:?}");
    for filter in filters {
        let bytes = std::fs::read(filter).unwrap();
        for line in bytes.as_chunks::<64>().0.iter().skip(1) {
            let (data, hash) = line.split_at(60);
            assert!(data.iter().any(|byte| *byte != 0));
            assert_eq!(hash, index::early_xxhash(data).to_le_bytes());
        }
    }
}
