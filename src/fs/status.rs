//! What the file system says about a path: kind, length, times, owner.

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

/// What the file system says about a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStatus {
    /// File, directory, link or something special.
    pub kind: FileKind,
    /// Length in bytes.
    pub size: u64,
    /// Bytes that it takes of the file system; holes take none.
    pub allocated: u64,
    /// Permission bits.
    pub mode: u32,
    /// Time of the last modification.
    pub modified: SystemTime,
    /// Time of the last change of bytes, names, mode or owner; no program can set it.
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
            changed: time_of(metadata.ctime(), metadata.ctime_nsec()).unwrap_or(UNIX_EPOCH),
            device: metadata.dev(),
            inode: metadata.ino(),
            links: metadata.nlink(),
            user: metadata.uid(),
            group: metadata.gid(),
        }
    }
}

/// A time as the kernel tells it: seconds since 1970, and nanoseconds.
fn time_of(seconds: i64, nanoseconds: i64) -> Option<SystemTime> {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let part = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or_default());

    let second = if seconds < 0 {
        UNIX_EPOCH.checked_sub(whole)?
    } else {
        UNIX_EPOCH.checked_add(whole)?
    };
    second.checked_add(part)
}

/// What the file system says about `path` itself; links are not followed. Returns `None` if nothing
/// has that name.
pub fn status(path: &Path) -> Result<Option<FileStatus>> {
    let metadata = attempt(Operation::Inspect, path, || std::fs::symlink_metadata(path));
    if_there(metadata)
}

/// What the file system says about the target of `path`, with all links followed. Returns `None` if
/// nothing is there.
pub fn status_of_target(path: &Path) -> Result<Option<FileStatus>> {
    let metadata = attempt(Operation::Inspect, path, || std::fs::metadata(path));
    if_there(metadata)
}

/// Whether this user may execute a file.
#[must_use]
pub fn can_execute(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

fn if_there(metadata: Result<std::fs::Metadata>) -> Result<Option<FileStatus>> {
    match metadata {
        Ok(metadata) => Ok(Some(FileStatus::from(&metadata))),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
