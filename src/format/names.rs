//! Names of the files in a data directory (disk-format §1).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::checkpoint::Checkpoint;
use super::{ChunkNumber, ChunkVersion};

/// A chunk's file name, `chunk-NNNNNN.VVVVVV` (disk-format §3.1). Orders as the server sorts names:
/// by number, then by version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkName {
    /// The first chunk in the file.
    pub start: ChunkNumber,
    /// Which writing of it this is; the highest wins (disk-format §3.8).
    pub version: ChunkVersion,
}

impl fmt::Display for ChunkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chunk-{:06}.{:06}", self.start.0, self.version.0)
    }
}

impl FromStr for ChunkName {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "a chunk is named `chunk-`, six digits, a dot and six digits";
        let (start, version) = name
            .strip_prefix("chunk-")
            .and_then(|rest| rest.split_once('.'))
            .ok_or(WRONG)?;
        Ok(Self {
            start: ChunkNumber(six_digits(start).ok_or(WRONG)?),
            version: ChunkVersion(six_digits(version).ok_or(WRONG)?),
        })
    }
}

fn six_digits(text: &str) -> Option<u32> {
    if text.len() == 6 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().ok()
    } else {
        None
    }
}

/// What an entry of the db directory is, by its name (disk-format §1). The index directory lies
/// here only by default, and is not told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DbFile {
    /// A part of the log.
    Chunk(ChunkName),
    /// One of the five checkpoints.
    Checkpoint(Checkpoint),
    /// `*.tmp`: something being written, or left by a crash. The node deletes it at its start.
    Temporary,
    /// `chunk-….archive.bkup`: moved aside by the archive's catch-up.
    ArchiveBackup,
    /// `kurrent.ddb`: secondary indexes and the schema registry.
    SecondaryIndex,
    /// `kurrent.ddb.wal`: belongs to [`Self::SecondaryIndex`].
    SecondaryIndexLog,
    /// The node's Unix socket: not a regular file, never opened.
    Socket,
    /// `index-backup-<time>`: a directory with the index that the node declared corrupt.
    IndexBackup,
    /// Nothing that the server writes here.
    Other,
}

impl DbFile {
    /// Classifies the name of an entry of the db directory.
    #[must_use]
    pub fn of(name: &str) -> Self {
        if let Ok(chunk) = name.parse() {
            return Self::Chunk(chunk);
        }
        if let Some(checkpoint) = Checkpoint::of_file(name) {
            return Self::Checkpoint(checkpoint);
        }
        match name {
            "kurrent.ddb" => Self::SecondaryIndex,
            "kurrent.ddb.wal" => Self::SecondaryIndexLog,
            "kurrent.sock" | "eventstore.sock" => Self::Socket,
            _ if name.ends_with(".tmp") => Self::Temporary,
            _ if name.starts_with("chunk-") && name.ends_with(".archive.bkup") => {
                Self::ArchiveBackup
            }
            _ if name.starts_with("index-backup-") => Self::IndexBackup,
            _ => Self::Other,
        }
    }
}

/// What a file of the index directory is, by its path below that directory (disk-format §1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexFile {
    /// `indexmap`: names the tables.
    IndexMap,
    /// `indexmap.<guid>.indexmap.tmp`: the next one, being written.
    IndexMapTemporary,
    /// A table; it counts only if the indexmap names it (O2).
    Table(TableId),
    /// The Bloom filter beside a table.
    BloomFilter(TableId),
    /// `.forceverify`: the next start hashes every table.
    ForceVerify,
    /// `stream-existence/streamExistenceFilter.chk`: 8 bytes, as a checkpoint.
    StreamFilterCheckpoint,
    /// `stream-existence/streamExistenceFilter.dat`.
    StreamFilterData,
    /// A file of the scavenger's database.
    Scavenging(ScavengingFile),
    /// `kontext/…`: text and vector indexes of 26.2.
    Kontext,
    /// `stream-name-index/…`: the experimental log format V3, which is refused.
    ExperimentalV3,
    /// Nothing that the server writes here.
    Other,
}

/// The files of the scavenger's `SQLite` database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScavengingFile {
    /// `scavenging.db`: alone it is whole only while no scavenge runs and no other file lies beside
    /// it.
    Database,
    /// `scavenging.db-wal`.
    WriteAheadLog,
    /// `scavenging.db-shm`.
    SharedMemory,
    /// `scavenging.db-journal`: of a server that runs without a write-ahead log.
    Journal,
}

impl IndexFile {
    /// Classifies a path below the index directory, written with `/`.
    #[must_use]
    pub fn of(path: &str) -> Self {
        match path {
            "indexmap" => return Self::IndexMap,
            ".forceverify" => return Self::ForceVerify,
            "stream-existence/streamExistenceFilter.chk" => return Self::StreamFilterCheckpoint,
            "stream-existence/streamExistenceFilter.dat" => return Self::StreamFilterData,
            "scavenging/scavenging.db" => return Self::Scavenging(ScavengingFile::Database),
            "scavenging/scavenging.db-wal" => {
                return Self::Scavenging(ScavengingFile::WriteAheadLog);
            }
            "scavenging/scavenging.db-shm" => {
                return Self::Scavenging(ScavengingFile::SharedMemory);
            }
            "scavenging/scavenging.db-journal" => return Self::Scavenging(ScavengingFile::Journal),
            _ => {}
        }
        if let Some((directory, _)) = path.split_once('/') {
            return match directory {
                "kontext" => Self::Kontext,
                "stream-name-index" => Self::ExperimentalV3,
                _ => Self::Other,
            };
        }
        if path.starts_with("indexmap.") && path.ends_with(".tmp") {
            return Self::IndexMapTemporary;
        }
        match path.strip_suffix(".bloomfilter") {
            Some(table) => table.parse().map_or(Self::Other, Self::BloomFilter),
            None => path.parse().map_or(Self::Other, Self::Table),
        }
    }
}

