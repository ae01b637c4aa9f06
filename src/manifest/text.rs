//! The text of `manifest.json`: one JSON object. Its head comes first and has a checksum of its own.
//! Its rows follow, one to a line, and a checksum over everything ends it. Both are written and read
//! piece by piece, because a node of ten terabytes has forty thousand chunks.

use std::collections::HashSet;
use std::io::{self, BufRead, Read, Write};

use serde::Deserialize;

use super::{Blake3Hash, Head, Manifest, RelativePath, Row, Totals};
use crate::error::{Error, Kind, Result};
use crate::fs::ReadAt;
use crate::parallel;

/// The version of the manifest format that this program writes.
pub const FORMAT: u32 = 1;
/// A manifest that describes 400 000 chunks is shorter. A longer file is not read.
const MAX_BYTES: u64 = 512 * 1024 * 1024;
/// A head has a line for each epoch. A longer one is not read.
const MAX_HEAD_BYTES: usize = 16 * 1024 * 1024;
/// No row is longer.
const LONGEST_ROW: u64 = 8 * 1024;
/// Few rows are longer, so that much room is made beforehand.
const USUAL_ROW: usize = 512;
/// Bytes that are read at once.
const PIECE: usize = 64 * 1024;

const BEGIN: &str = "{\n  \"format\": ";
/// The text between the head and the checksum over it. JSON strings hold no line breaks, so it is
/// nowhere else.
const HEAD_SEAL: &str = ",\n  \"head_checksum\": \"";
const ROWS: &str = "\",\n  \"files\": [";
/// The text between everything and the checksum over it.
const SEAL: &str = ",\n  \"checksum\": \"";
const END: &str = "\"\n}\n";
const HASH_DIGITS: usize = 64;
const SEAL_BYTES: usize = SEAL.len() + HASH_DIGITS + END.len();

fn corrupt(why: impl Into<String>) -> Error {
    Error::new(Kind::StoredCorrupt, "the manifest is damaged").because(why.into())
}

impl Manifest {
    /// Writes the text of `manifest.json`.
    pub fn write(&self, into: &mut dyn Write) -> io::Result<()> {
        let mut sealed = Sealed {
            into,
            hasher: blake3::Hasher::new(),
        };

        let head = serde_json::to_string_pretty(&self.head)?;
        let head = head.strip_suffix("\n}").unwrap_or(&head);
        write!(
            sealed,
            "{head}{HEAD_SEAL}{}{ROWS}",
            Blake3Hash::of(head.as_bytes())
        )?;

        let mut separator = "\n    ";
        for rows in self.files.chunks(parallel::AT_ONCE) {
            let mut text = Vec::with_capacity(rows.len() * USUAL_ROW);
            for row in parallel::map(rows, text_of)? {
                text.extend_from_slice(separator.as_bytes());
                text.extend_from_slice(&row);
                separator = ",\n    ";
            }
            sealed.write_all(&text)?;
        }
        sealed.write_all(b"\n  ]")?;

        let Sealed { into, hasher } = sealed;
        write!(into, "{SEAL}{}{END}", Blake3Hash::from(hasher.finalize()))
    }

    /// Reads what [`Self::write`] wrote, by this version of the program or a later one of the same
    /// format.
    ///
    /// # Errors
    /// [`Kind::StoredCorrupt`] if the bytes are not a manifest, or not what was written;
    /// [`Kind::Refused`] for a newer format.
    pub fn read(source: &dyn ReadAt) -> Result<Self> {
        let (head, rows_begin) = read_head(source)?;
        let body = check_seal(source)?;

        let rows = TextRange {
            source,
            offset: rows_begin,
            end: body,
        };
        let lines = io::BufReader::with_capacity(PIECE, rows);
        let files = match read_lines(lines).map_err(unreadable)? {
            Some(files) => files,
            None => read_array(io::BufReader::with_capacity(PIECE, rows))?,
        };

        if let Some(row) = twin(&files) {
            return Err(corrupt(format!("two rows for {}", row.path)));
        }
        if head.totals != Totals::of(&files) {
            return Err(corrupt(
                "its rows are not as many, or as large, as its head says",
            ));
        }
        Ok(Self { head, files })
    }
}

fn text_of(row: &Row) -> serde_json::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(USUAL_ROW);
    serde_json::to_writer(&mut text, row).map(|()| text)
}

