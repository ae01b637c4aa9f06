//! A new file of the repository before it has its name, and the mode and time that it gets.

use std::ffi::OsString;
use std::path::PathBuf;

use rustix::io::Errno;

use super::layout::FILE_MODE;
use crate::fs::{self, IoError};
use crate::repository::Attributes;

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
        let mut name = OsString::from(".");
        name.push(place.file_name().unwrap_or_default());
        name.push(".part");
        let staged = place.with_file_name(name);

        let file = fs::create_new(&staged, FILE_MODE)?;
        Ok(Self {
            file,
            staged,
            place,
        })
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
        && status.modified == attributes.modified.into()
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
