use std::collections::{BTreeSet, HashSet};

use super::Placement;
use super::guard::{Guarded, Site};
use super::target::Found;
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::format::{InContext, Md5Hash};
use crate::fs::{self, File, ReadAt};
use crate::log::LogEndingAt;
use crate::manifest::{Log, RelativePath, RestoreMark, Role, Root, Row};
use crate::parallel;
use crate::repository::Repository;
use crate::run::Run;
use crate::transfer::{self, CopyFailure, CopyPlan, Digest, FILES_AT_ONCE, Segment};

/// A guarded target that holds every file of the backup, proven and durable, except the
/// checkpoints.
pub(super) struct Placed<'a> {
    pub(super) site: Site<'a>,
    pub(super) writer: File,
    pub(super) mark: RestoreMark,
    pub(super) placement: Placement,
}

impl<'a> Guarded<'a> {
    /// Places every file. On an error the guard stays up, and what is there is taken up again by
    /// the next restore.
    ///
    /// # Errors
    /// [`Kind::StoredCorrupt`] where stored bytes are not what their row says, the repository's
    /// errors, and those of the target's file system.
    pub(super) fn place(self, repository: &dyn Repository, run: &Run) -> Result<Placed<'a>> {
        let Self {
            site,
            writer,
            mark,
            found,
        } = self;
        let mut present = HashSet::new();
        if let Found::Interrupted(interrupted) = found {
            for leftover in &interrupted.leftovers {
                fs::remove_file(leftover)?;
            }
            present = interrupted.present;
        }
        let rows: Vec<&Row> = site.plan.placed().collect();
        let mut directories =
            BTreeSet::from([site.directories.db.clone(), site.directories.index.clone()]);
        directories.extend(
            rows.iter()
                .map(|row| fs::parent(&site.directories.path_of(&row.path)).to_owned()),
        );
        for directory in &directories {
            site.create_directory(directory)?;
        }
        run.emit(Event::Expected {
            files: rows.len() as u64,
            bytes: rows.iter().map(|row| row.size).fold(0, u64::saturating_add),
        });

        let work = Work {
            site: &site,
            repository,
            run,
            present,
        };
        let mut placement = Placement::default();
        parallel::for_each(
            FILES_AT_ONCE,
            &rows,
            |row| run.check().and_then(|()| work.row(row)),
            |row, way| match way {
                Way::Written => {
                    placement.files_written += 1;
                    placement.bytes_written += row.size;
                }
                Way::Kept => placement.files_kept += 1,
            },
        )?;
        for directory in &directories {
            fs::sync_directory(directory)?;
        }
        Ok(Placed {
            site,
            writer,
            mark,
            placement,
        })
    }
}

/// What the workers share.
struct Work<'a> {
    site: &'a Site<'a>,
    repository: &'a dyn Repository,
    run: &'a Run,
    /// Paths that an interrupted restore left in their full length.
    present: HashSet<RelativePath>,
}

