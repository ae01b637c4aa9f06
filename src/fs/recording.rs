//! Records the changes of the disk in their order: with `KBACKUP_RECORD=FILE`, kbackup appends
//! every successful change to FILE. Tests use it to simulate a loss of power.
//!
//! An entry is a line of JSON, followed by as many bytes as its `bytes` says.

use std::fs::Metadata;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf, absolute};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use serde::Serialize;

use super::change::Change;

#[derive(Serialize)]
struct RecordedChange<'a> {
    /// Nanoseconds since 1970, taken when it was done.
    at: u128,
    process: u32,
    change: &'a str,
    path: Option<PathBuf>,
    to: Option<PathBuf>,
    inode: Option<u64>,
    directory: Option<bool>,
    mode: Option<u32>,
    owner: Option<(u32, u32)>,
    offset: Option<u64>,
    size: Option<u64>,
    bytes: usize,
}

impl<'a> RecordedChange<'a> {
    fn new(change: &'a str) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            at: now.unwrap_or_default().as_nanos(),
            process: std::process::id(),
            change,
            path: None,
            to: None,
            inode: None,
            directory: None,
            mode: None,
            owner: None,
            offset: None,
            size: None,
            bytes: 0,
        }
    }

    /// A change of the file or directory with this inode.
    fn of(change: &'a str, metadata: &Metadata) -> Self {
        Self {
            inode: Some(metadata.ino()),
            mode: Some(metadata.mode() & 0o7777),
            owner: Some((metadata.uid(), metadata.gid())),
            ..Self::new(change)
        }
    }

    /// A change of this name.
    fn at_path(self, path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: Some(absolute(path)?),
            ..self
        })
    }

    fn with_target(self, path: &Path) -> io::Result<Self> {
        Ok(Self {
            to: Some(absolute(path)?),
            ..self
        })
    }

    fn append(&self, log: &mut std::fs::File) -> io::Result<()> {
        self.append_with(log, &[])
    }

    fn append_with(&self, log: &mut std::fs::File, bytes: &[u8]) -> io::Result<()> {
        let mut text = serde_json::to_vec(self)?;
        text.push(b'\n');
        text.extend_from_slice(bytes);
        log.write_all(&text)
    }
}

fn log() -> Option<&'static Mutex<std::fs::File>> {
    static LOG: OnceLock<Option<Mutex<std::fs::File>>> = OnceLock::new();
    LOG.get_or_init(open_log).as_ref()
}

fn open_log() -> Option<Mutex<std::fs::File>> {
    let path = std::env::var_os("KBACKUP_RECORD")?;
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path);
    Some(Mutex::new(file.ok()?))
}

fn lock(log: &'static Mutex<std::fs::File>) -> MutexGuard<'static, std::fs::File> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a change and records it. Changes are made one after the other, so that the records have the
/// same order.
pub(super) fn around<T>(change: &Change<'_>, run: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let Some(log) = log() else { return run() };

    let mut log = lock(log);
    let concerned = match change {
        Change::Made(path) => missing(path),
        Change::RemovedTree(path) => below(path),
        _ => Vec::new(),
    };
    let value = run()?;
    record(&mut log, change, &concerned)?;
    Ok(value)
}

/// Waits until every change so far is recorded. No other change is made while the guard lives.
pub(super) fn hold() -> Option<MutexGuard<'static, std::fs::File>> {
    log().map(lock)
}

/// Records a new file whose path was chosen at random.
pub(super) fn made(path: &Path) -> io::Result<()> {
    let Some(log) = log() else { return Ok(()) };
    record(&mut lock(log), &Change::Made(path), &[path.to_owned()])
}

/// The parts of a path that do not exist yet, from the top.
fn missing(path: &Path) -> Vec<PathBuf> {
    let mut missing = Vec::new();
    for above in path.ancestors() {
        if above.as_os_str().is_empty() || std::fs::symlink_metadata(above).is_ok() {
            break;
        }
        missing.push(above.to_owned());
    }

    missing.reverse();
    missing
}

/// A directory and everything below it, each directory after its content.
fn below(path: &Path) -> Vec<PathBuf> {
    walkdir::WalkDir::new(path)
        .contents_first(true)
        .into_iter()
        .flatten()
        .map(walkdir::DirEntry::into_path)
        .collect()
}

fn record(log: &mut std::fs::File, change: &Change<'_>, concerned: &[PathBuf]) -> io::Result<()> {
    match change {
        Change::Made(_) => record_made(log, concerned),
        Change::RemovedTree(_) => {
            for path in concerned {
                RecordedChange::new("removed").at_path(path)?.append(log)?;
            }
            Ok(())
        }

        Change::Removed(path) => RecordedChange::new("removed").at_path(path)?.append(log),
        Change::Renamed(from, to) => RecordedChange::new("renamed")
            .at_path(from)?
            .with_target(to)?
            .append(log),
        Change::Linked(from, to) => RecordedChange::new("linked")
            .at_path(from)?
            .with_target(to)?
            .append(log),

        Change::Written(file, offset, bytes) => record_written(log, file, *offset, bytes),
        Change::Content(file) => {
            let size = usize::try_from(file.metadata()?.len()).unwrap_or_default();
            let mut bytes = vec![0; size];
            file.read_exact_at(&mut bytes, 0)?;
            record_written(log, file, 0, &bytes)
        }
        Change::Resized(file, size) => {
            let resized = RecordedChange {
                size: Some(*size),
                ..RecordedChange::of("resized", &file.metadata()?)
            };
            resized.append(log)
        }

        Change::Attributes(file) => RecordedChange::of("attributes", &file.metadata()?).append(log),
        Change::AttributesOf(path) => {
            let metadata = std::fs::symlink_metadata(path)?;
            RecordedChange::of("attributes", &metadata).append(log)
        }
        Change::Synced(file) => RecordedChange::of("synced", &file.metadata()?).append(log),
        Change::SyncedPath(path) => {
            let metadata = std::fs::symlink_metadata(path)?;
            RecordedChange::of("synced", &metadata).append(log)
        }
    }
}

fn record_made(log: &mut std::fs::File, paths: &[PathBuf]) -> io::Result<()> {
    for path in paths {
        let metadata = std::fs::symlink_metadata(path)?;
        let made = RecordedChange {
            directory: Some(metadata.is_dir()),
            ..RecordedChange::of("made", &metadata)
        };
        made.at_path(path)?.append(log)?;
    }
    Ok(())
}

fn record_written(
    log: &mut std::fs::File,
    file: &std::fs::File,
    offset: u64,
    bytes: &[u8],
) -> io::Result<()> {
    let written = RecordedChange {
        offset: Some(offset),
        bytes: bytes.len(),
        ..RecordedChange::of("written", &file.metadata()?)
    };
    written.append_with(log, bytes)
}
