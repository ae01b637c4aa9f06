use std::cmp::Reverse;
use std::fmt;

use md5::{Digest, Md5};
use proptest::prelude::*;

use super::layout::{ENTRIES, FOOTER, HEADER, MIDPOINTS};
use super::*;
use crate::format::{Error, LogPosition, ReadAt, Result};

const VERSIONS: [TableVersion; 4] = [
    TableVersion::V1,
    TableVersion::V2,
    TableVersion::V3,
    TableVersion::V4,
];

fn byte(version: TableVersion) -> u8 {
    version.to_string().parse().unwrap()
}

/// Writes a table; `midpoints` are the indices of the entries they repeat.
fn encode(version: TableVersion, entries: &[TableEntry], midpoints: &[usize]) -> Vec<u8> {
    let mut bytes = vec![0; 128];
    bytes[..2].copy_from_slice(&[1, byte(version)]);

    for entry in entries {
        match version {
            TableVersion::V1 | TableVersion::V2 => {
                bytes.extend(i32::try_from(entry.event_number).unwrap().to_le_bytes());
            }
            TableVersion::V3 | TableVersion::V4 => bytes.extend(entry.event_number.to_le_bytes()),
        }
        match version {
            TableVersion::V1 => bytes.extend(u32::try_from(entry.stream).unwrap().to_le_bytes()),
            TableVersion::V2 | TableVersion::V3 | TableVersion::V4 => {
                bytes.extend(entry.stream.to_le_bytes());
            }
        }
        bytes.extend(entry.position.to_signed().to_le_bytes());
    }

    if version == TableVersion::V4 {
        for index in midpoints {
            let entry = entries[*index];
            bytes.extend(entry.event_number.to_le_bytes());
            bytes.extend(entry.stream.to_le_bytes());
            bytes.extend((*index as u64).to_le_bytes());
        }
        let mut footer = [0; 128];
        footer[..2].copy_from_slice(&[1, byte(version)]);
        footer[2..6].copy_from_slice(&u32::try_from(midpoints.len()).unwrap().to_le_bytes());
        bytes.extend(footer);
    }

    let md5 = Md5::digest(&bytes);
    bytes.extend(md5);
    bytes
}

fn entry(stream: u64, event_number: i64, position: u64) -> TableEntry {
    TableEntry {
        stream,
        event_number,
        position: LogPosition::new(position).unwrap(),
    }
}

fn descending(count: u64) -> Vec<TableEntry> {
    (0..count)
        .rev()
        .map(|number| {
            entry(
                number / 3,
                i64::try_from(number % 3).unwrap(),
                number * 7 % 101,
            )
        })
        .collect()
}

