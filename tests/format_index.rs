//! The index of real nodes of six versions, read by the parsers of `kbackup::format`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use kbackup::format::indexmap::IndexMap;
use kbackup::format::names::TableId;
use kbackup::format::ptable::{self, Table, TableEntry, TableVersion};
use kbackup::format::{Error, LogPosition, bloom, duckdb, hash, sqlite};
use kbackup_testnode::log::{self, Kind};

use crate::fixtures::{DataDirectory, read};

/// The directory that holds a torn table.
const TORN: &str = "26.1-vendor-procedure-bad-index";

fn indexmap(directory: &DataDirectory) -> Result<IndexMap> {
    let bytes = read(&directory.index().join("indexmap"))?;
    IndexMap::parse(&bytes).with_context(|| directory.name.clone())
}

fn table_bytes(directory: &DataDirectory, table: TableId) -> Result<Vec<u8>> {
    read(&directory.index().join(table.to_string()))
}

/// The position of each event of each stream, by an independent reader of the log.
fn events(directory: &DataDirectory) -> Result<BTreeMap<LogPosition, (String, i64)>> {
    let writer = u64::try_from(
        directory
            .checkpoint("writer")
            .context("no writer checkpoint")?,
    )?;
    let mut events = BTreeMap::new();
    for chunk in log::chunks(&directory.db())? {
        for record in chunk.records(writer)? {
            if let Kind::Prepare { stream, number, .. } = record.kind {
                events.insert(
                    LogPosition::try_from(record.position).map_err(anyhow::Error::msg)?,
                    (stream, number),
                );
            }
        }
    }
    Ok(events)
}

fn is_malformed(error: &Error, structure: &str) -> bool {
    matches!(error, Error::Malformed(malformed) if malformed.structure == structure)
}

#[test]
fn indexmaps_read_as_the_checker_found() -> Result<()> {
    for directory in DataDirectory::all()? {
        let directory = directory?;
        let map = indexmap(&directory)?;
        let facts = &directory.facts["index"];
        let position = |field: &str| facts[field].as_u64().and_then(LogPosition::new);
        assert_eq!(map.prepare, position("prepare"), "{}", directory.name);
        assert_eq!(map.commit, position("commit"), "{}", directory.name);
        assert_eq!(
            Some(map.tables.len() as u64),
            facts["tables"].as_u64(),
            "{}",
            directory.name
        );
        assert_eq!(
            (map.version(), map.max_merge_level),
            (2, Some(i32::MAX)),
            "{}",
            directory.name
        );

        let listed: BTreeSet<_> = map.tables.iter().map(|row| row.table).collect();
        let mut unlisted = Vec::new();
        for file in directory.index_files(|name| name.parse::<TableId>().is_ok())? {
            let table: TableId = file.file_name().unwrap().to_str().unwrap().parse().unwrap();
            unlisted.extend((!listed.contains(&table)).then(|| table.to_string()));
        }
        let expected: Vec<_> = facts["unlisted"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap())
            .collect();
        assert_eq!(unlisted, expected, "{}", directory.name);
    }
    Ok(())
}

#[test]
fn indexmaps_are_encoded_as_the_server_wrote_them() -> Result<()> {
    for directory in DataDirectory::all()? {
        let directory = directory?;
        let bytes = read(&directory.index().join("indexmap"))?;
        assert_eq!(
            IndexMap::parse(&bytes)?.encode(),
            bytes,
            "{}",
            directory.name
        );
    }
    Ok(())
}

#[test]
fn a_changed_byte_of_an_indexmap_is_found() -> Result<()> {
    let directory = DataDirectory::unpack("26.1-killed")?;
    let bytes = read(&directory.index().join("indexmap"))?;
    for place in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[place] ^= 1;
        assert!(
            is_malformed(&IndexMap::parse(&changed).unwrap_err(), "indexmap"),
            "byte {place}"
        );
        assert!(
            is_malformed(&IndexMap::parse(&bytes[..place]).unwrap_err(), "indexmap"),
            "{place} bytes"
        );
    }
    Ok(())
}

#[test]
fn listed_tables_are_valid() -> Result<()> {
    for directory in DataDirectory::all()? {
        let directory = directory?;
        if directory.name == TORN {
            continue;
        }

        for row in indexmap(&directory)?.tables {
            let bytes = table_bytes(&directory, row.table)?;
            let what = || format!("{} {}", directory.name, row.table);

            let table = Table::open(&bytes).with_context(what)?;
            table.check_md5().with_context(what)?;
            table.check_order().with_context(what)?;
            assert_eq!(table.layout().version, TableVersion::V4, "{}", what());
            assert!(
                table.layout().entries > 0 && table.layout().midpoints >= 2,
                "{}",
                what()
            );
        }
    }
    Ok(())
}

