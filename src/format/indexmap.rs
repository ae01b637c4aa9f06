//! `indexmap`: which tables make up the index, and how far into the log they reach (disk-format
//! §5.1).
//!
//! ```text
//! MD5 of everything from byte 32 on, in capitals
//! version, 1 or 2
//! prepare checkpoint/commit checkpoint
//! highest level that is merged automatically (only version 2)
//! level,position,table     for each table
//! ```
//!
//! The server replaces the file by delete and rename, so a reader sees a whole file or none.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::str::FromStr;

use md5::{Digest, Md5};

use super::names::TableId;
use super::{LogPosition, Malformed, Md5Hash, Result};

const STRUCTURE: &str = "indexmap";
/// Characters of the hash line, and the byte from which on the hash covers the file.
const HASH_LENGTH: usize = 32;
/// A checkpoint of an index that holds nothing.
const NOTHING_INDEXED: i64 = -1;

/// The list of the index's tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexMap {
    /// Log position of the last prepare record in the tables. `None` in an empty index.
    pub prepare: Option<LogPosition>,
    /// Log position of the last commit in the tables. `None` in an empty index. The server wants it
    /// below `chaser.chk`; otherwise it rebuilds everything (§5.4).
    pub commit: Option<LogPosition>,
    /// Highest level that is merged automatically. `None` in version 1, which servers before 5.0
    /// wrote. A server that is configured to merge higher rebuilds everything.
    pub max_merge_level: Option<i32>,
    /// The tables in the order of their lines.
    pub tables: Vec<TableRow>,
}

/// A table's place in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableRow {
    /// How often its entries were merged. A table that comes fresh from memory has level 0.
    pub level: u32,
    /// Its place among the tables of the level, oldest first.
    pub position: u32,
    /// Its file name.
    pub table: TableId,
}

impl IndexMap {
    /// Largest file that is parsed, in bytes. It holds some ten thousand tables; the server merges
    /// from four on.
    pub const MAXIMUM_SIZE: u64 = 1 << 20;

    /// The version in the second line: 1 or 2.
    #[must_use]
    pub fn version(&self) -> u8 {
        if self.max_merge_level.is_some() { 2 } else { 1 }
    }

    /// Reads a whole file, with the line ends of Linux or Windows.
    ///
    /// The rules are the server's: the MD5 holds, checkpoints are −1 only if no tables follow, and
    /// the positions of each level count from 0 without a gap. A level may be empty. Beyond these
    /// rules, this parser refuses a table that is listed twice.
    ///
    /// # Errors
    /// [`Malformed`] if the bytes break a rule, or are more than [`Self::MAXIMUM_SIZE`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() as u64 > Self::MAXIMUM_SIZE {
            let expected = format!("at most {} bytes", Self::MAXIMUM_SIZE);
            return Err(malformed(0, expected, bytes.len()).into());
        }
        let mut lines = Lines {
            rest: check_hash(bytes)?,
            offset: HASH_LENGTH as u64,
        };

        // The end of the hash's own line.
        let (offset, line) = lines.expect("a line end behind the MD5")?;
        if !line.is_empty() {
            return Err(malformed(offset, "a line end behind the MD5", line).into());
        }

        let has_level = has_merge_level(&mut lines)?;
        let (prepare, commit) = checkpoints(&mut lines)?;
        let max_merge_level = if has_level {
            let (offset, line) = lines.expect("the highest level to merge")?;
            Some(number(offset, "the highest level to merge", line)?)
        } else {
            None
        };

        let tables_at = lines.offset;
        let mut tables = Vec::new();
        while let Some((offset, line)) = lines.next()? {
            tables.push(row(offset, line)?);
        }
        if !tables.is_empty() && (prepare.is_none() || commit.is_none()) {
            let expected = "no tables, as the checkpoints are -1";
            let found = format!("{} tables", tables.len());
            return Err(malformed(tables_at, expected, found).into());
        }
        check_places(tables_at, &tables)?;
        check_single(tables_at, &tables)?;

        Ok(Self {
            prepare,
            commit,
            max_merge_level,
            tables,
        })
    }

    /// The file as a server on Linux writes it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut body = format!(
            "\n{}\n{}/{}\n",
            self.version(),
            signed(self.prepare),
            signed(self.commit)
        );
        // Writing to a string cannot fail.
        if let Some(level) = self.max_merge_level {
            let _ = writeln!(body, "{level}");
        }
        for row in &self.tables {
            let _ = writeln!(body, "{},{},{}", row.level, row.position, row.table);
        }

        let hash = hash_line(body.as_bytes());
        format!("{hash}{body}").into_bytes()
    }
}

