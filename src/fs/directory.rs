//! Directories: listing what they hold, creating them, and making the names in them durable.

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, DirEntry};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::io::Errno;

use crate::parallel;

use super::change::Change;
use super::error::{Operation, Result};
use super::gate::{attempt, change};
use super::status::FileStatus;

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// The name, which need not be UTF-8.
    pub name: OsString,
    /// What the file system says about it; a link is not followed.
    pub status: FileStatus,
}

/// The names in one directory, without their status.
pub fn names(path: &Path) -> Result<Vec<OsString>> {
    attempt(Operation::List, path, || {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path)? {
            names.push(entry?.file_name());
        }
        Ok(names)
    })
}

/// Whether a directory has a name that `is_wanted` accepts.
pub fn has_name(path: &Path, is_wanted: impl Fn(&OsStr) -> bool) -> Result<bool> {
    attempt(Operation::List, path, || {
        for entry in std::fs::read_dir(path)? {
            if is_wanted(&entry?.file_name()) {
                return Ok(true);
            }
        }
        Ok(false)
    })
}

/// The entries of one directory, sorted by name. A name that vanishes during the call is left out.
pub fn list(path: &Path) -> Result<Vec<DirectoryEntry>> {
    let mut entries = list_by(path, |name, status| Some(DirectoryEntry { name, status }))?;
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(entries)
}

/// Turns the entries of one directory into values by `make`, in no order. Several threads call
/// `make`. A name that vanishes during the call is left out.
pub fn list_by<T: Send>(
    path: &Path,
    make: impl Fn(OsString, FileStatus) -> Option<T> + Sync,
) -> Result<Vec<T>> {
    let found = attempt(Operation::List, path, || {
        std::fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()
    })?;

    let mut entries = Vec::with_capacity(found.len());
    for found in found.chunks(parallel::AT_ONCE) {
        let made = parallel::map(found, |entry| inspect(entry, &make))?;
        entries.extend(made.into_iter().flatten());
    }
    Ok(entries)
}

fn inspect<T>(
    entry: &DirEntry,
    make: impl Fn(OsString, FileStatus) -> Option<T>,
) -> Result<Option<T>> {
    // `metadata` uses the descriptor of the directory, so the kernel does not walk the whole path
    // for each name.
    match attempt(Operation::Inspect, &entry.path(), || entry.metadata()) {
        Ok(metadata) => Ok(make(entry.file_name(), FileStatus::from(&metadata))),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Creates a directory, unless it exists already. Its parent exists.
///
/// # Errors
/// Fails if something else has that name.
pub fn create_directory(path: &Path, mode: u32) -> Result<()> {
    change(
        Operation::Create,
        path,
        Change::Made(path),
        || match DirBuilder::new().mode(mode).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if std::fs::metadata(path)?.is_dir() {
                    Ok(())
                } else {
                    Err(error)
                }
            }
            result => result,
        },
    )
}

/// Makes the names in a directory durable, as far as its file system can: some network file systems
/// cannot.
///
/// # Errors
/// A failure is final: never retry it into success.
pub fn sync_directory(path: &Path) -> Result<()> {
    change(Operation::Sync, path, Change::SyncedPath(path), || {
        let directory = std::fs::File::open(path)?;
        let Err(error) = directory.sync_all() else {
            return Ok(());
        };

        match Errno::from_io_error(&error) {
            Some(Errno::INVAL | Errno::OPNOTSUPP) => Ok(()),
            _ => Err(error),
        }
    })
}

/// The directory that holds `path`.
#[must_use]
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
