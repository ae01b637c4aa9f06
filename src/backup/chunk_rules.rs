//! Which part of the log to copy, and which faults of its chunks to accept.

use super::source_files::changed;
use crate::error::{Error, Kind};
use crate::format::WriterPosition;

/// The log to copy, and which faults of it to accept.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChunkRules {
    /// W: the log is copied up to here.
    pub(super) writer: WriterPosition,
    /// Whether the operator accepts chunks that fail their own MD5.
    pub(super) accepts_damaged: bool,
    /// Whether a server works on the directory.
    pub(super) is_running: bool,
}

impl ChunkRules {
    /// The error for chunks that do not fit together. On a running node, kbackup may have read them
    /// in the middle of a change, and another attempt can help.
    pub(super) fn inconsistent(self, what: impl Into<String>) -> Error {
        let kind = if self.is_running {
            Kind::Unstable
        } else {
            Kind::SourceCorrupt
        };
        changed(what).with_kind(kind)
    }
}