#[test]
fn the_torn_table_of_the_vendors_copy_is_found() -> Result<()> {
    let directory = DataDirectory::unpack(TORN)?;
    let mut torn = Vec::new();
    for row in indexmap(&directory)?.tables {
        let bytes = table_bytes(&directory, row.table)?;
        if let Err(error) = Table::open(&bytes).and_then(|table| table.check_md5()) {
            torn.push((row.table.to_string(), error.to_string()));
        }
    }
    let [(table, error)] = torn.as_slice() else {
        panic!("{torn:?}");
    };
    assert_eq!(table, "5ba5bfa8-ada3-4029-9997-a9e5ef8cc355");
    // The copy ends before the midpoints and the footer, which the server had not appended yet.
    assert!(error.starts_with("index table footer"), "{error}");
    Ok(())
}

#[test]
fn a_changed_byte_of_a_table_is_found() -> Result<()> {
    let directory = DataDirectory::unpack("26.1-killed")?;
    let row = indexmap(&directory)?.tables[0];
    let bytes = table_bytes(&directory, row.table)?;
    for place in (0..bytes.len())
        .step_by(997)
        .chain(bytes.len() - 16..bytes.len())
    {
        let mut changed = bytes.clone();
        changed[place] ^= 0x10;
        assert!(
            Table::open(&changed)
                .and_then(|table| table.check_md5())
                .is_err(),
            "byte {place}"
        );
    }
    Ok(())
}

#[test]
fn entries_lead_to_the_events_of_their_streams() -> Result<()> {
    for directory in DataDirectory::all()? {
        let directory = directory?;
        if directory.name == TORN {
            continue;
        }

        let events = events(&directory)?;
        let map = indexmap(&directory)?;
        let (mut found, mut highest) = (0, LogPosition::ZERO);

        for row in &map.tables {
            let bytes = table_bytes(&directory, row.table)?;
            for entry in Table::open(&bytes)?.entries() {
                let entry = entry?;
                highest = highest.max(entry.position);
                let Some((stream, number)) = events.get(&entry.position) else {
                    // A scavenge drops records whose entries may stay.
                    assert!(
                        directory.name.ends_with("-scavenge"),
                        "{}: {entry}",
                        directory.name
                    );
                    continue;
                };

                assert_eq!(
                    (entry.stream, entry.event_number),
                    (hash::stream_hash(stream), *number),
                    "{} {stream}",
                    directory.name
                );
                found += 1;
            }
        }

        let within = events.range(..=map.commit.unwrap()).count();
        assert!(
            found > 0 && found <= within,
            "{}: {found} of {within}",
            directory.name
        );

        if !directory.name.contains("scavenge") {
            assert_eq!(found, within, "{}", directory.name);
        }
        assert!(Some(highest) <= map.prepare, "{}", directory.name);
    }
    Ok(())
}

#[test]
fn the_latest_entries_have_the_highest_positions() -> Result<()> {
    let directory = DataDirectory::unpack("26.1-append")?;
    let [row] = indexmap(&directory)?.tables[..] else {
        panic!("more than one table");
    };
    let bytes = table_bytes(&directory, row.table)?;
    let table = Table::open(&bytes)?;
    let mut all = table.entries().collect::<Result<Vec<TableEntry>, _>>()?;
    assert_eq!(all.len() as u64, table.layout().entries);
    for (index, entry) in (0..).zip(&all) {
        assert_eq!(table.entry(index)?, Some(*entry));
    }
    assert_eq!(table.entry(table.layout().entries)?, None);

    all.sort_by_key(|entry| std::cmp::Reverse(entry.position));
    assert_eq!(table.latest(1000)?, all[..1000]);
    assert_eq!(table.latest(all.len() + 1)?, all);
    assert_eq!(table.latest(0)?, []);
    Ok(())
}

