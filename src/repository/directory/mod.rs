//! A repository in a plain directory: every backup is a complete data directory, restorable with
//! `cp`. Unchanged files are hard links to the backup before.
//!
//! ```text
//! REPO/kbackup.json                   format of this layout, the repository's id
//! REPO/backups/LABEL/manifest.json    the commit record
//! REPO/backups/LABEL/db/… index/…     the files
//! REPO/incoming/ID/…                  a backup in the making
//! REPO/incoming/expired-LABEL/…       the rest of one that is being removed
//! REPO/state/…                        the lock, and small values that may be lost
//! ```
//!
//! A backup is durable in `incoming/`, its manifest written last, before one rename makes it
//! visible: a crash at any moment leaves it whole or not at all. What an interrupted run leaves in
//! `incoming/` the next one takes up, as far as it proves right, and removes when it commits. A
//! file in `backups/` is never written to again, as its inode may be in several backups; only names
//! are made, moved and removed. Links that somebody plants in a repository are never followed.

mod commit;
mod draft;
mod incoming;
mod layout;
mod leftovers;
mod reader;
mod removal;
mod replacement;
mod stored;
mod writer;

use std::path::{Path, PathBuf};

use uuid::Uuid;

use self::layout::{DIRECTORY_MODE, FILE_MODE, Layout, MANIFEST, MAX_BYTES, Marker, is_directory};
use self::leftovers::Leftovers;
use self::reader::{Reader, lock_out_readers};
use self::removal::SpaceTally;
use self::stored::Files;
use self::writer::DirectoryWriter;
use super::lock::Lock;
use super::{Held, Interrupted, Listed, Repository, Writer};
use crate::error::{Error, Kind, Result};
use crate::format::ReadAt;
use crate::fs;
use crate::manifest::{FileSet, Head, Label, Manifest, Row};
use crate::run::Run;

/// Backups in a directory of this machine.
#[derive(Debug)]
pub struct DirectoryRepository {
    layout: Layout,
    id: Uuid,
}

impl DirectoryRepository {
    /// Makes a repository in a directory that is new or empty.
    ///
    /// # Errors
    /// `Refused` where the directory holds something else, or a repository already.
    pub fn create(path: &Path) -> Result<Self> {
        fs::create_directories_durably(path, DIRECTORY_MODE, DIRECTORY_MODE)?;
        let layout = Layout::new(fs::canonical(path)?);
        let ours = ["backups", "incoming", "state", "lost+found"];
        if let Some(entry) = fs::list(layout.root())?
            .into_iter()
            .find(|entry| !ours.iter().any(|name| entry.name == *name))
        {
            return Err(Error::new(
                Kind::Refused,
                "the directory for a new repository is not empty",
            )
            .at(&layout.root().join(entry.name))
            .hint("name an empty or a new directory with `--repo`"));
        }
        layout.make_directories()?;
        // Two runs may find the same empty directory.
        let _lock = Lock::take(&layout.lock())?;
        if let Some(repository) = Self::open_if_there(path)? {
            return Err(
                Error::new(Kind::Refused, "another run has just made a repository")
                    .on(repository.place()),
            );
        }
        let marker = Marker::new();
        // Not written where it will stand: what an interrupted run leaves must not look like
        // somebody else's file.
        let staged = layout.state().join("new");
        fs::write_durably(&staged, marker.encode()?.as_bytes(), FILE_MODE)?;
        fs::rename(&staged, &layout.marker())?;
        fs::sync_directory(layout.root())?;
        Ok(Self {
            layout,
            id: marker.id,
        })
    }

