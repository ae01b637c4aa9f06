//! Which parts of an index to examine, and the log to compare it with.

use crate::format::WriterPosition;
use crate::log::ChunkSet;
use crate::proof::depth::Depth;

/// Which parts of an index to examine.
#[derive(Debug, Clone, Copy)]
pub struct IndexScope<'a> {
    /// The log to compare the entries with. `None` if it cannot be read, or is not to be read.
    pub chunks: Option<&'a ChunkSet>,
    /// Where the log ends.
    pub writer: WriterPosition,
    /// How much is read.
    pub depth: Depth,
    /// Whether to compute the tables' MD5s; false if the caller has done so.
    pub hash_tables: bool,
}
