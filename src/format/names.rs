//! The names of the server's files and directories (disk-format §1). Only this file spells them.
//! The other rooms build paths from these constants and types.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::checkpoint::Checkpoint;
use super::{ChunkNumber, ChunkVersion};

/// The index directory inside the db directory, unless the server is told another one.
pub const INDEX_DIRECTORY: &str = "index";
/// In the db directory: the secondary indexes and the schema registry of 25.1 and later.
pub const SECONDARY_INDEX: &str = "kurrent.ddb";
/// In the db directory: the write-ahead log of [`SECONDARY_INDEX`].
pub const SECONDARY_INDEX_LOG: &str = "kurrent.ddb.wal";
/// In the db directory: the Unix socket of a running server, by its newer and its older name.
pub const SOCKETS: [&str; 2] = ["kurrent.sock", "eventstore.sock"];
/// In the index directory: the list of the tables.
pub const INDEX_MAP: &str = "indexmap";
/// In the index directory: holds the stream-existence filter and its checkpoint.
pub const STREAM_FILTER_DIRECTORY: &str = "stream-existence";
/// Below the index directory: the stream-existence filter.
pub const STREAM_FILTER: &str = "stream-existence/streamExistenceFilter.dat";
/// Below the index directory: the position up to which the stream-existence filter is complete, in
/// 8 bytes as in a checkpoint.
pub const STREAM_FILTER_CHECKPOINT: &str = "stream-existence/streamExistenceFilter.chk";
/// Below the index directory: the scavenger's `SQLite` database.
pub const SCAVENGE_STATE: &str = "scavenging/scavenging.db";

/// In the index directory: the next start hashes every table.
const FORCE_VERIFY: &str = ".forceverify";
/// What `SQLite` appends to a database's name for the files beside it.
const WRITE_AHEAD_LOG: &str = "-wal";
const SHARED_MEMORY: &str = "-shm";
const JOURNAL: &str = "-journal";

const CHUNK_PREFIX: &str = "chunk-";
const ARCHIVE_BACKUP_SUFFIX: &str = ".archive.bkup";
const INDEX_BACKUP_PREFIX: &str = "index-backup-";
const INDEX_MAP_TEMPORARY_PREFIX: &str = "indexmap.";
const TEMPORARY_SUFFIX: &str = ".tmp";
const CHECKPOINT_SUFFIX: &str = ".chk";
const BLOOM_FILTER_SUFFIX: &str = ".bloomfilter";
/// Ends the name of a file that a running scavenge writes.
const SCAVENGE_SUFFIX: &str = ".scavenge.tmp";

impl Checkpoint {
    /// The file's name in the db directory.
    #[must_use]
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Writer => "writer.chk",
            Self::Chaser => "chaser.chk",
            Self::Epoch => "epoch.chk",
            Self::Proposal => "proposal.chk",
            Self::Truncate => "truncate.chk",
        }
    }

    /// The path of the file in a db directory.
    #[must_use]
    pub fn under(self, db: &Path) -> PathBuf {
        db.join(self.file_name())
    }

    /// The checkpoint that is kept in a file of this name.
    #[must_use]
    pub fn of_file(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|checkpoint| checkpoint.file_name() == name)
    }
}

/// Whether a name looks like a file of a log. It need not be one: the rest of the name may be
/// wrong.
#[must_use]
pub fn looks_like_log_file(name: &str) -> bool {
    name.starts_with(CHUNK_PREFIX) || name.ends_with(CHECKPOINT_SUFFIX)
}

/// Whether a running scavenge writes a file of this name in the db directory.
#[must_use]
pub fn is_written_by_scavenge(name: &str) -> bool {
    name.ends_with(SCAVENGE_SUFFIX)
}

/// A chunk's file name, `chunk-NNNNNN.VVVVVV` (disk-format §3.1). Orders as the server sorts names:
/// by number, then by version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkName {
    /// The first chunk number in the file.
    pub start: ChunkNumber,
    /// How often the file was written anew; the highest version wins (disk-format §3.8).
    pub version: ChunkVersion,
}

impl fmt::Display for ChunkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{CHUNK_PREFIX}{:06}.{:06}", self.start.0, self.version.0)
    }
}

impl FromStr for ChunkName {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::parse(name).ok_or("a chunk is named `chunk-`, six digits, a dot and six digits")
    }
}

