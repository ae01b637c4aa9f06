//! Integration tests: one binary, a module per verb.

#![expect(
    clippy::disallowed_methods,
    reason = "tests look at the disk past the door"
)]

mod agent;
mod backup;
mod check;
mod cli;
#[cfg(feature = "faults")]
mod conformance;
#[cfg(feature = "faults")]
mod directory_repository;
mod discovery;
mod docs;
#[cfg(feature = "faults")]
mod expire;
mod fixtures;
mod format_index;
mod format_log;
#[cfg(feature = "faults")]
mod gate;
mod house;
mod http_server;
mod live;
mod node_client;
mod parsers;
mod proof_log;
mod quiesce;
#[cfg(feature = "faults")]
mod restore;
mod running;
#[cfg(feature = "faults")]
mod torture;
mod transfer;
#[cfg(feature = "faults")]
mod verify;
