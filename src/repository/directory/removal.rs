//! Removes backups, and counts the space that comes free with them.
//!
//! A removal renames the backup to `incoming/expired-LABEL`, makes that durable, and deletes the
//! files there. The next writer sweeps up what a removal could not finish.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::DirectoryRepository;
use super::hold::lock_out_readers;
use super::layout::{expired_label, is_directory};
use crate::error::{Error, Kind, Result};
use crate::fs::{self, CopyId, FileKind, FileStatus};
use crate::manifest::Label;
use crate::repository::{Removal, Repository, condition};
use crate::run::Run;

/// As [`crate::repository::Writer::remove`].
pub(super) fn remove(
    repository: &DirectoryRepository,
    label: &Label,
    run: &Run,
) -> Result<Removal> {
    let Some(_lock) = lock_out_readers(repository, label)? else {
        return Ok(Removal::InUse);
    };
    refuse_mounts(&repository.layout.backup(label))?;

    let expired = unlist(repository, label)?;
    run.note(format!("{label} is removed"));
    forget(repository, label, run);

    let mut freed = 0;
    if let Err(error) = delete(&expired, &mut freed, run) {
        run.note(format!(
            "{error}: the next run that writes removes what is left of {label}"
        ));
    }
    Ok(Removal::Freed(freed))
}

/// What is mounted inside a backup is not the backup's.
fn refuse_mounts(backup: &Path) -> Result<()> {
    let Some(mount) = fs::mount_inside(backup)? else {
        return Ok(());
    };
    Err(Error::new(
        Kind::Refused,
        "another file system is mounted inside a backup",
    )
    .at(&mount)
    .hint("unmount it first: removing the backup would remove what it holds"))
}

/// Takes a backup out of the list, durably, and returns where its files are now.
fn unlist(repository: &DirectoryRepository, label: &Label) -> Result<PathBuf> {
    let layout = &repository.layout;
    let (backup, expired) = (layout.backup(label), layout.expired(label));
    fs::rename(&backup, &expired)?;
    let Err(error) = make_durable(repository) else {
        return Ok(expired);
    };

    // A loss of power may bring the name back, so nothing may be deleted: undo the rename.
    let Err(back) = fs::rename(&expired, &backup) else {
        return Err(error);
    };
    Err(Error::new(
        Kind::Failed,
        format!("{label} is not listed any more, but a loss of power may bring it back"),
    )
    .at(&expired)
    .because(format!(
        "{}; kbackup could not undo the removal: {back}: {}",
        error.in_words(),
        back.source
    ))
    .hint("check the repository's disk and the system's log: the disk fails, or is gone"))
}

/// Deletes the files of a backup that is not listed any more, and adds up what came free. A file
/// that another backup has as well only loses a name.
fn delete(top: &Path, freed: &mut u64, run: &Run) -> Result<()> {
    let mut directories = fs::status(top)?.map_or(0, |status| status.allocated);
    each_below(top, |path, status| {
        if status.kind == FileKind::Directory {
            directories = directories.saturating_add(status.allocated);
            return Ok(());
        }

        run.check()?;
        fs::remove_file(path)?;
        if status.links <= 1 {
            *freed = freed.saturating_add(status.allocated);
        }
        Ok(())
    })?;

    fs::remove_tree(top)?;
    *freed = freed.saturating_add(directories);
    Ok(())
}

/// Finishes removals that ended suddenly. Only the writer may call it. If something cannot be
/// removed, a note says so. It does no harm.
pub(super) fn sweep(repository: &DirectoryRepository, run: &Run) -> Result<()> {
    let incoming = repository.layout.incoming();
    for entry in fs::list(&incoming)? {
        let Some(label) = expired_label(&entry) else {
            continue;
        };
        run.note(format!(
            "removing what is left of {label}, which is not listed any more"
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

/// Makes a rename from `backups/` to `incoming/` durable. The new name is synced first, so that a
/// loss of power never leaves the backup without a name.
fn make_durable(repository: &DirectoryRepository) -> Result<()> {
    fs::sync_directory(&repository.layout.incoming())?;
    Ok(fs::sync_directory(&repository.layout.backups())?)
}

/// Drops what is remembered of a removed backup, unless a backup of this name is listed again
/// because somebody put it back from a copy.
fn forget(repository: &DirectoryRepository, label: &Label, run: &Run) {
    let is_listed = is_directory(&repository.layout.backup(label)).unwrap_or(true);
    if is_listed {
        return;
    }
    if let Err(error) = repository.set_state(&condition::key(label), None) {
        run.note(format!(
            "{error}: kbackup could not remove the stored result of the verification of {label}"
        ));
    }
}

/// Counts the disk space that comes free if backups are removed one after the other.
#[derive(Default)]
pub(super) struct SpaceTally {
    /// How many names of each file are gone.
    gone: HashMap<CopyId, u64>,
}

impl SpaceTally {
    /// Counts a directory as removed. Returns the bytes that come free: those of the directories,
    /// and of each file that loses its last name.
    pub(super) fn remove(&mut self, top: &Path) -> Result<u64> {
        let mut freed = fs::status(top)?.map_or(0, |status| status.allocated);
        each_below(top, |_, status| {
            if self.is_last_name(status) {
                freed = freed.saturating_add(status.allocated);
            }
            Ok(())
        })?;
        Ok(freed)
    }

    fn is_last_name(&mut self, status: &FileStatus) -> bool {
        if status.kind == FileKind::Directory || status.links <= 1 {
            return true;
        }
        let gone = self.gone.entry(CopyId::from(status)).or_default();
        *gone += 1;
        *gone >= status.links
    }
}

/// Visits everything below a directory. No link is followed.
fn each_below(top: &Path, mut visit: impl FnMut(&Path, &FileStatus) -> Result<()>) -> Result<()> {
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
