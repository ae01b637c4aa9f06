//! Index tables ("PTables"): sorted lists of where each event of each stream lies in the log
//! (disk-format §5.2).
//!
//! ```text
//! | header 128 | entries | midpoints 24 each | footer 128 | MD5 16 |
//!                          only version 4      only version 4
//! ```
//!
//! A table never changes once `indexmap` names it. But the server creates it under its final name,
//! then fills it, and writes the MD5 last (O1, O2). So neither name nor length shows whether a
//! table is whole. Only the MD5 does.

mod entries;
mod latest;
mod layout;
mod table;

#[cfg(test)]
mod tests;

pub use self::entries::{Entries, TableEntry};
pub use self::latest::LatestEntries;
pub use self::layout::{TableLayout, TableVersion, hashed_length, inspect};
pub use self::table::Table;
