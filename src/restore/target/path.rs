//! The paths of targets: resolves links, and refuses paths that overlap with each other or with the
//! repository.

use std::path::{Path, PathBuf};

use serde::Serializer;

use crate::error::{Error, Kind, Result};
use crate::fs;
use crate::manifest::Directories;

/// Serializes a path as text. A path may hold bytes that JSON cannot hold: U+FFFD stands for them.
pub(in crate::restore) fn as_text<S: Serializer>(
    path: &Path,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// Makes a path that the operator named absolute and free of links, whether it exists or not.
pub(super) fn resolve(path: &Path) -> Result<PathBuf> {
    let mut missing = Vec::new();
    let mut existing = path.to_owned();

    // Go up to the first directory that exists.
    let mut resolved = loop {
        match fs::canonical(&existing) {
            Ok(base) => break base,
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }

        if fs::status(&existing)?.is_some() {
            return Err(not_a_target(
                path,
                "the target is a link that leads nowhere",
            ));
        }
        let Some(name) = existing.file_name() else {
            return Err(not_a_target(
                path,
                "the target is not the path of a directory",
            ));
        };
        missing.push(name.to_owned());
        existing = fs::parent(&existing).to_owned();
    };

    for name in missing.iter().rev() {
        resolved.push(name);
    }
    Ok(resolved)
}

fn not_a_target(path: &Path, what: &str) -> Error {
    Error::new(Kind::Refused, what)
        .at(path)
        .hint("name the directory itself")
}

/// The directory itself, or the nearest one above it that exists.
pub(super) fn nearest(path: &Path) -> Result<&Path> {
    let mut directory = path;
    while fs::status(directory)?.is_none() {
        directory = fs::parent(directory);
    }
    Ok(directory)
}

/// Refuses two directories that are the same, or one inside another. Only an index directory may
/// lie inside its own db directory.
pub(super) fn refuse_overlaps(repository: &str, targets: &[Directories]) -> Result<()> {
    let mut taken: Vec<(PathBuf, &str)> = Vec::new();
    if let Some(place) = existing_directory(repository)? {
        taken.push((place, "the repository"));
    }

    for target in targets {
        if target.db.starts_with(&target.index) {
            return Err(overlap(&target.db, "its index directory"));
        }
        for directory in [&target.db, &target.index] {
            if let Some(other) = overlapping(&taken, directory) {
                return Err(overlap(directory, other));
            }
        }
        taken.push((target.db.clone(), "another target"));
        taken.push((target.index.clone(), "another target's index directory"));
    }
    Ok(())
}

fn overlapping<'a>(taken: &[(PathBuf, &'a str)], path: &Path) -> Option<&'a str> {
    for (other, what) in taken {
        if path.starts_with(other) || other.starts_with(path) {
            return Some(*what);
        }
    }
    None
}

fn overlap(path: &Path, what: &str) -> Error {
    Error::new(Kind::Refused, format!("the target and {what} overlap"))
        .at(path)
        .hint("give every target a directory of its own, outside the repository")
}

/// The directory of the repository. Returns `None` if the repository is not a directory.
fn existing_directory(place: &str) -> Result<Option<PathBuf>> {
    let path = Path::new(place);
    if fs::status(path)?.is_none() {
        return Ok(None);
    }
    Ok(Some(fs::canonical(path)?))
}
