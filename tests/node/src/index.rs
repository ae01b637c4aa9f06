//! A second, independent implementation that writes index files (disk-format §5): stream hashes,
//! tables, bloom filters, `indexmap`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use md5::{Digest, Md5};
use uuid::Uuid;

const SEED: u32 = 0xc58f_1a7b;
const P1: u32 = 2_654_435_761;
const P2: u32 = 2_246_822_519;
const P3: u32 = 3_266_489_917;
const P4: u32 = 668_265_263;
const P5: u32 = 0x1656_67b1;

/// The seeds of the two hashes from which a bloom filter derives the bits of a member.
const MEMBER_SEEDS: [u32; 2] = [0xc001_5eed, 0x1337_5eed];
/// The bits of a bloom filter that each member sets.
const MEMBER_BITS: u64 = 6;

/// The server's early variant of xxHash32 (disk-format §5.3). It also protects the lines of bloom
/// filters.
#[must_use]
pub fn early_xxhash(bytes: &[u8]) -> u32 {
    seeded_xxhash(SEED, bytes)
}

fn seeded_xxhash(seed: u32, bytes: &[u8]) -> u32 {
    let length = bytes.len() as u32;
    let word =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);

    if bytes.len() < 16 {
        let mut index = seed.wrapping_add(P1);
        let mut hash = P5;
        let mut at = 0;

        // A last whole word is read byte by byte.
        while at + 4 < bytes.len() {
            hash = hash.wrapping_add(word(at).wrapping_add(index));
            index = index.wrapping_add(1);
            hash = hash
                .wrapping_add(hash.rotate_left(17).wrapping_mul(P4))
                .wrapping_mul(P1);
            at += 4;
        }

        for byte in &bytes[at..] {
            hash = hash
                .wrapping_add(u32::from(*byte).wrapping_add(index))
                .wrapping_mul(P1);
            index = index.wrapping_add(1);
        }

        hash = hash.wrapping_add(length);
        hash = (hash ^ hash >> 15).wrapping_mul(P2);
        hash = (hash ^ hash >> 13).wrapping_mul(P3);
        return hash ^ hash >> 16;
    }

    let first = seed.wrapping_add(P1);
    let second = first.wrapping_mul(P2).wrapping_add(length);
    let third = second.wrapping_mul(P3);
    let mut lanes = [first, second, third, third.wrapping_mul(P4)];
    let stir = |lane: u32, turn: u32| lane.wrapping_add(lane.rotate_left(turn));

    let last = bytes.len() - 16;
    let mut at = 0;
    while at < last {
        for (lane, turn) in lanes.iter_mut().zip([13, 11, 17, 19]) {
            *lane = stir(*lane, turn).wrapping_mul(P1).wrapping_add(word(at));
            at += 4;
        }
    }

    for (number, (lane, (turn, again))) in lanes
        .iter_mut()
        .zip([(17, 11), (19, 17), (13, 19), (11, 13)])
        .enumerate()
    {
        *lane = stir(*lane, turn)
            .wrapping_mul(P1)
            .wrapping_add(word(last + 4 * number))
            .wrapping_mul(P2);
        *lane = stir(*lane, again).wrapping_mul(P3);
    }

    let [first, second, third, fourth] = lanes;
    let mut hash = first
        .wrapping_add(second.rotate_left(3))
        .wrapping_add(third.rotate_left(6))
        .wrapping_add(fourth.rotate_left(9));

    hash ^= hash >> 11;
    hash = hash.wrapping_add(P4.wrapping_add(length).wrapping_mul(P1));
    hash = (hash ^ hash >> 15).wrapping_mul(P2);
    hash ^ hash >> 13
}

/// Murmur3A with the server's seed.
#[must_use]
pub fn murmur(bytes: &[u8]) -> u32 {
    seeded_murmur(SEED, bytes)
}

