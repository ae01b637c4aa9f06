//! Writing that survives a loss of power: whole files by an atomic rename, directories and the
//! names in them.

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::directory::{create_directory, list, parent, sync_directory};
use super::error::{Operation, Result};
use super::gate::{Change, attempt, change};
use super::names::remove_file;
use super::recording;
use super::status::{FileKind, status_of_target};

/// Puts `bytes` under `path` by a durable, atomic rename: a reader sees the old file or the whole
/// new one.
///
/// # Errors
/// What the file system reports; the old file then still stands.
pub fn write_durably(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    write_durably_by(path, mode, |into| into.write_all(bytes))
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
    let directory = parent(path);
    let staged = attempt(Operation::Create, path, || {
        let mode = std::fs::Permissions::from_mode(mode);
        let staged = tempfile::Builder::new()
            .prefix(".")
            .suffix(".tmp")
            .permissions(mode)
            .tempfile_in(directory)?;
        recording::made(staged.path())?;
        Ok(staged)
    })?;
    change(
        Operation::Write,
        path,
        Change::Content(staged.as_file()),
        || {
            let mut buffered = io::BufWriter::new(staged.as_file());
            write(&mut buffered)?;
            buffered.flush()
        },
    )?;
    change(
        Operation::Sync,
        path,
        Change::Synced(staged.as_file()),
        || staged.as_file().sync_all(),
    )?;
    let name = staged.path().to_owned();
    change(
        Operation::Rename,
        path,
        Change::Renamed(&name, path),
        || staged.persist(path).map_err(|error| error.error),
    )?;
    sync_directory(directory)
}

/// Removes what [`write_durably`] left in a directory when its process was killed: no file has that
/// name for longer than a write takes, and what is there for an hour is nobody's any more.
///
/// # Errors
/// What the file system reports.
pub fn remove_stale_staging(directory: &Path) -> Result<()> {
    const STALE: Duration = Duration::from_secs(3600);
    for entry in list(directory)? {
        let is_staging = entry
            .name
            .to_str()
            .and_then(|name| name.strip_prefix('.')?.strip_suffix(".tmp"))
            .is_some_and(|random| {
                // As `tempfile` names them.
                random.len() == 6 && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
            });
        // A file from the future is left: the clock may have gone back.
        let is_stale = || {
            entry
                .status
                .modified
                .elapsed()
                .is_ok_and(|age| age >= STALE)
        };
        if is_staging && entry.status.kind == FileKind::File && is_stale() {
            remove_file(&directory.join(&entry.name))?;
        }
    }
    Ok(())
}

/// Creates a directory and, with `mode_above`, those above it that are missing, and makes their
/// names durable.
///
/// Each is durable before the next is made, and the name of one that is there already is made
/// durable, too: a run that was killed may have made it and never synced it. So only the last can
/// be in doubt.
///
/// # Errors
/// What the file system reports.
pub fn create_directories_durably(path: &Path, mode_above: u32, mode: u32) -> Result<()> {
    let mut missing = Vec::new();
    let mut there = path;
    while status_of_target(there)?.is_none() {
        missing.push(there);
        there = parent(there);
    }
    match sync_directory(parent(there)) {
        // What lies in a directory that this process may not read, or not change, was not made by
        // an earlier run of it.
        Err(error)
            if matches!(
                error.source.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            ) => {}
        result => result?,
    }
    for directory in missing.into_iter().rev() {
        create_directory(directory, if directory == path { mode } else { mode_above })?;
        sync_directory(parent(directory))?;
    }
    Ok(())
}
