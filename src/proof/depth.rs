//! How much of the files an examination reads.

use serde::{Deserialize, Serialize};

/// How much an examination reads. Each depth includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Depth {
    /// Structure and sizes: headers, footers, checkpoints, `indexmap`.
    Quick,
    /// Also every checksum, the records of the chunk that the log ends in, the order of the tables,
    /// and their last 1 000 entries against the log.
    Normal,
    /// Also every record, and every entry against the log.
    Deep,
}