fn seeded_murmur(seed: u32, bytes: &[u8]) -> u32 {
    let mix = |word: u32| {
        word.wrapping_mul(0xcc9e_2d51)
            .rotate_left(15)
            .wrapping_mul(0x1b87_3593)
    };

    let mut hash = seed;
    let words = bytes.chunks_exact(4);
    let rest = words.remainder();
    for word in words {
        hash ^= mix(u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        hash = hash
            .rotate_left(13)
            .wrapping_mul(5)
            .wrapping_add(0xe654_6b64);
    }

    if !rest.is_empty() {
        let word = rest
            .iter()
            .rev()
            .fold(0, |word, byte| word << 8 | u32::from(*byte));
        hash ^= mix(word);
    }

    hash ^= bytes.len() as u32;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

/// A stream's hash in the index (disk-format §5.2).
#[must_use]
pub fn stream_hash(stream: &str) -> u64 {
    let bytes: Vec<u8> = stream.encode_utf16().flat_map(u16::to_le_bytes).collect();
    u64::from(early_xxhash(&bytes)) << 32 | u64::from(murmur(&bytes))
}

/// An entry of a table. The order of the fields is the order of the table, which descends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The stream's hash.
    pub hash: u64,
    /// The event's number.
    pub number: i64,
    /// The record's log position.
    pub position: i64,
}

impl Entry {
    fn encode(self, last: i64) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.number.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.hash.to_le_bytes());
        bytes[16..].copy_from_slice(&last.to_le_bytes());
        bytes
    }
}

/// The entries of a version 4 table.
pub fn read_table(path: &Path) -> Result<Vec<Entry>> {
    let bytes = fs::read(path)?;
    let tail = bytes.len().checked_sub(16 + 128);
    let tail = tail.context("too short for a table")?;
    ensure!(
        bytes.starts_with(&[1, 4]) && bytes[tail..].starts_with(&[1, 4]),
        "not a table of version 4"
    );

    let midpoints = crate::log::take(&bytes, tail + 2);
    let midpoints = u32::from_le_bytes(midpoints) as usize;
    let end = tail.checked_sub(24 * midpoints);
    let end = end.context("more midpoints than bytes")?;
    let entries = bytes.get(128..end);
    let entries = entries.context("a negative number of entries")?;
    let entries = entries.chunks_exact(24);
    ensure!(entries.remainder().is_empty(), "half an entry");

    let long = |bytes: &[u8]| crate::recording::number(bytes);
    Ok(entries
        .map(|entry| Entry {
            number: long(&entry[..8]),
            hash: long(&entry[8..16]) as u64,
            position: long(&entry[16..]),
        })
        .collect())
}

/// Counts the written bytes, and computes their MD5.
pub(crate) struct Hashing<W> {
    inner: W,
    hash: Md5,
    pub(crate) length: u64,
}

