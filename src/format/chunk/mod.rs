//! Chunk files: header, data, position map and footer (disk-format §3).
//!
//! ```text
//! 0        128                                             length-128       length
//! | header | data: the records | position map | zeros to 4096 | footer          |
//!                               only scavenged   format 3 on    only completed
//! ```
//!
//! This room parses header and footer, and knows all lengths. `record` reads the data, and
//! `position_map` the map.

mod file;
mod footer;
mod header;
mod transform;

#[cfg(test)]
mod tests;

pub use self::file::{ChunkFile, ChunkIdentity, ChunkState, inspect};
pub use self::footer::{ChunkFooter, FOOTER_LENGTH, MapEntries, full_length, hashed_length};
pub use self::header::{ChunkHeader, HEADER_LENGTH};
pub use self::transform::Transform;
