//! A second, independent implementation that reads and writes chunks and log records (disk-format §3,
//! §4).

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use md5::{Digest, Md5};
use uuid::Uuid;

/// The length of a chunk's header, and of its footer, in bytes.
pub const HEADER: u64 = 128;

/// Rounds up to a multiple of 4096, as the lengths of chunk files are.
#[must_use]
pub const fn align(length: u64) -> u64 {
    length.next_multiple_of(4096)
}

/// A chunk's header (disk-format §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkHeader {
    /// The lowest format version that a reader must know.
    pub min_version: u8,
    /// The format version.
    pub version: u8,
    /// The capacity of one logical chunk, in bytes.
    pub chunk_size: u32,
    /// First logical chunk.
    pub start: u32,
    /// Last logical chunk.
    pub end: u32,
    /// True if a scavenge wrote it.
    pub scavenged: bool,
    /// The file's id.
    pub id: Uuid,
}

impl ChunkHeader {
    /// Encodes the 128 bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; 128] {
        let mut bytes = [0; 128];
        bytes[0] = 2;
        bytes[1] = self.min_version;
        bytes[2..6].copy_from_slice(&self.chunk_size.to_le_bytes());
        bytes[6..10].copy_from_slice(&self.start.to_le_bytes());
        bytes[10..14].copy_from_slice(&self.end.to_le_bytes());
        bytes[14..18].copy_from_slice(&i32::from(self.scavenged).to_le_bytes());
        bytes[18..34].copy_from_slice(&self.id.to_bytes_le());
        // Before version 4 this byte was not written. 0 means the value of byte 1 (disk-format §3.2).
        bytes[34] = if self.version >= 4 { self.version } else { 0 };
        bytes
    }

    /// Decodes the 128 bytes.
    pub fn decode(bytes: &[u8; 128]) -> Result<Self> {
        ensure!(
            bytes[0] == 2,
            "the first byte is {}, not that of a chunk",
            bytes[0]
        );
        Ok(Self {
            min_version: bytes[1],
            version: if bytes[34] == 0 { bytes[1] } else { bytes[34] },
            chunk_size: u32::from_le_bytes(take(bytes, 2)),
            start: u32::from_le_bytes(take(bytes, 6)),
            end: u32::from_le_bytes(take(bytes, 10)),
            scavenged: i32::from_le_bytes(take(bytes, 14)) > 0,
            id: Uuid::from_bytes_le(take(bytes, 18)),
        })
    }

    /// The log position of the file's first byte of data.
    #[must_use]
    pub fn start_position(&self) -> u64 {
        u64::from(self.start) * u64::from(self.chunk_size)
    }
}

/// A chunk's footer without its MD5 (disk-format §3.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkFooter {
    /// The bytes of records.
    pub physical: u32,
    /// The bytes of log that the records stand for.
    pub logical: u64,
    /// The bytes of the position map.
    pub map: u32,
}

impl ChunkFooter {
    /// Encodes the first 112 of the 128 bytes. The MD5 of everything before it follows.
    #[must_use]
    pub fn encode(&self) -> [u8; 112] {
        let mut bytes = [0; 112];
        bytes[0] = 0b11;
        bytes[1..5].copy_from_slice(&self.physical.to_le_bytes());
        bytes[5..13].copy_from_slice(&self.logical.to_le_bytes());
        bytes[13..17].copy_from_slice(&self.map.to_le_bytes());
        bytes
    }

    /// Decodes the last 128 bytes of a file. Returns `None` if the chunk is not completed.
    #[must_use]
    pub fn decode(bytes: &[u8; 128]) -> Option<Self> {
        (bytes[0] & 1 == 1).then(|| Self {
            physical: u32::from_le_bytes(take(bytes, 1)),
            logical: u64::from_le_bytes(take(bytes, 5)),
            map: u32::from_le_bytes(take(bytes, 13)),
        })
    }
}

pub(crate) fn take<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// Splits `chunk-000001.000002` into 1 and 2.
#[must_use]
pub fn chunk_name(name: &str) -> Option<(u32, u32)> {
    let (start, version) = name.strip_prefix("chunk-")?.split_once('.')?;
    let digits = |text: &str| text.len() == 6 && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(start) && digits(version)).then_some((start.parse().ok()?, version.parse().ok()?))
}

/// One chunk file of a directory.
#[derive(Debug, Clone)]
pub struct ChunkFile {
    /// The file's path.
    pub path: PathBuf,
    /// The version in its name.
    pub version: u32,
    /// Its header.
    pub header: ChunkHeader,
    /// Its footer, if it is completed.
    pub footer: Option<ChunkFooter>,
    /// Its length in bytes.
    pub length: u64,
}