    /// Opens a repository.
    ///
    /// # Errors
    /// `NotFound` where there is none, `Refused` where a newer program made it, `StoredCorrupt`
    /// where its description is damaged.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_if_there(path)?.ok_or_else(|| {
            let error = Error::new(Kind::NotFound, "there is no repository")
                .at(path)
                .hint("check `--repo`; `kbackup full` makes a new repository");
            let is_empty = fs::list(path)
                .is_ok_and(|entries| entries.iter().all(|entry| entry.name == "lost+found"));
            if is_empty {
                error.hint("the directory is empty: is its disk mounted?")
            } else {
                error
            }
        })
    }

    /// Opens a repository, or makes one where the directory is new or empty.
    ///
    /// # Errors
    /// As for [`Self::open`] and [`Self::create`].
    pub fn open_or_create(path: &Path) -> Result<Self> {
        match Self::open_if_there(path)? {
            Some(repository) => Ok(repository),
            None => Self::create(path),
        }
    }

    fn open_if_there(path: &Path) -> Result<Option<Self>> {
        let root = match fs::canonical(path) {
            Ok(root) => root,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let layout = Layout::new(root);
        let marker = layout.marker();
        // Below a path that is no directory there is nothing, which is told further down.
        if let Ok(Some(status)) = fs::status(&marker)
            && status.kind != fs::FileKind::File
        {
            return Err(layout::damaged_marker(&marker).because("it is no plain file"));
        }
        match fs::read_small(&marker, MAX_BYTES) {
            Ok(bytes) => Ok(Some(Self {
                id: Marker::decode(&bytes, &marker)?.id,
                layout,
            })),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) if error.source.kind() == std::io::ErrorKind::NotADirectory => {
                Err(Error::new(Kind::NotFound, "this is no directory")
                    .at(path)
                    .hint("check `--repo`"))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Names in `backups/` that are no backups; they are left alone.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn foreign_names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        if is_directory(&self.layout.backups())? {
            for entry in fs::list(&self.layout.backups())? {
                if label_of(&entry).is_none() {
                    names.push(entry.name.to_string_lossy().into_owned());
                }
            }
        }
        Ok(names)
    }

    fn labels(&self) -> Result<Vec<Label>> {
        if !is_directory(&self.layout.backups())? {
            return Ok(Vec::new());
        }
        let mut labels: Vec<Label> = fs::list(&self.layout.backups())?
            .iter()
            .filter_map(label_of)
            .collect();
        labels.sort();
        Ok(labels)
    }

    fn is_listed(&self, label: &Label) -> Result<bool> {
        Ok(is_directory(&self.layout.backups())? && is_directory(&self.layout.backup(label))?)
    }

    fn head(&self, label: &Label) -> Result<Head> {
        let (path, file) = self.open_manifest(label)?;
        let head = Head::read(&file).map_err(|error| error.at(&path))?;
        is_of(&head, label)
            .map(|()| head)
            .map_err(|error| error.at(&path))
    }

    fn open_manifest(&self, label: &Label) -> Result<(PathBuf, fs::File)> {
        let path = self.backup(label)?.top().join(MANIFEST);
        match fs::open(&path) {
            Ok(file) => Ok((path, file)),
            // Removed since it was looked at.
            Err(error) if error.is_not_found() && !self.is_listed(label)? => {
                Err(no_such_backup(label))
            }
            Err(error) => {
                let why = if error.is_not_found() {
                    "it is gone"
                } else if error.is_no_plain_file() {
                    "it is no plain file"
                } else {
                    return Err(error.into());
                };
                Err(Error::new(Kind::StoredCorrupt, "the manifest is damaged")
                    .at(&path)
                    .because(why))
            }
        }
    }

    fn backup(&self, label: &Label) -> Result<Files> {
        if self.is_listed(label)? {
            Ok(Files::new(self.layout.backup(label)))
        } else {
            Err(no_such_backup(label))
        }
    }
}

fn no_such_backup(label: &Label) -> Error {
    Error::new(Kind::NotFound, "there is no such backup")
        .on(label)
        .hint("`kbackup list` shows what there is")
}

/// A manifest stands in the directory of its own backup.
fn is_of(head: &Head, label: &Label) -> Result<()> {
    if head.label == *label {
        return Ok(());
    }
    Err(Error::new(Kind::StoredCorrupt, "the manifest is damaged")
        .because(format!("it is that of {}", head.label)))
}

fn label_of(entry: &fs::DirectoryEntry) -> Option<Label> {
    let name = entry
        .name
        .to_str()
        .filter(|_| entry.status.kind == fs::FileKind::Directory)?;
    name.parse().ok()
}

impl Repository for DirectoryRepository {
    fn id(&self) -> Uuid {
        self.id
    }

    fn place(&self) -> String {
        self.layout.root().display().to_string()
    }

    fn list(&self) -> Result<Vec<Listed>> {
        let mut listed: Vec<Listed> = Vec::new();
        let mut damaged = Vec::new();
        for label in self.labels()? {
            match self.head(&label) {
                Ok(head) => listed.push(Listed {
                    label,
                    head: Ok(head),
                }),
                // Deleted since it was listed.
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => damaged.push(Listed {
                    label,
                    head: Err(error),
                }),
            }
        }
        listed.sort_by_key(|listed| listed.head.as_ref().map_or(0, |head| head.sequence));
        // A damaged one does not tell its sequence; labels grow with it.
        for one in damaged {
            let place = listed
                .iter()
                .position(|other| other.label > one.label)
                .unwrap_or(listed.len());
            listed.insert(place, one);
        }
        Ok(listed)
    }

    fn manifest(&self, label: &Label) -> Result<Manifest> {
        let (path, file) = self.open_manifest(label)?;
        let manifest = Manifest::read(&file).map_err(|error| error.at(&path))?;
        is_of(&manifest, label)
            .map(|()| manifest)
            .map_err(|error| error.at(&path))
    }

    fn files(&self, label: &Label) -> Result<Box<dyn FileSet + '_>> {
        Ok(Box::new(self.backup(label)?))
    }

    fn open(&self, label: &Label, row: &Row) -> Result<Box<dyn ReadAt>> {
        Ok(Box::new(self.backup(label)?.open_row(row)?))
    }

    fn writer<'a>(&'a self, run: &'a Run) -> Result<Box<dyn Writer<'a> + 'a>> {
        Ok(Box::new(DirectoryWriter::take(self, run)?))
    }

    fn hold(&self, label: &Label) -> Result<Box<dyn Held>> {
        Ok(Box::new(Reader::of(self, label)?))
    }

    fn is_held(&self, label: &Label) -> Result<bool> {
        Ok(lock_out_readers(self, label)?.is_none())
    }

    fn would_free(&self, labels: &[&Label]) -> Result<Vec<u64>> {
        let mut tally = SpaceTally::default();
        labels
            .iter()
            .map(|label| tally.remove(self.backup(label)?.top()))
            .collect()
    }

    fn state(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let path = self.layout.value(key)?;
        if !is_directory(&self.layout.state())? {
            return Ok(None);
        }
        // What is no value any more is as good as lost, and values may be lost.
        if fs::status(&path)?
            .is_some_and(|status| status.kind != fs::FileKind::File || status.size > MAX_BYTES)
        {
            return Ok(None);
        }
        match fs::read_small(&path, MAX_BYTES) {
            Ok(bytes) => Ok(Some(bytes)),
            // As good as lost, too: another user, root perhaps, has kept it.
            Err(error)
                if error.is_not_found()
                    || error.source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn set_state(&self, key: &str, value: Option<&[u8]>) -> Result<()> {
        let path = self.layout.value(key)?;
        layout::make_directory(&self.layout.state())?;
        match value {
            Some(value) => fs::write_durably(&path, value, FILE_MODE)?,
            None => {
                fs::remove_file(&path)?;
                fs::sync_directory(&self.layout.state())?;
            }
        }
        Ok(())
    }

    fn free_space(&self) -> Result<Option<u64>> {
        Ok(Some(fs::free_space(self.layout.root())?))
    }

    fn interrupted(&self) -> Result<Option<Interrupted>> {
        let directories =
            is_directory(&self.layout.incoming())? && is_directory(&self.layout.state())?;
        let leftovers = if directories {
            Leftovers::found(&self.layout.incoming())?
        } else {
            Leftovers::default()
        };
        if leftovers.is_empty() || Lock::is_held(&self.layout.lock())? {
            return Ok(None);
        }
        Ok(Some(leftovers.measure()?).filter(|left| left.files > 0))
    }

    fn shares_device_with(&self, path: &Path) -> Result<bool> {
        let (own, other) = (fs::status(self.layout.root())?, fs::status(path)?);
        let (Some(own), Some(other)) = (own, other) else {
            return Ok(false);
        };
        Ok(own.device == other.device)
    }
}
