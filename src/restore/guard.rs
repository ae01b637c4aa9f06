//! Empty → guarded: makes sure that no server starts from a target while the restore fills it.

use std::path::Path;

use super::checkpoints::{read_checkpoint, write_in_place};
use super::plan::RestorePlan;
use super::target::{FinishedTarget, PlannedTarget, TargetContent, examine, find_unused};
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::format::checkpoint::{self, Checkpoint, START_GUARD};
use crate::fs::{self, CopyId, File};
use crate::manifest::{Directories, RestoreMark};
use crate::run::Run;

const CHECKPOINT_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o750;

/// Writes into one target, and gives what it writes to the owner of the files.
pub(super) struct TargetWriter<'a> {
    pub(super) plan: &'a RestorePlan,
    pub(super) planned: &'a PlannedTarget,
    pub(super) directories: Directories,
}

/// A target in which nothing can be lost.
pub(super) struct Empty<'a> {
    target: TargetWriter<'a>,
    run: &'a Run,
}

/// A target that no server starts from. kbackup holds an exclusive lock on `writer.chk`, so a
/// server that somebody starts during the restore fails at once.
pub(super) struct Guarded<'a> {
    pub(super) target: TargetWriter<'a>,
    pub(super) writer_checkpoint: File,
    pub(super) mark: RestoreMark,
    /// What the target holds already. The restore keeps a file that has the right hash.
    pub(super) content: TargetContent,
}

impl<'a> Empty<'a> {
    /// Looks at the target again: time may have passed since the plan.
    ///
    /// # Errors
    /// `Refused` if a server uses the target, or if something in it could be lost.
    pub(super) fn prove(
        plan: &'a RestorePlan,
        planned: &'a PlannedTarget,
        run: &'a Run,
    ) -> Result<Self> {
        let directories = planned.directories();
        find_unused(
            &directories,
            plan.backup_to_restore(),
            FinishedTarget::Refuse,
            plan.accept,
            run,
        )?;

        let target = TargetWriter {
            plan,
            planned,
            directories,
        };
        Ok(Self { target, run })
    }

    /// Raises the start guard, and then leaves the mark of a restore in progress.
    ///
    /// After each write, no server starts from the target, or there is nothing to lose, whatever an
    /// earlier restore left behind. First the chaser goes above every writer, then a truncation
    /// that was asked for is withdrawn, and the writer comes last. The guard's writer is as high as
    /// can be, because a node with an archive fetches what its writer lacks before it compares the
    /// two (disk-format §10).
    pub(super) fn guard(self) -> Result<Guarded<'a>> {
        let Self { target, run } = self;
        let db = &target.directories.db;
        target.create_directory(db)?;

        let path = Checkpoint::Writer.under(db);
        let writer_checkpoint = fs::open_or_create(&path, CHECKPOINT_MODE)?;
        lock(&writer_checkpoint, db, run)?;
        let content = target.look_again(&writer_checkpoint)?;
        target.create_directory(&target.directories.index)?;

        let [chaser, (_, high_writer), truncate] = START_GUARD;
        target.write_checkpoint(chaser)?;
        target.write_checkpoint(truncate)?;
        write_in_place(&writer_checkpoint, high_writer)?;
        target.give_to_owner(&path)?;
        fs::sync_directory(db)?;

        // A restore that is resumed keeps the time when it began.
        let since = match &content {
            TargetContent::Interrupted(interrupted) => interrupted.since,
            TargetContent::Absent | TargetContent::Empty | TargetContent::Finished => None,
        };
        let plan = target.plan;
        let mark = RestoreMark::begin(
            plan.repository_id,
            plan.backup.label.clone(),
            since.unwrap_or_else(clock::now),
        );
        target.write_mark(&mark)?;

        Ok(Guarded {
            target,
            writer_checkpoint,
            mark,
            content,
        })
    }
}

