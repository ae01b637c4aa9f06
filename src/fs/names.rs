//! Operations on the name of a file or directory: rename, link, resolve and remove it, and set its
//! owner and mode.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::change::Change;
use super::directory::sync_directory;
use super::error::{Operation, Result};
use super::gate::{attempt, change};
use super::mounts::refuse_mounts;

/// The path that a link holds.
///
/// # Errors
/// Fails if `path` is not a link.
pub fn link_target(path: &Path) -> Result<PathBuf> {
    attempt(Operation::Inspect, path, || std::fs::read_link(path))
}

/// The absolute path without links. Used for directories that the operator names, which may be
/// links themselves.
///
/// # Errors
/// Fails if the path does not exist.
pub fn canonical(path: &Path) -> Result<PathBuf> {
    attempt(Operation::Inspect, path, || std::fs::canonicalize(path))
}

/// Gives `from` the name `to`. A file that has that name is replaced.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    change(Operation::Rename, to, Change::Renamed(from, to), || {
        std::fs::rename(from, to)
    })
}

/// Gives the file `from` a second name.
pub fn hard_link(from: &Path, to: &Path) -> Result<()> {
    change(Operation::Link, to, Change::Linked(from, to), || {
        std::fs::hard_link(from, to)
    })
}

/// Removes a file. It is no error if the file is gone already.
pub fn remove_file(path: &Path) -> Result<()> {
    gone_is_fine(change(
        Operation::Remove,
        path,
        Change::Removed(path),
        || std::fs::remove_file(path),
    ))
}

/// Removes a directory and all below it; links are not followed. It is no error if the directory is
/// gone already.
///
/// # Errors
/// [`std::io::ErrorKind::ResourceBusy`] if another file system, or a part of one, is mounted there.
/// Then nothing is removed.
pub fn remove_tree(path: &Path) -> Result<()> {
    refuse_mounts(path)?;
    gone_is_fine(change(
        Operation::Remove,
        path,
        Change::RemovedTree(path),
        || std::fs::remove_dir_all(path),
    ))
}

fn gone_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        result => result,
    }
}

/// Sets owner and group of a file or directory by number, durably.
///
/// # Errors
/// [`std::io::ErrorKind::PermissionDenied`] unless the process may give files away.
pub fn set_owner(path: &Path, user: u32, group: u32) -> Result<()> {
    change(
        Operation::SetOwner,
        path,
        Change::AttributesOf(path),
        || std::os::unix::fs::lchown(path, Some(user), Some(group)),
    )?;

    // This works for a file, too.
    sync_directory(path)
}

/// Sets the permission bits of a directory.
pub fn set_mode(path: &Path, mode: u32) -> Result<()> {
    let permissions = std::fs::Permissions::from_mode(mode & 0o7777);
    change(Operation::SetMode, path, Change::AttributesOf(path), || {
        std::fs::set_permissions(path, permissions)
    })
}
