//! `indexmap`: which tables make up the index, and how far into the log they reach (disk-format §5.1).
//!
//! The file is text: the MD5 of everything behind its first 32 bytes, a version, the two checkpoints, from version 2 on the highest level that is merged
//! automatically, and a line per table. The server replaces it by delete and rename, so a reader sees a whole file or none.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::str::FromStr;

use md5::{Digest, Md5};

use super::names::TableId;
use super::{LogPosition, Malformed, Md5Hash, Result};

const STRUCTURE: &str = "indexmap";
/// Characters of the hash line, and the byte from which on the hash covers the file.
const HASH_LENGTH: usize = 32;
/// What `prepare` or `commit` say when nothing has been indexed.
const NOTHING_INDEXED: i64 = -1;

/// The list of the index's tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexMap {
    /// Log position of the last prepare record in the tables; none in an empty index.
    pub prepare: Option<LogPosition>,
    /// Log position of the last commit in the tables; none in an empty index. The server wants it below `chaser.chk`, else it rebuilds everything (§5.4).
    pub commit: Option<LogPosition>,
    /// Highest level that is merged automatically; none in version 1, written by servers before 5.0. A server configured to merge higher rebuilds everything.
    pub max_merge_level: Option<i32>,
    /// The tables in the order of their lines.
    pub tables: Vec<TableRow>,
}

/// A table's place in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableRow {
    /// How often its entries have been merged; 0 comes fresh from memory.
    pub level: u32,
    /// Its place among the tables of the level, oldest first.
    pub position: u32,
    /// Its file name.
    pub table: TableId,
}

impl IndexMap {
    /// Largest file that is parsed, in bytes: some ten thousand tables, where the server merges from four on.
    pub const MAXIMUM_SIZE: u64 = 1 << 20;

    /// The version in the second line: 1 or 2.
    #[must_use]
    pub fn version(&self) -> u8 {
        if self.max_merge_level.is_some() { 2 } else { 1 }
    }

    /// Reads a whole file, with the line ends of Linux or Windows.
    ///
    /// The rules are the server's: the MD5 holds, checkpoints are −1 only where no tables follow, and the positions of each level count from 0 without a gap. A level
    /// may be empty. Beyond them, a line or a table that the server would never write twice is refused.
    ///
    /// # Errors
    /// [`Malformed`] where the bytes break a rule, or are more than [`Self::MAXIMUM_SIZE`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() as u64 > Self::MAXIMUM_SIZE {
            return Err(malformed(0, format!("at most {} bytes", Self::MAXIMUM_SIZE), bytes.len()).into());
        }
        let mut lines = Lines { rest: check_hash(bytes)?, offset: HASH_LENGTH as u64 };
        // The end of the hash's own line.
        let (offset, line) = lines.expect("a line end behind the MD5")?;
        if !line.is_empty() {
            return Err(malformed(offset, "a line end behind the MD5", line).into());
        }

        let (offset, line) = lines.expect("the version")?;
        let has_level = match line {
            "1" => false,
            "2" => true,
            other => return Err(malformed(offset, "version 1 or 2", other).into()),
        };
        let (offset, line) = lines.expect("prepare/commit checkpoints")?;
        let (prepare, commit) = line.split_once('/').ok_or_else(|| malformed(offset, "prepare/commit checkpoints", line))?;
        let (prepare, commit) = (checkpoint(offset, prepare)?, checkpoint(offset, commit)?);
        let max_merge_level = match has_level {
            true => {
                let (offset, line) = lines.expect("the highest level to merge")?;
                Some(number(offset, "the highest level to merge", line)?)
            }
            false => None,
        };

        let tables_at = lines.offset;
        let mut tables = Vec::new();
        while let Some((offset, line)) = lines.next()? {
            tables.push(row(offset, line)?);
        }
        if !tables.is_empty() && (prepare.is_none() || commit.is_none()) {
            return Err(malformed(tables_at, "no tables, as the checkpoints are -1", format!("{} tables", tables.len())).into());
        }
        check_places(tables_at, &tables)?;
        Ok(Self { prepare, commit, max_merge_level, tables })
    }

    /// The file as a server on Linux writes it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let position = |position: Option<LogPosition>| position.map_or(NOTHING_INDEXED, LogPosition::to_signed);
        let mut body = format!("\n{}\n{}/{}\n", self.version(), position(self.prepare), position(self.commit));
        // Writing to a string cannot fail.
        if let Some(level) = self.max_merge_level {
            let _ = writeln!(body, "{level}");
        }
        for row in &self.tables {
            let _ = writeln!(body, "{},{},{}", row.level, row.position, row.table);
        }
        format!("{}{body}", hash_line(body.as_bytes())).into_bytes()
    }
}