fn lock(writer_checkpoint: &File, db: &Path, run: &Run) -> Result<()> {
    match writer_checkpoint.try_lock() {
        Ok(true) => {}
        Ok(false) => {
            return Err(Error::new(Kind::Refused, "the target is in use")
                .at(db)
                .because("another process holds a lock on `writer.chk`")
                .hint("stop the server, or the other restore, that uses it"));
        }
        // Some file systems have no locks. There, only the start guard keeps servers away.
        Err(error) => run.note(format!(
            "`{}` cannot be locked: {}",
            Checkpoint::Writer.under(db).display(),
            error.source
        )),
    }
    Ok(())
}

impl TargetWriter<'_> {
    /// Looks at the target once more while `writer.chk` is locked: another restore may have come and
    /// gone after the first look, and a server may have started from what it brought.
    fn look_again(&self, writer_checkpoint: &File) -> Result<TargetContent> {
        let path = Checkpoint::Writer.under(&self.directories.db);
        let now = fs::status(&path)?;
        let is_locked_file =
            now.is_some_and(|now| CopyId::from(&now) == CopyId::from(writer_checkpoint.found()));
        if !is_locked_file {
            return Err(has_changed(self.planned));
        }

        examine(
            &self.directories,
            self.plan.backup_to_restore(),
            FinishedTarget::Refuse,
        )
    }

    /// Sets a checkpoint, durably. A file that exists is changed in place, as the server does. A
    /// new one appears with its content, because an empty checkpoint reads as 0 (O13).
    pub(super) fn write_checkpoint(&self, (checkpoint, value): (Checkpoint, i64)) -> Result<()> {
        let path = checkpoint.under(&self.directories.db);
        if read_checkpoint(&path)?.is_some() {
            write_in_place(&fs::open_for_writing(&path)?, value)?;
        } else {
            fs::write_durably(&path, &checkpoint::encode(value), CHECKPOINT_MODE)?;
        }
        self.give_to_owner(&path)
    }

    pub(super) fn write_mark(&self, mark: &RestoreMark) -> Result<()> {
        mark.write(&self.directories.db)?;
        self.give_to_owner(&RestoreMark::path(&self.directories.db))
    }

    pub(super) fn give_to_owner(&self, path: &Path) -> Result<()> {
        let owner = &self.planned.owner;
        if owner.set {
            fs::set_owner(path, owner.user, owner.group)?;
        }
        Ok(())
    }

    /// Creates a directory if it is missing, and makes its name durable. A directory that exists
    /// is given to the owner of the files, too, because the server creates files in it.
    pub(super) fn create_directory(&self, path: &Path) -> Result<()> {
        // The directories above the target do not belong to the server, but it has to pass through.
        fs::create_directories_durably(path, 0o755, DIRECTORY_MODE)?;
        self.give_to_owner(path)
    }
}

/// Looks again at a target that was found finished, and changes nothing in it.
///
/// # Errors
/// [`Kind::Refused`] if it has changed since the plan, or if a server uses it.
pub(super) fn confirm_finished(
    plan: &RestorePlan,
    planned: &PlannedTarget,
    run: &Run,
) -> Result<()> {
    let content = find_unused(
        &planned.directories(),
        plan.backup_to_restore(),
        FinishedTarget::Leave,
        plan.accept,
        run,
    )?;
    if content != TargetContent::Finished {
        return Err(has_changed(planned));
    }

    // The restore that wrote it may have been killed before its last sync, or that sync may have
    // failed. What the disk holds decides.
    let directories = planned.directories();
    for (checkpoint, _) in plan.outcome.checkpoints.values() {
        fs::open(&checkpoint.under(&directories.db))?.settle()?;
    }
    let backup = plan.backup_to_restore();
    if examine(&directories, backup, FinishedTarget::Leave)? != TargetContent::Finished {
        return Err(has_changed(planned));
    }
    Ok(())
}

fn has_changed(planned: &PlannedTarget) -> Error {
    let what = "the target has changed since the restore was planned";
    Error::new(Kind::Refused, what)
        .at(&planned.db)
        .hint("run the restore again")
}