/// A row whose path another row has, too. Two names that differ only in case would be one file on
/// some file systems, so they count as the same.
fn twin(files: &[Row]) -> Option<&Row> {
    let mut seen = HashSet::new();
    if !files.is_sorted_by(|one, other| one.path < other.path) {
        return files.iter().find(|row| !seen.insert(folded(row)));
    }

    // In this order no two paths are the same, and nearly all consist of small letters and digits.
    // Only the others can have a twin.
    for row in files {
        if is_folded(row) {
            continue;
        }
        let path = folded(row);
        // Letters without case are their own small letters.
        let is_another = path != row.path.to_string();
        if is_another && has_path(files, &path) || !seen.insert(path) {
            return Some(row);
        }
    }
    None
}

fn folded(row: &Row) -> String {
    row.path.to_string().to_lowercase()
}

fn is_folded(row: &Row) -> bool {
    let mut bytes = row.path.below_root().bytes();
    bytes.all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase())
}

/// Whether the sorted rows have a path.
fn has_path(files: &[Row], path: &str) -> bool {
    let Ok(path) = path.parse::<RelativePath>() else {
        return false;
    };
    files.binary_search_by(|row| row.path.cmp(&path)).is_ok()
}

impl Head {
    /// Reads the head of a manifest, and nothing of its rows.
    ///
    /// # Errors
    /// As for [`Manifest::read`], but damage behind the head is not seen.
    pub fn read(source: &dyn ReadAt) -> Result<Self> {
        let (head, _) = read_head(source)?;
        Ok(head)
    }
}

/// Reads rows that are one to a line, as this program writes them. Returns `None` if the text has
/// another form, which may be a right one all the same.
fn read_lines(mut text: impl BufRead) -> io::Result<Option<Vec<Row>>> {
    if line_of(&mut text)? != b"[\n" {
        return Ok(None);
    }

    let mut files = Vec::new();
    let mut is_end = false;
    while !is_end {
        let mut lines = Vec::new();
        while lines.len() < parallel::AT_ONCE && !is_end {
            let line = line_of(&mut text)?;
            is_end = !line.ends_with(b",\n");
            lines.push(line);
        }

        let Ok(rows) = parallel::map(&lines, |line| row_of(line)) else {
            return Ok(None);
        };
        files.extend(rows);
    }

    let is_whole = line_of(&mut text)? == b"  ]" && line_of(&mut text)?.is_empty();
    Ok(is_whole.then_some(files))
}

fn line_of(text: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::with_capacity(USUAL_ROW);
    text.take(LONGEST_ROW).read_until(b'\n', &mut line)?;
    Ok(line)
}

fn row_of(line: &[u8]) -> serde_json::Result<Row> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b",").unwrap_or(line);
    serde_json::from_slice(line)
}

fn read_array(text: impl Read) -> Result<Vec<Row>> {
    let mut rows = serde_json::Deserializer::from_reader(text);
    let files = Vec::<Row>::deserialize(&mut rows).map_err(wrong_rows)?;
    rows.end().map_err(wrong_rows)?;
    Ok(files)
}

fn wrong_rows(error: serde_json::Error) -> Error {
    if error.is_io() {
        return unreadable(error.into());
    }
    corrupt(error.to_string())
}

/// The head, and the offset of the rows.
fn read_head(source: &dyn ReadAt) -> Result<(Head, u64)> {
    let mut text = Vec::new();
    let (body, rows_begin) = loop {
        let piece = grow(&mut text, source)?;
        refuse_newer(&text)?;
        if let Some(found) = sealed_head(&text)? {
            break found;
        }
        if piece == 0 || text.len() > MAX_HEAD_BYTES {
            return Err(corrupt("it has no head with a checksum"));
        }
    };
    let mut object = body.to_vec();
    object.extend_from_slice(b"\n}");
    let head = serde_json::from_slice(&object).map_err(|error| corrupt(error.to_string()))?;
    Ok((head, rows_begin))
}

/// Appends the next piece of the source. Returns how long it was.
fn grow(text: &mut Vec<u8>, source: &dyn ReadAt) -> Result<usize> {
    let from = text.len();
    text.resize(from + PIECE, 0);
    let mut count = 0;
    while let Some(rest) = text.get_mut(from + count..).filter(|rest| !rest.is_empty()) {
        match source.read_at((from + count) as u64, rest) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) => return Err(unreadable(error)),
        }
    }
    text.truncate(from + count);
    Ok(count)
}

