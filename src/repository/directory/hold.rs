//! Protects a backup from removal while a run reads it.
//!
//! A reader holds a shared `flock` on the backup's `manifest.json`. For this it needs only the
//! right to read, also on a read-only mount. A writer that removes the backup takes an exclusive
//! lock first, and holds it until the backup has left `backups/`. Backups never share a manifest.

use rustix::io::Errno;

use super::{DirectoryRepository, no_such_backup};
use crate::error::Result;
use crate::fs::{self, CopyId, IoError};
use crate::manifest::Label;
use crate::repository::Held;
use crate::repository::lock::patiently;

/// The shared lock of a restore or a verification on its backup.
pub(super) struct HeldBackup {
    /// The lock lives as long as this file is open.
    _manifest: fs::File,
}

impl Held for HeldBackup {}

impl HeldBackup {
    /// As [`crate::repository::Repository::hold`].
    pub(super) fn take(repository: &DirectoryRepository, label: &Label) -> Result<Self> {
        let (path, manifest) = repository.open_manifest(label)?;
        let locked = patiently(|| match manifest.try_lock_shared() {
            // If the file system has no locks, no writer can remove a backup: it needs the lock,
            // too.
            Err(error) if has_no_locks(&error) => Ok(true),
            result => Ok(result?),
        })?;

        // The backup may have been removed, and another one of this name made, before the lock.
        let now = fs::status(&path)?;
        let is_there = now.is_some_and(|now| CopyId::from(&now) == CopyId::from(manifest.found()));
        if !locked || !is_there {
            return Err(no_such_backup(label).because("it is being removed"));
        }

        Ok(Self {
            _manifest: manifest,
        })
    }
}

/// Locks a backup against readers. Returns `None` if somebody reads it.
///
/// # Errors
/// As for [`crate::repository::Repository::hold`].
pub(super) fn lock_out_readers(
    repository: &DirectoryRepository,
    label: &Label,
) -> Result<Option<fs::File>> {
    let (path, manifest) = repository.open_manifest(label)?;
    // NFS grants an exclusive lock only on a file that is open for writing. Nothing is written.
    let manifest = fs::open_for_writing(&path).unwrap_or(manifest);
    Ok(manifest.try_lock()?.then_some(manifest))
}

fn has_no_locks(error: &IoError) -> bool {
    matches!(
        Errno::from_io_error(&error.source),
        Some(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS)
    )
}
