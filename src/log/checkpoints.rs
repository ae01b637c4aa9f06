//! The one reader of checkpoint files (disk-format §2.1).
//!
//! It reports the content of a file and judges nothing. A caller chooses a method by how much it
//! tolerates: [`RawCheckpoint::value`] is strict, and [`RawCheckpoint::as_read_by_server`] takes
//! anything.

use std::path::Path;

use super::access::with_place;
use crate::error::Result;
use crate::format::checkpoint::{self, Checkpoint};
use crate::format::{self, LogPosition, Malformed, ReadAt};
use crate::fs;
use crate::manifest::{FileSet, RelativePath};

/// A checkpoint file, as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RawCheckpoint {
    /// There is no such file.
    Missing,
    /// The number in its 8 bytes.
    Value(i64),
    /// The file does not have 8 bytes, so no server wrote it.
    WrongLength {
        /// Bytes of the file.
        length: u64,
        /// The number that a server reads from it. The server adds zeros to a short file, and
        /// ignores the bytes of a long file behind the eighth.
        as_read_by_server: i64,
    },
}

impl RawCheckpoint {
    /// Reads a checkpoint of a set of files.
    ///
    /// # Errors
    /// What the storage reports. A wrong length is not an error.
    pub fn of_set(files: &dyn FileSet, which: Checkpoint) -> Result<Self> {
        let path = RelativePath::checkpoint(which);
        let Some(source) = files.open(&path)? else {
            return Ok(Self::Missing);
        };

        let mut bytes = [0; checkpoint::LENGTH];
        let held = held_bytes(&mut bytes, source.size());
        let read = source.read_exact_at(0, held);
        with_place(files, &path, read.map_err(format::Error::Read))?;
        Ok(Self::new(bytes, source.size()))
    }

    /// Reads a checkpoint of a db directory.
    ///
    /// # Errors
    /// What the file system reports. It is an error too if this is not a regular file.
    pub fn in_directory(db: &Path, which: Checkpoint) -> fs::Result<Self> {
        Self::at(&which.under(db))
    }

    /// Reads a checkpoint file at its path.
    ///
    /// # Errors
    /// As for [`Self::in_directory`].
    pub fn at(path: &Path) -> fs::Result<Self> {
        let file = match fs::open_source(path) {
            Ok(file) => file,
            Err(error) if error.is_not_found() => return Ok(Self::Missing),
            Err(error) => return Err(error),
        };

        let mut bytes = [0; checkpoint::LENGTH];
        let held = held_bytes(&mut bytes, file.size());
        file.read_exact_at(0, held)?;
        Ok(Self::new(bytes, file.size()))
    }

    fn new(bytes: [u8; checkpoint::LENGTH], length: u64) -> Self {
        let value = i64::from_le_bytes(bytes);
        if length == checkpoint::LENGTH as u64 {
            Self::Value(value)
        } else {
            Self::WrongLength {
                length,
                as_read_by_server: value,
            }
        }
    }

    /// Strict: the number in the file. Returns `None` if there is no file.
    ///
    /// # Errors
    /// The file does not have 8 bytes. A server would take an empty `truncate.chk` for 0 and wipe
    /// the database (O13).
    pub fn value(self) -> format::Result<Option<i64>> {
        match self {
            Self::Missing => Ok(None),
            Self::Value(value) => Ok(Some(value)),
            Self::WrongLength { length, .. } => {
                let found = format!("{length} bytes");
                Err(Malformed::new("checkpoint", 0, "8 bytes", found).into())
            }
        }
    }

    /// Strict: the log position in the file. Returns `None` for −1, and if there is no file.
    ///
    /// # Errors
    /// The file does not have 8 bytes, or holds a negative number other than −1.
    pub fn position(self) -> format::Result<Option<LogPosition>> {
        match self.value()? {
            Some(value) => checkpoint::position_of(value),
            None => Ok(None),
        }
    }

    /// Forgiving: a file of a wrong length counts as missing.
    #[must_use]
    pub fn if_whole(self) -> Option<i64> {
        match self {
            Self::Value(value) => Some(value),
            Self::Missing | Self::WrongLength { .. } => None,
        }
    }

    /// The number that a server reads. A server accepts every length, and has a default for a
    /// missing file (disk-format §2.1).
    #[must_use]
    pub fn as_read_by_server(self, which: Checkpoint) -> i64 {
        match self {
            Self::Missing => which.value_if_missing(),
            Self::Value(value) => value,
            Self::WrongLength {
                as_read_by_server, ..
            } => as_read_by_server,
        }
    }

    /// Bytes of the file. Returns `None` if there is no file.
    #[must_use]
    pub fn length(self) -> Option<u64> {
        match self {
            Self::Missing => None,
            Self::Value(_) => Some(checkpoint::LENGTH as u64),
            Self::WrongLength { length, .. } => Some(length),
        }
    }
}

/// The part of the eight bytes that a file of this size fills.
fn held_bytes(bytes: &mut [u8; checkpoint::LENGTH], size: u64) -> &mut [u8] {
    let held = usize::try_from(size).unwrap_or(usize::MAX);
    let held = held.min(bytes.len());
    bytes.get_mut(..held).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Directories;

    /// Reads a `truncate.chk` with these bytes, from the db directory and from a set of files.
    fn read(bytes: Option<&[u8]>) -> RawCheckpoint {
        let db = tempfile::tempdir().unwrap();
        if let Some(bytes) = bytes {
            let path = Checkpoint::Truncate.under(db.path());
            fs::write_durably(&path, bytes, 0o600).unwrap();
        }

        let one = RawCheckpoint::in_directory(db.path(), Checkpoint::Truncate).unwrap();
        let files = Directories::new(db.path(), None);
        assert_eq!(
            one,
            RawCheckpoint::of_set(&files, Checkpoint::Truncate).unwrap()
        );
        one
    }

    #[test]
    fn a_whole_file_says_the_same_to_everybody() {
        let raw = read(Some(&checkpoint::encode(588)));

        assert_eq!(raw.value().unwrap(), Some(588));
        assert_eq!(raw.position().unwrap(), LogPosition::new(588));
        assert_eq!(raw.if_whole(), Some(588));
        assert_eq!(raw.as_read_by_server(Checkpoint::Truncate), 588);
    }

    #[test]
    fn a_missing_file_is_minus_one_for_a_server() {
        let raw = read(None);

        assert_eq!(raw, RawCheckpoint::Missing);
        assert_eq!(raw.value().unwrap(), None);
        assert_eq!(raw.if_whole(), None);
        assert_eq!(raw.as_read_by_server(Checkpoint::Truncate), -1);
        assert_eq!(raw.as_read_by_server(Checkpoint::Writer), 0);
    }

    #[test]
    fn a_file_of_another_length_is_corrected_by_the_server_alone() {
        for (bytes, as_read) in [
            (&[][..], 0),
            (&[1, 1][..], 257),
            (&[7, 0, 0, 0, 0, 0, 0, 0, 9][..], 7),
        ] {
            let raw = read(Some(bytes));

            assert_eq!(raw.length(), Some(bytes.len() as u64));
            assert!(raw.value().is_err());
            assert!(raw.position().is_err());
            assert_eq!(raw.if_whole(), None);
            assert_eq!(raw.as_read_by_server(Checkpoint::Truncate), as_read);
        }
    }
}
