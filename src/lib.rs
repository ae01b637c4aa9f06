//! `kbackup` backs up the files of a running KurrentDB / `EventStoreDB` node and brings them back.
//!
//! The crate is a house of rooms that only use the ones below them; the tables in `docs/architecture.md` say who may use whom.

pub mod format;
