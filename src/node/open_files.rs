//! Which processes have a file of these directories open for writing?
//!
//! Files are compared by inode: a container calls the same file by another path.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::format::names;
use crate::fs;
use crate::manifest::Directories;

const PROCESSES: &str = "/proc";

/// The processes that write here, as far as kbackup can see them.
#[derive(Debug, Default)]
pub(super) struct WritingProcesses {
    /// One file for each process that writes here.
    pub(super) open: Vec<OpenFile>,
    /// The number of processes whose files cannot be seen.
    pub(super) hidden: usize,
}

/// A file that a process has open for writing.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) path: PathBuf,
    pub(super) process: u32,
    pub(super) process_name: String,
}

/// Looks through all processes but this one.
pub(super) fn processes_that_write(directories: &Directories) -> WritingProcesses {
    let mut found = WritingProcesses::default();
    let watched = [
        directories.db.clone(),
        directories.index.clone(),
        directories.index.join(names::STREAM_FILTER_DIRECTORY),
    ];
    if watched.iter().all(|directory| is_empty(directory)) {
        return found;
    }

    for entry in fs::list(Path::new(PROCESSES)).unwrap_or_default() {
        let Some(process) = process_number(&entry.name) else {
            continue;
        };
        if process == std::process::id() {
            continue;
        }

        let home = Path::new(PROCESSES).join(&entry.name);
        match written_file(&home, &watched) {
            Ok(Some(path)) => found.open.push(OpenFile {
                path,
                process,
                process_name: process_name(&home),
            }),
            Err(error) if error.source.kind() == std::io::ErrorKind::PermissionDenied => {
                found.hidden += 1;
            }
            // The process has no such file open, or it has ended.
            Ok(None) | Err(_) => {}
        }
    }

    found
}

/// In directories without files, no process has one open, so the processes need not be examined.
fn is_empty(directory: &Path) -> bool {
    !fs::has_name(directory, |_| true).unwrap_or_default()
}

fn process_number(name: &OsStr) -> Option<u32> {
    name.to_str()?.parse().ok()
}

fn process_name(home: &Path) -> String {
    let name = fs::read_small(&home.join("comm"), 64).unwrap_or_default();
    String::from_utf8_lossy(&name).trim().to_owned()
}

/// The first file of the watched directories that the process has open for writing.
fn written_file(home: &Path, watched: &[PathBuf]) -> fs::Result<Option<PathBuf>> {
    for descriptor in fs::list(&home.join("fd"))? {
        let link = home.join("fd").join(&descriptor.name);
        let Some(path) = watched_file(&link, watched) else {
            continue;
        };
        if is_open_for_writing(&home.join("fdinfo").join(&descriptor.name)) {
            return Ok(Some(path));
        }
    }

    Ok(None)
}

/// The file of the watched directories that this descriptor leads to.
fn watched_file(descriptor: &Path, watched: &[PathBuf]) -> Option<PathBuf> {
    let target = fs::link_target(descriptor).ok()?;
    let name = target.file_name()?;

    // Follow a descriptor only if a watched file has the same name. A file on an unreachable
    // network file system would block this thread.
    let mut candidates = Vec::new();
    for directory in watched {
        let path = directory.join(name);
        if let Ok(Some(status)) = fs::status(&path)
            && status.kind == fs::FileKind::File
        {
            candidates.push((path, status));
        }
    }
    if candidates.is_empty() {
        return None;
    }

    let open = fs::status_of_target(descriptor).ok()??;
    for (path, status) in candidates {
        if status.device == open.device && status.inode == open.inode {
            return Some(path);
        }
    }
    None
}

/// `flags:` in fdinfo is octal; its last two bits are the access mode, 0 for reading (proc(5)).
fn is_open_for_writing(fdinfo: &Path) -> bool {
    let Ok(bytes) = fs::read_small(fdinfo, 1 << 16) else {
        return false;
    };

    let text = String::from_utf8_lossy(&bytes);
    for line in text.lines() {
        if let Some(flags) = line.strip_prefix("flags:") {
            return match u32::from_str_radix(flags.trim(), 8) {
                Ok(flags) => flags & 3 != 0,
                Err(_) => false,
            };
        }
    }
    false
}