impl<W: Write> Hashing<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Md5::new(),
            length: 0,
        }
    }

    /// Writes the MD5 of everything before it, and returns the inner writer.
    pub(crate) fn finish(mut self) -> Result<W> {
        self.inner.write_all(&self.hash.finalize())?;
        self.inner.flush()?;
        Ok(self.inner)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.inner.write_all(bytes)?;
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// The largest number of midpoints in a table.
const MIDPOINTS: usize = 1 << 16;

/// Writes a version 4 table with its bloom filter, with the mode 0444. Returns its name.
pub fn write_table(index: &Path, name: Uuid, entries: &mut [Entry]) -> Result<String> {
    entries.sort_unstable_by(|left, right| right.cmp(left));
    let name = name.to_string();
    let path = index.join(&name);
    let mut out = Hashing::new(BufWriter::new(File::create(&path)?));

    let mut edge = [0; 128];
    edge[0] = 1;
    edge[1] = 4;
    out.write_all(&edge)?;
    for entry in entries.iter() {
        out.write_all(&entry.encode(entry.position))?;
    }

    let midpoints = match entries.len() {
        0 => 0,
        count => count.clamp(2, MIDPOINTS),
    };
    for number in 0..midpoints {
        let at = number * (entries.len() - 1) / (midpoints - 1);
        out.write_all(&entries[at].encode(i64::try_from(at)?))?;
    }

    edge[2..6].copy_from_slice(&u32::try_from(midpoints)?.to_le_bytes());
    out.write_all(&edge)?;
    out.finish()?;
    fs::set_permissions(&path, Permissions::from_mode(0o444))?;

    let bits = (entries.len() as u64).max(10_000);
    let filter = index.join(format!("{name}.bloomfilter"));
    write_filter(&filter, bits)?;
    let mut streams: Vec<u64> = entries.iter().map(|entry| entry.hash).collect();
    streams.dedup();
    add_to_filter(&filter, &streams)?;
    Ok(name)
}

/// Writes an empty bloom filter of `size` logical bytes (disk-format §5.3). The file is sparse,
/// because all its lines are zero.
pub fn write_filter(path: &Path, size: u64) -> Result<()> {
    let file = File::create(path)?;
    file.set_len((64 + size + 4 * (size / 60)) / 64 * 64 + 64)?;
    let mut header = [0; 64];
    header[0] = 1;
    header[8..16].copy_from_slice(&(size * 8).to_le_bytes());
    file.write_all_at(&header, 0)?;
    Ok(())
}

/// Adds streams to a bloom filter, by the hashes of their names. Lines without a stream stay holes.
pub fn add_to_filter(path: &Path, streams: &[u64]) -> Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0)?;
    let bits = u64::from_le_bytes(crate::log::take(&header, 8));

    let mut lines: BTreeMap<u64, [u8; 64]> = BTreeMap::new();
    for stream in streams {
        for bit in bits_of(*stream, bits) {
            let number = 1 + bit / 8 / 60;
            let line = match lines.entry(number) {
                std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
                std::collections::btree_map::Entry::Vacant(vacant) => {
                    let mut line = [0; 64];
                    file.read_exact_at(&mut line, number * 64)?;
                    vacant.insert(line)
                }
            };
            // The first bit is the highest.
            line[(bit / 8 % 60) as usize] |= 0x80 >> (bit % 8);
        }
    }

    for (number, mut line) in lines {
        let hash = early_xxhash(&line[..60]);
        line[60..].copy_from_slice(&hash.to_le_bytes());
        file.write_all_at(&line, number * 64)?;
    }
    Ok(())
}

/// The bits that a stream sets in a filter of this many bits.
fn bits_of(stream: u64, bits: u64) -> impl Iterator<Item = u64> {
    let member = stream.to_le_bytes();
    let [start, step] = MEMBER_SEEDS.map(|seed| {
        u64::from(seeded_xxhash(seed, &member)) << 32 | u64::from(seeded_murmur(seed, &member))
    });
    (1..=MEMBER_BITS)
        .map(move |times| (start.wrapping_add(step.wrapping_mul(times)) & u64::MAX >> 1) % bits)
}

/// Sets about half of a filter's bits, as a node with many streams does. The filter then answers
/// "perhaps" to nearly everything. Another seed sets other bits. The bits that are set stay set.
pub fn fill_filter(path: &Path, seed: u64) -> Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let old = fs::read(path)?;
    let mut bits = blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof();

    let mut out = BufWriter::with_capacity(1 << 20, file);
    out.seek(SeekFrom::Start(64))?;
    for line in old.chunks_exact(64).skip(1) {
        let mut data = [0; 60];
        bits.fill(&mut data);
        for (byte, set) in data.iter_mut().zip(line) {
            *byte |= set;
        }
        out.write_all(&data)?;
        out.write_all(&early_xxhash(&data).to_le_bytes())?;
    }

    out.flush()?;
    Ok(())
}

/// The text of an `indexmap` of version 2. Tables are `(level, position, name)`.
#[must_use]
pub fn indexmap(prepare: i64, commit: i64, tables: &[(u32, u32, String)]) -> String {
    let mut text = format!("\n2\n{prepare}/{commit}\n{}\n", i32::MAX);
    for (level, position, name) in tables {
        let _never_fails = writeln!(text, "{level},{position},{name}");
    }
    let mut hash = String::new();
    for byte in Md5::digest(text.as_bytes()) {
        let _never_fails = write!(hash, "{byte:02X}");
    }
    hash + &text
}
