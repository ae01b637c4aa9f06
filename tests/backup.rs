//! Backups in trouble: their cost, that they leave the node alone, and what happens if the source,
//! the branch, the disk or the node is in trouble.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may end in a panic"
)]

mod begun;
pub(crate) mod bench;
mod cost;
mod history;
mod left_out;
mod missing_index;
mod mutations;
mod node_trouble;
mod numbers;
mod repair;
mod resume;
mod source_trouble;
mod survival;
mod untouched;
