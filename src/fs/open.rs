//! Opening and creating files. No function here follows a link at the end of a path.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::change::Change;
use super::error::{IoError, Operation, Result};
use super::file::File;
use super::gate::{attempt, change};
use super::status::FileKind;

/// Opens a regular file of the node for reading. Leaves its access time unchanged, if that is
/// permitted.
///
/// # Errors
/// Fails if the path is a link or not a regular file; see [`IoError::is_no_plain_file`].
pub fn open_source(path: &Path) -> Result<File> {
    let file = attempt(Operation::Open, path, || {
        // Only the owner of a file may leave its access time alone.
        match open_for_reading(path, OFlags::NOATIME) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::PERM) => {
                open_for_reading(path, OFlags::empty())
            }
            result => result,
        }
    })?;

    expect_plain_file(File::new(file, path)?)
}

/// Passes on an open file if it is a regular one, and tells the kernel how kbackup will read it.
///
/// Otherwise even a look at a header makes the kernel read ahead. A later read past the page cache
/// meets the mark that this leaves. Then the kernel reads ahead again, and drops those bytes before
/// kbackup asks for them. A cold full read its source 1.7 times that way.
pub(super) fn expect_plain_file(file: File) -> Result<File> {
    if file.found().kind == FileKind::File {
        file.expect_pieces();
        return Ok(file);
    }

    Err(IoError {
        operation: Operation::Open,
        path: file.path().to_owned(),
        source: io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"),
    })
}

/// Does not wait for the other end of a pipe.
fn open_for_reading(path: &Path, extra: OFlags) -> io::Result<std::fs::File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | extra;
    OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(path)
}

/// Opens a regular file of kbackup for reading.
///
/// # Errors
/// As [`open_source`].
pub fn open(path: &Path) -> Result<File> {
    open_source(path)
}

/// Opens a file of kbackup for reading and writing.
///
/// # Errors
/// Fails if the path is a link.
pub fn open_for_writing(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    open_with(path, Operation::Open, &mut options)
}

/// Creates a file that must not exist yet.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] if the path exists.
pub fn create_new(path: &Path, mode: u32) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(mode);
    open_with(path, Operation::Create, &mut options)
}

/// Opens a file for reading and writing, and creates it if it is missing.
///
/// # Errors
/// Fails if the path is a link.
pub fn open_or_create(path: &Path, mode: u32) -> Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(mode);
    open_with(path, Operation::Create, &mut options)
}

fn open_with(path: &Path, operation: Operation, options: &mut OpenOptions) -> Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    options.custom_flags(i32::try_from(flags.bits()).unwrap_or_default());

    let file = change(operation, path, Change::Made(path), || options.open(path))?;
    File::new(file, path)
}

/// Reads the whole of a small file.
///
/// # Errors
/// [`io::ErrorKind::FileTooLarge`] if it is longer than `limit` bytes.
pub fn read_small(path: &Path, limit: u64) -> Result<Vec<u8>> {
    open_source(path)?.read_small(limit)
}
