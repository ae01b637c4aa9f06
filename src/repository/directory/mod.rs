//! A repository in a plain directory. Every backup is a complete data directory that `cp` can
//! restore. A file that did not change is a hard link to the file of the backup before.
//!
//! ```text
//! REPO/kbackup.json                   format of this layout, the repository's id
//! REPO/backups/LABEL/manifest.json    the commit record
//! REPO/backups/LABEL/db/… index/…     the files
//! REPO/incoming/ID/…                  a backup in the making
//! REPO/incoming/expired-LABEL/…       the rest of a backup that is being removed
//! REPO/state/…                        the lock, and small values that may be lost
//! ```
//!
//! A backup is durable in `incoming/`, its manifest written last, before one rename makes it
//! visible: a crash at any moment leaves it whole or not at all. The next run resumes what it can
//! prove of an interrupted run, and removes the rest when it commits. A file in `backups/` is never
//! written to again, because its inode may be in several backups: only names are made, moved and
//! removed. No link inside of a repository is followed.

mod commit;
mod draft;
mod hold;
mod incoming;
mod layout;
mod leftovers;
mod proofs;
mod removal;
mod replacement;
mod resumption;
mod stored;
mod twins;
mod writer;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use self::hold::{HeldBackup, lock_out_readers};
use self::layout::{DIRECTORY_MODE, FILE_MODE, Layout, MANIFEST, MAX_BYTES, Marker, is_directory};
use self::leftovers::Leftovers;
use self::removal::SpaceTally;
use self::stored::Files;
use self::writer::DirectoryWriter;
use super::lock::Lock;
use super::{Held, Interrupted, Listed, Repository, SharedEpochs, Writer, no_such_backup};
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
    /// `Refused` if the directory holds something else, or a repository already.
    pub fn create(path: &Path) -> Result<Self> {
        fs::create_directories_durably(path, DIRECTORY_MODE, DIRECTORY_MODE)?;
        let layout = Layout::new(fs::canonical(path)?);
        refuse_foreign_files(&layout)?;
        layout.make_directories()?;

        // Another run may have found the same empty directory.
        let _lock = Lock::take(&layout.lock())?;
        if let Some(repository) = Self::open_if_there(path)? {
            return Err(
                Error::new(Kind::Refused, "another run has just made a repository")
                    .on(repository.place()),
            );
        }

        // The marker is staged in `state/`: what a killed run leaves must not look like somebody
        // else's file.
        let marker = Marker::new();
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
    /// `NotFound` if there is none, `Refused` if a newer program made it, `StoredCorrupt` if its
    /// description is damaged.
    pub fn open(path: &Path) -> Result<Self> {
        match Self::open_if_there(path)? {
            Some(repository) => Ok(repository),
            None => Err(Self::none_at(path)),
        }
    }

    /// The error that says that a directory holds no repository.
    pub(in crate::repository) fn none_at(path: &Path) -> Error {
        let error = Error::new(Kind::NotFound, "there is no repository")
            .at(path)
            .hint("check `--repo`; `kbackup init` makes a new repository");
        match fs::list(path) {
            Ok(entries) if entries.iter().all(|entry| entry.name == "lost+found") => {
                error.hint("the directory is empty: is its disk mounted?")
            }
            _ => error,
        }
    }

    /// Opens a repository. Returns `None` if the directory does not exist, or is none.
    ///
    /// # Errors
    /// As for [`Self::open`]; `NotFound` if the path is no directory.
    pub fn open_if_there(path: &Path) -> Result<Option<Self>> {
        let root = match fs::canonical(path) {
            Ok(root) => root,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let layout = Layout::new(root);
        let marker = layout.marker();

        // If this fails, the reading below fails as well, and its error says more.
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
            Err(error) if error.source.kind() == ErrorKind::NotADirectory => {
                Err(Error::new(Kind::NotFound, "this is no directory")
                    .at(path)
                    .hint("check `--repo`"))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The names in `backups/` that are not backups. kbackup leaves them alone.
    pub fn foreign_names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        if !is_directory(&self.layout.backups())? {
            return Ok(names);
        }
        for entry in fs::list(&self.layout.backups())? {
            if label_of(&entry).is_none() {
                names.push(entry.name.to_string_lossy().into_owned());
            }
        }
        Ok(names)
    }

    /// The user and group that the repository belongs to, if root works in somebody else's. They must
    /// still be able to read the values that root writes.
    fn foreign_owner(&self) -> Result<Option<(u32, u32)>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        match fs::status(self.layout.root())? {
            Some(status) if status.user != 0 => Ok(Some((status.user, status.group))),
            _ => Ok(None),
        }
    }

    fn labels(&self) -> Result<Vec<Label>> {
        let mut labels = Vec::new();
        if !is_directory(&self.layout.backups())? {
            return Ok(labels);
        }
        for entry in fs::list(&self.layout.backups())? {
            labels.extend(label_of(&entry));
        }
        labels.sort();
        Ok(labels)
    }

    fn is_listed(&self, label: &Label) -> Result<bool> {
        Ok(is_directory(&self.layout.backups())? && is_directory(&self.layout.backup(label))?)
    }

    fn backup(&self, label: &Label) -> Result<Files> {
        if self.is_listed(label)? {
            return Ok(Files::new(self.layout.backup(label)));
        }
        Err(no_such_backup(label))
    }

    fn head(&self, label: &Label) -> Result<Head> {
        let (path, file) = self.open_manifest(label)?;
        let head = Head::read(&file).map_err(|error| error.at(&path))?;
        check_label(&head, label, &path)?;
        Ok(head)
    }

    fn open_manifest(&self, label: &Label) -> Result<(PathBuf, fs::File)> {
        let files = self.backup(label)?;
        let path = files.top().join(MANIFEST);
        let error = match files.open_below(Path::new(MANIFEST)) {
            Ok(file) => return Ok((path, file)),
            Err(error) => error,
        };

        if error.is_not_found() && !self.is_listed(label)? {
            // It was removed a moment ago.
            return Err(no_such_backup(label));
        }
        let why = if error.is_not_found() {
            "it is gone"
        } else if error.is_no_plain_file() {
            "it is no plain file"
        } else {
            return Err(error.into());
        };
        Err(damaged_manifest(&path).because(why))
    }
}

/// Refuses a directory that holds anything but kbackup's own directories and what a file system
/// keeps at its top.
fn refuse_foreign_files(layout: &Layout) -> Result<()> {
    let known = ["backups", "incoming", "state", "lost+found"];
    for entry in fs::list(layout.root())? {
        if known.iter().all(|name| entry.name != *name) {
            return Err(Error::new(
                Kind::Refused,
                "the directory for a new repository is not empty",
            )
            .at(&layout.root().join(entry.name))
            .hint("name an empty or a new directory with `--repo`"));
        }
    }
    Ok(())
}

fn damaged_manifest(path: &Path) -> Error {
    Error::new(Kind::StoredCorrupt, "the manifest is damaged").at(path)
}

/// Checks that a manifest is in the directory of its own backup.
fn check_label(head: &Head, label: &Label, path: &Path) -> Result<()> {
    if head.label == *label {
        return Ok(());
    }
    Err(damaged_manifest(path).because(format!("it is the manifest of {}", head.label)))
}

/// The label of an entry of `backups/`. Returns `None` if the entry is not a backup.
fn label_of(entry: &fs::DirectoryEntry) -> Option<Label> {
    if entry.status.kind != fs::FileKind::Directory {
        return None;
    }
    entry.name.to_str()?.parse().ok()
}

/// Puts backups in order: by sequence, and those with a damaged manifest by label, which grows with
/// the sequence.
fn in_order(backups: Vec<Listed>) -> Vec<Listed> {
    let (mut listed, damaged): (Vec<_>, Vec<_>) =
        backups.into_iter().partition(|backup| backup.head.is_ok());
    listed.sort_by_key(|listed| listed.head.as_ref().map_or(0, |head| head.sequence));

    for backup in damaged {
        let place = listed
            .iter()
            .position(|other| other.label > backup.label)
            .unwrap_or(listed.len());
        listed.insert(place, backup);
    }
    listed
}

impl Repository for DirectoryRepository {
    fn id(&self) -> Uuid {
        self.id
    }

    fn place(&self) -> String {
        self.layout.root().display().to_string()
    }

    fn list(&self) -> Result<Vec<Listed>> {
        let mut listed = Vec::new();
        let mut epochs = SharedEpochs::default();
        for label in self.labels()?.into_iter().rev() {
            let mut head = self.head(&label);
            if let Ok(head) = &mut head {
                epochs.share(head);
            }
            // A backup that was removed since its label was listed is not listed.
            if !matches!(&head, Err(error) if error.kind() == Kind::NotFound) {
                listed.push(Listed { label, head });
            }
        }
        listed.reverse();
        Ok(in_order(listed))
    }

    fn manifest(&self, label: &Label) -> Result<Manifest> {
        let (path, file) = self.open_manifest(label)?;
        // Everything else is checked against the manifest, so the disk has to hold it.
        file.drop_from_cache();
        let manifest = Manifest::read(&file).map_err(|error| error.at(&path))?;
        check_label(&manifest, label, &path)?;
        Ok(manifest)
    }

    fn files(&self, label: &Label) -> Result<Box<dyn FileSet + '_>> {
        Ok(Box::new(self.backup(label)?))
    }

    fn open(&self, label: &Label, row: &Row) -> Result<Box<dyn ReadAt>> {
        Ok(Box::new(self.backup(label)?.open_row(row)?))
    }

    fn twins<'a>(&self, manifest: &'a Manifest) -> Result<Vec<&'a Row>> {
        Ok(twins::find(&self.backup(&manifest.label)?, manifest))
    }

    fn writer<'a>(&'a self, run: &'a Run) -> Result<Box<dyn Writer<'a> + 'a>> {
        Ok(Box::new(DirectoryWriter::take(self, run)?))
    }

    fn hold(&self, label: &Label) -> Result<Box<dyn Held>> {
        Ok(Box::new(HeldBackup::take(self, label)?))
    }

    fn is_held(&self, label: &Label) -> Result<bool> {
        Ok(lock_out_readers(self, label)?.is_none())
    }

    fn would_free(&self, labels: &[&Label]) -> Result<Vec<u64>> {
        let mut tally = SpaceTally::default();
        let mut freed = Vec::with_capacity(labels.len());
        for label in labels {
            freed.push(tally.remove(self.backup(label)?.top())?);
        }
        Ok(freed)
    }

    fn state(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let path = self.layout.value(key)?;
        if !is_directory(&self.layout.state())? {
            return Ok(None);
        }

        // Values may be lost. Anything else under the name of a value counts as a lost value.
        if let Some(status) = fs::status(&path)?
            && (status.kind != fs::FileKind::File || status.size > MAX_BYTES)
        {
            return Ok(None);
        }
        match fs::read_small(&path, MAX_BYTES) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn set_state(&self, key: &str, value: Option<&[u8]>) -> Result<()> {
        let path = self.layout.value(key)?;
        layout::make_directory(&self.layout.state())?;
        match value {
            Some(value) => match self.foreign_owner()? {
                Some(owner) => fs::write_durably_for(&path, value, FILE_MODE, owner)?,
                None => fs::write_durably(&path, value, FILE_MODE)?,
            },
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
        let (incoming, state) = (self.layout.incoming(), self.layout.state());
        if !is_directory(&incoming)? || !is_directory(&state)? {
            return Ok(None);
        }

        let leftovers = Leftovers::find(&incoming)?;
        // While a run writes, `incoming/` holds that run's own files.
        if leftovers.is_empty() || Lock::is_held(&self.layout.lock())? {
            return Ok(None);
        }
        let left = leftovers.measure()?;
        Ok((left.files > 0).then_some(left))
    }

    fn shares_device_with(&self, path: &Path) -> Result<bool> {
        Ok(fs::on_same_disk(self.layout.root(), path)?)
    }
}
