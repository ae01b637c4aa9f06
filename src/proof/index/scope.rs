//! What of an index is examined, and against which log.

use crate::format::WriterPosition;
use crate::log::ChunkSet;
use crate::proof::depth::Depth;

/// What to look at.
#[derive(Debug, Clone, Copy)]
pub struct IndexScope<'a> {
    /// The log, if it can be read: entries are compared with it.
    pub chunks: Option<&'a ChunkSet>,
    /// Where the log ends.
    pub writer: WriterPosition,
    /// How much is read.
    pub depth: Depth,
    /// Whether to compute the tables' MD5s; false if the caller has done so.
    pub hash_tables: bool,
}
