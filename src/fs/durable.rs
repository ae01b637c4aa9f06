//! Writing that survives a loss of power: whole files by an atomic rename, and directories with
//! their names.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::change::Change;
use super::directory::{DirectoryEntry, create_directory, list, parent, sync_directory};
use super::error::{Operation, Result};
use super::gate::{attempt, change};
use super::names::remove_file;
use super::recording;
use super::status::{FileKind, status_of_target};

/// Puts `bytes` under `path` by a durable, atomic rename: a reader sees the old file or the whole
/// new one.
///
/// # Errors
/// If it fails before the rename, the old file is unchanged.
pub fn write_durably(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    write_durably_by(path, mode, |into| into.write_all(bytes))
}

/// As [`write_durably`], for a file that gets this owner and group, by number, before it has its
/// name.
///
/// # Errors
/// As for [`write_durably`]; if the process may not give files away.
pub fn write_durably_for(path: &Path, bytes: &[u8], mode: u32, owner: (u32, u32)) -> Result<()> {
    write_owned(path, mode, Some(owner), |into| into.write_all(bytes))
}

/// As [`write_durably`], for content that is made piece by piece.
///
/// # Errors
/// As for [`write_durably`]; also what `write` returns.
pub fn write_durably_by(
    path: &Path,
    mode: u32,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    write_owned(path, mode, None, write)
}

fn write_owned(
    path: &Path,
    mode: u32,
    owner: Option<(u32, u32)>,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    let directory = parent(path);
    let staged = attempt(Operation::Create, path, || stage(directory, mode))?;
    let file = staged.as_file();

    if let Some((user, group)) = owner {
        attempt(Operation::SetOwner, path, || {
            std::os::unix::fs::fchown(file, Some(user), Some(group))
        })?;
    }

    change(Operation::Write, path, Change::Content(file), || {
        let mut buffered = io::BufWriter::new(file);
        write(&mut buffered)?;
        buffered.flush()
    })?;

    // The content must be on the disk before its name is: otherwise a loss of power could leave an
    // empty file with that name.
    change(Operation::Sync, path, Change::Synced(file), || {
        file.sync_all()
    })?;

    let name = staged.path().to_owned();
    let rename = Change::Renamed(&name, path);
    change(Operation::Rename, path, rename, || {
        staged.persist(path).map_err(|error| error.error)
    })?;
    sync_directory(directory)
}

fn stage(directory: &Path, mode: u32) -> io::Result<tempfile::NamedTempFile> {
    let staged = tempfile::Builder::new()
        .prefix(".")
        .suffix(".tmp")
        .permissions(std::fs::Permissions::from_mode(mode))
        .tempfile_in(directory)?;
    recording::made(staged.path())?;
    Ok(staged)
}

/// Removes what [`write_durably`] left in a directory when its process was killed. No write keeps
/// such a file for an hour, so no running process needs an older one.
pub fn remove_stale_staging(directory: &Path) -> Result<()> {
    for entry in list(directory)? {
        let is_staging = entry.status.kind == FileKind::File && is_staging_name(&entry.name);
        if is_staging && is_stale(&entry) {
            remove_file(&directory.join(&entry.name))?;
        }
    }

    Ok(())
}

fn is_staging_name(name: &OsStr) -> bool {
    let name = name.to_str().unwrap_or_default();
    let Some(name) = name.strip_prefix('.') else {
        return false;
    };
    let Some(random) = name.strip_suffix(".tmp") else {
        return false;
    };

    // As `tempfile` names them.
    random.len() == 6 && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// A file from the future is not stale: the clock may have gone back.
fn is_stale(entry: &DirectoryEntry) -> bool {
    const STALE: Duration = Duration::from_secs(3600);

    match entry.status.modified.elapsed() {
        Ok(age) => age >= STALE,
        Err(_) => false,
    }
}

/// Creates a directory and, with `mode_above`, those above it that are missing. Makes their names
/// durable.
///
/// Each directory is durable before the next one is created. The name of a directory that exists
/// already is made durable, too, because a killed run may have created it without a sync. So only
/// the last directory can be in doubt.
pub fn create_directories_durably(path: &Path, mode_above: u32, mode: u32) -> Result<()> {
    let mut missing = Vec::new();
    let mut existing = path;
    while status_of_target(existing)?.is_none() {
        missing.push(existing);
        existing = parent(existing);
    }

    sync_existing(parent(existing))?;
    for directory in missing.into_iter().rev() {
        let mode = if directory == path { mode } else { mode_above };
        create_directory(directory, mode)?;
        sync_directory(parent(directory))?;
    }

    Ok(())
}

/// Makes the names in an existing directory durable. If this process may not read or change it, no
/// earlier run created anything there, and no sync is needed.
fn sync_existing(directory: &Path) -> Result<()> {
    let Err(error) = sync_directory(directory) else {
        return Ok(());
    };

    match error.source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Ok(()),
        _ => Err(error),
    }
}
