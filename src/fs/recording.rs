//! What was done to the disk, in its order: `KBACKUP_RECORD=FILE` appends every change that
//! succeeded to FILE, for tests that take the power away.
//!
//! A record is a line of JSON, followed by as many bytes as its `bytes` says.

use std::fs::Metadata;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf, absolute};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use serde::Serialize;

use super::gate::Change;

#[derive(Serialize)]
struct Record<'a> {
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

fn log() -> Option<&'static Mutex<std::fs::File>> {
    static LOG: OnceLock<Option<Mutex<std::fs::File>>> = OnceLock::new();
    LOG.get_or_init(|| {
        let path = std::env::var_os("KBACKUP_RECORD")?;
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .ok()
            .map(Mutex::new)
    })
    .as_ref()
}

/// Runs a change and records it. Changes are made one after the other then, as the order of the
/// records is to be that of the changes.
pub(super) fn around<T>(change: &Change<'_>, run: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let Some(log) = log() else { return run() };
    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
    let concerned = match change {
        Change::Made(path) => missing(path),
        Change::RemovedTree(path) => below(path),
        _ => Vec::new(),
    };
    let value = run()?;
    record(&mut log, change, &concerned)?;
    Ok(value)
}

/// Waits until every change that was made is recorded, and lets none be made while the guard lives.
pub(super) fn hold() -> Option<MutexGuard<'static, std::fs::File>> {
    log().map(|log| log.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Records a change whose path nobody knew before.
pub(super) fn made(path: &Path) -> io::Result<()> {
    let Some(log) = log() else { return Ok(()) };
    record(
        &mut log.lock().unwrap_or_else(PoisonError::into_inner),
        &Change::Made(path),
        &[path.to_owned()],
    )
}

/// What of a path does not exist yet, from the top.
fn missing(path: &Path) -> Vec<PathBuf> {
    let mut missing: Vec<PathBuf> = path
        .ancestors()
        .take_while(|above| {
            !above.as_os_str().is_empty() && std::fs::symlink_metadata(above).is_err()
        })
        .map(PathBuf::from)
        .collect();
    missing.reverse();
    missing
}

/// A directory and what is in it, each after what it holds.
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
        Change::Made(_) => concerned.iter().try_for_each(|path| {
            let made = std::fs::symlink_metadata(path)?;
            append(
                log,
                &Record {
                    path: Some(absolute(path)?),
                    directory: Some(made.is_dir()),
                    ..of("made", Some(&made))
                },
                &[],
            )
        }),
        Change::RemovedTree(_) => concerned.iter().try_for_each(|path| {
            append(
                log,
                &Record {
                    path: Some(absolute(path)?),
                    ..of("removed", None)
                },
                &[],
            )
        }),
        Change::Removed(path) => append(
            log,
            &Record {
                path: Some(absolute(path)?),
                ..of("removed", None)
            },
            &[],
        ),
        Change::Renamed(from, to) => append(
            log,
            &Record {
                path: Some(absolute(from)?),
                to: Some(absolute(to)?),
                ..of("renamed", None)
            },
            &[],
        ),
        Change::Linked(from, to) => append(
            log,
            &Record {
                path: Some(absolute(from)?),
                to: Some(absolute(to)?),
                ..of("linked", None)
            },
            &[],
        ),
        Change::Written(file, offset, bytes) => append(
            log,
            &Record {
                offset: Some(*offset),
                bytes: bytes.len(),
                ..of("written", Some(&file.metadata()?))
            },
            bytes,
        ),
        Change::Content(file) => {
            let status = file.metadata()?;
            let mut bytes = vec![0; usize::try_from(status.len()).unwrap_or_default()];
            file.read_exact_at(&mut bytes, 0)?;
            append(
                log,
                &Record {
                    offset: Some(0),
                    bytes: bytes.len(),
                    ..of("written", Some(&status))
                },
                &bytes,
            )
        }
        Change::Resized(file, size) => append(
            log,
            &Record {
                size: Some(*size),
                ..of("resized", Some(&file.metadata()?))
            },
            &[],
        ),
        Change::Attributes(file) => append(log, &of("attributes", Some(&file.metadata()?)), &[]),
        Change::AttributesOf(path) => append(
            log,
            &of("attributes", Some(&std::fs::symlink_metadata(path)?)),
            &[],
        ),
        Change::Synced(file) => append(log, &of("synced", Some(&file.metadata()?)), &[]),
        Change::SyncedPath(path) => append(
            log,
            &of("synced", Some(&std::fs::symlink_metadata(path)?)),
            &[],
        ),
    }
}

fn of<'a>(change: &'a str, status: Option<&Metadata>) -> Record<'a> {
    Record {
        at: SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos(),
        process: std::process::id(),
        change,
        path: None,
        to: None,
        inode: status.map(MetadataExt::ino),
        directory: None,
        mode: status.map(|status| status.mode() & 0o7777),
        owner: status.map(|status| (status.uid(), status.gid())),
        offset: None,
        size: None,
        bytes: 0,
    }
}

fn append(log: &mut std::fs::File, record: &Record<'_>, bytes: &[u8]) -> io::Result<()> {
    let mut text = serde_json::to_vec(record)?;
    text.push(b'\n');
    text.extend_from_slice(bytes);
    log.write_all(&text)
}
