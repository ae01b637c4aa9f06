use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::{self, Timestamp};
use crate::error::{Error, Kind, Result};
use crate::fs::{self, FileKind};
use crate::manifest::{Label, RelativePath};

/// The version of the layout that this program writes.
const FORMAT: u32 = 1;
/// Small files of ours are not read beyond this.
pub(super) const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Nobody else looks into a repository: the server's modes of the files inside open nothing.
pub(super) const DIRECTORY_MODE: u32 = 0o700;
pub(super) const FILE_MODE: u32 = 0o600;
pub(super) const MANIFEST: &str = "manifest.json";
const EXPIRED: &str = "expired-";

/// Where everything lies.
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
        serde_json::to_string_pretty(self)
            .map(|text| text + "\n")
            .map_err(|error| {
                Error::new(Kind::Failed, "cannot write the repository's description").because(error)
            })
    }

    pub(super) fn decode(bytes: &[u8], path: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let corrupt = |error: serde_json::Error| damaged_marker(path).because(error);
        let version: Version = serde_json::from_slice(bytes).map_err(corrupt)?;
        if version.format > FORMAT {
            let what = format!(
                "the repository has format {}, this program knows {FORMAT}",
                version.format
            );
            return Err(Error::new(Kind::Refused, what)
                .at(path)
                .hint("use the newer kbackup that wrote it"));
        }
        serde_json::from_slice(bytes).map_err(corrupt)
    }
}

/// The description is damaged, which says nothing of the backups.
pub(super) fn damaged_marker(path: &Path) -> Error {
    Error::new(Kind::StoredCorrupt, "the repository's description is damaged")
        .at(path)
        .hint("the backups in `backups/` are not touched by it: put the file back from a copy of the repository, or take it away, and the next `kbackup full` writes another one")
}

/// The backup of which this is the rest, where a removal came to a sudden end.
pub(super) fn expired_label(entry: &fs::DirectoryEntry) -> Option<Label> {
    let name = entry
        .name
        .to_str()
        .filter(|_| entry.status.kind == FileKind::Directory)?;
    name.strip_prefix(EXPIRED)?.parse().ok()
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

    /// Where a backup goes that is removed: out of the list, and where the next writer sweeps.
    pub(super) fn expired(&self, label: &Label) -> PathBuf {
        self.incoming().join(format!("{EXPIRED}{label}"))
    }

    pub(super) fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.state().join("lock")
    }

    /// The place of a small value.
    ///
    /// # Errors
    /// Where the key breaks the rules of [`super::super::Repository::state`].
    pub(super) fn value(&self, key: &str) -> Result<PathBuf> {
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let valid = (1..=100).contains(&key.len())
            && key.bytes().all(letters)
            && !key.starts_with('.')
            && key != "lock"
            && key != "readers";
        if valid {
            Ok(self.state().join(key))
        } else {
            Err(Error::new(Kind::Failed, "no key of a repository's state").on(key))
        }
    }

    /// Makes the directories that are missing.
    pub(super) fn make_directories(&self) -> Result<()> {
        for path in [self.backups(), self.incoming(), self.state()] {
            make_directory(&path)?;
        }
        Ok(fs::sync_directory(&self.root)?)
    }
}

/// Makes a directory unless it is there; its parent exists.
pub(super) fn make_directory(path: &Path) -> Result<()> {
    if !is_directory(path)? {
        fs::create_directory(path, DIRECTORY_MODE)?;
    }
    Ok(())
}

/// Whether there is a directory: a real one, as a link could lead anywhere. False where nothing has
/// that name.
pub(super) fn is_directory(path: &Path) -> Result<bool> {
    match fs::status(path)?.map(|status| status.kind) {
        None => Ok(false),
        Some(FileKind::Directory) => Ok(true),
        Some(_) => Err(Error::new(Kind::Refused, "something that is no directory stands in the repository")
            .at(path)
            .hint("kbackup follows no links inside of a repository; to keep backups elsewhere, mount or link the repository as a whole")),
    }
}

/// Whether all directories between `top` and the file are there and real, `top` included.
pub(super) fn has_directories(top: &Path, path: &RelativePath) -> Result<bool> {
    let place = path.under(top);
    let mut above: Vec<&Path> = place
        .ancestors()
        .skip(1)
        .take_while(|directory| directory.starts_with(top))
        .collect();
    above.reverse();
    for directory in above {
        if !is_directory(directory)? {
            return Ok(false);
        }
    }
    Ok(true)
}
