//! `manifest.json`: one JSON object whose head comes first, under a checksum of its own, and whose
//! rows stand one to a line. Both are written and read piece by piece, as a node of ten terabytes
//! has forty thousand chunks.

use std::collections::HashSet;
use std::io::{self, BufRead, Read, Write};

use serde::Deserialize;

use super::{Blake3Hash, Head, Manifest, RelativePath, Row, Totals};
use crate::error::{Error, Kind, Result};
use crate::fs::ReadAt;
use crate::parallel;

/// The version of the manifest format that this program writes.
pub const FORMAT: u32 = 1;
/// A manifest may describe 400 000 chunks and more than that in bytes of JSON; beyond this it is
/// not read.
const MAX_BYTES: u64 = 512 * 1024 * 1024;
/// A head has a line for each epoch; beyond this it is not read.
const MAX_HEAD_BYTES: usize = 16 * 1024 * 1024;
/// A row is not longer.
const LONGEST_ROW: u64 = 8 * 1024;
/// Few rows are longer: room that is made beforehand.
const USUAL_ROW: usize = 512;
/// Bytes that are read at once.
const PIECE: usize = 64 * 1024;

const BEGIN: &str = "{\n  \"format\": ";
/// What stands between the head and the checksum over it. JSON strings hold no line breaks, so it
/// stands nowhere else.
const HEAD_SEAL: &str = ",\n  \"head_checksum\": \"";
const ROWS: &str = "\",\n  \"files\": [";
/// What stands between everything and the checksum over it.
const SEAL: &str = ",\n  \"checksum\": \"";
const END: &str = "\"\n}\n";
const HASH_DIGITS: usize = 64;
const SEAL_BYTES: usize = SEAL.len() + HASH_DIGITS + END.len();

fn corrupt(why: impl Into<String>) -> Error {
    Error::new(Kind::StoredCorrupt, "the manifest is damaged").because(why.into())
}