#[test]
fn bloom_filters_of_tables_hold_the_tables_streams() -> Result<()> {
    let mut filters = 0;
    for directory in DataDirectory::all()? {
        let directory = directory?;
        for file in directory.index_files(|name| name.ends_with(".bloomfilter"))? {
            let table: TableId = file.file_stem().unwrap().to_str().unwrap().parse().unwrap();

            let bytes = read(&file)?;
            let filter = bloom::inspect(&bytes)?;
            assert_eq!(filter.check_lines()?.bad, 0, "{} {table}", directory.name);
            if directory.name == TORN {
                continue;
            }

            let bytes = table_bytes(&directory, table)?;
            for entry in Table::open(&bytes)?.entries() {
                let entry = entry?;
                assert!(
                    filter.might_contain(entry.stream)?,
                    "{} {table}: {entry}",
                    directory.name
                );
            }
            filters += 1;
        }
    }
    assert!(filters >= 20, "{filters}");
    Ok(())
}

#[test]
fn stream_existence_filters_of_the_fixtures_are_empty() -> Result<()> {
    for directory in DataDirectory::all()? {
        let directory = directory?;

        let path = directory
            .index()
            .join("stream-existence/streamExistenceFilter.dat");
        assert_eq!(
            path.exists(),
            directory.server() >= (21, 10),
            "{}",
            directory.name
        );
        if !path.exists() {
            continue;
        }

        let bytes = read(&path)?;
        let filter = bloom::inspect(&bytes)?;
        assert_eq!(
            (filter.check_lines()?.bad, filter.header().logical_size),
            (0, 10_000),
            "{}",
            directory.name
        );
        // None of these nodes ran for the half minute after which the server writes the filter

        // (O21).
        assert_eq!(
            read(&path.with_extension("chk"))?,
            [0xff; 8],
            "{}",
            directory.name
        );
        assert!(
            !filter.might_contain(hash::stream_hash("$users"))?,
            "{}",
            directory.name
        );
    }
    Ok(())
}

#[test]
fn a_table_cut_anywhere_is_refused() -> Result<()> {
    let directory = DataDirectory::unpack("26.1-killed")?;
    let row = indexmap(&directory)?.tables[0];
    let bytes = table_bytes(&directory, row.table)?;
    for length in (0..bytes.len()).rev().take(2000).chain(0..300) {
        let cut = bytes[..length].to_vec();
        assert!(
            ptable::inspect(&cut).is_err() || Table::open(&cut)?.check_md5().is_err(),
            "{length}"
        );
    }
    Ok(())
}

#[test]
fn databases_beside_the_log_are_intact() -> Result<()> {
    let (mut secondary, mut scavenging) = (0, 0);
    for directory in DataDirectory::all()? {
        let directory = directory?;
        let path = directory.db().join("kurrent.ddb");
        if path.exists() {
            let header = duckdb::inspect(&read(&path)?).with_context(|| directory.name.clone())?;
            // A killed node had not made its first checkpoint. Its data are in the log beside the
            // file.
            let made = if directory.name.ends_with("-killed") {
                0
            } else {
                1
            };
            assert_eq!(
                (header.version, header.iteration, header.blocks),
                (64, made, 3 * made),
                "{}",
                directory.name
            );
            secondary += 1;
        }
        let path = directory.index().join("scavenging/scavenging.db");
        if path.exists() {
            let header = sqlite::inspect(&read(&path)?).with_context(|| directory.name.clone())?;
            assert_eq!(
                header,
                sqlite::SqliteHeader {
                    page_size: 16_384,
                    pages: 17
                },
                "{}",
                directory.name
            );
            scavenging += 1;
        }
    }
    assert_eq!((secondary, scavenging), (4, 5));
    Ok(())
}

#[test]
fn a_torn_or_broken_database_is_found() -> Result<()> {
    let directory = DataDirectory::unpack("26.1-scavenge")?;
    let ddb = read(&directory.db().join("kurrent.ddb"))?;
    // Its catalogue begins in the first block.
    for length in [0, 100, 4096, 12_287, 12_288, 100_000, 12_288 + 262_143] {
        assert!(
            duckdb::inspect(&ddb[..length].to_vec()).is_err(),
            "{length}"
        );
    }
    for place in [0, 8, 12, 4095, 4096, 8191, 8192, 12_287, 12_288, 200_000] {
        let mut changed = ddb.clone();
        changed[place] ^= 1;
        assert!(duckdb::inspect(&changed).is_err(), "{place}");
    }

    let scavenging = read(&directory.index().join("scavenging/scavenging.db"))?;
    for length in [
        0,
        99,
        100,
        16_384,
        scavenging.len() - 16_384,
        scavenging.len() - 1,
    ] {
        assert!(
            sqlite::inspect(&scavenging[..length].to_vec()).is_err(),
            "{length}"
        );
    }
    Ok(())
}