impl ChunkName {
    fn parse(name: &str) -> Option<Self> {
        let numbers = name.strip_prefix(CHUNK_PREFIX)?;
        let (start, version) = numbers.split_once('.')?;
        Some(Self {
            start: ChunkNumber(six_digits(start)?),
            version: ChunkVersion(six_digits(version)?),
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
/// here only by default, so it is [`Self::Other`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DbFile {
    /// A part of the log.
    Chunk(ChunkName),
    /// One of the five checkpoints.
    Checkpoint(Checkpoint),
    /// `*.tmp`: something that is being written, or that a crash left. The node deletes it at its
    /// start.
    Temporary,
    /// `chunk-….archive.bkup`: moved aside by the archive's catch-up.
    ArchiveBackup,
    /// `kurrent.ddb`: secondary indexes and the schema registry.
    SecondaryIndex,
    /// `kurrent.ddb.wal`: belongs to [`Self::SecondaryIndex`].
    SecondaryIndexLog,
    /// The node's Unix socket. It is not a regular file, and kbackup never opens it.
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
            SECONDARY_INDEX => return Self::SecondaryIndex,
            SECONDARY_INDEX_LOG => return Self::SecondaryIndexLog,
            _ if SOCKETS.contains(&name) => return Self::Socket,
            _ => {}
        }

        if name.ends_with(TEMPORARY_SUFFIX) {
            Self::Temporary
        } else if name.starts_with(CHUNK_PREFIX) && name.ends_with(ARCHIVE_BACKUP_SUFFIX) {
            Self::ArchiveBackup
        } else if name.starts_with(INDEX_BACKUP_PREFIX) {
            Self::IndexBackup
        } else {
            Self::Other
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
    /// A table. It counts only if `indexmap` names it (O2).
    Table(TableId),
    /// The Bloom filter beside a table.
    BloomFilter(TableId),
    /// `.forceverify`: the next start hashes every table.
    ForceVerify,
    /// `stream-existence/streamExistenceFilter.chk`: 8 bytes, as in a checkpoint.
    StreamFilterCheckpoint,
    /// `stream-existence/streamExistenceFilter.dat`.
    StreamFilterData,
    /// A file of the scavenger's database.
    Scavenging(ScavengingFile),
    /// `kontext/…`: text and vector indexes of 26.2.
    Kontext,
    /// `stream-name-index/…`: the experimental log format V3, which kbackup refuses.
    ExperimentalV3,
    /// Nothing that the server writes here.
    Other,
}

impl IndexFile {
    /// Classifies a path below the index directory, written with `/`.
    #[must_use]
    pub fn of(path: &str) -> Self {
        match path {
            INDEX_MAP => return Self::IndexMap,
            FORCE_VERIFY => return Self::ForceVerify,
            STREAM_FILTER_CHECKPOINT => return Self::StreamFilterCheckpoint,
            STREAM_FILTER => return Self::StreamFilterData,
            _ => {}
        }
        if let Some(file) = ScavengingFile::of(path) {
            return Self::Scavenging(file);
        }

        if let Some((directory, _)) = path.split_once('/') {
            return match directory {
                "kontext" => Self::Kontext,
                "stream-name-index" => Self::ExperimentalV3,
                _ => Self::Other,
            };
        }

        if path.starts_with(INDEX_MAP_TEMPORARY_PREFIX) && path.ends_with(TEMPORARY_SUFFIX) {
            return Self::IndexMapTemporary;
        }
        match path.strip_suffix(BLOOM_FILTER_SUFFIX) {
            Some(table) => table.parse().map_or(Self::Other, Self::BloomFilter),
            None => path.parse().map_or(Self::Other, Self::Table),
        }
    }
}

/// The files of the scavenger's `SQLite` database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScavengingFile {
    /// `scavenging.db`. Alone it is whole only while no scavenge runs and no other file lies beside
    /// it.
    Database,
    /// `scavenging.db-wal`.
    WriteAheadLog,
    /// `scavenging.db-shm`.
    SharedMemory,
    /// `scavenging.db-journal`: of a server that runs without a write-ahead log.
    Journal,
}

impl ScavengingFile {
    fn of(path: &str) -> Option<Self> {
        match path.strip_prefix(SCAVENGE_STATE)? {
            "" => Some(Self::Database),
            WRITE_AHEAD_LOG => Some(Self::WriteAheadLog),
            SHARED_MEMORY => Some(Self::SharedMemory),
            JOURNAL => Some(Self::Journal),
            _ => None,
        }
    }
}

/// An index table's identity, which is its file name: 36 characters, lower case (disk-format §1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TableId(pub Uuid);

impl TableId {
    /// The file name of the Bloom filter beside the table.
    #[must_use]
    pub fn filter_name(self) -> String {
        format!("{self}{BLOOM_FILTER_SUFFIX}")
    }
}

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
    fn each_checkpoint_is_found_by_its_file_name() {
        for checkpoint in Checkpoint::ALL {
            assert_eq!(
                Checkpoint::of_file(checkpoint.file_name()),
                Some(checkpoint)
            );
        }
        assert_eq!(Checkpoint::of_file("archive.chk"), None);
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