/// The text of the head, with a checksum that fits, and where the rows begin. `None` if the text does
/// not reach that far.
fn sealed_head(text: &[u8]) -> Result<Option<(&[u8], u64)>> {
    let Some(end) = text
        .windows(HEAD_SEAL.len())
        .position(|window| window == HEAD_SEAL.as_bytes())
    else {
        return Ok(None);
    };
    let (body, seal) = text.split_at(end);
    let digits_end = HEAD_SEAL.len() + HASH_DIGITS;
    let (Some(digits), Some(rows)) = (
        seal.get(HEAD_SEAL.len()..digits_end),
        seal.get(digits_end..digits_end + ROWS.len()),
    ) else {
        return Ok(None);
    };
    if hash(digits) != Some(Blake3Hash::of(body)) || rows != ROWS.as_bytes() {
        return Err(corrupt("the checksum of its head does not fit"));
    }
    // The rows begin with the bracket that `ROWS` ends in.
    Ok(Some((body, (end + digits_end + ROWS.len() - 1) as u64)))
}

/// A newer format may have its checksums elsewhere.
fn refuse_newer(text: &[u8]) -> Result<()> {
    let Some(rest) = text.strip_prefix(BEGIN.as_bytes()) else {
        return Err(corrupt("it does not begin like one"));
    };
    let end = rest.iter().position(|byte| !byte.is_ascii_digit());
    let digits = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
    let number = std::str::from_utf8(digits).unwrap_or_default();

    match number.parse::<u32>().ok() {
        Some(format) if format > FORMAT => Err(Error::new(
            Kind::Refused,
            format!("the manifest has format {format}, this program knows {FORMAT}"),
        )
        .hint("use the newer kbackup that wrote it")),
        Some(_) => Ok(()),
        None => Err(corrupt("it does not say its format")),
    }
}

/// Compares the checksum over everything. Returns the length of what it covers.
fn check_seal(source: &dyn ReadAt) -> Result<u64> {
    let size = source.size();
    if size > MAX_BYTES {
        return Err(corrupt(format!(
            "it has {size} bytes, and no manifest has more than {MAX_BYTES}"
        )));
    }
    let Some(body) = size.checked_sub(SEAL_BYTES as u64) else {
        return Err(corrupt("it is too short"));
    };

    let mut seal = [0; SEAL_BYTES];
    source.read_exact_at(body, &mut seal).map_err(unreadable)?;
    let Some(digits) = digits_of(&seal) else {
        return Err(corrupt("it has no checksum"));
    };
    if hash(digits) != Some(hash_of(source, body)?) {
        return Err(corrupt("its checksum does not fit"));
    }
    Ok(body)
}

/// The digits of the checksum at the end of a manifest.
fn digits_of(seal: &[u8]) -> Option<&[u8]> {
    let rest = seal.strip_prefix(SEAL.as_bytes())?;
    rest.strip_suffix(END.as_bytes())
}

/// The hash of everything before `end`.
fn hash_of(source: &dyn ReadAt, end: u64) -> Result<Blake3Hash> {
    let mut hasher = blake3::Hasher::new();
    let mut text = TextRange {
        source,
        offset: 0,
        end,
    };
    let mut piece = vec![0; PIECE];
    loop {
        let count = text.read(&mut piece).map_err(unreadable)?;
        if count == 0 {
            return Ok(hasher.finalize().into());
        }
        hasher.update(piece.get(..count).unwrap_or_default());
    }
}

fn hash(digits: &[u8]) -> Option<Blake3Hash> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn unreadable(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return corrupt("it ends too early");
    }
    Error::new(Kind::Failed, "cannot read the manifest").because(error)
}

/// A writer that hashes what passes.
struct Sealed<'a> {
    into: &'a mut dyn Write,
    hasher: blake3::Hasher,
}

impl Write for Sealed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.into.write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.into.flush()
    }
}

/// A part of a manifest's text, read from its beginning to its end.
#[derive(Clone, Copy)]
struct TextRange<'a> {
    source: &'a dyn ReadAt,
    offset: u64,
    end: u64,
}

impl Read for TextRange<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.offset))
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if left == 0 {
            return Ok(0);
        }

        let buffer = buffer.get_mut(..left).unwrap_or_default();
        let count = self.source.read_at(self.offset, buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += count as u64;
        Ok(count)
    }
}