impl ChunkFile {
    /// Reads header and footer.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let (_, version) =
            chunk_name(&name).with_context(|| format!("{name} is no chunk's name"))?;

        let file = File::open(path)?;
        let length = file.metadata()?.len();
        ensure!(
            length >= 2 * HEADER,
            "{name} is only {length} bytes in size"
        );

        let mut bytes = [0; 128];
        file.read_exact_at(&mut bytes, 0)?;
        let header = ChunkHeader::decode(&bytes)?;
        file.read_exact_at(&mut bytes, length - HEADER)?;

        // In an active chunk of full length, the last bytes are zeros.
        let footer = ChunkFooter::decode(&bytes);
        Ok(Self {
            path: path.to_owned(),
            version,
            header,
            footer,
            length,
        })
    }

    /// True if the MD5 at the end is that of all bytes before it (disk-format §3.5).
    pub fn md5_is_right(&self) -> Result<bool> {
        md5_is_right(&self.path)
    }

    /// The records in the file. In an active chunk, only those before the log position `writer`.
    pub fn records(&self, writer: u64) -> Result<Vec<Record>> {
        let bytes = fs::read(&self.path)?;
        let data = bytes.get(HEADER as usize..).unwrap_or(&[]);
        let physical = match self.footer {
            Some(footer) => u64::from(footer.physical),
            None => writer.saturating_sub(self.header.start_position()),
        };
        let physical = physical.min(data.len() as u64) as usize;

        let mut records = Vec::new();
        let mut at = 0;
        while at < physical {
            let (record, length) = read_record(&data[at..physical], &self.path, at)
                .with_context(|| format!("{} at {}", self.path.display(), at + HEADER as usize))?;
            if !self.header.scavenged {
                ensure!(
                    record.position == self.header.start_position() + at as u64,
                    "the record at {at} says it is at {}",
                    record.position
                );
            }
            records.push(record);
            at += length;
        }

        Ok(records)
    }
}

/// True if the MD5 at the end of the file is that of all bytes before it, as in chunks and index
/// tables.
pub fn md5_is_right(path: &Path) -> Result<bool> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    ensure!(length >= 16, "{} is too short", path.display());

    let mut left = length - 16;
    let mut hash = Md5::new();
    let mut buffer = vec![0; 1 << 16];
    while left > 0 {
        let part = buffer.len().min(usize::try_from(left)?);
        file.read_exact(&mut buffer[..part])?;
        hash.update(&buffer[..part]);
        left -= part as u64;
    }

    let mut stored = [0; 16];
    file.read_exact(&mut stored)?;
    Ok(hash.finalize()[..] == stored)
}

/// The chunk files that a node would use, by position (disk-format §3.8).
pub fn chunks(db: &Path) -> Result<Vec<ChunkFile>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(db)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(parts) = chunk_name(&name) {
            names.push((parts, name));
        }
    }
    names.sort();

    let mut found = Vec::new();
    let mut expected = 0;
    for (index, ((start, _), name)) in names.iter().enumerate() {
        let next = names.get(index + 1);
        let superseded = next.is_some_and(|((next, _), _)| next == start);
        if *start < expected || superseded {
            continue;
        }
        let chunk = ChunkFile::open(&db.join(name)).with_context(|| name.clone())?;
        expected = chunk.header.end + 1;
        found.push(chunk);
    }
    Ok(found)
}

/// A whole log, as a node sees it that starts from the directory.
#[derive(Debug, Clone)]
pub struct Log {
    /// The writer checkpoint.
    pub writer: u64,
    /// Every record before it, in order.
    pub records: Vec<Record>,
}

impl Log {
    /// Reads all chunks up to `writer.chk`. Fails if a frame, a position or a header is wrong.
    pub fn read(db: &Path) -> Result<Self> {
        let writer = fs::read(db.join("writer.chk")).context("cannot read writer.chk")?;
        let writer = u64::try_from(crate::recording::number(&writer))?;
        let mut records = Vec::new();
        for chunk in chunks(db)? {
            records.extend(chunk.records(writer)?);
        }

        ensure!(
            records
                .windows(2)
                .all(|pair| pair[0].end <= pair[1].position),
            "the log's positions do not ascend"
        );
        Ok(Self { writer, records })
    }

    /// The ids of all events that a reader would see, in order.
    pub fn event_ids(&self) -> impl Iterator<Item = Uuid> {
        self.records.iter().filter_map(|record| match &record.kind {
            Kind::Prepare { event, .. } => Some(*event),
            Kind::Commit | Kind::Epoch(_) => None,
        })
    }

