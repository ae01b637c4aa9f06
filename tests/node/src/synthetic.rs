//! Data directories of any size that no node has written but that every check accepts. They serve
//! the benchmarks and the quickstart.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use md5::{Digest, Md5};
use uuid::Uuid;

use crate::index::{self, Entry, Hashing};
use crate::log::{
    self, ChunkFile, ChunkFooter, ChunkHeader, DATA, HEADER, IS_COMMITTED, IS_JSON,
    TRANSACTION_BEGIN, TRANSACTION_END, align,
};
use crate::recording::{Checkpoint, number};

/// The server's default chunk size in bytes.
pub const CHUNK_SIZE: u32 = 256 << 20;
/// The server's default size of the stream-existence filter in bytes.
pub const FILTER_BYTES: u64 = 256_000_000;
/// More bytes than a record has besides its payload.
const RECORD_BYTES: u32 = 512;
/// The epoch of a synthetic log.
const EPOCH: Uuid = Uuid::from_u128(0x5e9e_0c40_0000_4000_8000_0000_0000_0001);
/// 21 November 2026, in ticks of 100 ns.
const BEGIN_TICKS: i64 = 639_308_160_000_000_000;

/// The description of a synthetic directory.
///
/// The directory looks like that of a 26.1 node that was stopped cleanly. It has completed chunks of
/// version 4 full of events, and one active chunk of full length. The checkpoints point at its last
/// record. The index tables hold all events but the last ones.
///
/// The filters of the tables hold the tables' streams. The stream-existence filter is empty and says
/// so, unless it is filled.
#[derive(Debug, Clone)]
pub struct Synthetic {
    /// The capacity of a chunk in bytes.
    pub chunk_size: u32,
    /// The number of completed chunks.
    pub completed_chunks: u32,
    /// The bytes of log in the active chunk.
    pub active_bytes: u64,
    /// The random payload of an event, in bytes.
    pub event_bytes: u32,
    /// The largest number of events in one append. The appends have 1, 2, …, so many events, and
    /// again.
    pub most_events_in_append: u32,
    /// The number of streams of the events.
    pub streams: u32,
    /// The number of entries of an index table.
    pub table_entries: usize,
    /// The logical size of the stream-existence filter in bytes, at least 10 000. The file is sparse
    /// unless it is filled.
    pub filter_bytes: u64,
    /// If set, about half of the bits of all filters are set. The files are not sparse then.
    pub filled_filters: bool,
    /// The number of chunks at the beginning that are one scavenged and merged file. 0 means none.
    /// It must be less than `completed_chunks`.
    pub merged_chunks: u32,
    /// The seed of the data.
    pub seed: u64,
}

impl Default for Synthetic {
    fn default() -> Self {
        Self {
            chunk_size: CHUNK_SIZE,
            completed_chunks: 3,
            active_bytes: 100 << 20,
            event_bytes: 4000,
            most_events_in_append: 5,
            streams: 1000,
            table_entries: 100_000,
            filter_bytes: FILTER_BYTES,
            filled_filters: false,
            merged_chunks: 0,
            seed: 1,
        }
    }
}

/// A directory that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The data directory.
    pub db: PathBuf,
    /// The index directory.
    pub index: PathBuf,
    /// The writer checkpoint, a log position.
    pub writer: u64,
    /// The events in the log, with those at the beginning of the first chunk.
    pub events: u64,
    /// The events in the index tables.
    pub indexed: u64,
}

impl Synthetic {
    /// A directory whose log has `bytes` bytes, in chunks of this size. If the chunks are small, the
    /// events are small too.
    #[must_use]
    pub fn of_size(bytes: u64, chunk_size: u32) -> Self {
        let most = Self::default();
        let fitting = (chunk_size.saturating_sub(1) / most.most_events_in_append)
            .saturating_sub(RECORD_BYTES);
        Self {
            chunk_size,
            completed_chunks: u32::try_from(bytes / u64::from(chunk_size)).unwrap_or(u32::MAX),
            active_bytes: bytes % u64::from(chunk_size),
            event_bytes: most.event_bytes.min(fitting),
            ..most
        }
    }