fn malformed(offset: u64, expected: impl Into<String>, found: impl std::fmt::Display) -> Malformed {
    Malformed::new(STRUCTURE, offset, expected, found)
}

/// The hash of `body` as the first line shows it: in capitals.
fn hash_line(body: &[u8]) -> String {
    Md5Hash(Md5::digest(body).into()).to_string().to_uppercase()
}

/// Compares the first line with the rest, and returns the rest.
fn check_hash(bytes: &[u8]) -> Result<&str> {
    let Some((stated, body)) = bytes.split_at_checked(HASH_LENGTH) else {
        return Err(malformed(0, "an MD5 of 32 digits", format!("a file of {} bytes", bytes.len())).into());
    };
    if !stated.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'A'..=b'F')) {
        return Err(malformed(0, "an MD5 of 32 digits in capitals", stated.escape_ascii()).into());
    }
    let computed = hash_line(body);
    if stated != computed.as_bytes() {
        return Err(malformed(0, format!("MD5 {computed}, which the rest has"), stated.escape_ascii()).into());
    }
    std::str::from_utf8(body).map_err(|error| malformed((HASH_LENGTH + error.valid_up_to()) as u64, "UTF-8 text", "other bytes").into())
}

/// Lines with the place of each.
struct Lines<'a> {
    rest: &'a str,
    offset: u64,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Result<Option<(u64, &'a str)>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let offset = self.offset;
        let Some((line, rest)) = self.rest.split_once('\n') else {
            return Err(malformed(offset, "a line with its end", self.rest).into());
        };
        self.rest = rest;
        self.offset += line.len() as u64 + 1;
        Ok(Some((offset, line.strip_suffix('\r').unwrap_or(line))))
    }

    fn expect(&mut self, what: &str) -> Result<(u64, &'a str)> {
        let end = self.offset;
        self.next()?.ok_or_else(|| malformed(end, what, "the end of the file").into())
    }
}

fn number<N: FromStr>(offset: u64, what: &str, text: &str) -> Result<N> {
    text.parse().map_err(|_| malformed(offset, what, text).into())
}

fn checkpoint(offset: u64, text: &str) -> Result<Option<LogPosition>> {
    match number(offset, "a checkpoint", text)? {
        NOTHING_INDEXED => Ok(None),
        position => match LogPosition::from_signed(position) {
            Some(position) => Ok(Some(position)),
            None => Err(malformed(offset, "a checkpoint, or -1", text).into()),
        },
    }
}

fn row(offset: u64, line: &str) -> Result<TableRow> {
    const WANTED: &str = "level,position,table";
    let mut pieces = line.split(',');
    let (Some(level), Some(position), Some(table), None) = (pieces.next(), pieces.next(), pieces.next(), pieces.next()) else {
        return Err(malformed(offset, WANTED, line).into());
    };
    Ok(TableRow {
        level: number(offset, WANTED, level)?,
        position: number(offset, WANTED, position)?,
        table: number(offset, WANTED, table)?,
    })
}

/// Each level's positions count from 0, and no table stands twice.
fn check_places(offset: u64, tables: &[TableRow]) -> Result<()> {
    let mut places: Vec<_> = tables.iter().map(|row| (row.level, row.position)).collect();
    places.sort_unstable();
    let mut wanted = None;
    for (level, position) in places {
        let next = match wanted {
            Some((same, next)) if same == level => next,
            _ => 0,
        };
        if position != next {
            return Err(malformed(offset, format!("a table at level {level}, position {next}"), format!("position {position}")).into());
        }
        wanted = Some((level, next + 1));
    }
    let mut seen = HashSet::new();
    match tables.iter().find(|row| !seen.insert(row.table)) {
        Some(row) => Err(malformed(offset, "each table once", format!("{} twice", row.table)).into()),
        None => Ok(()),
    }
}
