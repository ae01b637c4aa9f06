//! Walks a tree of directories that may change during the walk.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use crate::parallel;

use super::error::{IoError, Operation, Result};
use super::gate::attempt;
use super::status::{FileKind, FileStatus, status};

/// The regular files below `top`, in no order. The walk goes at most `deepest` directories down,
/// and only into those that `is_wanted` accepts. It follows no link but `top` itself. A file or
/// directory that vanishes during the walk is left out.
///
/// # Errors
/// Every error of the file system, except that an entry vanished.
pub fn files_below(
    top: &Path,
    deepest: usize,
    mut is_wanted: impl FnMut(&Path) -> bool,
) -> Result<Vec<(PathBuf, FileStatus)>> {
    attempt(Operation::List, top, || Ok(()))?;
    let walk = WalkDir::new(top)
        .follow_links(false)
        .min_depth(1)
        .max_depth(deepest + 1)
        .into_iter()
        .filter_entry(|entry| {
            entry.depth() == 0 || !entry.file_type().is_dir() || is_wanted(entry.path())
        });

    let mut paths = Vec::new();
    for entry in walk {
        match entry {
            Ok(entry) if entry.file_type().is_file() => paths.push(DirEntry::into_path(entry)),
            Ok(_) => {}
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(failed(top, error)),
        }
    }

    // Several threads ask for the status, because each answer may have to come from the disk.
    let mut files = Vec::with_capacity(paths.len());
    for some in paths.chunks(parallel::AT_ONCE) {
        let statuses = parallel::map(some, |path| status(path))?;
        for (path, status) in some.iter().zip(statuses) {
            if let Some(status) = status
                && status.kind == FileKind::File
            {
                files.push((path.clone(), status));
            }
        }
    }
    Ok(files)
}

/// Whether the entry was removed, or replaced by something else, during the walk.
fn is_gone(error: &walkdir::Error) -> bool {
    let Some(error) = error.io_error() else {
        return false;
    };
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn failed(top: &Path, error: walkdir::Error) -> IoError {
    let path = error.path().unwrap_or(top).to_owned();
    IoError {
        operation: Operation::List,
        path,
        source: error.into(),
    }
}
