//! Directories: listing what they hold, and making them.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::io::Errno;

use crate::parallel;

use super::error::{Operation, Result};
use super::gate::{Change, attempt, change};
use super::status::FileStatus;

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// The name, which need not be UTF-8.
    pub name: OsString,
    /// What it is.
    pub status: FileStatus,
}

/// The names in one directory, and nothing else of what bears them.
///
/// # Errors
/// What the file system reports.
pub fn names(path: &Path) -> Result<Vec<OsString>> {
    attempt(Operation::List, path, || {
        std::fs::read_dir(path)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect()
    })
}

/// Whether a directory has a name that `which` looks for.
///
/// # Errors
/// What the file system reports.
pub fn has_name(path: &Path, which: impl Fn(&OsStr) -> bool) -> Result<bool> {
    attempt(Operation::List, path, || {
        for entry in std::fs::read_dir(path)? {
            if which(&entry?.file_name()) {
                return Ok(true);
            }
        }
        Ok(false)
    })
}

/// The names in one directory, sorted. A name that vanishes meanwhile is left out.
///
/// # Errors
/// What the file system reports.
pub fn list(path: &Path) -> Result<Vec<DirectoryEntry>> {
    let mut entries = list_by(path, |name, status| Some(DirectoryEntry { name, status }))?;
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(entries)
}

/// What `make` makes of the names in one directory, in no order; it is called by several threads. A
/// name that vanishes meanwhile is left out.
///
/// # Errors
/// What the file system reports.
pub fn list_by<T: Send>(
    path: &Path,
    make: impl Fn(OsString, FileStatus) -> Option<T> + Sync,
) -> Result<Vec<T>> {
    let names = attempt(Operation::List, path, || {
        std::fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()
    })?;
    let inspect = |name: &std::fs::DirEntry| {
        // By its directory's descriptor: the way there is not walked for every name.
        match attempt(Operation::Inspect, &name.path(), || name.metadata()) {
            Ok(metadata) => Ok(make(name.file_name(), FileStatus::from(&metadata))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    };
    let mut entries = Vec::with_capacity(names.len());
    for names in names.chunks(parallel::AT_ONCE) {
        entries.extend(parallel::map(names, inspect)?.into_iter().flatten());
    }
    Ok(entries)
}

/// Creates a directory, unless there is one; its parent exists.
///
/// # Errors
/// What the file system reports.
pub fn create_directory(path: &Path, mode: u32) -> Result<()> {
    change(
        Operation::Create,
        path,
        Change::Made(path),
        || match std::fs::DirBuilder::new().mode(mode).create(path) {
            Err(error)
                if error.kind() == io::ErrorKind::AlreadyExists
                    && std::fs::metadata(path)?.is_dir() =>
            {
                Ok(())
            }
            result => result,
        },
    )
}

/// Makes the names in a directory durable, as far as its file system knows how: some network file
/// systems do not.
///
/// # Errors
/// What the file system reports.
pub fn sync_directory(path: &Path) -> Result<()> {
    change(
        Operation::Sync,
        path,
        Change::SyncedPath(path),
        || match std::fs::File::open(path)?.sync_all() {
            Err(error)
                if matches!(
                    Errno::from_io_error(&error),
                    Some(Errno::INVAL | Errno::OPNOTSUPP)
                ) =>
            {
                Ok(())
            }
            result => result,
        },
    )
}

/// The directory that holds `path`.
#[must_use]
pub fn parent(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}
