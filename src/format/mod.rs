//! The server's files: parse and encode, nothing else.
//!
//! Parsers take bytes, or read through [`ReadAt`]. They never trust a length: a truncated, damaged
//! or hostile file gives an [`Error`] that names the byte and what was expected there. They know
//! nothing of paths, exit codes or repositories. The caller says where the bytes came from. The
//! room `server` knows what a server does with a file, and which version writes it.
//!
//! The log is in `chunk` (header and footer), `record` (the data), `position_map` (the map of a
//! scavenged chunk) and `checkpoint`. `boundary` finds where a log may end, and `epoch` and
//! `lineage` say whose log it is. The index is in `indexmap`, `ptable`, `bloom` and `hash`.
//! `sqlite` and `duckdb` look at the headers of databases. `names` holds the names of all files.
//!
//! Facts about the formats come from a specification of the on-disk format, whose sections are
//! quoted as "disk-format §3.5", and from observations of real nodes, quoted as "O16".

pub mod bloom;
pub mod boundary;
pub mod checkpoint;
pub mod chunk;
pub mod duckdb;
mod epoch;
mod field;
pub mod hash;
pub mod indexmap;
mod lineage;
mod md5;
pub mod names;
mod position;
pub mod position_map;
pub mod ptable;
pub mod record;
pub mod sqlite;
mod window;

use std::fmt;
use std::io;
use std::path::Path;

use crate::error::{self, Kind};
pub use crate::fs::ReadAt;
pub use epoch::{Epoch, EpochRecord};
pub use lineage::{Chain, Lineage, Relation};
pub use md5::Md5Hash;
pub use position::{Boundary, ChunkNumber, ChunkSize, ChunkVersion, LogPosition, WriterPosition};

/// Why bytes are not what the server writes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes contradict the format.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The bytes could not be read, which says nothing about the format.
    #[error(transparent)]
    Read(#[from] io::Error),
}

/// Where the bytes contradict the format. The caller adds the file's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Malformed {
    /// The structure, as an operator would call it: "chunk footer".
    pub structure: &'static str,
    /// Byte offset in the file.
    pub offset: u64,
    /// What the format asks for at this byte.
    pub expected: String,
    /// What the file holds instead.
    pub found: String,
}

impl Malformed {
    /// `structure` has `found` at byte `offset`, where the format asks for `expected`.
    pub fn new(
        structure: &'static str,
        offset: u64,
        expected: impl Into<String>,
        found: impl fmt::Display,
    ) -> Self {
        Self {
            structure,
            offset,
            expected: expected.into(),
            found: found.to_string(),
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} at byte {}: expected {}, found {}",
            self.structure, self.offset, self.expected, self.found
        )
    }
}

/// What a parser returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Turns a format error into an error for the user. The caller says whose bytes these were.
pub trait InContext<T> {
    /// The bytes are the node's own (exit code 21).
    ///
    /// # Errors
    /// The format error, with the file's path.
    fn in_source(self, path: &Path) -> error::Result<T>;

    /// The bytes are a backup's (exit code 20).
    ///
    /// # Errors
    /// The format error, with the backup and the file in it.
    fn in_repository(self, label: &dyn fmt::Display, path: &dyn fmt::Display) -> error::Result<T>;
}

impl<T> InContext<T> for Result<T> {
    fn in_source(self, path: &Path) -> error::Result<T> {
        self.map_err(|error| from_format(error, Kind::SourceCorrupt, path.display().to_string()))
    }

    fn in_repository(self, label: &dyn fmt::Display, path: &dyn fmt::Display) -> error::Result<T> {
        self.map_err(|error| from_format(error, Kind::StoredCorrupt, format!("{label}: {path}")))
    }
}

fn from_format(failure: Error, kind: Kind, place: String) -> error::Error {
    match failure {
        Error::Malformed(malformed) => {
            error::Error::new(kind, "the file is not what the server writes")
                .on(place)
                .because(malformed)
        }
        Error::Read(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            error::Error::new(kind, "the file ends too early")
                .on(place)
                .because(error)
        }
        Error::Read(error) => match error::Error::passed_on(error) {
            Ok(error) => error,
            Err(error) => error::Error::new(Kind::Failed, "cannot read")
                .on(place)
                .because(error),
        },
    }
}