fn signed(checkpoint: Option<LogPosition>) -> i64 {
    checkpoint.map_or(NOTHING_INDEXED, LogPosition::to_signed)
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
        let found = format!("a file of {} bytes", bytes.len());
        return Err(malformed(0, "an MD5 of 32 digits", found).into());
    };
    let is_hash = stated
        .iter()
        .all(|digit| matches!(digit, b'0'..=b'9' | b'A'..=b'F'));
    if !is_hash {
        let expected = "an MD5 of 32 digits in capitals";
        return Err(malformed(0, expected, stated.escape_ascii()).into());
    }

    let computed = hash_line(body);
    if stated != computed.as_bytes() {
        let expected = format!("MD5 {computed}, which the rest has");
        return Err(malformed(0, expected, stated.escape_ascii()).into());
    }

    std::str::from_utf8(body).map_err(|error| {
        let at = (HASH_LENGTH + error.valid_up_to()) as u64;
        malformed(at, "UTF-8 text", "other bytes").into()
    })
}

/// The lines of a text, each with its byte offset.
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
        match self.next()? {
            Some(line) => Ok(line),
            None => Err(malformed(end, what, "the end of the file").into()),
        }
    }
}

/// Reads the version. Returns whether the version has a line for the merge level.
fn has_merge_level(lines: &mut Lines<'_>) -> Result<bool> {
    let (offset, line) = lines.expect("the version")?;
    match line {
        "1" => Ok(false),
        "2" => Ok(true),
        other => Err(malformed(offset, "version 1 or 2", other).into()),
    }
}

fn checkpoints(lines: &mut Lines<'_>) -> Result<(Option<LogPosition>, Option<LogPosition>)> {
    const WANTED: &str = "prepare/commit checkpoints";
    let (offset, line) = lines.expect(WANTED)?;
    let Some((prepare, commit)) = line.split_once('/') else {
        return Err(malformed(offset, WANTED, line).into());
    };
    Ok((checkpoint(offset, prepare)?, checkpoint(offset, commit)?))
}

fn checkpoint(offset: u64, text: &str) -> Result<Option<LogPosition>> {
    let value = number(offset, "a checkpoint", text)?;
    if value == NOTHING_INDEXED {
        return Ok(None);
    }
    match LogPosition::from_signed(value) {
        Some(position) => Ok(Some(position)),
        None => Err(malformed(offset, "a checkpoint, or -1", text).into()),
    }
}

fn number<N: FromStr>(offset: u64, what: &str, text: &str) -> Result<N> {
    text.parse()
        .map_err(|_| malformed(offset, what, text).into())
}

fn row(offset: u64, line: &str) -> Result<TableRow> {
    const WANTED: &str = "level,position,table";
    let mut pieces = line.split(',');
    let (Some(level), Some(position), Some(table), None) =
        (pieces.next(), pieces.next(), pieces.next(), pieces.next())
    else {
        return Err(malformed(offset, WANTED, line).into());
    };
    Ok(TableRow {
        level: number(offset, WANTED, level)?,
        position: number(offset, WANTED, position)?,
        table: number(offset, WANTED, table)?,
    })
}

/// The positions of each level count from 0 without a gap.
fn check_places(offset: u64, tables: &[TableRow]) -> Result<()> {
    let mut places: Vec<_> = tables.iter().map(|row| (row.level, row.position)).collect();
    places.sort_unstable();

    let mut before: Option<(u32, u32)> = None;
    for (level, position) in places {
        let wanted = match before {
            Some((same, last)) if same == level => last + 1,
            _ => 0,
        };
        if position != wanted {
            let expected = format!("a table at level {level}, position {wanted}");
            return Err(malformed(offset, expected, format!("position {position}")).into());
        }
        before = Some((level, position));
    }
    Ok(())
}

