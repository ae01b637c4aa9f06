mod written;

use std::ops::Range;

use proptest::prelude::*;

use self::written::{Written, chunk, event, frame, header};
use super::scan::SCAN;
use super::{Backwards, Forwards, Lookup, Record, Ticks};
use crate::format::LogPosition;
use crate::format::chunk::{self, ChunkFile, ChunkHeader, ChunkState, MapEntries, Transform};

#[test]
fn records_longer_than_the_window() {
    let window = SCAN;
    let records = [
        event(10, 1000, 10),
        event(10, 3 * window, 10),
        event(10, 10, 2 * window),
        event(window + 1, 10, 10),
        event(10, window - 100, 0),
        event(10, window - 99, 0),
        event(10, window, 0),
        Written::Commit {
            version: 1,
            first: 7,
        },
        Written::System {
            data: vec![b' '; 64 * 1024],
        },
        event(1, 0, 0),
    ];

    chunk(&records, 0, MapEntries::Wide).check();
    chunk(&records, 11, MapEntries::Wide).check();
    chunk(&records, 11, MapEntries::Narrow).check();
}

#[test]
fn records_that_end_at_every_place_of_a_window() {
    for length in [SCAN - 150, SCAN - 50] {
        for shift in 0..120 {
            chunk(
                &[
                    event(20, length + shift, 3),
                    event(20, 100, 3),
                    event(3, 0, 0),
                ],
                0,
                MapEntries::Wide,
            )
            .check();
        }
    }
}

#[test]
fn an_empty_chunk_has_no_records() {
    chunk(&[], 0, MapEntries::Wide).check();
}

#[test]
fn old_versions_have_narrow_numbers() {
    let stream_deleted = Written::Prepare {
        version: 0,
        flags: 0x2f,
        expected: i32::MAX - 1,
        stream: b"gone".to_vec(),
        event_type: Vec::new(),
        data: Vec::new(),
        metadata: Vec::new(),
    };

    let written = [stream_deleted];
    let chunk = chunk(&written, 0, MapEntries::Wide);
    let mut forwards = Forwards::new(
        &chunk.bytes,
        &chunk.file.header,
        chunk.file.completed_data().unwrap(),
    )
    .unwrap();
    let Record::Prepare(prepare) = forwards.next().unwrap().unwrap().record else {
        panic!("a prepare")
    };
    assert_eq!(prepare.event_number(), Some(i64::MAX));
}

#[test]
fn every_field_of_a_frame_is_checked() {
    let written = [event(3, 20, 5), event(3, 20, 5)];
    let sound = chunk(&written, 0, MapEntries::Wide);
    let second = usize::try_from(sound.records[1].1).unwrap();
    let length = usize::try_from(sound.records[1].2).unwrap();
    let position = sound.records[1].0;
    let body = length - 8;
    let data_length = 4 + 32 + 4 + 40 + 5;

    // Where in the second frame, which bytes, and the complaint about them.
    let cases: Vec<(usize, Vec<u8>, String)> = vec![
        (
            0,
            vec![0; 4],
            format!("byte {second}: expected a length from 10 to {body} bytes, found 0"),
        ),
        (
            0,
            vec![255; 4],
            format!("byte {second}: expected a length from 10 to {body} bytes, found -1"),
        ),
        (
            0,
            i32::try_from(body + 1).unwrap().to_le_bytes().to_vec(),
            format!(
                "byte {second}: expected a length from 10 to {body} bytes, found {}",
                body + 1
            ),
        ),
        (
            length - 4,
            vec![0; 4],
            format!(
                "byte {}: expected a length of {body} bytes, as at the record's start, found 0",
                second + length - 4
            ),
        ),
        (
            4,
            vec![3],
            format!(
                "byte {}: expected a record of type 0, 1 or 2 (log format V2), found 3",
                second + 4
            ),
        ),
        (
            5,
            vec![2],
            format!(
                "byte {}: expected a record version that servers write, found 2",
                second + 5
            ),
        ),
        (
            6,
            vec![0; 8],
            format!(
                "byte {}: expected the log position {position}, found 0",
                second + 6
            ),
        ),
        (
            13,
            vec![0x80],
            format!("byte {}: expected a log position, found ", second + 6),
        ),
        (
            23,
            vec![0x80],
            format!("byte {}: expected a log position, found ", second + 16),
        ),
        (
            36,
            vec![255; 5],
            format!(
                "byte {}: expected a text length of at most 5 bytes, found more",
                second + 36
            ),
        ),
        (
            36,
            vec![250, 127],
            format!(
                "byte {second}: expected fields that end where the record ends, found fields that go on"
            ),
        ),
        (
            79,
            vec![0x7f],
            format!(
                "byte {}: expected a time up to the year 9999, found ",
                second + 72
            ),
        ),
        (
            data_length,
            vec![21],
            format!(
                "byte {second}: expected fields that end at byte {}, found fields that end at ",
                second + length - 4
            ),
        ),
        (
            data_length + 27,
            vec![0x80],
            format!(
                "byte {}: expected a length, found ",
                second + data_length + 24
            ),
        ),
        (
            data_length,
            vec![26],
            format!(
                "byte {}: expected at most 25 bytes of data, found 26",
                second + data_length
            ),
        ),
        (
            data_length + 24,
            vec![4],
            format!(
                "byte {second}: expected fields that end at byte {}, found fields that end at {}",
                second + length - 4,
                second + length - 5
            ),
        ),
    ];

    for (at, change, message) in cases {
        let mut bytes = sound.bytes.clone();
        bytes[second + at..second + at + change.len()].copy_from_slice(&change);
        let error = sound.scan(&bytes).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("log record at {message}")),
            "{error}\nnot {message}"
        );
        assert!(sound.scan_backwards(&bytes).is_err(), "{message}");
    }
}

