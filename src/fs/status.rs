//! What the file system says of a path: kind, length, times, owner.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::error::{Operation, Result};
use super::gate::attempt;

/// What kind of thing a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, never followed.
    Link,
    /// A socket, device or pipe.
    Special,
}

/// What the file system says of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStatus {
    /// What it is.
    pub kind: FileKind,
    /// Length in bytes.
    pub size: u64,
    /// Bytes that it takes of the file system; holes take none.
    pub allocated: u64,
    /// Permission bits.
    pub mode: u32,
    /// Time of the last modification.
    pub modified: SystemTime,
    /// Time of the last change of bytes, names, mode or owner; nobody can set it.
    pub changed: SystemTime,
    /// Device that holds it.
    pub device: u64,
    /// Number of the inode on that device.
    pub inode: u64,
    /// How many names the inode has.
    pub links: u64,
    /// Numeric owner.
    pub user: u32,
    /// Numeric group.
    pub group: u32,
}

impl From<&std::fs::Metadata> for FileStatus {
    fn from(metadata: &std::fs::Metadata) -> Self {
        let kind = match metadata.file_type() {
            kind if kind.is_file() => FileKind::File,
            kind if kind.is_dir() => FileKind::Directory,
            kind if kind.is_symlink() => FileKind::Link,
            _ => FileKind::Special,
        };
        Self {
            kind,
            size: metadata.len(),
            allocated: metadata.blocks().saturating_mul(512),
            mode: metadata.mode() & 0o7777,
            modified: metadata.modified().unwrap_or(UNIX_EPOCH),
            changed: time(metadata.ctime(), metadata.ctime_nsec()),
            device: metadata.dev(),
            inode: metadata.ino(),
            links: metadata.nlink(),
            user: metadata.uid(),
            group: metadata.gid(),
        }
    }
}

/// Seconds since 1970, and nanoseconds.
fn time(seconds: i64, nanoseconds: i64) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let part = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or_default());
    let whole = if seconds < 0 {
        UNIX_EPOCH.checked_sub(whole)
    } else {
        UNIX_EPOCH.checked_add(whole)
    };
    whole
        .and_then(|whole| whole.checked_add(part))
        .unwrap_or(UNIX_EPOCH)
}

/// What the file system says of `path`, links not followed; none where nothing has that name.
///
/// # Errors
/// What the file system reports, except that nothing is there.
pub fn status(path: &Path) -> Result<Option<FileStatus>> {
    match attempt(Operation::Inspect, path, || std::fs::symlink_metadata(path)) {
        Ok(metadata) => Ok(Some(FileStatus::from(&metadata))),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the file system says of what `path` leads to, links followed; none where nothing is there.
///
/// # Errors
/// What the file system reports, except that nothing is there.
pub fn status_of_target(path: &Path) -> Result<Option<FileStatus>> {
    match attempt(Operation::Inspect, path, || std::fs::metadata(path)) {
        Ok(metadata) => Ok(Some(FileStatus::from(&metadata))),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