    fn ensure_possible(&self) -> Result<()> {
        let record = u64::from(self.event_bytes) + u64::from(RECORD_BYTES);
        ensure!(
            record * u64::from(self.most_events_in_append) < u64::from(self.chunk_size),
            "an append of {} events of {} bytes does not fit into a chunk",
            self.most_events_in_append,
            self.event_bytes
        );
        ensure!(
            self.most_events_in_append > 0 && self.streams > 0 && self.table_entries > 0,
            "nothing to make"
        );
        ensure!(
            self.active_bytes < u64::from(self.chunk_size),
            "the active chunk cannot hold {} bytes",
            self.active_bytes
        );
        ensure!(
            self.merged_chunks == 0 || self.merged_chunks < self.completed_chunks,
            "there are no {} chunks to merge",
            self.merged_chunks
        );
        Ok(())
    }

    /// Makes `DIRECTORY/db` with its index. The directory must not hold a `db` yet.
    pub fn make(&self, directory: impl AsRef<Path>) -> Result<Made> {
        self.ensure_possible()?;

        let db = directory.as_ref().join("db");
        let index = db.join("index");
        fs::create_dir_all(directory.as_ref())?;
        fs::create_dir(&db).with_context(|| format!("cannot make {}", db.display()))?;
        fs::create_dir_all(index.join("stream-existence"))?;
        let db = db.canonicalize()?;
        let index = db.join("index");

        let mut log = Log {
            db: &db,
            generator: Generator::new(self.seed),
            streams: (0..self.streams)
                .map(|number| Stream::new(format!("synthetic-{number:06}")))
                .collect(),
            next_stream: 0,
            next_append: 1,
            most: self.most_events_in_append,
            event_bytes: self.event_bytes as usize,
            entries: Vec::new(),
            tables: Tables {
                index: &index,
                size: self.table_entries,
                seed: self.seed,
                pending: Vec::new(),
                names: Vec::new(),
                commit: -1,
                entries: 0,
            },
            events: 0,
        };

        let mut next = 0;
        if self.merged_chunks > 0 {
            log.write_merged(self.chunk_size, self.merged_chunks, self.seed)?;
            next = self.merged_chunks;
        }
        for chunk in next..self.completed_chunks {
            log.write_chunk(
                self.chunk_size,
                chunk,
                u64::from(self.chunk_size),
                true,
                self.seed,
            )?;
        }

        let written = log.write_chunk(
            self.chunk_size,
            self.completed_chunks,
            self.active_bytes,
            false,
            self.seed,
        )?;
        let writer = u64::from(self.completed_chunks) * u64::from(self.chunk_size) + written;
        log.tables.write_map()?;
        let (events, indexed) = (log.events, log.tables.entries);

        for checkpoint in Checkpoint::ALL {
            let value = match checkpoint {
                Checkpoint::Writer | Checkpoint::Chaser => i64::try_from(writer)?,
                Checkpoint::Epoch | Checkpoint::Proposal => 0,
                Checkpoint::Truncate => -1,
            };
            fs::write(db.join(checkpoint.file_name()), value.to_le_bytes())?;
        }

        let existence = index.join("stream-existence");
        index::write_filter(
            &existence.join("streamExistenceFilter.dat"),
            self.filter_bytes,
        )?;
        if self.filled_filters {
            index::fill_filter(&existence.join("streamExistenceFilter.dat"), self.seed)?;
            for (number, table) in log.tables.names.iter().enumerate() {
                index::fill_filter(
                    &index.join(format!("{table}.bloomfilter")),
                    self.seed + 1 + number as u64,
                )?;
            }
        }

        // The filter is complete up to nowhere, so the server fills it at its next start (O21).
        fs::write(
            existence.join("streamExistenceFilter.chk"),
            (-1_i64).to_le_bytes(),
        )?;

        Ok(Made {
            db,
            index,
            writer,
            events,
            indexed,
        })
    }

