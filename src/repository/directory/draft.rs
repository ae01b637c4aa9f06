//! A new file of the repository before it has its name, and the mode and time that it gets.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::io::Errno;

use super::layout::FILE_MODE;
use crate::format::Md5Hash;
use crate::fs::{self, IoError};
use crate::repository::Attributes;

/// How the name of a file ends whose copy was interrupted.
const BEGUN: &str = ".begun";

/// A new file under a temporary name. Dropping it removes it, unless [`Self::publish`] gave it its
/// name.
pub(super) struct Draft {
    pub(super) file: fs::File,
    staged: PathBuf,
    place: PathBuf,
}

impl Draft {
    /// Creates an empty file beside `place`, its later path.
    pub(super) fn create(place: PathBuf) -> Result<Self, IoError> {
        let staged = staged_path(&place);
        let file = fs::create_new(&staged, FILE_MODE)?;
        Ok(Self {
            file,
            staged,
            place,
        })
    }

    /// Makes a draft of the file `begun`, whose copy was interrupted. `place` is its later path.
    pub(super) fn of_begun(begun: &fs::File, place: PathBuf) -> Result<Self, IoError> {
        let staged = staged_path(&place);
        fs::rename(begun.path(), &staged)?;
        let file = fs::open_for_writing(&staged)?;
        Ok(Self {
            file,
            staged,
            place,
        })
    }

    /// Keeps the first `length` bytes for a later run, under a name that says which file they
    /// begin. They are durable then.
    pub(super) fn keep_begun(&self, md5: Md5Hash, length: u64) -> Result<(), IoError> {
        self.file.set_size(length)?;
        self.file.sync()?;
        fs::rename(&self.staged, &begun_path(&self.place, md5))
    }

    /// Gives the file its name. Its bytes must be durable: if this run is killed, the next one
    /// resumes only files with a name, because those were synced.
    pub(super) fn publish(&self) -> Result<(), IoError> {
        fs::rename(&self.staged, &self.place)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After its rename there is nothing to remove. If it cannot be removed now, the next writer
        // removes it.
        let _ = fs::remove_file(&self.staged);
    }
}

/// The path of a file that is being written.
fn staged_path(place: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(place.file_name().unwrap_or_default());
    name.push(".part");
    place.with_file_name(name)
}

/// The path of the beginning of a file that ends with the server's MD5 `md5`.
pub(super) fn begun_path(place: &Path, md5: Md5Hash) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(place.file_name().unwrap_or_default());
    name.push(format!(".{md5}{BEGUN}"));
    place.with_file_name(name)
}

/// The name of the file and the MD5 at its end, if `name` is that of the beginning of a file.
pub(super) fn parse_begun(name: &str) -> Option<(&str, Md5Hash)> {
    let (file, md5) = name
        .strip_prefix('.')?
        .strip_suffix(BEGUN)?
        .rsplit_once('.')?;
    Some((file, md5.parse().ok()?))
}

/// The server's bits for owner, group and others. The owner can always read what is stored.
const fn stored_mode(mode: u32) -> u32 {
    mode & 0o777 | 0o400
}

/// Sets mode and time, as far as the file system keeps them.
pub(super) fn set_attributes(file: &fs::File, attributes: Attributes) -> Result<(), IoError> {
    if_supported(file.set_mode(stored_mode(attributes.mode)))?;
    if_supported(file.set_modified(attributes.modified.into()))
}

/// Whether a file has its mode and time already.
pub(super) fn has_attributes(status: &fs::FileStatus, attributes: Attributes) -> bool {
    status.mode & 0o7777 == stored_mode(attributes.mode)
        && status.modified == SystemTime::from(attributes.modified)
}

/// Ignores an error that says that the file system keeps no modes or times. The manifest's rows
/// hold them anyway.
fn if_supported(result: Result<(), IoError>) -> Result<(), IoError> {
    let Err(error) = result else {
        return Ok(());
    };
    match Errno::from_io_error(&error.source) {
        Some(Errno::PERM | Errno::OPNOTSUPP) => Ok(()),
        _ => Err(error),
    }
}

/// Whether an error says that no hard link is possible: the file system has none, none to this
/// place, or no more for this file.
pub(super) fn cannot_link(error: &IoError) -> bool {
    let Some(errno) = Errno::from_io_error(&error.source) else {
        return false;
    };
    let reasons = [
        Errno::MLINK,
        Errno::PERM,
        Errno::XDEV,
        Errno::OPNOTSUPP,
        Errno::NOTSUP,
        Errno::NOSYS,
        Errno::ACCESS,
    ];
    reasons.contains(&errno)
}