    /// The last consistent position: the end of the last whole append. 0 in an empty log.
    #[must_use]
    pub fn last_boundary(&self) -> u64 {
        self.records
            .iter()
            .rfind(|record| record.is_boundary())
            .map_or(0, |record| record.end)
    }

    /// True if the log ends after a whole append.
    #[must_use]
    pub fn ends_at_boundary(&self) -> bool {
        self.records.last().is_none_or(Record::is_boundary)
    }
}

/// The content of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// An event, or part of an explicit transaction.
    Prepare {
        /// The flags of disk-format §4.2.
        flags: u16,
        /// The log position at which its transaction began.
        transaction: i64,
        /// Its stream.
        stream: String,
        /// Its number in the stream (expected version + 1).
        number: i64,
        /// Its id.
        event: Uuid,
        /// Its type.
        event_type: String,
        /// Its payload.
        data: Vec<u8>,
        /// Its creation time, in 100 ns since the year 1.
        ticks: i64,
    },
    /// The end of an explicit transaction.
    Commit,
    /// An epoch, as its JSON.
    Epoch(Vec<u8>),
}

/// A record of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its log position.
    pub position: u64,
    /// The log position after it.
    pub end: u64,
    /// Its content.
    pub kind: Kind,
}

/// A prepare with this flag belongs to an implicit transaction. The last prepare of the transaction
/// has [`TRANSACTION_END`].
pub const IS_COMMITTED: u16 = 0x20;
/// The first prepare of its transaction.
pub const TRANSACTION_BEGIN: u16 = 0x02;
/// The last prepare of its transaction.
pub const TRANSACTION_END: u16 = 0x04;
/// The prepare has data.
pub const DATA: u16 = 0x01;
/// The data is JSON.
pub const IS_JSON: u16 = 0x100;

impl Record {
    /// True if a log may end after this record (disk-format §4.6).
    #[must_use]
    pub fn is_boundary(&self) -> bool {
        match &self.kind {
            Kind::Prepare { flags, .. } => {
                flags & IS_COMMITTED == 0 || flags & TRANSACTION_END != 0
            }
            Kind::Commit | Kind::Epoch(_) => true,
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn slice(&mut self, length: usize) -> Result<&'a [u8]> {
        let slice = self
            .bytes
            .get(self.at..self.at.saturating_add(length))
            .context("the record ends too early")?;
        self.at += length;
        Ok(slice)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(take(self.slice(N)?, 0))
    }

    fn text(&mut self) -> Result<String> {
        let mut length = 0_usize;
        for shift in (0..35).step_by(7) {
            let byte = self.array::<1>()?[0];
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(std::str::from_utf8(self.slice(length)?)?.to_owned());
            }
        }
        bail!("a length of more than five bytes")
    }

    fn blob(&mut self) -> Result<Vec<u8>> {
        let length = i32::from_le_bytes(self.array()?);
        Ok(self.slice(usize::try_from(length)?)?.to_vec())
    }
}

/// Reads one framed record. Returns it with its length, frame included.
fn read_record(bytes: &[u8], path: &Path, at: usize) -> Result<(Record, usize)> {
    let mut frame = Reader { bytes, at: 0 };
    let length = usize::try_from(i32::from_le_bytes(frame.array()?))?;
    ensure!(length > 0, "a length of 0 at {at} in {}", path.display());
    let body = frame.slice(length)?;
    let suffix = usize::try_from(i32::from_le_bytes(frame.array()?))?;
    ensure!(length == suffix, "prefix {length}, suffix {suffix}");

    let mut body = Reader { bytes: body, at: 0 };
    let [kind, version] = body.array()?;
    let position = u64::from_le_bytes(body.array()?);
    let kind = match (kind, version) {
        (0, 0 | 1) => {
            let flags = u16::from_le_bytes(body.array()?);
            let transaction = i64::from_le_bytes(body.array()?);
            let _offset: [u8; 4] = body.array()?;
            let expected = if version == 0 {
                i64::from(i32::from_le_bytes(body.array()?))
            } else {
                i64::from_le_bytes(body.array()?)
            };
            let stream = body.text()?;
            let event = Uuid::from_bytes_le(body.array()?);
            let _correlation: [u8; 16] = body.array()?;
            let ticks = i64::from_le_bytes(body.array()?);
            let event_type = body.text()?;
            let data = body.blob()?;
            let _metadata = body.blob()?;
            ensure!(body.at == length, "bytes are left over in the record");
            Kind::Prepare {
                flags,
                transaction,
                stream,
                number: expected + 1,
                event,
                event_type,
                data,
                ticks,
            }
        }
        (1, _) => Kind::Commit,
        (2, 0) => {
            let _ticks: [u8; 8] = body.array()?;
            let _kinds: [u8; 2] = body.array()?;
            let _reserved: [u8; 8] = body.array()?;
            Kind::Epoch(body.blob()?)
        }
        (kind, version) => bail!("a record of type {kind}, version {version}"),
    };

    let record = Record {
        position,
        end: position + length as u64 + 8,
        kind,
    };
    Ok((record, length + 8))
}

