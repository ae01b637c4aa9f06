//! The gate that every system call of this room passes. It gives each error its path. Here tests
//! inject faults, and record what a loss of power would leave.

use std::io;
use std::path::Path;

use super::change::Change;
use super::error::{IoError, Operation, Result};
use super::{faults, recording};

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
