//! Reads a node's log from its files, over any [`FileSet`](crate::manifest::FileSet): a data
//! directory, a capture in progress, or a stored backup. It reports what it finds. The room `proof`
//! judges whether a server would start from it, and where the log may end.
//!
//! `chunk_set` finds the chunk files that count, by the rules in `selection`. `checkpoints` reads
//! the checkpoint files. `records` reads all records of a chunk, `frames` and `find_epoch` single
//! ones, and `lineage` the epochs. `scavenge_notes` knows the events about scavenges. `ending_at`
//! describes a log that ends at P, the last consistent position.

mod access;
mod checkpoints;
mod chunk_set;
mod ending_at;
mod find_epoch;
mod frames;
mod inspected;
mod lineage;
mod log_file;
mod records;
mod scavenge_notes;
mod selection;

pub(crate) use access::{of_source, open_listed, read_small, with_place};
pub use checkpoints::RawCheckpoint;
pub use chunk_set::ChunkSet;
pub use ending_at::{ChunkPlace, LogEndingAt};
pub(crate) use find_epoch::{find_epoch, position_in, writer_position};
pub(crate) use frames::{data_before, lookup, refuse_encrypted};
pub use inspected::Inspected;
pub use lineage::{last_epoch, lineage, lineage_after};
pub use log_file::LogFile;
pub use records::{ChunkRecords, FollowedChunk, RecordFollower, RecordTally};
pub(crate) use records::{RecordsFailure, read_records};
pub use scavenge_notes::end_of_scavenge_notes;
pub(crate) use selection::{ListedChunk, listed_chunks, select};