fn check_single(offset: u64, tables: &[TableRow]) -> Result<()> {
    let mut seen = HashSet::new();
    for row in tables {
        if !seen.insert(row.table) {
            let found = format!("{} twice", row.table);
            return Err(malformed(offset, "each table once", found).into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const TABLES: [&str; 2] = [
        "397bb182-1562-4c5c-900a-e1b37bd3d1fc",
        "768ef3e4-f7a9-45a1-add0-d9e280ce01b5",
    ];

    fn signed(body: &str) -> Vec<u8> {
        format!("{}{body}", hash_line(body.as_bytes())).into_bytes()
    }

    fn parse(body: &str) -> Result<IndexMap> {
        IndexMap::parse(&signed(body))
    }

    /// The offset and the expectation of the complaint.
    fn refusal(body: &str) -> (u64, String) {
        match parse(body) {
            Err(super::super::Error::Malformed(malformed)) => {
                (malformed.offset, malformed.expected)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_index_without_tables() {
        let map = parse("\n2\n-1/-1\n2147483647\n").unwrap();
        assert_eq!(
            map,
            IndexMap {
                prepare: None,
                commit: None,
                max_merge_level: Some(i32::MAX),
                tables: Vec::new()
            }
        );
    }

    #[test]
    fn version_1_has_no_merge_level() {
        let map = parse(&format!("\n1\n10/20\n0,0,{}\n", TABLES[0])).unwrap();
        assert_eq!(
            (map.version(), map.max_merge_level, map.tables.len()),
            (1, None, 1)
        );
        assert_eq!(
            (map.prepare, map.commit),
            (LogPosition::new(10), LogPosition::new(20))
        );
    }

    #[test]
    fn line_ends_of_windows() {
        let unix = format!("\n2\n10/20\n3\n0,0,{}\n1,0,{}\n", TABLES[0], TABLES[1]);
        assert_eq!(
            parse(&unix.replace('\n', "\r\n")).unwrap(),
            parse(&unix).unwrap()
        );
    }

    #[test]
    fn levels_may_be_empty_but_have_no_gaps() {
        let [first, second] = TABLES;
        assert_eq!(
            parse(&format!("\n2\n1/1\n9\n3,0,{first}\n"))
                .unwrap()
                .tables[0]
                .level,
            3
        );
        assert!(parse(&format!("\n2\n1/1\n9\n0,1,{first}\n0,0,{second}\n")).is_ok());

        let (offset, wanted) = refusal(&format!("\n2\n1/1\n9\n0,0,{first}\n0,2,{second}\n"));
        assert_eq!(
            (offset, wanted.as_str()),
            (41, "a table at level 0, position 1")
        );
        assert_eq!(
            refusal(&format!("\n2\n1/1\n9\n0,0,{first}\n0,0,{second}\n")).1,
            "a table at level 0, position 1"
        );
        assert_eq!(
            refusal(&format!("\n2\n1/1\n9\n0,0,{first}\n1,1,{second}\n")).1,
            "a table at level 1, position 0"
        );
        assert_eq!(
            refusal(&format!("\n2\n1/1\n9\n0,0,{first}\n0,1,{first}\n")).1,
            "each table once"
        );
    }

    #[test]
    fn tables_need_checkpoints() {
        for checkpoints in ["-1/5", "5/-1", "-1/-1"] {
            assert_eq!(
                refusal(&format!("\n2\n{checkpoints}\n9\n0,0,{}\n", TABLES[0])).1,
                "no tables, as the checkpoints are -1"
            );
        }
    }

    #[test]
    fn other_text_is_refused_where_it_stands() {
        let table = TABLES[0];
        let cases = [
            (String::new(), 32),
            ("2\n".to_owned(), 32),
            ("\n3\n".to_owned(), 33),
            ("\n2\n12\n9\n".to_owned(), 35),
            ("\n2\n-2/1\n9\n".to_owned(), 35),
            ("\n2\n1/9223372036854775808\n9\n".to_owned(), 35),
            ("\n2\n1/1\n".to_owned(), 39),
            ("\n2\n1/1\nnine\n".to_owned(), 39),
            ("\n2\n1/1\n9\n\n".to_owned(), 41),
            (format!("\n2\n1/1\n9\n-1,0,{table}\n"), 41),
            (format!("\n2\n1/1\n9\n0,{table}\n"), 41),
            (format!("\n2\n1/1\n9\n0,0,{table},0\n"), 41),
            (format!("\n2\n1/1\n9\n0,0,../{table}\n"), 41),
            (format!("\n2\n1/1\n9\n0,0,{}\n", table.to_uppercase()), 41),
            (format!("\n2\n1/1\n9\n0,0,{table}"), 41),
        ];

        for (body, offset) in cases {
            assert_eq!(refusal(&body).0, offset, "{body:?}");
        }
    }

    #[test]
    fn a_hash_in_small_letters_is_refused() {
        let bytes = signed("\n2\n-1/-1\n9\n").to_ascii_lowercase();
        assert!(bytes[..32].iter().any(u8::is_ascii_lowercase));
        assert!(IndexMap::parse(&bytes).is_err());
    }

    #[test]
    fn a_huge_file_is_refused() {
        assert!(parse(&format!("\n2\n-1/-1\n9\n{}", "\n".repeat(1 << 20))).is_err());
    }

    prop_compose! {
        fn maps()(
            levels in prop::collection::vec(0_u32..4, 0..6),
            max_merge_level: Option<i32>,
            prepare in 0..i64::MAX,
            commit in 0..i64::MAX,
            seed: u64,
        ) -> IndexMap {
            let mut tables = Vec::new();
            for (level, count) in (0..).zip(levels) {
                for position in 0..count {
                    let id = Uuid::from_u64_pair(seed, tables.len() as u64);
                    tables.push(TableRow { level, position, table: TableId(id) });
                }
            }

            IndexMap {
                prepare: LogPosition::from_signed(prepare),
                commit: LogPosition::from_signed(commit),
                max_merge_level,
                tables,
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read_back(map in maps()) {
            prop_assert_eq!(IndexMap::parse(&map.encode()).unwrap(), map);
        }

        #[test]
        fn a_file_cut_short_is_refused(map in maps(), at in any::<prop::sample::Index>()) {
            let bytes = map.encode();
            prop_assert!(IndexMap::parse(&bytes[..at.index(bytes.len())]).is_err());
        }

        #[test]
        fn no_text_makes_it_panic(body in "\\PC*|(\n|,|/|-|[0-9])*") {
            let _ = parse(&body);
            let _ = IndexMap::parse(body.as_bytes());
        }
    }
}
