use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::format::{ChunkNumber, ChunkSize, ChunkVersion, LogPosition, Md5Hash};

const DEFAULT: u32 = 256 * 1024 * 1024;

fn header() -> ChunkHeader {
    ChunkHeader {
        min_compatible: 3,
        version: 4,
        chunk_size: ChunkSize::new(100_000).unwrap(),
        start: ChunkNumber(2),
        end: ChunkNumber(2),
        scavenged: false,
        id: Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
        transform: Transform::Identity,
    }
}

fn footer(physical: u64) -> ChunkFooter {
    ChunkFooter {
        map_entries: MapEntries::Wide,
        physical,
        logical: physical,
        map_length: 0,
        md5: Md5Hash([7; 16]),
    }
}

fn file(header: &ChunkHeader, footer: &ChunkFooter, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(length).unwrap()];
    let footer_at = bytes.len() - 128;
    bytes[..128].copy_from_slice(&header.encode());
    bytes[footer_at..].copy_from_slice(&footer.encode().unwrap());
    bytes
}

#[test]
fn lengths_are_those_of_the_server() {
    let size = ChunkSize::new(DEFAULT).unwrap();
    assert_eq!(full_length(size, Transform::Identity), Some(268_439_552));
    assert_eq!(full_length(size, Transform::AesGcm), Some(277_098_496));
    assert_eq!(full_length(size, Transform::Other(9)), None);
    assert_eq!(Transform::Identity.prefix_length(588), Some(716));
    assert_eq!(Transform::AesGcm.prefix_length(497), Some(192 + 2 * 512));
    assert_eq!(hashed_length(4096), Some(4080));
    assert_eq!(hashed_length(15), None);
}

#[test]
fn a_header_is_written_as_its_version_does() {
    let bytes = header().encode();
    assert_eq!(
        bytes[..14],
        [2, 3, 0xa0, 0x86, 1, 0, 2, 0, 0, 0, 2, 0, 0, 0]
    );
    assert_eq!(
        bytes[18..36],
        [
            0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee,
            0xff, 4, 0
        ]
    );

    let old = ChunkHeader {
        version: 3,
        ..header()
    };
    assert_eq!(old.encode()[34..], [0; 94]);
    assert_eq!(ChunkHeader::parse(&old.encode()).unwrap(), old);
}

#[test]
fn a_header_no_server_writes_is_refused_where_it_is_wrong() {
    let cases: [(usize, u8, &str); 7] = [
        (
            0,
            1,
            "chunk header at byte 0: expected 2, a chunk's file type, found 1",
        ),
        (
            1,
            5,
            "chunk header at byte 1: expected a format version from 2 to 4, found 5",
        ),
        (
            1,
            1,
            "chunk header at byte 1: expected a format version from 2 to 4, found 1",
        ),
        (
            34,
            2,
            "chunk header at byte 34: expected a format version not below the one at byte 1, found 2",
        ),
        (
            5,
            0x80,
            "chunk header at byte 2: expected a chunk size above 0, found -2147383648",
        ),
        (
            9,
            0x80,
            "chunk header at byte 6: expected a chunk number, found -2147483646",
        ),
        (
            10,
            1,
            "chunk header at byte 10: expected a chunk number not below the first, found 1",
        ),
    ];

    for (at, byte, message) in cases {
        let mut bytes = header().encode();
        bytes[at] = byte;
        assert_eq!(ChunkHeader::parse(&bytes).unwrap_err().to_string(), message);
    }

    assert!(ChunkHeader::parse(&header().encode()[..127]).is_err());
}