impl Work<'_> {
    fn row(&self, row: &Row) -> Result<Way> {
        let path = self.site.directories.path_of(&row.path);
        let md5 = self.expected_md5(row);
        if self.present.contains(&row.path) {
            let file = fs::open(&path)?;
            let digest = transfer::hash_file(
                &*transfer::paced(Box::new(file.clone()), self.run),
                md5.is_some(),
                self.run,
            )
            .map_err(|error| error.at(&path))?;
            if digest.blake3 == row.blake3 {
                self.proven(row, &file, digest, md5)?;
                self.settle(row, &file)?;
                return Ok(Way::Kept);
            }
        }
        fs::remove_file(&path)?;
        let file = fs::create_new(&path, 0o600)?;
        let stored = self.repository.open(&self.site.plan.backup.label, row)?;
        let place = format!("{}: {}", self.site.plan.backup.label, row.path);
        let segment = Segment {
            source: stored.as_ref(),
            place: &place,
            end: row.size,
            live: false,
            whole: None,
        };
        let copy = CopyPlan {
            segments: &[segment],
            full_length: row.size,
            md5: md5.is_some(),
        };
        let copied = transfer::copy(&copy, &file, None, self.run)
            .map_err(|failure| self.not_copied(row, failure))?;
        if copied.digest.blake3 != row.blake3 {
            return Err(self.corrupt(
                row,
                format!("its hash is {}, not {}", copied.digest.blake3, row.blake3),
            ));
        }
        self.proven(row, stored.as_ref(), copied.digest, md5)?;
        self.settle(row, &file)?;
        Ok(Way::Written)
    }

    /// The MD5 that the server will compare; none where it has none, or where the backup says that
    /// it is wrong.
    fn expected_md5(&self, row: &Row) -> Option<Md5Hash> {
        let md5 = row
            .table_md5
            .or_else(|| row.chunk.and_then(|chunk| chunk.md5));
        md5.filter(|_| !self.site.plan.manifest.contents.damaged.contains(&row.path))
    }

    /// The server's own hash: computed over all but the last 16 bytes, which hold it (disk-format
    /// §3.5, §5.2).
    fn proven(
        &self,
        row: &Row,
        bytes: &dyn ReadAt,
        digest: Digest,
        expected: Option<Md5Hash>,
    ) -> Result<()> {
        let Some(expected) = expected else {
            return Ok(());
        };
        let mut last = [0; 16];
        bytes
            .read_exact_at(row.size.saturating_sub(16), &mut last)
            .map_err(crate::format::Error::from)
            .in_repository(&self.site.plan.backup.label, &row.path)?;
        match digest.md5 {
            Some(computed) if computed == expected && Md5Hash(last) == expected => Ok(()),
            _ => Err(self.corrupt(row, "the server's own MD5 in it does not fit".to_owned())),
        }
    }

    /// Owner, mode, durability: the file is complete.
    fn settle(&self, row: &Row, file: &File) -> Result<()> {
        let owner = &self.site.target.owner;
        if owner.set {
            file.set_owner(owner.user, owner.group)?;
        }
        file.set_mode(mode(row, &self.site.plan.manifest.log))?;
        transfer::sync(file, row.size, self.run)?;
        Ok(())
    }

    fn not_copied(&self, row: &Row, failure: CopyFailure) -> Error {
        match failure {
            CopyFailure::Short { wanted, found, .. } => {
                self.corrupt(row, format!("it ends at byte {found}, not at {wanted}"))
            }
            CopyFailure::Source { place, source } => {
                Error::new(Kind::Failed, "cannot read a stored file")
                    .on(place)
                    .because(source)
                    .hint("look after the disk or the mount that holds the repository")
            }
            CopyFailure::Other { wanted, found, .. } => {
                self.corrupt(row, format!("its hash is {found}, not {wanted}"))
            }
            CopyFailure::Target(error) => error.into(),
            CopyFailure::Stopped(error) => error,
        }
    }

    fn corrupt(&self, row: &Row, why: String) -> Error {
        let label = &self.site.plan.backup.label;
        Error::new(
            Kind::StoredCorrupt,
            "a stored file is not what was backed up",
        )
        .on(format!("{label}: {}", row.path))
        .because(why)
        .hint(format!(
            "`kbackup verify {label}` tells what else is damaged; restore another backup"
        ))
    }
}

enum Way {
    Written,
    Kept,
}

/// Permission bits of a restored file: those of the node without anything that runs or changes
/// user. What the server never writes again is read-only, so that a 25.0+ server need not change it
/// (O19); what it does write is writable for the owner.
fn mode(row: &Row, log: &Log) -> u32 {
    let finished = match row.role {
        Role::Table => true,
        Role::Chunk => row
            .chunk
            .is_none_or(|chunk| !LogEndingAt::of(log).is_active(&chunk)),
        _ => false,
    };
    if finished {
        row.mode & 0o444 | 0o400
    } else {
        row.mode & 0o666 | 0o600
    }
}

/// Rows that are files of the server's to be placed: not the checkpoints, which come last.
pub(super) fn is_placed(row: &Row) -> bool {
    row.role != Role::Checkpoint
        && !(row.path.root() == Root::Db && row.path.below_root() == RestoreMark::NAME)
}
