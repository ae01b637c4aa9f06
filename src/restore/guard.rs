use std::path::Path;

use super::finish;
use super::plan::{Accept, Plan, PlannedTarget};
use super::target::{self, Found};
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::format::checkpoint::{self, Checkpoint, START_GUARD};
use crate::format::names;
use crate::fs::{self, File};
use crate::log::RawCheckpoint;
use crate::manifest::{Directories, Manifest, RestoreMark};
use crate::node;
use crate::run::Run;

const CHECKPOINT_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o750;

/// Where one target's restore takes place.
pub(super) struct Site<'a> {
    pub(super) plan: &'a Plan,
    pub(super) target: &'a PlannedTarget,
    pub(super) directories: Directories,
}

/// A target in which nothing can be lost.
pub(super) struct Empty<'a> {
    site: Site<'a>,
    found: Found,
    run: &'a Run,
}

/// A target that no server starts from. `writer.chk` is held with an exclusive lock, so that a
/// server that is started meanwhile fails at once.
pub(super) struct Guarded<'a> {
    pub(super) site: Site<'a>,
    pub(super) writer: File,
    pub(super) mark: RestoreMark,
    /// What is there already and may be kept, if it proves to be right.
    pub(super) found: Found,
}

impl<'a> Empty<'a> {
    /// Looks again: time may have passed since the plan.
    pub(super) fn prove(plan: &'a Plan, target: &'a PlannedTarget, run: &'a Run) -> Result<Self> {
        let directories = Directories {
            db: target.db.clone(),
            index: target.index.clone(),
        };
        let found = find_unused(
            &directories,
            plan.repository_id,
            &plan.manifest,
            plan.accept,
            None,
            run,
        )?;
        Ok(Self {
            site: Site {
                plan,
                target,
                directories,
            },
            found,
            run,
        })
    }

    /// Raises the start guard, and then leaves the mark of a restore in progress.
    ///
    /// Whatever an earlier restore left behind, each state on the way is one that no server starts
    /// from, or one in which there is nothing to lose: first the chaser goes above every writer,
    /// then a truncation that was asked for is withdrawn, and the writer comes last. The guard's
    /// writer is as high as can be, because a node with an archive fetches what its writer lacks
    /// before it compares the two (disk-format §10).
    pub(super) fn guard(self) -> Result<Guarded<'a>> {
        let Self { site, found, run } = self;
        let db = &site.directories.db;
        for directory in [db, &site.directories.index] {
            site.create_directory(directory)?;
        }
        let path = Checkpoint::Writer.under(db);
        let writer = fs::open_or_create(&path, CHECKPOINT_MODE)?;
        match writer.try_lock() {
            Ok(true) => {}
            Ok(false) => return Err(in_use(db)),
            // A file system without locks: the guard alone has to do.
            Err(error) => run.note(format!(
                "`{}` cannot be locked: {}",
                path.display(),
                error.source
            )),
        }
        let [chaser, high_writer, truncate] = START_GUARD;
        site.checkpoint(chaser)?;
        site.checkpoint(truncate)?;
        write_in_place(&writer, high_writer.1)?;
        site.own(&path)?;
        fs::sync_directory(db)?;
        let since = match &found {
            Found::Interrupted(interrupted) => interrupted.since,
            Found::Absent | Found::Empty | Found::Finished => None,
        };
        let mark = RestoreMark::begin(
            site.plan.repository_id,
            site.plan.backup.label.clone(),
            since.unwrap_or_else(clock::now),
        );
        site.mark(&mark)?;
        Ok(Guarded {
            site,
            writer,
            mark,
            found,
        })
    }
}

impl Site<'_> {
    /// Sets a checkpoint, durably. A file that is there is changed in place, as the server does; a
    /// new one appears with its content, because an empty checkpoint reads as 0 (O13).
    pub(super) fn checkpoint(&self, (checkpoint, value): (Checkpoint, i64)) -> Result<()> {
        let path = checkpoint.under(&self.directories.db);
        if read_checkpoint(&path)?.is_some() {
            write_in_place(&fs::open_for_writing(&path)?, value)?;
        } else {
            fs::write_durably(&path, &checkpoint::encode(value), CHECKPOINT_MODE)?;
        }
        self.own(&path)
    }

    pub(super) fn mark(&self, mark: &RestoreMark) -> Result<()> {
        mark.write(&self.directories.db)?;
        self.own(&RestoreMark::path(&self.directories.db))
    }

    /// Gives a path to the owner of the restored files.
    pub(super) fn own(&self, path: &Path) -> Result<()> {
        let owner = &self.target.owner;
        if owner.set {
            fs::set_owner(path, owner.user, owner.group)?;
        }
        Ok(())
    }

    /// Creates a directory where it is missing, and makes its name durable. It belongs to the owner
    /// of the files, as does one that was there: the server creates files in it.
    pub(super) fn create_directory(&self, path: &Path) -> Result<()> {
        // What lies above the target is not the server's, but the server has to get through.
        fs::create_directories_durably(path, 0o755, DIRECTORY_MODE)?;
        self.own(path)
    }
}