#[test]
fn the_old_footer_has_narrow_sizes() {
    let narrow = ChunkFooter {
        map_entries: MapEntries::Narrow,
        physical: 10,
        logical: 20,
        map_length: 16,
        md5: Md5Hash([1; 16]),
    };

    let bytes = narrow.encode().unwrap();
    assert_eq!(
        bytes[..17],
        [1, 10, 0, 0, 0, 20, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(ChunkFooter::parse(&bytes).unwrap(), Some(narrow));
    assert_eq!(narrow.map_count(), 2);
    assert_eq!(
        ChunkFooter {
            physical: 1 << 31,
            ..narrow
        }
        .encode(),
        None
    );
}

#[test]
fn completed_only_where_header_footer_and_length_agree() {
    let sound = file(&header(), &footer(5000), 8192);
    let found = inspect(&sound).unwrap();
    assert_eq!(found.completed().unwrap(), &footer(5000));
    assert_eq!(found.completed_data().unwrap(), 128..5128);
    let identity = found.identity(ChunkVersion(1));
    assert_eq!(
        (identity.md5, identity.length, identity.version),
        (Some(Md5Hash([7; 16])), 8192, ChunkVersion(1))
    );

    let contradictions = [
        file(&header(), &footer(5000), 12288),
        file(&header(), &footer(100_001), 102_400),
        file(
            &header(),
            &ChunkFooter {
                logical: 5001,
                ..footer(5000)
            },
            8192,
        ),
        file(
            &header(),
            &ChunkFooter {
                map_length: 12,
                ..footer(5000)
            },
            8192,
        ),
    ];
    for bytes in contradictions {
        let found = inspect(&bytes).unwrap();
        assert!(
            matches!(found.state, ChunkState::Contradictory(_)),
            "{found:?}"
        );
        assert!(found.completed().is_err());
        assert_eq!(found.identity(ChunkVersion(0)).md5, None);
        assert!(
            found
                .data_before(header().start_position().checked_add(100).unwrap())
                .is_ok(),
            "as chunk(W) it is good"
        );
    }
}

#[test]
fn version_2_is_not_padded_or_padded_as_a_whole() {
    let old = ChunkHeader {
        min_compatible: 2,
        version: 2,
        ..header()
    };

    assert!(
        inspect(&file(&old, &footer(5000), 5256))
            .unwrap()
            .completed()
            .is_ok()
    );
    assert!(
        inspect(&file(&old, &footer(5000), 8192))
            .unwrap()
            .completed()
            .is_ok()
    );
    assert!(
        inspect(&file(&old, &footer(5000), 12288))
            .unwrap()
            .completed()
            .is_err()
    );
    assert!(
        inspect(&file(&header(), &footer(5000), 5256))
            .unwrap()
            .completed()
            .is_err()
    );
}

#[test]
fn a_footer_in_the_middle_of_a_full_length_file_is_an_active_chunk() {
    let mut bytes = file(&header(), &footer(5000), 8192);
    bytes.resize(
        usize::try_from(full_length(header().chunk_size, Transform::Identity).unwrap()).unwrap(),
        0,
    );
    let found = inspect(&bytes).unwrap();
    assert_eq!(found.state, ChunkState::Ongoing);
    let message = found.completed().unwrap_err().to_string();
    assert_eq!(
        message,
        "chunk footer at byte 102272: expected a completed chunk, found one that is not"
    );
}

#[test]
fn the_data_before_w_is_in_the_chunk_that_w_is_in() {
    let found = inspect(&file(&header(), &footer(5000), 8192)).unwrap();
    let at = |position| LogPosition::new(position).unwrap();
    assert_eq!(found.data_before(at(200_000)).unwrap(), 128..128);
    assert_eq!(found.data_before(at(200_588)).unwrap(), 128..716);
    assert!(found.data_before(at(199_999)).is_err());
    assert!(
        found.data_before(at(220_000)).is_err(),
        "the file ends before"
    );

    let scavenged = inspect(&file(
        &ChunkHeader {
            scavenged: true,
            ..header()
        },
        &footer(5000),
        8192,
    ))
    .unwrap();
    assert!(scavenged.data_before(at(200_588)).is_err());

    let encrypted = inspect(&file(
        &ChunkHeader {
            transform: Transform::AesGcm,
            ..header()
        },
        &footer(5000),
        8192,
    ))
    .unwrap();
    assert!(encrypted.completed().is_ok(), "can be copied and hashed");
    assert!(encrypted.completed_data().is_err());
    assert!(encrypted.data_before(at(200_588)).is_err());
}

prop_compose! {
    fn any_header()(
        min_compatible in 2_u8..=4,
        newer: bool,
        chunk_size in 1_u32..=i32::MAX.cast_unsigned(),
        start in 0_u32..=i32::MAX.cast_unsigned(),
        chunks in 0_u32..5,
        scavenged: bool,
        id: u128,
        transform: u8,
    ) -> ChunkHeader {
        let version = if newer { 4 } else { min_compatible };
        ChunkHeader {
            min_compatible,
            version,
            chunk_size: ChunkSize::new(chunk_size).unwrap(),
            start: ChunkNumber(start),
            end: ChunkNumber((start + chunks).min(i32::MAX.cast_unsigned())),
            scavenged,
            id: Uuid::from_u128(id),
            transform: if version == 4 { Transform::of(transform) } else { Transform::Identity },
        }
    }
}

proptest! {
    #[test]
    fn headers_read_back(header in any_header()) {
        prop_assert_eq!(ChunkHeader::parse(&header.encode()).unwrap(), header);
        prop_assert!(header.start_position() < header.end_position());
    }

    #[test]
    fn footers_read_back(
        physical in 0_u64..1 << 31,
        more in 0_u64..1 << 40,
        entries in 0_u64..1 << 27,
        md5: [u8; 16],
        wide: bool,
    ) {
        let map_entries = if wide { MapEntries::Wide } else { MapEntries::Narrow };
        let footer = ChunkFooter {
            map_entries,
            physical,
            logical: physical + more,
            map_length: entries * map_entries.length(),
            md5: Md5Hash(md5),
        };
        match footer.encode() {
            Some(bytes) => prop_assert_eq!(ChunkFooter::parse(&bytes).unwrap(), Some(footer)),
            None => prop_assert!(!wide && footer.logical > 0x7fff_ffff),
        }
    }

    #[test]
    fn no_bytes_make_it_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..600),
        valid: bool,
    ) {
        if let (true, Some(start)) = (valid, bytes.get_mut(..128)) {
            start.copy_from_slice(&header().encode());
        }
        let _ = ChunkFooter::parse(&bytes);
        if let Ok(found) = inspect(&bytes) {
            let _ = found.completed_data();
            let _ = found.data_before(found.header.start_position());
            let _ = found.identity(ChunkVersion(0));
        }
    }
}
