//! The paths in a directory repository, and the file `kbackup.json` that marks it as one.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::{self, Timestamp};
use crate::error::{Error, Kind, Result};
use crate::fs::{self, FileKind};
use crate::manifest::{Label, RelativePath};
use crate::repository::check_key;

/// The version of the layout that this program writes.
const FORMAT: u32 = 1;
/// The length up to which small files of the repository are read.
pub(super) const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Only the owner may enter a repository, whatever modes the server's files in it have.
pub(super) const DIRECTORY_MODE: u32 = 0o700;
pub(super) const FILE_MODE: u32 = 0o600;
pub(super) const MANIFEST: &str = "manifest.json";
const EXPIRED: &str = "expired-";

/// The paths of a repository.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    root: PathBuf,
}

/// `kbackup.json`: makes a directory a repository.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Marker {
    format: u32,
    /// The repository's own id.
    pub(super) id: Uuid,
    created: Timestamp,
}

impl Marker {
    pub(super) fn new() -> Self {
        Self {
            format: FORMAT,
            id: clock::identifier(),
            created: clock::now(),
        }
    }

    pub(super) fn encode(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self).map_err(|error| {
            Error::new(Kind::Failed, "cannot write the repository's description").because(error)
        })?;
        Ok(text + "\n")
    }

    pub(super) fn decode(bytes: &[u8], path: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }

        let version: Version =
            serde_json::from_slice(bytes).map_err(|error| damaged_marker(path).because(error))?;
        if version.format > FORMAT {
            let what = format!(
                "the repository has format {}, this program knows {FORMAT}",
                version.format
            );
            return Err(Error::new(Kind::Refused, what)
                .at(path)
                .hint("use the newer kbackup that wrote it"));
        }
        serde_json::from_slice(bytes).map_err(|error| damaged_marker(path).because(error))
    }
}

/// The error for a damaged description. The backups may still be intact.
pub(super) fn damaged_marker(path: &Path) -> Error {
    Error::new(
        Kind::StoredCorrupt,
        "the repository's description is damaged",
    )
    .at(path)
    .hint(
        "put the file back from a copy of the repository; or move it away, and `kbackup init \
         --another` writes another one; the backups in `backups/` are not affected",
    )
}

/// The label of a removed backup, if an entry of `incoming/` is the rest of one.
pub(super) fn expired_label(entry: &fs::DirectoryEntry) -> Option<Label> {
    if entry.status.kind != FileKind::Directory {
        return None;
    }
    let label = entry.name.to_str()?.strip_prefix(EXPIRED)?;
    label.parse().ok()
}

impl Layout {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn marker(&self) -> PathBuf {
        self.root.join("kbackup.json")
    }

    pub(super) fn backups(&self) -> PathBuf {
        self.root.join("backups")
    }

    pub(super) fn backup(&self, label: &Label) -> PathBuf {
        self.backups().join(label.as_str())
    }

    pub(super) fn incoming(&self) -> PathBuf {
        self.root.join("incoming")
    }

    /// Where a removed backup goes: out of the list, to where the next writer sweeps.
    pub(super) fn expired(&self, label: &Label) -> PathBuf {
        self.incoming().join(format!("{EXPIRED}{label}"))
    }

    pub(super) fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.state().join("lock")
    }

    /// The path of a small value.
    ///
    /// # Errors
    /// `Failed` if the key breaks the rules of [`crate::repository::Repository::state`].
    pub(super) fn value(&self, key: &str) -> Result<PathBuf> {
        check_key(key)?;
        Ok(self.state().join(key))
    }

    /// Makes the directories that are missing.
    pub(super) fn make_directories(&self) -> Result<()> {
        for path in [self.backups(), self.incoming(), self.state()] {
            make_directory(&path)?;
        }
        Ok(fs::sync_directory(&self.root)?)
    }
}

/// Makes a directory unless it exists. Its parent must exist.
pub(super) fn make_directory(path: &Path) -> Result<()> {
    if !is_directory(path)? {
        fs::create_directory(path, DIRECTORY_MODE)?;
    }
    Ok(())
}

/// Whether a real directory is at `path`. Returns false if nothing has that name.
///
/// # Errors
/// `Refused` if something else is there, such as a link, which could lead anywhere.
pub(super) fn is_directory(path: &Path) -> Result<bool> {
    let Some(status) = fs::status(path)? else {
        return Ok(false);
    };
    if status.kind == FileKind::Directory {
        return Ok(true);
    }
    Err(Error::new(
        Kind::Refused,
        "this should be a directory of the repository, but is not",
    )
    .at(path)
    .hint(
        "put a real directory there: kbackup follows no links inside a repository; to keep backups \
         elsewhere, mount or link the repository as a whole",
    ))
}

/// Whether all directories between `top` and a file exist and are real ones, `top` included.
pub(super) fn has_directories(top: &Path, path: &RelativePath) -> Result<bool> {
    if !is_directory(top)? {
        return Ok(false);
    }

    let below = path.under(Path::new(""));
    let mut directory = top.to_owned();
    for part in fs::parent(&below) {
        directory.push(part);
        if !is_directory(&directory)? {
            return Ok(false);
        }
    }
    Ok(true)
}