/// Sets the eight bytes of a checkpoint whose file is open, durably.
pub(super) fn write_in_place(file: &File, value: i64) -> Result<()> {
    file.write_all_at(0, &checkpoint::encode(value))?;
    file.set_size(checkpoint::LENGTH as u64)?;
    file.sync()?;
    Ok(())
}

/// A checkpoint's value; none where there is no such file, or it has not 8 bytes.
pub(super) fn read_checkpoint(path: &Path) -> Result<Option<i64>> {
    match RawCheckpoint::at(path) {
        Ok(raw) => Ok(raw.if_whole()),
        Err(error) if error.is_no_plain_file() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Looks again at a target that was found finished, and leaves it as it is.
///
/// # Errors
/// [`Kind::Refused`] where it has changed since the plan, or a server uses it; what the file system
/// reports.
pub(super) fn still_finished(plan: &Plan, target: &PlannedTarget, run: &Run) -> Result<()> {
    let directories = Directories {
        db: target.db.clone(),
        index: target.index.clone(),
    };
    let finished = finish::checkpoints(&plan.manifest, &plan.truncation);
    let found = find_unused(
        &directories,
        plan.repository_id,
        &plan.manifest,
        plan.accept,
        Some(&finished),
        run,
    )?;
    if found != Found::Finished {
        return Err(Error::new(
            Kind::Refused,
            "the target has changed since the restore was planned",
        )
        .at(&target.db)
        .hint("run it again"));
    }
    // Whoever wrote it may have been killed before its last sync.
    fs::open(&Checkpoint::Writer.under(&target.db))?.sync()?;
    Ok(())
}

/// Whether a restore's guard stands: the chaser above every writer, or, between the last two
/// writes, one byte above the writer. No server ever leaves either behind, as its chaser follows
/// its writer. A writer that is missing or empty reads as 0.
pub(super) fn stands(db: &Path) -> Result<bool> {
    // The chaser first: of a server that runs unseen it is then the older value.
    let Some(chaser) = read_checkpoint(&Checkpoint::Chaser.under(db))? else {
        return Ok(false);
    };
    let writer = read_checkpoint(&Checkpoint::Writer.under(db))?.unwrap_or(0);
    Ok(chaser > writer && (chaser == i64::MAX || chaser == writer.saturating_add(1)))
}

/// Whether a database stands in a directory: one that a restore has finished, or that a server has
/// written to. What an interrupted restore left is none.
///
/// # Errors
/// What the file system reports.
pub fn holds_database(db: &Path) -> Result<bool> {
    let writer = read_checkpoint(&Checkpoint::Writer.under(db))?;
    let chaser = read_checkpoint(&Checkpoint::Chaser.under(db))?;
    Ok(writer.is_some_and(|writer| writer > 0) && chaser.is_some() && !stands(db)?)
}

/// Proves that no server uses a target, and that nothing in it can be lost.
///
/// # Errors
/// [`Kind::Refused`] else.
pub(super) fn find_unused(
    directories: &Directories,
    repository: uuid::Uuid,
    manifest: &Manifest,
    accept: Accept,
    finished: Option<&[(Checkpoint, i64)]>,
    run: &Run,
) -> Result<Found> {
    is_in_no_other(directories)?;
    let findings = node::probe(directories, None)?;
    let refuse = |confirmed| {
        findings.refuse(
            "cannot restore into this directory",
            &directories.db,
            confirmed,
        )
    };
    // Signs of a server first: they explain why the directory is not empty.
    refuse(true)?;
    let found = target::find(directories, manifest, repository, finished)?;
    // A server that runs unseen, on another machine perhaps, has files there, and changes them.
    let nothing_to_lose = matches!(found, Found::Absent | Found::Empty | Found::Finished);
    refuse(nothing_to_lose || accept.unsure_whether_in_use)?;
    for doubt in &findings.doubts {
        run.note(doubt.to_string());
    }
    Ok(found)
}

/// A server lists its directories, and owns them: nothing of another database belongs into one,
/// whether it runs now or later.
///
/// # Errors
/// [`Kind::Refused`] where a target lies inside of a data directory.
fn is_in_no_other(directories: &Directories) -> Result<()> {
    for target in [&directories.db, &directories.index] {
        for above in target
            .ancestors()
            .skip(1)
            .filter(|above| *above != directories.db)
        {
            for sign in [
                Checkpoint::Writer.under(above),
                above.join(names::INDEX_MAP),
            ] {
                if fs::status(&sign)?.is_some() {
                    return Err(Error::new(
                        Kind::Refused,
                        "the target lies inside of another database's directory",
                    )
                    .at(target)
                    .because(format!("there is {}", sign.display()))
                    .hint("name a directory beside it"));
                }
            }
        }
    }
    Ok(())
}

fn in_use(db: &Path) -> Error {
    Error::new(Kind::Refused, "the target is in use")
        .at(db)
        .because("somebody holds a lock on `writer.chk`")
        .hint("stop the server, or the other restore, that uses it")
}