/// An epoch (disk-format §4.4).
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Epoch {
    /// Its log position.
    #[serde(default, rename = "epochPosition")]
    pub position: i64,
    /// Its number.
    #[serde(default, rename = "epochNumber")]
    pub number: i32,
    /// Its id.
    #[serde(rename = "epochId")]
    pub id: Uuid,
    /// The position of the epoch before it. −1 in the first epoch.
    #[serde(default, rename = "prevEpochPosition")]
    pub previous: i64,
}

/// Reads the epoch record at a log position.
pub fn epoch_at(db: &Path, position: u64) -> Result<Epoch> {
    for chunk in chunks(db)? {
        let size = u64::from(chunk.header.chunk_size);
        let end = (u64::from(chunk.header.end) + 1) * size;
        if position < chunk.header.start_position() || position >= end {
            continue;
        }

        let local = position - chunk.header.start_position();
        let place = if chunk.header.scavenged {
            actual_position(&chunk, local)?
        } else {
            local
        };

        let file = File::open(&chunk.path)?;
        let mut prefix = [0; 4];
        file.read_exact_at(&mut prefix, HEADER + place)?;
        let length = u32::from_le_bytes(prefix);
        ensure!(u64::from(length) < size, "a record of {length} bytes");
        let mut bytes = vec![0; length as usize + 8];
        file.read_exact_at(&mut bytes, HEADER + place)?;

        let (record, _) = read_record(&bytes, &chunk.path, 0)?;
        ensure!(record.position == position, "another record is there");
        let Kind::Epoch(json) = record.kind else {
            bail!("the record at {position} is no epoch");
        };

        return Ok(serde_json::from_slice(&json)?);
    }
    bail!("no chunk covers {position}")
}

/// Finds a local log position in a scavenged chunk's position map (disk-format §3.4).
fn actual_position(chunk: &ChunkFile, local: u64) -> Result<u64> {
    let footer = chunk.footer.context("a scavenged chunk without a footer")?;
    let mut map = vec![0; footer.map as usize];
    File::open(&chunk.path)?.read_exact_at(&mut map, HEADER + u64::from(footer.physical))?;
    for entry in map.chunks_exact(12) {
        if u64::from_le_bytes(take(entry, 4)) == local {
            return Ok(u64::from(u32::from_le_bytes(take(entry, 0))));
        }
    }
    bail!("{local} is not in the map of {}", chunk.path.display())
}

/// The log position of the record that ends at `end`. Returns `None` at the start of a chunk and in
/// scavenged chunks.
#[must_use]
pub fn last_record(db: &Path, end: i64) -> Option<i64> {
    let end = u64::try_from(end).ok()?;
    let chunk = chunks(db).ok()?.into_iter().find(|chunk| {
        let size = u64::from(chunk.header.chunk_size);
        chunk.header.start_position() < end && end <= (u64::from(chunk.header.end) + 1) * size
    })?;

    if chunk.header.scavenged {
        return None;
    }

    let mut suffix = [0; 4];
    let place = end - chunk.header.start_position() + HEADER;
    File::open(&chunk.path)
        .ok()?
        .read_exact_at(&mut suffix, place.checked_sub(4)?)
        .ok()?;

    let start = end.checked_sub(u64::from(u32::from_le_bytes(suffix)) + 8)?;
    i64::try_from(start).ok()
}

/// All epochs, oldest first: the chain that ends with the epoch at `latest`.
pub fn lineage(db: &Path, latest: i64) -> Result<Vec<Epoch>> {
    let mut epochs = Vec::new();
    let mut position = latest;
    while let Ok(place) = u64::try_from(position) {
        let epoch = epoch_at(db, place)?;
        ensure!(
            epoch.previous < position,
            "the chain of epochs does not go backwards"
        );
        position = epoch.previous;
        epochs.push(epoch);
    }
    epochs.reverse();
    Ok(epochs)
}
