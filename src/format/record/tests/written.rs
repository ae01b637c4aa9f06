//! Records and chunks to be read: written byte by byte, independently of the parser.

use uuid::Uuid;

use crate::format::chunk::{
    self, ChunkFile, ChunkFooter, ChunkHeader, ChunkState, MapEntries, Transform,
};
use crate::format::record::{
    Backwards, ByteSpan, Commit, Forwards, Frame, Lookup, Prepare, PrepareFlags, Record, System,
    Ticks,
};
use crate::format::{ChunkNumber, ChunkSize, LogPosition, Md5Hash, ReadAt, Result};

const CHUNK_SIZE: u32 = 8 * 1024 * 1024;
/// A time in 2026.
const NOW: i64 = 639_308_497_222_047_296;

/// A record to be written.
#[derive(Debug, Clone)]
pub(super) enum Written {
    Prepare {
        version: u8,
        flags: u16,
        expected: i32,
        stream: Vec<u8>,
        event_type: Vec<u8>,
        data: Vec<u8>,
        metadata: Vec<u8>,
    },
    Commit {
        version: u8,
        first: i32,
    },
    System {
        data: Vec<u8>,
    },
}

fn text(bytes: &[u8], body: &mut Vec<u8>) {
    let mut length = bytes.len();
    while length > 0x7f {
        body.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    body.push(u8::try_from(length).unwrap());
    body.extend(bytes);
}

fn blob(bytes: &[u8], body: &mut Vec<u8>) {
    body.extend(i32::try_from(bytes.len()).unwrap().to_le_bytes());
    body.extend(bytes);
}

fn number(version: u8, number: i32, body: &mut Vec<u8>) {
    if version == 0 {
        body.extend(number.to_le_bytes());
    } else {
        body.extend(i64::from(number).to_le_bytes());
    }
}

impl Written {
    pub(super) fn body(&self, position: u64) -> Vec<u8> {
        let mut body = Vec::new();

        let start = |kind: u8, version: u8, body: &mut Vec<u8>| {
            body.extend([kind, version]);
            body.extend(position.to_le_bytes());
        };

        match self {
            Self::Prepare {
                version,
                flags,
                expected,
                stream,
                event_type,
                data,
                metadata,
            } => {
                start(0, *version, &mut body);
                body.extend(flags.to_le_bytes());
                body.extend(position.to_le_bytes());
                body.extend((-1_i32).to_le_bytes());
                number(*version, *expected, &mut body);
                text(stream, &mut body);
                body.extend([1; 16]);
                body.extend([2; 16]);
                body.extend(NOW.to_le_bytes());
                text(event_type, &mut body);
                blob(data, &mut body);
                blob(metadata, &mut body);
            }
            Self::Commit { version, first } => {
                start(1, *version, &mut body);
                body.extend(position.to_le_bytes());
                number(*version, *first, &mut body);
                body.extend(position.to_le_bytes());
                body.extend([2; 16]);
                body.extend(NOW.to_le_bytes());
            }
            Self::System { data } => {
                start(2, 0, &mut body);
                body.extend(NOW.to_le_bytes());
                body.extend([1, 2]);
                body.extend([0; 8]);
                blob(data, &mut body);
            }
        }
        body
    }

    /// The record as it must be read from a frame at `offset`.
    fn expected(&self, position: u64, offset: u64) -> Record<'_> {
        let position = LogPosition::new(position).unwrap();
        let timestamp = Ticks::new(NOW).unwrap();

        match self {
            Self::Prepare {
                version,
                flags,
                expected,
                stream,
                event_type,
                data,
                metadata,
            } => {
                let width = if *version == 0 { 4 } else { 8 };
                let prefix = |length: usize| {
                    1 + [0x80, 0x4000, 0x20_0000]
                        .iter()
                        .filter(|limit| length >= **limit)
                        .count()
                };
                let head = 24
                    + width
                    + prefix(stream.len())
                    + stream.len()
                    + 40
                    + prefix(event_type.len())
                    + event_type.len()
                    + 4;
                let data = ByteSpan {
                    offset: offset + 4 + head as u64,
                    length: data.len() as u64,
                };
                Record::Prepare(Prepare {
                    flags: PrepareFlags(*flags),
                    transaction: position,
                    transaction_offset: -1,
                    expected_version: (*expected).into(),
                    stream,
                    event_id: Uuid::from_bytes_le([1; 16]),
                    correlation_id: Uuid::from_bytes_le([2; 16]),
                    timestamp,
                    event_type,
                    data,
                    metadata: ByteSpan {
                        offset: data.offset + data.length + 4,
                        length: metadata.len() as u64,
                    },
                })
            }
            Self::Commit { first, .. } => Record::Commit(Commit {
                transaction: position,
                first_event_number: (*first).into(),
                correlation_id: Uuid::from_bytes_le([2; 16]),
                timestamp,
            }),
            Self::System { data } => Record::System(System {
                timestamp,
                subtype: 1,
                serialization: 2,
                data,
            }),
        }
    }
}

