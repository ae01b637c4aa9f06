//! Remembers what one verification has learnt of each stored copy, so that a file that several
//! backups share is read from the disk and hashed once.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::pass::VerifyPass;
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::format::ReadAt;
use crate::fs::CopyId;
use crate::manifest::{Label, Role, Row};
use crate::repository::Repository;
use crate::run::Run;
use crate::transfer::{Digest, hash_file, paced};

/// What a file hashes to, or why it cannot be read.
pub(super) type Hashed = std::result::Result<Digest, String>;

/// What is known of stored copies. Several threads may ask at once.
#[derive(Default)]
pub(super) struct KnownFiles {
    inner: Mutex<Known>,
    pass: Arc<VerifyPass>,
}

#[derive(Default)]
struct Known {
    /// Every copy that was opened, and what it hashes to once it was hashed.
    copies: HashMap<CopyId, Option<Hashed>>,
    /// Chunks whose records are intact.
    scanned: HashSet<CopyId>,
    bytes_hashed: u64,
}

impl KnownFiles {
    /// Knows what earlier runs of the same verification have proven.
    pub(super) fn of_pass(pass: Arc<VerifyPass>) -> Self {
        Self {
            inner: Mutex::default(),
            pass,
        }
    }

    /// The notes of this verification.
    pub(super) fn pass(&self) -> &VerifyPass {
        &self.pass
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Every change is one step, so the maps are whole even if a thread panicked.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many bytes were hashed.
    pub(super) fn bytes_hashed(&self) -> u64 {
        self.known().bytes_hashed
    }

    /// Whether the records of a stored chunk were found intact before.
    pub(super) fn is_scanned(&self, copy: Option<CopyId>) -> bool {
        copy.is_some_and(|copy| self.known().scanned.contains(&copy))
    }

    /// Notes that the records of a stored chunk are intact.
    pub(super) fn add_scanned(&self, copy: Option<CopyId>) {
        self.known().scanned.extend(copy);
    }

    /// Lets this verification read a stored copy from the disk: the first time that it opens the
    /// copy, the pages in the cache go. They may hold bytes that the disk has lost.
    pub(super) fn read_from_disk(&self, stored: &dyn ReadAt) {
        let copy = stored.copy_id();
        if copy.is_some_and(|copy| self.known().copies.contains_key(&copy)) {
            return;
        }

        // First the pages go, then the copy is known: no other thread reads it in between.
        stored.drop_from_cache();
        if let Some(copy) = copy {
            self.known().copies.entry(copy).or_default();
        }
    }

    /// What a stored file hashes to. Damage, such as an unreadable block, is no error.
    pub(super) fn hash(
        &self,
        repository: &dyn Repository,
        label: &Label,
        row: &Row,
        run: &Run,
    ) -> Result<Hashed> {
        let source = match repository.open(label, row) {
            Ok(source) => paced(source, run),
            Err(error) if is_damage(&error) => return Ok(Err(error.in_words())),
            Err(error) => return Err(error),
        };
        if let Some(hashed) = self.hashed_by_this_run(source.copy_id()) {
            return Ok(hashed);
        }
        // A file without a copy is damaged, whatever an earlier run has seen.
        if source.copy_id().is_some()
            && let Some(digest) = self.pass.hashed(&*source)
        {
            run.emit(Event::Progress { bytes: row.size });
            return Ok(Ok(digest));
        }

        self.hash_now(&*source, row, run)
    }

    fn hashed_by_this_run(&self, copy: Option<CopyId>) -> Option<Hashed> {
        self.known().copies.get(&copy?)?.clone()
    }

    fn hash_now(&self, source: &dyn ReadAt, row: &Row, run: &Run) -> Result<Hashed> {
        self.read_from_disk(source);

        let has_md5 = matches!(row.role, Role::Chunk | Role::Table);
        let hashed = match hash_file(source, has_md5, run) {
            Ok(digest) => Ok(digest),
            // A disk cannot read a block, or a store of objects finds a wrong one.
            Err(error) if error.kind() == Kind::Failed || is_damage(&error) => {
                Err(error.in_words())
            }
            Err(error) => return Err(error),
        };
        match &hashed {
            Ok(digest) if is_as_stored(row, digest) => self.pass.note_hashed(source, digest),
            // An earlier run may have found it intact.
            _ => self.pass.forget_hashed(source),
        }

        let mut known = self.known();
        let is_new = match source.copy_id() {
            Some(copy) => !matches!(
                known.copies.insert(copy, Some(hashed.clone())),
                Some(Some(_))
            ),
            None => true,
        };
        // Two threads may have hashed the same copy at the same time: it counts once.
        if is_new {
            known.bytes_hashed = known.bytes_hashed.saturating_add(row.size);
        }
        Ok(hashed)
    }

    /// Whether a stored file has the bytes of its row.
    pub(super) fn is_intact(
        &self,
        repository: &dyn Repository,
        label: &Label,
        row: &Row,
        run: &Run,
    ) -> Result<bool> {
        let hashed = self.hash(repository, label, row, run)?;
        Ok(hashed.is_ok_and(|digest| is_as_stored(row, &digest)))
    }

    /// As [`Self::is_intact`]. What an earlier run has proven does not count, because a repair
    /// relies on it: the file is read in this run.
    pub(super) fn is_intact_now(
        &self,
        repository: &dyn Repository,
        label: &Label,
        row: &Row,
        run: &Run,
    ) -> Result<bool> {
        let source = match repository.open(label, row) {
            Ok(source) => paced(source, run),
            Err(error) if is_damage(&error) => return Ok(false),
            Err(error) => return Err(error),
        };

        let hashed = match self.hashed_by_this_run(source.copy_id()) {
            Some(hashed) => hashed,
            None => self.hash_now(&*source, row, run)?,
        };
        Ok(hashed.is_ok_and(|digest| is_as_stored(row, &digest)))
    }
}

/// Whether the bytes that were hashed are those of the row.
pub(super) fn is_as_stored(row: &Row, digest: &Digest) -> bool {
    digest.size == row.size && digest.blake3 == row.blake3
}

/// Whether an error is damage to the backup. The proof reports damage of the files that it reads as
/// damage of a source; here these files are a backup's.
pub(super) fn is_damage(error: &Error) -> bool {
    matches!(
        error.kind(),
        Kind::SourceCorrupt | Kind::StoredCorrupt | Kind::Unstable
    )
}
