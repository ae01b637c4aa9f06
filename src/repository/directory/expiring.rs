//! Removing backups, and keeping those that somebody reads.
//!
//! Who reads a backup holds a shared `flock` on its `manifest.json`, which needs no right but to
//! read, on any mount; who removes it takes an exclusive one first, and holds it until the backup
//! has left `backups/`. No manifest is shared with another backup.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::layout::{expired_label, is_directory};
use super::{DirectoryRepository, Lock, no_such_backup};
use crate::error::{Error, Kind, Result};
use crate::fs::{self, FileKind, IoError};
use crate::manifest::Label;
use crate::repository::lock::patiently;
use crate::repository::{Expiring, Held, Removal, Repository, condition};
use crate::run::Run;

/// Somebody reads a backup.
pub(super) struct Reader {
    /// The lock lives as long as this is open.
    _manifest: fs::File,
}

impl Held for Reader {}

impl Reader {
    pub(super) fn of(repository: &DirectoryRepository, label: &Label) -> Result<Self> {
        let (path, manifest) = repository.open_manifest(label)?;
        let locked = patiently(|| match manifest.try_lock_shared() {
            // Whoever removes backups has to lock as well, and cannot where there are no locks.
            Err(error) if has_no_locks(&error) => Ok(true),
            result => Ok(result?),
        })?;
        let open = manifest.status()?;
        let is_there = fs::status(&path)?
            .is_some_and(|status| (status.device, status.inode) == (open.device, open.inode));
        if locked && is_there {
            Ok(Self {
                _manifest: manifest,
            })
        } else {
            Err(no_such_backup(label).because("it is being removed"))
        }
    }
}

fn has_no_locks(error: &IoError) -> bool {
    matches!(
        Errno::from_io_error(&error.source),
        Some(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS)
    )
}

/// Locks a backup against readers; none where somebody reads it.
///
/// # Errors
/// As for [`Repository::hold`].
pub(super) fn alone(repository: &DirectoryRepository, label: &Label) -> Result<Option<fs::File>> {
    let (path, manifest) = repository.open_manifest(label)?;
    // NFS wants a file that may be written to for an exclusive lock. Nothing is written.
    let manifest = fs::open_for_writing(&path).unwrap_or(manifest);
    Ok(manifest.try_lock()?.then_some(manifest))
}

/// The disk space that comes free when backups are removed one after the other.
#[derive(Default)]
pub(super) struct Tally {
    /// How many names of a file are gone, by device and inode.
    gone: HashMap<(u64, u64), u64>,
}

impl Tally {
    /// Bytes that come free with the last names that these files have, or with all of a directory.
    ///
    /// # Errors
    /// What the file system reports.
    pub(super) fn without(&mut self, top: &Path) -> Result<u64> {
        let mut freed = fs::status(top)?.map_or(0, |status| status.allocated);
        each_below(top, |_, status| {
            freed = freed.saturating_add(self.name_gone(status));
            Ok(())
        })?;
        Ok(freed)
    }

    fn name_gone(&mut self, status: &fs::FileStatus) -> u64 {
        if status.kind == FileKind::Directory || status.links <= 1 {
            return status.allocated;
        }
        let gone = self.gone.entry((status.device, status.inode)).or_default();
        *gone += 1;
        if *gone >= status.links {
            status.allocated
        } else {
            0
        }
    }
}

/// Visits all that lies below a directory; no link is followed.
fn each_below(
    top: &Path,
    mut visit: impl FnMut(&Path, &fs::FileStatus) -> Result<()>,
) -> Result<()> {
    let mut directories = vec![top.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::list(&directory)? {
            let path = directory.join(entry.name);
            visit(&path, &entry.status)?;
            if entry.status.kind == FileKind::Directory {
                directories.push(path);
            }
        }
    }
    Ok(())
}

/// Removes what is listed.
pub(super) struct DirectoryExpiring<'a> {
    repository: &'a DirectoryRepository,
    run: &'a Run,
    /// Given back last.
    _lock: Lock,
}