/// An index table's identity, which is its file name: 36 characters, lower case (disk-format §1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TableId(pub Uuid);

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for TableId {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "a table is named by a lower-case GUID of 36 characters";
        let id = Uuid::try_parse(name).map_err(|_| WRONG)?;
        // Other spellings of the same GUID would be other files.
        if id.hyphenated().to_string() == name {
            Ok(Self(id))
        } else {
            Err(WRONG)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_chunk_name_has_exactly_two_times_six_digits() {
        let name: ChunkName = "chunk-000012.000003".parse().unwrap();
        assert_eq!(
            name,
            ChunkName {
                start: ChunkNumber(12),
                version: ChunkVersion(3)
            }
        );
        for wrong in [
            "chunk-00012.000003",
            "chunk-0000012.000003",
            "chunk-000012.00000a",
            "chunk-+00012.000003",
            "chunk-000012.000003.tmp",
            "chunk-000012.000003 ",
            "Chunk-000012.000003",
            "chunk-٠٠٠٠١٢.000003",
            "chunk-000012",
        ] {
            assert!(wrong.parse::<ChunkName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn classifies_the_db_directory() {
        let classes = [
            ("writer.chk", DbFile::Checkpoint(Checkpoint::Writer)),
            ("archive.chk", DbFile::Other),
            (
                "chunk-000000.000000.0d6b9b6e-8f7c-4b6e-9d2c-5f0a3b1c2d3e.tmp",
                DbFile::Temporary,
            ),
            (
                "0d6b9b6e-8f7c-4b6e-9d2c-5f0a3b1c2d3e.merge.scavenge.tmp",
                DbFile::Temporary,
            ),
            ("kurrent.ddb.tmp", DbFile::Temporary),
            ("chunk-000000.000001.archive.bkup", DbFile::ArchiveBackup),
            ("kurrent.ddb", DbFile::SecondaryIndex),
            ("kurrent.ddb.wal", DbFile::SecondaryIndexLog),
            ("eventstore.sock", DbFile::Socket),
            ("index-backup-2026-11-21_10-12-42.738", DbFile::IndexBackup),
            ("index", DbFile::Other),
            ("lost+found", DbFile::Other),
        ];
        for (name, class) in classes {
            assert_eq!(DbFile::of(name), class, "{name}");
        }
    }

    #[test]
    fn classifies_the_index_directory() {
        let id = "3f6da4f1-3e21-49a7-9cfe-a05677246584";
        let table = TableId(Uuid::try_parse(id).unwrap());
        let classes = [
            ("indexmap".to_owned(), IndexFile::IndexMap),
            (
                format!("indexmap.{id}.indexmap.tmp"),
                IndexFile::IndexMapTemporary,
            ),
            (id.to_owned(), IndexFile::Table(table)),
            (id.to_uppercase(), IndexFile::Other),
            (id.replace('-', ""), IndexFile::Other),
            (format!("{id}.bloomfilter"), IndexFile::BloomFilter(table)),
            (".forceverify".to_owned(), IndexFile::ForceVerify),
            (
                "stream-existence/streamExistenceFilter.chk".to_owned(),
                IndexFile::StreamFilterCheckpoint,
            ),
            (
                "stream-existence/streamExistenceFilter.dat".to_owned(),
                IndexFile::StreamFilterData,
            ),
            (
                "scavenging/scavenging.db-wal".to_owned(),
                IndexFile::Scavenging(ScavengingFile::WriteAheadLog),
            ),
            ("kontext/a/b".to_owned(), IndexFile::Kontext),
            ("stream-name-index/x".to_owned(), IndexFile::ExperimentalV3),
            (format!("somewhere/{id}"), IndexFile::Other),
        ];
        for (path, class) in classes {
            assert_eq!(IndexFile::of(&path), class, "{path}");
        }
    }

    proptest! {
        #[test]
        fn chunk_names_read_back(start in 0_u32..1_000_000, version in 0_u32..1_000_000) {
            let name = ChunkName { start: ChunkNumber(start), version: ChunkVersion(version) };
            prop_assert_eq!(name.to_string().parse(), Ok(name));
        }

        #[test]
        fn what_parses_is_the_name(name in "chunk-[0-9a. ]{11,15}|\\PC*") {
            if let Ok(parsed) = name.parse::<ChunkName>() {
                prop_assert_eq!(parsed.to_string(), name.clone());
            }
            let _ = DbFile::of(&name);
            let _ = IndexFile::of(&name);
        }
    }
}