    /// Appends at least `bytes` bytes of new events to the log of `DIRECTORY/db`, as a 26.1 node
    /// does (O1): data, fsync, writer.chk, fsync, chaser.chk. A full chunk is completed, and the
    /// next one is made. The index does not change, as if the events were only in memory. Returns
    /// the new writer checkpoint.
    pub fn append(directory: impl AsRef<Path>, bytes: u64) -> Result<u64> {
        Self::append_seeded(directory, bytes, 0)
    }

    /// [`Self::append`] with other data for another seed, so that two nodes that continue from the
    /// same position write different events.
    pub fn append_seeded(directory: impl AsRef<Path>, bytes: u64, seed: u64) -> Result<u64> {
        let db = directory.as_ref().join("db");
        let (writer, mut active) = open_end(&db)?;
        let mut generator = Generator::new(writer ^ 0x9e37_79b9_7f4a_7c15 ^ seed.rotate_left(32));

        // Each call has its own streams, so that event numbers begin at 0.
        let mut streams: Vec<Stream> = (0..100)
            .map(|number| Stream::new(format!("append-{writer}-{seed}-{number}")))
            .collect();

        let mut position = writer;
        let mut batch = Vec::new();
        let mut transaction = 0;
        while position - writer < bytes {
            transaction += 1;
            let count = 1 + transaction % 5;
            let stream = transaction % streams.len();
            let append = encode_append(
                &mut generator,
                &mut streams[stream],
                position,
                count,
                4000,
                &mut |_| {},
            );

            let local = position - active.chunk.header.start_position();
            if local + append.len() as u64 > u64::from(active.chunk.header.chunk_size) {
                active.write(&mut batch, position)?;
                active = active.complete(&db, local)?;
                position = active.chunk.header.start_position();
                publish(&db, position)?;
                // The append is encoded again, because its position has changed.
                streams[stream].next -= count as i64;
                transaction -= 1;
                continue;
            }

            position += append.len() as u64;
            batch.extend(append);
            if batch.len() > 4 << 20 {
                active.write(&mut batch, position)?;
                publish(&db, position)?;
            }
        }

        active.write(&mut batch, position)?;
        publish(&db, position)?;
        Ok(position)
    }

    /// Appends one event to a stream, as a server does that notes something for itself: the event
    /// with this number. Returns the new writer checkpoint.
    pub fn note(directory: impl AsRef<Path>, stream: &str, number: i64) -> Result<u64> {
        const BYTES: usize = 100;

        let db = directory.as_ref().join("db");
        let (writer, active) = open_end(&db)?;
        let mut generator = Generator::new(writer ^ 0x2545_f491_4f6c_dd1d);
        let mut stream = Stream {
            next: number,
            ..Stream::new(stream.to_owned())
        };

        let mut note = encode_append(&mut generator, &mut stream, writer, 1, BYTES, &mut |_| {});
        let position = writer + note.len() as u64;
        active.write(&mut note, position)?;
        publish(&db, position)?;
        Ok(position)
    }
}

/// Where the log in `db` ends, and its active chunk.
fn open_end(db: &Path) -> Result<(u64, Active)> {
    let path = db.join(Checkpoint::Writer.file_name());
    let value = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let writer = u64::try_from(number(&value))?;

    let last = log::chunks(db)?.pop().context("there is no chunk")?;
    let capacity_end = last.header.start_position() + u64::from(last.header.chunk_size);
    if capacity_end <= writer || last.footer.is_some() {
        bail!("the last chunk, {}, is not active", last.path.display());
    }
    Ok((writer, Active::open(last)?))
}

