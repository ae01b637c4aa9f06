//! Integration tests: one binary, a module per verb.

#![expect(
    clippy::disallowed_methods,
    reason = "tests look at the disk past the door"
)]

#[cfg(not(feature = "faults"))]
compile_error!(
    "these tests need the feature `faults`: the package's dev-dependency on itself sets it"
);

mod agent;
mod archive;
mod backup;
mod check;
mod cli;
mod conformance;
mod copy;
mod directory_repository;
mod discovery;
mod docs;
mod examples;
mod executable;
mod expire;
mod fixtures;
mod format_1;
mod format_index;
mod format_log;
mod gate;
mod house;
mod http_server;
mod live;
mod memory_repository;
mod node_client;
mod object_servers;
mod parsers;
mod proof_log;
mod prune;
mod quiesce;
mod recorded_node;
mod restore;
mod running;
mod stores;
mod timing;
mod torture;
mod transfer;
mod verify;
mod visibility;
