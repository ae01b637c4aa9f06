//! Why a copy failed, and whether a source or the target caused it.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::error::{Error, Kind};
use crate::fs::{IoError, Operation};
use crate::manifest::Blake3Hash;

/// Why a copy failed. The variants tell a failure of a source from a failure of the target.
#[derive(Debug, thiserror::Error)]
pub enum CopyFailure {
    /// A source ends before its segment does. A live file shrank, or was replaced: try again.
    #[error("`{place}` ends at byte {found}, not at {wanted} or after it")]
    Short {
        /// The source.
        place: String,
        /// Bytes it should have at least.
        wanted: u64,
        /// Bytes it has.
        found: u64,
    },
    /// A source cannot be read.
    #[error("cannot read `{place}`")]
    Source {
        /// The source.
        place: String,
        /// What the storage reports.
        source: io::Error,
    },
    /// A source does not hold the bytes that it should hold.
    #[error("the bytes of `{place}` hash to {found}, not to {wanted}")]
    Other {
        /// The source.
        place: String,
        /// What it should hash to.
        wanted: Blake3Hash,
        /// What it hashes to.
        found: Blake3Hash,
    },
    /// The target cannot be written, or read again.
    #[error(transparent)]
    Target(#[from] IoError),
    /// The run was told to end.
    #[error(transparent)]
    Stopped(#[from] Error),
}

impl CopyFailure {
    /// The source that the copy failed on. Returns `None` if no source is to blame.
    #[must_use]
    pub fn source_place(&self) -> Option<&str> {
        match self {
            Self::Short { place, .. } | Self::Source { place, .. } | Self::Other { place, .. } => {
                Some(place)
            }
            Self::Target(_) | Self::Stopped(_) => None,
        }
    }
}

impl From<CopyFailure> for Error {
    /// The error if the segments are a node's files. A short one is [`Kind::Unstable`], so that the
    /// next attempt of the procedure begins.
    fn from(failure: CopyFailure) -> Self {
        match failure {
            CopyFailure::Short {
                place,
                wanted,
                found,
            } => Self::new(
                Kind::Unstable,
                "the file became shorter while it was copied",
            )
            .on(place)
            .because(format!(
                "it ends at byte {found}, not at {wanted} or after it"
            )),

            CopyFailure::Source { place, source }
                if Errno::from_io_error(&source) == Some(Errno::STALE) =>
            {
                Self::new(Kind::Unstable, "the file vanished while it was copied")
                    .on(place)
                    .because(source)
            }

            CopyFailure::Source { place, source } => match Self::passed_on(source) {
                // It names an object, and an operator knows files.
                Ok(error) => Self::new(error.kind(), "cannot read a stored file")
                    .on(place)
                    .because(error.in_words()),
                Err(source) => Self::from(IoError {
                    operation: Operation::Read,
                    path: PathBuf::from(place),
                    source,
                }),
            },

            CopyFailure::Other {
                place,
                wanted,
                found,
            } => Self::new(Kind::Unstable, "the file changed while it was copied")
                .on(place)
                .because(format!("its bytes hash to {found}, not to {wanted}")),

            CopyFailure::Target(error) => error.into(),
            CopyFailure::Stopped(error) => error,
        }
    }
}
