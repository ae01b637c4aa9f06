//! Recognises the directories of a server by what they hold, so that kbackup makes nothing of its
//! own inside them.

use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::format::checkpoint::Checkpoint;
use crate::format::names;
use crate::fs;

/// A file by which a directory shows that it is a db or an index directory. Returns `None` if the
/// directory is none.
pub fn sign_of_database(directory: &Path) -> Result<Option<PathBuf>> {
    let signs = [
        Checkpoint::Writer.under(directory),
        directory.join(names::INDEX_MAP),
    ];
    for sign in signs {
        if fs::status(&sign)?.is_some() {
            return Ok(Some(sign));
        }
    }
    Ok(None)
}

/// The directory of a server that a path lies in, or that it would lie in. Links on the way are
/// followed.
pub fn database_around(path: &Path) -> Result<Option<PathBuf>> {
    let real = fs::real(path);
    let mut nearest = real.as_path();
    while fs::status_of_target(nearest)?.is_none() {
        nearest = fs::parent(nearest);
    }

    for directory in fs::canonical(nearest)?.ancestors() {
        if sign_of_database(directory)?.is_some() {
            return Ok(Some(directory.to_owned()));
        }
    }
    Ok(None)
}

/// The error for a state directory that would lie in a directory of a server.
#[must_use]
pub fn state_inside_node(state: &Path, directory: &Path) -> Error {
    Error::new(
        Kind::Refused,
        "the state directory would lie inside the directory of a server",
    )
    .at(state)
    .because(format!("`{}` belongs to a server", directory.display()))
    .hint("name another directory with `--state-dir`")
}
