//! Reads a whole manifest.

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, Read};

use serde::Deserialize;

use super::checksum::{self, SourceRange};
use super::head::read_head;
use super::layout::{MAX_ROW_BYTES, PIECE, USUAL_ROW_BYTES, corrupt, unreadable};
use crate::error::{Error, Kind, Result};
use crate::fs::ReadAt;
use crate::manifest::{Head, Manifest, RelativePath, Row, Totals};
use crate::parallel;

impl Manifest {
    /// Reads back what [`Self::write`] has just written, before anybody relies on it.
    ///
    /// # Errors
    /// `Failed` if the text is not this manifest, or if no reader could read it.
    pub fn check_written(&self, source: &dyn ReadAt) -> Result<()> {
        let why = match Self::read(source) {
            Ok(written) if written == *self => return Ok(()),
            Ok(_) => "it says something else than was written".to_owned(),
            Err(error) if error.kind() == Kind::StoredCorrupt => error.in_words(),
            Err(error) => return Err(error),
        };
        Err(Error::new(
            Kind::Failed,
            "the manifest of this backup cannot be read back",
        )
        .because(why)
        .hint("the backup was not committed, and the earlier ones are untouched")
        .hint(
            "if the repository's disk is in order, this is a fault of kbackup: report it, \
                     with this message",
        ))
    }

    /// Reads what [`Self::write`] wrote, in this version of the program or in a later one that
    /// writes the same format.
    ///
    /// # Errors
    /// `StoredCorrupt` if the bytes are not a manifest, or not the manifest that was written;
    /// `Refused` for a newer format; what the storage reports.
    pub fn read(source: &dyn ReadAt) -> Result<Self> {
        let (head, rows_begin) = read_head(source)?;
        let rows_end = checksum::check(source)?;
        let files = read_rows(source, rows_begin, rows_end)?;
        Self::of_parts(head, files)
    }

    /// A manifest whose head and rows were kept apart.
    ///
    /// # Errors
    /// `StoredCorrupt` if they do not fit together.
    pub fn of_parts(head: Head, files: Vec<Row>) -> Result<Self> {
        if let Some(row) = second_of_a_path(&files) {
            return Err(corrupt(format!("two rows for {}", row.path)));
        }
        if head.totals != Totals::of(&files) {
            return Err(corrupt("its rows do not add up to the totals in its head"));
        }
        Ok(Self { head, files })
    }
}

fn read_rows(source: &dyn ReadAt, begin: u64, end: u64) -> Result<Vec<Row>> {
    let range = || SourceRange {
        source,
        offset: begin,
        end,
    };

    let lines = BufReader::with_capacity(PIECE, range());
    if let Some(files) = read_lines(lines).map_err(unreadable)? {
        return Ok(files);
    }
    read_array(BufReader::with_capacity(PIECE, range()))
}

/// Reads rows of which each has a line of its own, on several threads. This program writes them so.
/// Returns `None` for any other text, which may be correct JSON all the same.
fn read_lines(mut text: impl BufRead) -> io::Result<Option<Vec<Row>>> {
    if next_line(&mut text)? != b"[\n" {
        return Ok(None);
    }

    let mut files = Vec::new();
    let mut is_end = false;
    while !is_end {
        let mut lines = Vec::new();
        while lines.len() < parallel::AT_ONCE && !is_end {
            let line = next_line(&mut text)?;
            // The last row has no comma.
            is_end = !line.ends_with(b",\n");
            lines.push(line);
        }

        let Ok(rows) = parallel::map(&lines, |line| row_in(line)) else {
            return Ok(None);
        };
        files.extend(rows);
    }

    let is_closed = next_line(&mut text)? == b"  ]" && next_line(&mut text)?.is_empty();
    Ok(is_closed.then_some(files))
}

/// The next line with its line break. A line that is too long for a row is cut.
fn next_line(text: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::with_capacity(USUAL_ROW_BYTES);
    let mut limited = text.by_ref().take(MAX_ROW_BYTES);
    limited.read_until(b'\n', &mut line)?;
    Ok(line)
}

fn row_in(line: &[u8]) -> serde_json::Result<Row> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    serde_json::from_slice(line.strip_suffix(b",").unwrap_or(line))
}

/// Reads the list of rows as JSON, whatever its lines are.
fn read_array(text: impl Read) -> Result<Vec<Row>> {
    match parse_array(text) {
        Ok(files) => Ok(files),
        Err(error) if error.is_io() => Err(unreadable(error.into())),
        Err(error) => Err(corrupt(error.to_string())),
    }
}

fn parse_array(text: impl Read) -> serde_json::Result<Vec<Row>> {
    let mut text = serde_json::Deserializer::from_reader(text);
    let files = Vec::deserialize(&mut text)?;
    text.end()?;
    Ok(files)
}

/// Finds a row whose path another row has too. Paths that differ only in case count as the same,
/// because some file systems would write them into one file.
fn second_of_a_path(files: &[Row]) -> Option<&Row> {
    let mut seen = HashSet::new();

    let is_sorted = files.is_sorted_by(|one, other| one.path < other.path);
    if !is_sorted {
        return files.iter().find(|row| !seen.insert(folded(&row.path)));
    }

    // No two sorted paths are equal, so only a path with other characters than these can be the
    // same as another one in lower case. Nearly all paths of a server are passed by.
    for row in files {
        if is_ascii_lower_case(&row.path) {
            continue;
        }

        let path = folded(&row.path);
        let is_other_path = path != row.path.to_string();
        if (is_other_path && has_path(files, &path)) || !seen.insert(path) {
            return Some(row);
        }
    }
    None
}

fn folded(path: &RelativePath) -> String {
    path.to_string().to_lowercase()
}

fn is_ascii_lower_case(path: &RelativePath) -> bool {
    let mut bytes = path.below_root().bytes();
    bytes.all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase())
}

/// Whether one of the sorted rows has this path.
fn has_path(files: &[Row], path: &str) -> bool {
    let Ok(path) = path.parse::<RelativePath>() else {
        return false;
    };
    files.binary_search_by(|row| row.path.cmp(&path)).is_ok()
}