fn complaint<T: fmt::Debug>(result: Result<T>) -> (&'static str, u64) {
    match result {
        Err(Error::Malformed(malformed)) => (malformed.structure, malformed.offset),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_version_is_read_through_several_windows() {
    let entries = descending(20_000);
    for version in VERSIONS {
        let bytes = encode(version, &entries, &[0, 17, 17, 19_999]);
        let table = Table::open(&bytes).unwrap();

        assert_eq!(
            (table.layout().version, table.layout().entries),
            (version, 20_000)
        );
        assert_eq!(
            table.layout().midpoints,
            if version == TableVersion::V4 { 4 } else { 0 }
        );
        assert_eq!(
            table.entries().collect::<Result<Vec<_>>>().unwrap(),
            entries
        );
        assert_eq!(table.entry(12_345).unwrap(), Some(entries[12_345]));
        table.check_md5().unwrap();
        table.check_order().unwrap();
    }
}

#[test]
fn tables_without_entries_are_whole() {
    for version in VERSIONS {
        let bytes = encode(version, &[], &[]);
        let table = Table::open(&bytes).unwrap();
        table.check_md5().unwrap();
        table.check_order().unwrap();
        assert_eq!(table.latest(5).unwrap(), []);
        assert_eq!(table.entry(0).unwrap(), None);
    }
}

#[test]
fn one_entry_has_two_midpoints() {
    let bytes = encode(TableVersion::V4, &descending(1), &[0, 0]);
    Table::open(&bytes).unwrap().check_order().unwrap();
}

#[test]
fn counts_of_midpoints_follow_the_servers_rules() {
    assert!(inspect(&encode(TableVersion::V4, &descending(5), &[])).is_ok());
    assert_eq!(
        complaint(inspect(&encode(TableVersion::V4, &descending(5), &[0]))),
        (FOOTER, 128 + 6 * 24 + 2)
    );
    assert!(inspect(&encode(TableVersion::V4, &descending(2), &[0, 1])).is_ok());
    assert_eq!(
        complaint(inspect(&encode(
            TableVersion::V4,
            &descending(2),
            &[0, 1, 1]
        )))
        .0,
        FOOTER
    );

    // As many midpoints as the field can hold do not fit into any file.
    let mut bytes = encode(TableVersion::V4, &descending(5), &[]);
    let footer = bytes.len() - 144;
    bytes[footer + 2..footer + 6].fill(0xff);
    assert_eq!(complaint(inspect(&bytes)).0, FOOTER);
}

#[test]
fn types_and_versions_are_checked() {
    for version in [0, 5, 255] {
        let mut bytes = encode(TableVersion::V4, &descending(5), &[]);
        bytes[1] = version;
        assert_eq!(complaint(inspect(&bytes)), (HEADER, 1));
    }
    let mut bytes = encode(TableVersion::V4, &descending(5), &[]);
    bytes[0] = 2;
    assert_eq!(complaint(inspect(&bytes)), (HEADER, 0));
    let mut bytes = encode(TableVersion::V4, &descending(5), &[]);
    let footer = bytes.len() - 144;
    bytes[footer + 1] = 3;
    assert_eq!(complaint(inspect(&bytes)), (FOOTER, footer as u64 + 1));
}

#[test]
fn entries_out_of_order_are_found() {
    for version in VERSIONS {
        let mut entries = descending(100);
        entries.swap(41, 42);
        let bytes = encode(version, &entries, &[]);
        let table = Table::open(&bytes).unwrap();
        table.check_md5().unwrap();
        assert_eq!(
            complaint(table.check_order()),
            (ENTRIES, 128 + 42 * version.entry_size() as u64)
        );
    }
}

#[test]
fn hashes_are_compared_without_sign_and_numbers_with_it() {
    let entries = [
        entry(u64::MAX, -1, 0),
        entry(1, i64::MAX, 0),
        entry(1, 0, 9),
        entry(1, 0, 8),
        entry(1, -5, 10),
    ];
    let bytes = encode(TableVersion::V4, &entries, &[0, 4]);
    Table::open(&bytes).unwrap().check_order().unwrap();
}

#[test]
fn midpoints_repeat_entries_from_the_first_to_the_last() {
    let entries = descending(10);
    let order = |midpoints: &[usize]| {
        let bytes = encode(TableVersion::V4, &entries, midpoints);
        Table::open(&bytes).unwrap().check_order()
    };
    order(&[0, 3, 3, 9]).unwrap();
    assert_eq!(complaint(order(&[1, 9])).0, MIDPOINTS);
    assert_eq!(complaint(order(&[0, 8])), (MIDPOINTS, 128 + 240 + 24));
    assert_eq!(complaint(order(&[0, 5, 4, 9])), (MIDPOINTS, 128 + 240 + 48));

    // A midpoint that names another key, one that names no entry, one that is negative.
    for (place, value) in [(8, 77), (16, 10), (23, 0x80)] {
        let mut bytes = encode(TableVersion::V4, &entries, &[0, 9]);
        bytes[128 + 240 + 24 + place] = value;
        assert_eq!(
            complaint(Table::open(&bytes).unwrap().check_order()).0,
            MIDPOINTS
        );
    }
}

#[test]
fn a_negative_position_is_refused() {
    let mut bytes = encode(TableVersion::V3, &descending(10), &[]);
    bytes[128 + 5 * 24 + 23] = 0x80;
    let table = Table::open(&bytes).unwrap();
    assert_eq!(complaint(table.entry(5)), (ENTRIES, 128 + 5 * 24));
    assert_eq!(complaint(table.check_order()), (ENTRIES, 128 + 5 * 24));
}

#[test]
fn a_source_that_shrinks_ends_the_stream() {
    struct Shrunk(Vec<u8>, u64);
    impl ReadAt for Shrunk {
        fn size(&self) -> u64 {
            self.1
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
            // Only the footer is left of the end.
            let gone = offset >= 1000 && offset < self.1 - 144;
            if gone {
                Ok(0)
            } else {
                self.0.read_at(offset, buffer)
            }
        }
    }
    let bytes = encode(TableVersion::V4, &descending(50_000), &[]);
    let size = bytes.len() as u64;
    let shrunk = Shrunk(bytes, size);
    let table = Table::open(&shrunk).unwrap();
    let read: Vec<_> = table.entries().collect();
    assert!(
        matches!(read.last(), Some(Err(Error::Read(_)))),
        "{}",
        read.len()
    );
    assert_eq!(read.iter().filter(|entry| entry.is_err()).count(), 1);
}

#[test]
fn the_md5_covers_all_but_itself() {
    assert_eq!(hashed_length(272), Some(256));
    assert_eq!(hashed_length(15), None);
}

fn is_whole(bytes: &[u8]) -> bool {
    match Table::open(&bytes.to_vec()) {
        Ok(table) => table.check_md5().is_ok(),
        Err(_) => false,
    }
}

fn versions() -> impl Strategy<Value = TableVersion> {
    prop::sample::select(VERSIONS.to_vec())
}

prop_compose! {
    fn any_entry()(
        stream in 0_u64..1 << 32,
        number in 0_i64..1 << 31,
        position in 0_u64..1 << 40,
    ) -> TableEntry {
        entry(stream, number, position)
    }
}

prop_compose! {
    fn sorted()(mut entries in prop::collection::vec(any_entry(), 2..200)) -> Vec<TableEntry> {
        entries.sort_unstable();
        entries.reverse();
        entries
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_read_back(
        version in versions(),
        entries in sorted(),
        count in 0_usize..300,
    ) {
        let bytes = encode(version, &entries, &[0, entries.len() - 1]);
        let table = Table::open(&bytes).unwrap();
        table.check_md5().unwrap();
        prop_assert_eq!(table.entries().collect::<Result<Vec<_>>>().unwrap(), entries.clone());

        let latest = table.latest(count).unwrap();
        prop_assert_eq!(latest.len(), count.min(entries.len()));
        prop_assert!(latest.is_sorted_by_key(|entry| Reverse(entry.position)));
        let kept: u64 = latest.iter().map(|entry| entry.position.get()).sum();
        let mut positions: Vec<u64> = entries.iter().map(|entry| entry.position.get()).collect();
        positions.sort_unstable();
        prop_assert_eq!(kept, positions.iter().rev().take(count).sum::<u64>());
    }

    #[test]
    fn a_table_cut_short_or_changed_is_found(
        version in versions(),
        entries in sorted(),
        at in any::<prop::sample::Index>(),
    ) {
        let bytes = encode(version, &entries, &[0, entries.len() - 1]);
        let at = at.index(bytes.len());
        prop_assert!(!is_whole(&bytes[..at]));

        let mut changed = bytes;
        changed[at] ^= 1;
        prop_assert!(!is_whole(&changed));
    }

    #[test]
    fn no_bytes_make_it_panic(
        start in prop::array::uniform2(0_u8..6),
        mut bytes in prop::collection::vec(any::<u8>(), 128..700),
    ) {
        bytes[..2].copy_from_slice(&start);
        if let Some(footer) = bytes.len().checked_sub(144) {
            bytes[footer..footer + 2].copy_from_slice(&start);
            bytes[footer + 3..footer + 6].fill(0);
        }
        if let Ok(table) = Table::open(&bytes) {
            let _ = table.check_md5();
            let _ = table.latest(3);
        }
    }
}
