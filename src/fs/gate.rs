//! The gate that every system call of this room passes. It gives each error its path. Here tests
//! inject faults, and record what a loss of power would leave.

use std::io;
use std::path::Path;

use super::error::{IoError, Operation, Result};
use super::{faults, recording};

/// What an operation changes on the disk, so that a test can tell what a loss of power leaves of
/// it.
#[derive(Clone, Copy)]
#[cfg_attr(
    not(feature = "faults"),
    expect(dead_code, reason = "only a recording reads it")
)]
pub(super) enum Change<'a> {
    /// The path, and what is missing above it, unless it exists already.
    Made(&'a Path),
    Written(&'a std::fs::File, u64, &'a [u8]),
    /// The kernel put bytes somewhere.
    Content(&'a std::fs::File),
    Resized(&'a std::fs::File, u64),
    Attributes(&'a std::fs::File),
    AttributesOf(&'a Path),
    Synced(&'a std::fs::File),
    SyncedPath(&'a Path),
    Renamed(&'a Path, &'a Path),
    Linked(&'a Path, &'a Path),
    Removed(&'a Path),
    RemovedTree(&'a Path),
}

/// Runs a system call that changes the disk.
pub(super) fn change<T>(
    operation: Operation,
    path: &Path,
    change: Change<'_>,
    run: impl FnOnce() -> io::Result<T>,
) -> Result<T> {
    attempt(operation, path, || recording::around(&change, run))
}

/// Runs a system call that changes nothing on the disk.
pub(super) fn attempt<T>(
    operation: Operation,
    path: &Path,
    run: impl FnOnce() -> io::Result<T>,
) -> Result<T> {
    let result = match faults::gate(operation, path) {
        Ok(()) => run(),
        Err(injected) => Err(injected),
    };

    result.map_err(|source| IoError {
        operation,
        path: path.to_owned(),
        source,
    })
}