impl Manifest {
    /// Writes the text of `manifest.json`, which ends in a checksum over all the rest.
    ///
    /// # Errors
    /// The writer's.
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
    /// [`Kind::StoredCorrupt`] where the bytes are not a manifest or not what was written,
    /// [`Kind::Refused`] for a newer format; what the storage reports.
    pub fn read(source: &dyn ReadAt) -> Result<Self> {
        let (head, rows_begin) = read_head(source)?;
        let body = check_seal(source)?;
        let rows = || {
            io::BufReader::with_capacity(
                PIECE,
                Stretch {
                    source,
                    offset: rows_begin,
                    end: body,
                },
            )
        };
        let files = match read_lines(rows()).map_err(unreadable)? {
            Some(files) => files,
            None => read_array(rows())?,
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

/// A row whose path another one has, too. Two names that differ only in case would be one file on
/// some file systems.
fn twin(files: &[Row]) -> Option<&Row> {
    let folded = |row: &Row| row.path.to_string().to_lowercase();
    let is_folded = |row: &Row| {
        row.path
            .below_root()
            .bytes()
            .all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase())
    };
    let mut seen = HashSet::new();
    if !files.is_sorted_by(|one, other| one.path < other.path) {
        return files.iter().find(|row| !seen.insert(folded(row)));
    }
    // Nearly all are small letters and digits: in this order no two of those are the same.
    files.iter().filter(|row| !is_folded(row)).find(|row| {
        let path = folded(row);
        let is_known = path.parse().is_ok_and(|path: RelativePath| {
            files.binary_search_by(|row| row.path.cmp(&path)).is_ok()
        });
        // Letters without case are their own small ones.
        let is_another = path != row.path.to_string();
        is_known && is_another || !seen.insert(path)
    })
}

impl Head {
    /// Reads the head of a manifest, and nothing of its rows.
    ///
    /// # Errors
    /// As for [`Manifest::read`]; damage behind the head is not seen.
    pub fn read(source: &dyn ReadAt) -> Result<Self> {
        read_head(source).map(|(head, _)| head)
    }
}

/// The rows where they stand one to a line, as this program writes them; none where anything is
/// otherwise, which may be right all the same.
fn read_lines(mut text: impl BufRead) -> io::Result<Option<Vec<Row>>> {
    let mut line = || {
        let mut line = Vec::with_capacity(USUAL_ROW);
        text.by_ref()
            .take(LONGEST_ROW)
            .read_until(b'\n', &mut line)
            .map(|_| line)
    };
    let mut files = Vec::new();
    if line()? != b"[\n" {
        return Ok(None);
    }
    loop {
        let mut lines = Vec::new();
        let mut is_end = false;
        while lines.len() < parallel::AT_ONCE && !is_end {
            let row = line()?;
            is_end = !row.ends_with(b",\n");
            lines.push(row);
        }
        let row = |line: &Vec<u8>| {
            serde_json::from_slice::<Row>(
                line.strip_suffix(b",\n")
                    .or(line.strip_suffix(b"\n"))
                    .unwrap_or(line),
            )
        };
        let Ok(rows) = parallel::map(&lines, row) else {
            return Ok(None);
        };
        files.extend(rows);
        if is_end {
            break;
        }
    }
    Ok((line()? == b"  ]" && line()?.is_empty()).then_some(files))
}

fn read_array(text: impl Read) -> Result<Vec<Row>> {
    let mut rows = serde_json::Deserializer::from_reader(text);
    let files = Vec::<Row>::deserialize(&mut rows).and_then(|files| rows.end().map(|()| files));
    files.map_err(|error| {
        if error.is_io() {
            unreadable(error.into())
        } else {
            corrupt(error.to_string())
        }
    })
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

/// Appends the next piece of the source, and says how long it was.
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

/// The text of the head, whose checksum is right, and where the rows begin; none where the text
/// does not reach that far.
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
    let digits = text
        .strip_prefix(BEGIN.as_bytes())
        .ok_or_else(|| corrupt("it does not begin like one"))?;
    let number = digits
        .split(|byte| !byte.is_ascii_digit())
        .next()
        .and_then(|digits| std::str::from_utf8(digits).ok());
    match number.and_then(|number| number.parse::<u32>().ok()) {
        Some(format) if format > FORMAT => Err(Error::new(
            Kind::Refused,
            format!("the manifest has format {format}, this program knows {FORMAT}"),
        )
        .hint("use the newer kbackup that wrote it")),
        Some(_) => Ok(()),
        None => Err(corrupt("it does not say its format")),
    }
}

/// Compares the checksum over everything, and returns the length of what it covers.
fn check_seal(source: &dyn ReadAt) -> Result<u64> {
    let size = source.size();
    if size > MAX_BYTES {
        return Err(corrupt(format!(
            "it has {size} bytes, and no manifest has more than {MAX_BYTES}"
        )));
    }
    let body = size
        .checked_sub(SEAL_BYTES as u64)
        .ok_or_else(|| corrupt("it is too short"))?;
    let mut seal = [0; SEAL_BYTES];
    source.read_exact_at(body, &mut seal).map_err(unreadable)?;
    let digits = seal
        .strip_prefix(SEAL.as_bytes())
        .and_then(|rest| rest.strip_suffix(END.as_bytes()))
        .ok_or_else(|| corrupt("it has no checksum"))?;
    let mut hasher = blake3::Hasher::new();
    let mut bytes = Stretch {
        source,
        offset: 0,
        end: body,
    };
    let mut piece = vec![0; PIECE];
    loop {
        match bytes.read(&mut piece).map_err(unreadable)? {
            0 => break,
            count => hasher.update(piece.get(..count).unwrap_or_default()),
        };
    }
    if hash(digits) == Some(hasher.finalize().into()) {
        Ok(body)
    } else {
        Err(corrupt("its checksum does not fit"))
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

/// A part of a source, read from its beginning to its end.
struct Stretch<'a> {
    source: &'a dyn ReadAt,
    offset: u64,
    end: u64,
}

impl Read for Stretch<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.offset))
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let Some(buffer) = buffer.get_mut(..left).filter(|buffer| !buffer.is_empty()) else {
            return Ok(0);
        };
        match self.source.read_at(self.offset, buffer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.offset += count as u64;
                Ok(count)
            }
        }
    }
}