#[test]
fn positions_rise_in_a_scavenged_chunk() {
    let written = [event(3, 20, 5), event(3, 20, 5)];
    let sound = chunk(&written, 50, MapEntries::Wide);
    let (first, second) = (sound.records[0], sound.records[1]);
    let set = |position: u64| {
        let mut bytes = sound.bytes.clone();
        let at = usize::try_from(second.1).unwrap() + 6;
        bytes[at..at + 8].copy_from_slice(&position.to_le_bytes());
        bytes
    };

    assert_eq!(sound.scan(&set(second.0)).unwrap(), 2);
    assert_eq!(
        sound.scan(&set(second.0 + 1)).unwrap(),
        2,
        "only the map knows better"
    );

    let end = sound.file.header.end_position().get();
    for position in [first.0, first.0 - 1, 0, end, end - second.2 + 1] {
        assert!(sound.scan(&set(position)).is_err(), "{position}");
        assert!(sound.scan_backwards(&set(position)).is_err(), "{position}");
    }

    let bytes = set(second.0 + 1);
    let mut lookup =
        Lookup::new(&bytes, &sound.file, sound.file.completed_data().unwrap()).unwrap();
    assert!(
        lookup
            .read_at_position(LogPosition::new(second.0).unwrap())
            .is_err()
    );
}

#[test]
fn a_position_inside_a_record_is_no_record() {
    let written = [event(3, 20, 5), event(3, 20, 5)];
    let sound = chunk(&written, 0, MapEntries::Wide);
    let data = sound.file.completed_data().unwrap();
    let mut lookup = Lookup::new(&sound.bytes, &sound.file, data).unwrap();
    let start = sound.records[0].0;
    for inside in 1..sound.records[0].2 {
        assert!(
            lookup
                .read_at_position(LogPosition::new(start + inside).unwrap())
                .is_err(),
            "{inside}"
        );
    }
}

#[test]
fn a_scan_stays_in_the_chunk() {
    let written = [event(3, 20, 5)];
    let sound = chunk(&written, 0, MapEntries::Wide);
    let header = &sound.file.header;
    let end = sound.bytes.len() as u64;

    for data in [
        0..128,
        127..200,
        Range {
            start: 200,
            end: 199,
        },
        128..end + 1,
    ] {
        assert!(
            Forwards::new(&sound.bytes, header, data.clone()).is_err(),
            "{data:?}"
        );
        assert!(
            Backwards::new(&sound.bytes, header, data.clone()).is_err(),
            "{data:?}"
        );
        assert!(
            Lookup::new(&sound.bytes, &sound.file, data.clone()).is_err(),
            "{data:?}"
        );
    }

    let encrypted = ChunkHeader {
        transform: Transform::AesGcm,
        ..*header
    };
    assert!(Forwards::new(&sound.bytes, &encrypted, 128..200).is_err());
}

