//! The server's files: parse and encode, nothing else.
//!
//! Everything here is pure. Parsers take bytes, or read through [`ReadAt`], and never trust a length: a truncated, lying or hostile file gives an
//! [`Error`] that says at which byte what was expected. They know nothing of paths, exit codes or repositories; the caller says where the bytes came from.
//!
//! Facts about the formats come from the specification of the on-disk format; sections are named as "disk-format §3.5" and observations of real nodes as "O16".

mod position;

use std::fmt;
use std::io;

pub use position::{Boundary, ChunkNumber, ChunkSize, ChunkVersion, LogPosition, WriterPosition};

/// Random access to the bytes of one file, wherever they are kept.
pub trait ReadAt: Send + Sync {
    /// Length in bytes.
    fn size(&self) -> u64;

    /// Reads at most `buffer.len()` bytes from byte `offset`; 0 only at or beyond the end.
    ///
    /// # Errors
    /// What the storage reports.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Fills `buffer` from byte `offset`.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] where the file ends earlier, else what the storage reports.
    fn read_exact_at(&self, mut offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read_at(offset, buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    offset += count as u64;
                    buffer = buffer.get_mut(count..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl ReadAt for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|start| self.get(start..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let (Some(into), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
            into.copy_from_slice(from);
        }
        Ok(count)
    }
}

impl ReadAt for Vec<u8> {
    fn size(&self) -> u64 {
        self.as_slice().size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.as_slice().read_at(offset, buffer)
    }
}

/// Why bytes are not what the server writes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes contradict the format.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The bytes could not be read; says nothing about the format.
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
    /// What the format asks for at this place.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

impl Malformed {
    /// A contradiction in `structure` at byte `offset`.
    pub fn new(structure: &'static str, offset: u64, expected: impl Into<String>, found: impl fmt::Display) -> Self {
        Self { structure, offset, expected: expected.into(), found: found.to_string() }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: expected {}, found {}", self.structure, self.offset, self.expected, self.found)
    }
}

/// What every parser returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;