/// Writes writer.chk and then chaser.chk, each durably.
fn publish(db: &Path, position: u64) -> Result<()> {
    for checkpoint in [Checkpoint::Writer, Checkpoint::Chaser] {
        let file = OpenOptions::new()
            .write(true)
            .open(db.join(checkpoint.file_name()))?;
        file.write_all_at(&position.to_le_bytes(), 0)?;
        file.sync_data()?;
    }
    Ok(())
}

/// The active chunk.
struct Active {
    chunk: ChunkFile,
    file: File,
}

impl Active {
    fn open(chunk: ChunkFile) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&chunk.path)?;
        Ok(Self { chunk, file })
    }

    /// Writes the batch that ends at a log position.
    fn write(&self, batch: &mut Vec<u8>, end: u64) -> Result<()> {
        let start = end - batch.len() as u64;
        self.file
            .write_all_at(batch, HEADER + start - self.chunk.header.start_position())?;
        self.file.sync_data()?;
        batch.clear();
        Ok(())
    }

    /// Writes the footer, shortens the file, and makes the next chunk (O1).
    fn complete(self, db: &Path, physical: u64) -> Result<Self> {
        let length = align(HEADER + physical + HEADER);
        let footer = ChunkFooter {
            physical: u32::try_from(physical)?,
            logical: physical,
            map: 0,
        };

        let zeros = vec![0; usize::try_from(length - HEADER - physical - HEADER)?];
        self.file.write_all_at(&zeros, HEADER + physical)?;
        self.file.write_all_at(&footer.encode(), length - HEADER)?;

        let mut hash = Md5::new();
        let mut reader = File::open(&self.chunk.path)?.take(length - 16);
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = reader.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
        }

        self.file.write_all_at(&hash.finalize(), length - 16)?;
        self.file.sync_data()?;
        self.file.set_len(length)?;
        fs::set_permissions(&self.chunk.path, Permissions::from_mode(0o444))?;

        let header = ChunkHeader {
            start: self.chunk.header.end + 1,
            end: self.chunk.header.end + 1,
            id: Uuid::new_v4(),
            scavenged: false,
            ..self.chunk.header
        };

        let name = format!("chunk-{:06}.000000", header.start);
        let temporary = db.join(format!("{name}.{}.tmp", Uuid::new_v4()));
        let file = File::create(&temporary)?;
        file.set_len(align(2 * HEADER + u64::from(header.chunk_size)))?;
        file.write_all_at(&header.encode(), 0)?;
        file.sync_all()?;

        let path = db.join(name);
        fs::rename(temporary, &path)?;
        Self::open(ChunkFile::open(&path)?)
    }
}

/// A stream and its next event number.
struct Stream {
    name: String,
    hash: u64,
    next: i64,
}

impl Stream {
    fn new(name: String) -> Self {
        Self {
            hash: index::stream_hash(&name),
            name,
            next: 0,
        }
    }
}

/// Random bytes that do not compress. They come from BLAKE3's output stream, because it is fast even
/// without optimisation.
struct Generator {
    stream: blake3::OutputReader,
}

impl Generator {
    fn new(seed: u64) -> Self {
        Self {
            stream: blake3::Hasher::new()
                .update(&seed.to_le_bytes())
                .finalize_xof(),
        }
    }

    fn uuid(&mut self) -> Uuid {
        let mut bytes = [0; 16];
        self.stream.fill(&mut bytes);
        Uuid::from_bytes(bytes)
    }

    fn fill(&mut self, into: &mut Vec<u8>, length: usize) {
        let start = into.len();
        into.resize(start + length, 0);
        self.stream.fill(&mut into[start..]);
    }
}

/// Writes a body with its frame (disk-format §4.1).
fn frame(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([0; 4]);

    body(out);
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out.extend(length.to_le_bytes());
}

fn text(out: &mut Vec<u8>, text: &str) {
    let mut length = text.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(text.as_bytes());
}