#[test]
fn what_lies_in_the_data_is_no_frame() {
    // Data that looks like a whole log must not be taken for one.
    let inner: Vec<u8> = frame(&event(3, 20, 5).body(0)).repeat(10);
    let Written::Prepare {
        version,
        flags,
        expected,
        stream,
        event_type,
        metadata,
        ..
    } = event(3, 0, 0)
    else {
        panic!("a prepare")
    };

    let written = [
        Written::Prepare {
            version,
            flags,
            expected,
            stream,
            event_type,
            data: inner,
            metadata,
        },
        event(3, 20, 5),
    ];
    chunk(&written, 0, MapEntries::Wide).check();
}

#[test]
fn ticks_are_microseconds_to_people() {
    assert_eq!(
        Ticks::new(621_355_968_000_000_000)
            .unwrap()
            .unix_microseconds(),
        0
    );
    assert_eq!(
        Ticks::new(621_355_967_999_999_999)
            .unwrap()
            .unix_microseconds(),
        -1
    );
    assert_eq!(Ticks::new(-1), None);
    assert_eq!(Ticks::new(3_155_378_976_000_000_000), None);
}

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..most)
}

prop_compose! {
    fn any_prepare()(
        version in 0_u8..2,
        flags: u16,
        expected in -2..1000_i32,
        stream in bytes(300),
        event_type in bytes(40),
        data in bytes(400),
        metadata in bytes(100),
    ) -> Written {
        Written::Prepare { version, flags, expected, stream, event_type, data, metadata }
    }
}

fn any_record() -> impl Strategy<Value = Written> {
    prop_oneof![
        8 => any_prepare(),
        1 => (0_u8..2, 0..1000_i32).prop_map(|(version, first)| Written::Commit { version, first }),
        1 => bytes(300).prop_map(|data| Written::System { data }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_was_written_is_read(
        records in proptest::collection::vec(any_record(), 0..40),
        gap in 0_u64..3,
        narrow: bool,
    ) {
        let entries = if narrow { MapEntries::Narrow } else { MapEntries::Wide };
        chunk(&records, gap, entries).check();
    }

    #[test]
    fn damage_never_panics_and_a_cut_is_found(
        records in proptest::collection::vec(any_record(), 1..10),
        gap in 0_u64..2,
        at: proptest::sample::Index,
        damage in proptest::collection::vec(any::<u8>(), 1..20),
        cut: proptest::sample::Index,
    ) {
        let sound = chunk(&records, gap, MapEntries::Wide);
        let data = sound.file.completed_data().unwrap();
        let mut bytes = sound.bytes.clone();
        let start = at.index(bytes.len());
        for (byte, damage) in bytes.iter_mut().skip(start).zip(&damage) {
            *byte = *damage;
        }
        let _ = (sound.scan(&bytes), sound.scan_backwards(&bytes), chunk::inspect(&bytes));
        if let Ok(mut lookup) = Lookup::new(&bytes, &sound.file, data.clone()) {
            for (position, ..) in &sound.records {
                let _ = lookup.read_at_position(LogPosition::new(*position).unwrap());
            }
        }
        let cut = cut.index(usize::try_from(data.end).unwrap());
        prop_assert!(sound.scan(&sound.bytes[..cut].to_vec()).is_err());
        prop_assert!(sound.scan_backwards(&sound.bytes[..cut].to_vec()).is_err());
    }

    #[test]
    fn no_bytes_make_it_panic(
        data in proptest::collection::vec(any::<u8>(), 0..2000),
        scavenged: bool,
    ) {
        let header = header(scavenged);
        let bytes: Vec<u8> = header.encode().into_iter().chain(data).collect();
        let length = bytes.len() as u64;
        let file = ChunkFile { header, length, state: ChunkState::Ongoing };
        let data = 128..bytes.len() as u64;
        let mut forwards = Forwards::new(&bytes, &header, data.clone()).unwrap();
        while let Ok(Some(_)) = forwards.next() {}
        let mut backwards = Backwards::new(&bytes, &header, data.clone()).unwrap();
        while let Ok(Some(_)) = backwards.next() {}
        if let Ok(mut lookup) = Lookup::new(&bytes, &file, data) {
            let _ = lookup.read_at_position(header.start_position());
        }
    }
}