pub(super) fn frame(body: &[u8]) -> Vec<u8> {
    let length = i32::try_from(body.len()).unwrap().to_le_bytes();
    [&length, body, &length].concat()
}

pub(super) fn header(scavenged: bool) -> ChunkHeader {
    ChunkHeader {
        min_compatible: 3,
        version: 4,
        chunk_size: ChunkSize::new(CHUNK_SIZE).unwrap(),
        start: ChunkNumber(3),
        end: ChunkNumber(3),
        scavenged,
        id: Uuid::nil(),
        transform: Transform::Identity,
    }
}

/// A chunk file with its records: log position, file offset, length and what was written.
pub(super) struct Chunk<'r> {
    pub(super) bytes: Vec<u8>,
    pub(super) file: ChunkFile,
    pub(super) records: Vec<(u64, u64, u64, &'r Written)>,
}

/// Every record `gap` bytes of log behind the one before; with gaps the chunk is a scavenged one.
pub(super) fn chunk(written: &[Written], gap: u64, map_entries: MapEntries) -> Chunk<'_> {
    let header = header(gap > 0);
    let mut bytes = header.encode().to_vec();
    let mut map = Vec::new();
    let mut position = header.start_position().get();
    let mut records = Vec::new();

    for record in written {
        position += gap;
        let frame = frame(&record.body(position));
        let offset = bytes.len() as u64;
        map.extend(i32::try_from(offset - 128).unwrap().to_le_bytes());
        let local = position - header.start_position().get();
        match map_entries {
            MapEntries::Narrow => map.extend(i32::try_from(local).unwrap().to_le_bytes()),
            MapEntries::Wide => map.extend(local.to_le_bytes()),
        }
        records.push((position, offset, frame.len() as u64, record));
        bytes.extend(&frame);
        position += frame.len() as u64;
    }

    let map = if gap > 0 { map } else { Vec::new() };
    let footer = ChunkFooter {
        map_entries,
        physical: bytes.len() as u64 - 128,
        logical: position - header.start_position().get(),
        map_length: map.len() as u64,
        md5: Md5Hash([0; 16]),
    };
    bytes.extend(map);
    bytes.resize(
        usize::try_from(footer.file_length(&header).unwrap()).unwrap() - 128,
        0,
    );
    bytes.extend(footer.encode().unwrap());

    let file = chunk::inspect(&bytes).unwrap();
    assert!(
        matches!(file.state, ChunkState::Completed(_)),
        "{:?}",
        file.state
    );
    Chunk {
        bytes,
        file,
        records,
    }
}

impl Chunk<'_> {
    /// Reads every record forwards, backwards and by its position.
    pub(super) fn check(&self) {
        let data = self.file.completed_data().unwrap();
        let mut forwards = Forwards::new(&self.bytes, &self.file.header, data.clone()).unwrap();
        let mut lookup = Lookup::new(&self.bytes, &self.file, data.clone()).unwrap();
        for (position, offset, length, written) in &self.records {
            let at = LogPosition::new(*position).unwrap();
            let frame = Frame {
                position: at,
                offset: *offset,
                length: *length,
                record: written.expected(*position, *offset),
            };
            assert_eq!(forwards.next().unwrap(), Some(frame));
            assert_eq!(lookup.read_at_position(at).unwrap(), Some(frame));
        }
        assert_eq!(forwards.next().unwrap(), None);
        assert_eq!(forwards.next().unwrap(), None);
        assert_eq!(lookup.read_at_position(LogPosition::ZERO).unwrap(), None);

        let mut backwards = Backwards::new(&self.bytes, &self.file.header, data).unwrap();
        for (position, offset, length, written) in self.records.iter().rev() {
            let position = LogPosition::new(*position).unwrap();
            let frame = Frame {
                position,
                offset: *offset,
                length: *length,
                record: written.expected(position.get(), *offset),
            };
            assert_eq!(backwards.next().unwrap(), Some(frame));
        }
        assert_eq!(backwards.next().unwrap(), None);
    }

    /// How a forward scan of changed bytes ends.
    pub(super) fn scan(&self, bytes: &dyn ReadAt) -> Result<usize> {
        let mut forwards = Forwards::new(bytes, &self.file.header, self.file.completed_data()?)?;
        let mut count = 0;
        while forwards.next()?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    pub(super) fn scan_backwards(&self, bytes: &dyn ReadAt) -> Result<usize> {
        let mut backwards = Backwards::new(bytes, &self.file.header, self.file.completed_data()?)?;
        let mut count = 0;
        while backwards.next()?.is_some() {
            count += 1;
        }
        Ok(count)
    }
}

pub(super) fn event(stream: usize, data: usize, metadata: usize) -> Written {
    Written::Prepare {
        version: 1,
        flags: 0x27,
        expected: 4,
        stream: vec![b's'; stream],
        event_type: b"type".to_vec(),
        data: vec![b'd'; data],
        metadata: vec![b'm'; metadata],
    }
}