/// The parts of a prepare record that differ (disk-format §4.2).
struct Prepare<'a> {
    position: u64,
    flags: u16,
    transaction: u64,
    offset: u32,
    stream: &'a str,
    number: i64,
    event: Uuid,
    ticks: i64,
    event_type: &'a str,
}

impl Prepare<'_> {
    fn encode(&self, out: &mut Vec<u8>, data: impl FnOnce(&mut Vec<u8>)) {
        frame(out, |out| {
            out.extend([0, 1]);
            out.extend(self.position.to_le_bytes());
            out.extend(self.flags.to_le_bytes());
            out.extend(self.transaction.to_le_bytes());
            out.extend(self.offset.to_le_bytes());
            out.extend((self.number - 1).to_le_bytes());
            text(out, self.stream);
            out.extend(self.event.to_bytes_le());
            out.extend(Uuid::nil().to_bytes_le());
            out.extend(self.ticks.to_le_bytes());
            text(out, self.event_type);

            // The data has its length before it. There are no metadata.
            let start = out.len();
            out.extend([0; 4]);
            data(out);
            let length = (out.len() - start - 4) as u32;
            out[start..start + 4].copy_from_slice(&length.to_le_bytes());
            out.extend([0; 4]);
        });
    }
}

/// One append of `count` events: an implicit transaction (disk-format §4.2).
fn encode_append(
    generator: &mut Generator,
    stream: &mut Stream,
    position: u64,
    count: usize,
    event_bytes: usize,
    indexed: &mut impl FnMut(Entry),
) -> Vec<u8> {
    let mut out = Vec::with_capacity(count * (event_bytes + 200));
    for number in 0..count {
        let at = position + out.len() as u64;
        let mut flags = DATA | IS_COMMITTED;
        if number == 0 {
            flags |= TRANSACTION_BEGIN;
        }
        if number + 1 == count {
            flags |= TRANSACTION_END;
        }

        let prepare = Prepare {
            position: at,
            flags,
            transaction: position,
            offset: number as u32,
            stream: &stream.name,
            number: stream.next,
            event: generator.uuid(),
            ticks: BEGIN_TICKS + (at / 10) as i64,
            event_type: "synthetic",
        };

        prepare.encode(&mut out, |out| generator.fill(out, event_bytes));
        indexed(Entry {
            hash: stream.hash,
            number: stream.next,
            position: at as i64,
        });
        stream.next += 1;
    }
    out
}

/// The log during its creation.
struct Log<'a> {
    db: &'a Path,
    generator: Generator,
    streams: Vec<Stream>,
    next_stream: usize,
    next_append: u32,
    most: u32,
    event_bytes: usize,
    /// The entries of the append that is being written.
    entries: Vec<Entry>,
    tables: Tables<'a>,
    events: u64,
}

