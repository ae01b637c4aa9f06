//! Opening and creating files. No function here follows a link in the last part of a path.

use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::error::{IoError, Operation, Result};
use super::file::File;
use super::gate::{Change, attempt, change};
use super::status::FileKind;

/// Opens a regular file of the node for reading: never through a link, without moving its access
/// time where that is permitted.
///
/// # Errors
/// Also where the path is a link or no regular file.
pub fn open_source(path: &Path) -> Result<File> {
    let open = |extra: OFlags| {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | extra;
        std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
            .open(path)
    };
    let file = attempt(Operation::Open, path, || match open(OFlags::NOATIME) {
        Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => {
            open(OFlags::empty())
        }
        result => result,
    })?;
    must_be_plain(File::new(file, path)?)
}

/// Passes on an open file if it is a regular one.
pub(super) fn must_be_plain(file: File) -> Result<File> {
    if file.found().kind == FileKind::File {
        return Ok(file);
    }
    Err(IoError {
        operation: Operation::Open,
        path: file.path().to_owned(),
        source: io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"),
    })
}

/// Opens a file of ours for reading, never through a link.
///
/// # Errors
/// What the file system reports.
pub fn open(path: &Path) -> Result<File> {
    open_source(path)
}

/// Opens a file of ours for reading and writing, never through a link.
///
/// # Errors
/// What the file system reports.
pub fn open_for_writing(path: &Path) -> Result<File> {
    open_with(
        path,
        Operation::Open,
        std::fs::OpenOptions::new().read(true).write(true),
    )
}

/// Creates a file that must not exist yet.
///
/// # Errors
/// Also where the path exists.
pub fn create_new(path: &Path, mode: u32) -> Result<File> {
    open_with(
        path,
        Operation::Create,
        std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(mode),
    )
}

/// Opens a file for reading and writing, and creates it where there is none.
///
/// # Errors
/// What the file system reports.
pub fn open_or_create(path: &Path, mode: u32) -> Result<File> {
    open_with(
        path,
        Operation::Create,
        std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(mode),
    )
}

fn open_with(
    path: &Path,
    operation: Operation,
    options: &mut std::fs::OpenOptions,
) -> Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let options = options.custom_flags(i32::try_from(flags.bits()).unwrap_or_default());
    let file = change(operation, path, Change::Made(path), || options.open(path))?;
    File::new(file, path)
}

/// Reads a whole small file.
///
/// # Errors
/// Also where it is longer than `limit` bytes.
pub fn read_small(path: &Path, limit: u64) -> Result<Vec<u8>> {
    open_source(path)?.read_small(limit)
}
