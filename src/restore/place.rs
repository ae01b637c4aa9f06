//! Guarded → placed: writes every file of the backup but the checkpoints, and proves each.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;

use super::guard::{Guarded, TargetWriter};
use super::outcome::PlacedFile;
use super::report::Placement;
use super::target::TargetContent;
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::format::{InContext, Md5Hash};
use crate::fs::{self, File, IoError, ReadAt};
use crate::manifest::{RelativePath, RestoreMark, Row};
use crate::parallel;
use crate::repository::Repository;
use crate::run::Run;
use crate::transfer::{self, CopyFailure, CopyPlan, Digest, FILES_AT_ONCE, Segment};

/// A guarded target that holds every file of the backup, proven and durable, except the
/// checkpoints.
pub(super) struct Placed<'a> {
    pub(super) target: TargetWriter<'a>,
    pub(super) writer_checkpoint: File,
    pub(super) mark: RestoreMark,
    pub(super) placement: Placement,
}

impl<'a> Guarded<'a> {
    /// Places every file. After an error the guard stays, and the next restore resumes with the
    /// files that are placed.
    ///
    /// # Errors
    /// [`Kind::StoredCorrupt`] if stored bytes differ from their row.
    pub(super) fn place(self, repository: &dyn Repository, run: &Run) -> Result<Placed<'a>> {
        let Self {
            target,
            writer_checkpoint,
            mark,
            content,
        } = self;
        let files = &target.plan.outcome.files;
        let present = clear_leftovers(content)?;
        let directories = create_directories(&target)?;

        run.emit(Event::Expected {
            files: target.plan.files,
            bytes: target.plan.bytes,
        });
        let placer = Placer {
            target: &target,
            repository,
            run,
            present,
        };
        let mut placement = Placement::default();
        parallel::for_each(
            FILES_AT_ONCE,
            files,
            |file| placer.place(file),
            |file, origin| match origin {
                PlacedBytes::Written => {
                    placement.files_written += 1;
                    placement.bytes_written += file.row.size;
                }
                PlacedBytes::Kept => placement.files_kept += 1,
            },
        )?;

        for directory in &directories {
            fs::sync_directory(directory)?;
        }
        Ok(Placed {
            target,
            writer_checkpoint,
            mark,
            placement,
        })
    }
}

/// Removes files of no backup, and returns the files that may be kept.
fn clear_leftovers(content: TargetContent) -> Result<HashSet<RelativePath>> {
    let TargetContent::Interrupted(interrupted) = content else {
        return Ok(HashSet::new());
    };
    for leftover in &interrupted.leftovers {
        fs::remove_file(leftover)?;
    }
    Ok(interrupted.present)
}

fn create_directories(target: &TargetWriter<'_>) -> Result<BTreeSet<PathBuf>> {
    let mut directories = BTreeSet::from([
        target.directories.db.clone(),
        target.directories.index.clone(),
    ]);
    for file in &target.plan.outcome.files {
        let path = target.directories.path_of(&file.row.path);
        directories.insert(fs::parent(&path).to_owned());
    }

    for directory in &directories {
        target.create_directory(directory)?;
    }
    Ok(directories)
}

/// Who wrote the bytes of a placed file.
enum PlacedBytes {
    /// This restore.
    Written,
    /// An interrupted restore.
    Kept,
}

/// Places single files, on several threads.
struct Placer<'a> {
    target: &'a TargetWriter<'a>,
    repository: &'a dyn Repository,
    run: &'a Run,
    /// Files that an interrupted restore left in their full length.
    present: HashSet<RelativePath>,
}

