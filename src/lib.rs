//! `kbackup` backs up the files of a running KurrentDB / `EventStoreDB` node and brings them back.
//!
//! The crate is a house of rooms; each uses only the ones below it (`docs/architecture.md` has the
//! table, a test holds it).

pub mod agent;
pub mod backup;
pub mod cli;
pub mod clock;
pub mod error;
pub mod event;
pub mod expire;
pub mod format;
pub mod fs;
pub mod log;
pub mod manifest;
pub mod md5;
pub mod node;
pub mod pace;
pub mod parallel;
pub mod proof;
pub mod repository;
pub mod restore;
pub mod run;
pub mod schedule;
pub mod server;
pub mod settings;
pub mod timings;
pub mod transfer;
mod users;
mod verbs;
pub mod verify;