impl Log<'_> {
    /// The epoch 0 and its `$epoch-information`, with which every log begins (disk-format §4.4).
    fn beginning(&mut self) -> Vec<u8> {
        let json = format!(
            "{{\n  \"epochId\": \"{EPOCH}\",\n  \"prevEpochPosition\": -1,\n  \
             \"timeStamp\": \"2026-11-21T00:00:00Z\",\n  \"leaderInstanceId\": \"{}\"\n}}",
            self.generator.uuid()
        );

        let mut out = Vec::new();
        frame(&mut out, |out| {
            out.extend([2, 0]);
            out.extend(0_u64.to_le_bytes());
            out.extend(BEGIN_TICKS.to_le_bytes());
            out.extend([1, 2]);
            out.extend(0_u64.to_le_bytes());
            out.extend((json.len() as u32).to_le_bytes());
            out.extend_from_slice(json.as_bytes());
        });

        let position = out.len() as u64;
        let prepare = Prepare {
            position,
            flags: DATA | IS_COMMITTED | TRANSACTION_BEGIN | TRANSACTION_END | IS_JSON,
            transaction: position,
            offset: 0,
            stream: "$epoch-information",
            number: 0,
            event: self.generator.uuid(),
            ticks: BEGIN_TICKS,
            event_type: "$epoch-information",
        };
        prepare.encode(&mut out, |out| out.extend_from_slice(json.as_bytes()));
        self.entries.push(Entry {
            hash: index::stream_hash("$epoch-information"),
            number: 0,
            position: position as i64,
        });

        out
    }

    /// The next append. Returns `None` if it would end beyond `limit`, a log position: an append
    /// never spans chunks.
    fn append(&mut self, position: u64, limit: u64) -> Option<Vec<u8>> {
        let count = self.next_append;
        let stream = &mut self.streams[self.next_stream];
        let record = 8
            + 32
            + 1
            + stream.name.len()
            + 16
            + 16
            + 8
            + 1
            + "synthetic".len()
            + 4
            + self.event_bytes
            + 4;
        if position + (record * count as usize) as u64 > limit {
            return None;
        }

        let entries = &mut self.entries;
        let append = encode_append(
            &mut self.generator,
            stream,
            position,
            count as usize,
            self.event_bytes,
            &mut |entry| {
                entries.push(entry);
            },
        );

        self.next_append = if count >= self.most { 1 } else { count + 1 };
        self.next_stream = (self.next_stream + 1) % self.streams.len();
        Some(append)
    }

    fn keep_entries(&mut self) -> Result<()> {
        self.events += self.entries.len() as u64;
        let entries = std::mem::take(&mut self.entries);
        self.tables.add(entries)
    }

    /// Writes one chunk with up to `bytes` bytes of records. Returns the bytes of its records.
    fn write_chunk(
        &mut self,
        chunk_size: u32,
        number: u32,
        bytes: u64,
        completed: bool,
        seed: u64,
    ) -> Result<u64> {
        let header = header(chunk_size, number, number, false, seed);
        let path = self.db.join(format!("chunk-{number:06}.000000"));
        let file = BufWriter::with_capacity(1 << 20, File::create(&path)?);
        let mut out = Hashing::new(file);
        out.write_all(&header.encode())?;

        let start = header.start_position();
        let limit = start + bytes;
        let mut position = start;

        if number == 0 {
            let beginning = self.beginning();
            out.write_all(&beginning)?;
            position += beginning.len() as u64;
            self.keep_entries()?;
        }

        while let Some(append) = self.append(position, limit) {
            out.write_all(&append)?;
            position += append.len() as u64;
            self.keep_entries()?;
        }

        let physical = position - start;
        if completed {
            close(
                out,
                ChunkFooter {
                    physical: u32::try_from(physical)?,
                    logical: physical,
                    map: 0,
                },
            )?;
            fs::set_permissions(&path, Permissions::from_mode(0o444))?;
        } else {
            out.flush()?;
            OpenOptions::new()
                .write(true)
                .open(&path)?
                .set_len(align(2 * HEADER + u64::from(chunk_size)))?;
        }

        Ok(physical)
    }

    /// Writes the first `count` chunks as one scavenged file. It keeps only as many appends as fit
    /// into one chunk.
    fn write_merged(&mut self, chunk_size: u32, count: u32, seed: u64) -> Result<()> {
        let header = header(chunk_size, 0, count - 1, true, seed);
        let path = self.db.join("chunk-000000.000001");
        let mut out = Hashing::new(BufWriter::with_capacity(1 << 20, File::create(&path)?));
        out.write_all(&header.encode())?;
        let mut map = Vec::new();
        let mut physical = 0_u64;
        let mut position = 0;

        // Half of a chunk's share is used, because the map and the beginning need room too.
        let budget = u64::from(chunk_size) / 2 / u64::from(count);
        for chunk in 0..count {
            let start = u64::from(chunk) * u64::from(chunk_size);
            position = start;
            let kept_before = physical;

            if chunk == 0 {
                let beginning = self.beginning();
                out.write_all(&beginning)?;
                add_to_map(&beginning, 0, &mut physical, &mut map);
                position += beginning.len() as u64;
                self.keep_entries()?;
            }

            while let Some(append) = self.append(position, start + u64::from(chunk_size)) {
                if physical - kept_before < budget {
                    out.write_all(&append)?;
                    add_to_map(&append, position, &mut physical, &mut map);
                    self.keep_entries()?;
                } else {
                    // The scavenge removed it from the log and from the index.
                    self.entries.clear();
                }
                position += append.len() as u64;
            }
        }

        out.write_all(&map)?;
        close(
            out,
            ChunkFooter {
                physical: u32::try_from(physical)?,
                logical: position,
                map: u32::try_from(map.len())?,
            },
        )?;

        fs::set_permissions(&path, Permissions::from_mode(0o444))?;
        Ok(())
    }
}