impl<'a> DirectoryExpiring<'a> {
    pub(super) fn new(repository: &'a DirectoryRepository, run: &'a Run, lock: Lock) -> Self {
        Self {
            repository,
            run,
            _lock: lock,
        }
    }

    /// Takes a backup out of the list, durably, and says where it lies now.
    fn unlist(&self, label: &Label) -> Result<PathBuf> {
        let layout = &self.repository.layout;
        let (backup, expired) = (layout.backup(label), layout.expired(label));
        fs::rename(&backup, &expired)?;
        let Err(error) = make_durable(self.repository) else {
            return Ok(expired);
        };
        // As long as a loss of power may bring the name back, all of it has to be there.
        Err(match fs::rename(&expired, &backup) {
            Ok(()) => error,
            Err(back) => Error::new(
                Kind::Failed,
                format!("{label} is not listed any more, and that may not last"),
            )
            .at(&expired)
            .because(format!(
                "{}; it could not be taken back: {back}: {}",
                error.in_words(),
                back.source
            ))
            .hint("look at the repository's disk and the system's log: it fails, or has gone"),
        })
    }

    /// Deletes what is not listed any more, and tells what came free. The inode of a file that
    /// another backup has as well only loses a name.
    fn delete(&self, top: &Path, freed: &mut u64) -> Result<()> {
        let mut directories = fs::status(top)?.map_or(0, |status| status.allocated);
        each_below(top, |path, status| {
            if status.kind == FileKind::Directory {
                directories = directories.saturating_add(status.allocated);
                return Ok(());
            }
            self.run.check()?;
            fs::remove_file(path)?;
            *freed = freed.saturating_add(if status.links <= 1 {
                status.allocated
            } else {
                0
            });
            Ok(())
        })?;
        fs::remove_tree(top)?;
        *freed = freed.saturating_add(directories);
        Ok(())
    }
}

impl Expiring for DirectoryExpiring<'_> {
    fn remove(&self, label: &Label) -> Result<Removal> {
        let Some(_alone) = alone(self.repository, label)? else {
            return Ok(Removal::InUse);
        };
        let expired = self.unlist(label)?;
        self.run.note(format!("{label} is removed"));
        forget(self.repository, label, self.run);
        let mut freed = 0;
        if let Err(error) = self.delete(&expired, &mut freed) {
            self.run.note(format!(
                "{error}: what is left of {label} goes with the next run that writes"
            ));
        }
        Ok(Removal::Freed(freed))
    }
}

/// Removes the rest of backups whose removal came to a sudden end. Only for whom holds the lock.
/// What cannot be removed is said, and is in nobody's way.
///
/// # Errors
/// What the file system reports while it is looked for.
pub(super) fn sweep(repository: &DirectoryRepository, run: &Run) -> Result<()> {
    let incoming = repository.layout.incoming();
    for entry in fs::list(&incoming)? {
        let Some(label) = expired_label(&entry) else {
            continue;
        };
        run.note(format!(
            "removing what is left of {label}, which is listed no more"
        ));
        forget(repository, &label, run);
        // The run that took it out of the list may have died before that was durable.
        let removed = make_durable(repository)
            .and_then(|()| Ok(fs::remove_tree(&incoming.join(&entry.name))?));
        if let Err(error) = removed {
            run.note(format!(
                "{error}: it stays there until the next run that writes"
            ));
        }
    }
    Ok(())
}

/// What was renamed from `backups/` to `incoming/` is there first, and then no longer here: at no
/// time it is nowhere.
fn make_durable(repository: &DirectoryRepository) -> Result<()> {
    fs::sync_directory(&repository.layout.incoming())?;
    Ok(fs::sync_directory(&repository.layout.backups())?)
}

/// A backup of this name may be listed again: put back by hand, from a copy.
fn forget(repository: &DirectoryRepository, label: &Label, run: &Run) {
    let is_listed = is_directory(&repository.layout.backup(label)).unwrap_or(true);
    if is_listed {
        return;
    }
    if let Err(error) = repository.set_state(&condition::key(label), None) {
        run.note(format!(
            "{error}: what is remembered of {label} stays there"
        ));
    }
}
