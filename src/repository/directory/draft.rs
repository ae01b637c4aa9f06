//! A file in the making, and what it gets besides its bytes.

use std::ffi::OsString;
use std::path::PathBuf;

use rustix::io::Errno;

use super::layout::FILE_MODE;
use crate::fs::{self, IoError};
use crate::repository::Attributes;

/// A file that has no name of a backup's file yet. It is removed unless it gets one.
pub(super) struct Draft {
    pub(super) file: fs::File,
    staged: PathBuf,
    place: PathBuf,
}

impl Draft {
    /// Creates an empty file beside `place`, where it will stand.
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

    /// Gives the file its name. Its bytes must be durable: a name in `incoming/` says that the
    /// file was synced with success, also to the run after one that was killed.
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

/// Whether a file has mode and time already.
pub(super) fn has_attributes(status: &fs::FileStatus, attributes: Attributes) -> bool {
    status.mode & 0o7777 == stored_mode(attributes.mode)
        && status.modified == attributes.modified.into()
}

/// Not every file system keeps modes and times. The rows of the manifest do.
fn if_supported(result: Result<(), IoError>) -> Result<(), IoError> {
    let Err(error) = result else {
        return Ok(());
    };
    match Errno::from_io_error(&error.source) {
        Some(Errno::PERM | Errno::OPNOTSUPP) => Ok(()),
        _ => Err(error),
    }
}

/// Whether the file system has no hard links, or no more for this file, or none to this place.
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