impl Placer<'_> {
    fn place(&self, file: &PlacedFile) -> Result<PlacedBytes> {
        self.run.check()?;
        if self.present.contains(&file.row.path) && self.keep(file)? {
            return Ok(PlacedBytes::Kept);
        }
        self.write(file)?;
        Ok(PlacedBytes::Written)
    }

    /// Keeps a file that is there already. Returns false if the disk has other bytes.
    fn keep(&self, placed: &PlacedFile) -> Result<bool> {
        let row = &placed.row;
        let path = self.target.directories.path_of(&row.path);
        let file = fs::open(&path)?;

        // The earlier run may have lost what it wrote, although the page cache still shows it. So
        // the file is complete first, and then read from the disk.
        self.complete(placed, &file)?;
        file.drop_from_cache();

        let paced = transfer::paced(Box::new(file.clone()), self.run);
        let digest = match transfer::hash_file(&*paced, placed.md5.is_some(), self.run) {
            Ok(digest) => digest,
            // A block that cannot be read: the file is written to another place.
            Err(error) if error.kind() == Kind::Failed => return Ok(false),
            Err(error) => return Err(error.at(&path)),
        };
        if digest.blake3 != row.blake3 {
            return Ok(false);
        }

        self.prove_md5(placed, &file, digest)?;
        Ok(true)
    }

    fn write(&self, placed: &PlacedFile) -> Result<()> {
        let row = &placed.row;
        let path = self.target.directories.path_of(&row.path);
        fs::remove_file(&path)?;
        let file = fs::create_new(&path, 0o600)?;

        let label = &self.target.plan.backup.label;
        let stored = self.repository.open(label, row)?;
        let place = format!("{label}: {}", row.path);
        let segment = Segment {
            source: stored.as_ref(),
            place: &place,
            end: row.size,
            reads_every_byte: false,
            whole: None,
        };
        let copy = CopyPlan {
            segments: &[segment],
            full_length: row.size,
            md5: placed.md5.is_some(),
        };
        let copied = transfer::copy(&copy, &file, None, self.run)
            .map_err(|failure| self.not_copied(row, &file, failure))?;

        let found = copied.digest.blake3;
        if found != row.blake3 {
            return Err(self.damaged(row, format!("its hash is {found}, not {}", row.blake3)));
        }
        self.prove_md5(placed, stored.as_ref(), copied.digest)?;
        self.complete(placed, &file)
    }

    /// Compares the server's own hash, which covers all but the last 16 bytes. They hold it
    /// (disk-format §3.5, §5.2).
    fn prove_md5(&self, placed: &PlacedFile, bytes: &dyn ReadAt, digest: Digest) -> Result<()> {
        let Some(expected) = placed.md5 else {
            return Ok(());
        };
        let row = &placed.row;

        let mut last = [0; 16];
        bytes
            .read_exact_at(row.size.saturating_sub(16), &mut last)
            .map_err(crate::format::Error::from)
            .in_repository(&self.target.plan.backup.label, &row.path)?;
        if digest.md5 != Some(expected) || Md5Hash(last) != expected {
            let why = "the server's own MD5 in it does not match its bytes";
            return Err(self.damaged(row, why.to_owned()));
        }
        Ok(())
    }

    /// Sets owner and mode and syncs the file. Then it is complete.
    fn complete(&self, placed: &PlacedFile, file: &File) -> Result<()> {
        self.make_durable(placed, file)
            .map_err(|error| remove_lost(file, error))
    }

    fn make_durable(&self, placed: &PlacedFile, file: &File) -> Result<(), IoError> {
        let owner = &self.target.planned.owner;
        if owner.set {
            file.set_owner(owner.user, owner.group)?;
        }
        file.set_mode(placed.mode)?;
        transfer::sync(file, placed.row.size, self.run)
    }

    fn not_copied(&self, row: &Row, file: &File, failure: CopyFailure) -> Error {
        match failure {
            CopyFailure::Short { wanted, found, .. } => {
                self.damaged(row, format!("it ends at byte {found}, not at {wanted}"))
            }
            CopyFailure::Source { place, source } => match Error::passed_on(source) {
                Ok(error) if error.kind() == Kind::StoredCorrupt => {
                    self.damaged(row, error.in_words())
                }
                Ok(error) => error,
                Err(source) => Error::new(Kind::Failed, "cannot read a stored file")
                    .on(place)
                    .because(source)
                    .hint("check the disk or the mount that holds the repository"),
            },
            CopyFailure::Other { wanted, found, .. } => {
                self.damaged(row, format!("its hash is {found}, not {wanted}"))
            }
            CopyFailure::Target(error) => remove_lost(file, error),
            CopyFailure::Stopped(error) => error,
        }
    }

    fn damaged(&self, row: &Row, why: String) -> Error {
        let label = &self.target.plan.backup.label;
        let what = "a stored file is damaged";
        Error::new(Kind::StoredCorrupt, what)
            .on(format!("{label}: {}", row.path))
            .because(why)
            .hint(format!(
                "run `kbackup verify {label}` to learn what else is damaged; restore another backup"
            ))
    }
}

/// Removes a file of the target whose write or sync failed: nobody knows what the disk holds of it.
/// If the removal fails too, the next restore finds out what the disk holds.
fn remove_lost(file: &File, error: IoError) -> Error {
    let _ = fs::remove_file(file.path());
    error.into()
}
