use std::path::{Path, PathBuf};

use super::plan::{Plan, PlannedTarget};
use super::target::{self, Found};
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::event::Run;
use crate::fs::{self, File};
use crate::manifest::{Directories, RestoreMark};

pub(super) const WRITER: &str = "writer.chk";
pub(super) const CHASER: &str = "chaser.chk";
pub(super) const EPOCH: &str = "epoch.chk";
pub(super) const PROPOSAL: &str = "proposal.chk";
pub(super) const TRUNCATE: &str = "truncate.chk";

/// The guard's values (O15): a chaser ahead of the writer stops every server before it touches a file. The writer is as high as can be, because a node with
/// an archive fetches what its writer lacks before it compares the two (disk-format §10).
pub(super) const GUARD_CHASER: i64 = i64::MAX;
pub(super) const GUARD_WRITER: i64 = i64::MAX - 1;

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
}

/// A target that no server starts from. `writer.chk` is held with an exclusive lock, so that a server that is started meanwhile fails at once.
pub(super) struct Guarded<'a> {
    pub(super) site: Site<'a>,
    pub(super) writer: File,
    pub(super) mark: RestoreMark,
    /// What is there already and may be kept, if it proves to be right.
    pub(super) found: Found,
}

impl<'a> Empty<'a> {
    /// Looks again: time may have passed since the plan.
    pub(super) fn prove(plan: &'a Plan, target: &'a PlannedTarget, _run: &Run) -> Result<Self> {
        let directories = Directories { db: target.db.clone(), index: target.index.clone() };
        let found = target::find(&directories, &plan.manifest, plan.repository_id)?;
        Ok(Self { site: Site { plan, target, directories }, found })
    }

    /// Raises the start guard, and then leaves the mark of a restore in progress.
    ///
    /// Whatever an earlier restore left behind, each state on the way is one that no server starts from, or one in which there is nothing to lose:
    /// first the chaser goes above every writer, then a truncation that was asked for is withdrawn, and the writer comes last.
    pub(super) fn guard(self) -> Result<Guarded<'a>> {
        let Self { site, found } = self;
        let db = &site.directories.db;
        for directory in [db, &site.directories.index] {
            site.create_directory(directory)?;
        }
        let writer = fs::open_or_create(&db.join(WRITER), CHECKPOINT_MODE)?;
        if !writer.try_lock()? {
            return Err(in_use(db));
        }
        site.checkpoint(CHASER, GUARD_CHASER)?;
        site.checkpoint(TRUNCATE, -1)?;
        write_in_place(&writer, GUARD_WRITER)?;
        site.own(&db.join(WRITER))?;
        fs::sync_directory(db)?;
        let since = match &found {
            Found::Interrupted(interrupted) => interrupted.since,
            Found::Absent | Found::Empty => None,
        };
        let mark = RestoreMark::begin(site.plan.repository_id, site.plan.backup.label.clone(), since.unwrap_or_else(clock::now));
        site.mark(&mark)?;
        Ok(Guarded { site, writer, mark, found })
    }
}

impl Site<'_> {
    /// Sets a checkpoint, durably. A file that is there is changed in place, as the server does; a new one appears with its content, because an empty
    /// checkpoint reads as 0 (O13).
    pub(super) fn checkpoint(&self, name: &str, value: i64) -> Result<()> {
        let path = self.directories.db.join(name);
        if read_checkpoint(&path)?.is_some() {
            write_in_place(&fs::open_for_writing(&path)?, value)?;
        } else {
            fs::write_durably(&path, &value.to_le_bytes(), CHECKPOINT_MODE)?;
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

    /// Creates a directory where it is missing, and makes its name durable. It belongs to the owner of the files, as does one that was there: the server
    /// creates files in it.
    pub(super) fn create_directory(&self, path: &Path) -> Result<()> {
        if fs::status(path)?.is_none() {
            let parent = fs::parent(path);
            let mut missing: Vec<PathBuf> = Vec::new();
            let mut above = parent;
            while fs::status(above)?.is_none() {
                missing.push(above.to_owned());
                above = fs::parent(above);
            }
            // What lies above the target is not the server's, but the server has to get through.
            fs::create_directory(parent, 0o755)?;
            fs::create_directory(path, DIRECTORY_MODE)?;
            for directory in missing.iter().map(PathBuf::as_path).chain([above]) {
                fs::sync_directory(directory)?;
            }
        }
        self.own(path)
    }
}

/// Sets the eight bytes of a checkpoint whose file is open, durably.
pub(super) fn write_in_place(file: &File, value: i64) -> Result<()> {
    file.write_all_at(0, &value.to_le_bytes())?;
    file.set_size(8)?;
    file.sync()?;
    Ok(())
}

/// A checkpoint's value; none where there is no such file, or it has not 8 bytes.
pub(super) fn read_checkpoint(path: &Path) -> Result<Option<i64>> {
    match fs::status(path)? {
        Some(status) if status.kind == fs::FileKind::File && status.size == 8 => {}
        Some(_) | None => return Ok(None),
    }
    let bytes = fs::read_small(path, 8)?;
    Ok(<[u8; 8]>::try_from(bytes.as_slice()).ok().map(i64::from_le_bytes))
}

/// Whether the chaser stands above the writer, so that every server refuses to start (O14, O15). A writer that is missing or empty reads as 0.
pub(super) fn stands_guarded(db: &Path) -> Result<bool> {
    let writer = read_checkpoint(&db.join(WRITER))?.unwrap_or(0);
    Ok(read_checkpoint(&db.join(CHASER))?.is_some_and(|chaser| chaser > writer))
}

fn in_use(db: &Path) -> Error {
    Error::new(Kind::Refused, "the target is in use")
        .at(db)
        .because("somebody holds a lock on `writer.chk`")
        .hint("stop the server, or the other restore, that uses it")
}