/// Adds the records in `bytes` to the position map of a scavenged chunk (disk-format §3.4).
fn add_to_map(bytes: &[u8], position: u64, physical: &mut u64, map: &mut Vec<u8>) {
    let mut at = 0;
    while at < bytes.len() {
        map.extend(((*physical) as u32).to_le_bytes());
        map.extend((position + at as u64).to_le_bytes());

        let prefix = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        let length = u32::from_le_bytes(prefix) as usize + 8;
        *physical += length as u64;
        at += length;
    }
}

fn header(chunk_size: u32, start: u32, end: u32, scavenged: bool, seed: u64) -> ChunkHeader {
    let id = Uuid::from_u64_pair(
        seed ^ 0x5e9e_0c40_0000_4000,
        u64::from(start) << 32 | u64::from(scavenged),
    );
    ChunkHeader {
        min_version: 3,
        version: 4,
        chunk_size,
        start,
        end,
        scavenged,
        id,
    }
}

/// Ends a chunk with padding, footer and MD5.
fn close(mut out: Hashing<BufWriter<File>>, footer: ChunkFooter) -> Result<()> {
    let zeros = vec![0; usize::try_from(align(out.length + HEADER) - HEADER - out.length)?];
    out.write_all(&zeros)?;
    out.write_all(&footer.encode())?;
    out.finish()?;
    Ok(())
}

/// The index tables during their creation.
struct Tables<'a> {
    index: &'a Path,
    size: usize,
    seed: u64,
    /// The entries that are in no table yet, in the order of the log.
    pending: Vec<Entry>,
    /// The names of the tables, oldest first.
    names: Vec<String>,
    commit: i64,
    entries: u64,
}

impl Tables<'_> {
    /// Fills one table after the other. Entries that fill no table stay "in memory".
    fn add(&mut self, entries: Vec<Entry>) -> Result<()> {
        self.pending.extend(entries);
        if self.pending.len() >= self.size {
            self.write()
        } else {
            Ok(())
        }
    }

    fn write(&mut self) -> Result<()> {
        let mut entries = std::mem::take(&mut self.pending);
        self.commit = entries.last().map_or(self.commit, |entry| entry.position);
        self.entries += entries.len() as u64;
        let name = Uuid::from_u64_pair(self.seed ^ 0x7ab1_e000_0000_4000, self.names.len() as u64);
        self.names
            .push(index::write_table(self.index, name, &mut entries)?);
        Ok(())
    }

    /// Writes the `indexmap`: at most three tables a level, the newest at level 0, as merging leaves
    /// them.
    fn write_map(&mut self) -> Result<()> {
        if self.names.is_empty() {
            self.pending.truncate(self.pending.len().div_ceil(2));
            self.write()?;
        }
        let newest_first = self.names.iter().rev().zip(0..);
        let tables: Vec<_> = newest_first
            .map(|(name, number)| (number / 3, number % 3, name.clone()))
            .collect();
        fs::write(
            self.index.join("indexmap"),
            index::indexmap(self.commit, self.commit, &tables),
        )?;
        Ok(())
    }
}
