//! What the other members of the cluster have backed up.
//!
//! Their repositories are beside this node's own repository. A backup in one of them protects this
//! node if it holds the same log.

use std::path::Path;

use super::configuration::Configuration;
use super::facts::{BackupFacts, ClusterFacts, SiblingBackup, not_known_since};
use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::format::checkpoint::Checkpoint;
use crate::format::{Lineage, LogPosition, Relation};
use crate::fs;
use crate::log::{self, ChunkSet, RawCheckpoint};
use crate::manifest::{BackupKind, Directories, Head, Label};
use crate::repository::{Location, Repository, is_good, remembered};
use crate::settings::options::ClusterMode;

/// What a look at the other members' repositories found.
#[derive(Debug, Clone, Default)]
pub(super) struct Siblings {
    /// `None` if each member has to have a backup of its own.
    pub cluster: Option<ClusterFacts>,
    /// This node's log, as the last look read it. It is kept because reading it takes time.
    own_log: Option<NodeLog>,
}

impl Siblings {
    /// The last look ended at `since`, which is so long ago that nothing is known any more.
    pub(super) fn lose_sight(&mut self, since: Timestamp) {
        if self.cluster.is_some() {
            self.cluster = Some(ClusterFacts {
                problem: Some(not_known_since(since)),
                ..ClusterFacts::default()
            });
        }
    }

    /// Looks at the repositories of the other members. `db` is this node's db directory, if it is
    /// known.
    pub(super) fn look(&self, configuration: &Configuration, db: Option<&Path>) -> Self {
        let options = &configuration.agent;
        let (Some(directory), ClusterMode::One) = (&options.cluster_dir, options.cluster) else {
            return Self::default();
        };

        let own_log = match db {
            Some(db) => {
                let own = Directories::new(db.to_owned(), options.directories.index.clone());
                NodeLog::read(&own, self.own_log.clone())
            }
            None => Ok(None),
        };

        match own_log {
            Ok(Some(own_log)) => Self {
                cluster: Some(look_beside(directory, &options.repository, &own_log)),
                own_log: Some(own_log),
            },
            Ok(None) => Self {
                cluster: Some(ClusterFacts::default()),
                own_log: None,
            },
            Err(error) => Self {
                cluster: Some(ClusterFacts {
                    problem: Some(error.in_words()),
                    ..ClusterFacts::default()
                }),
                own_log: None,
            },
        }
    }
}

/// The identity of this node's log. It tells whether a backup is a backup of this log.
#[derive(Debug, Clone)]
struct NodeLog {
    epoch: LogPosition,
    /// The inode of the writer checkpoint. A restored directory has another one.
    inode: u64,
    lineage: Lineage,
}

impl NodeLog {
    /// Reads a few KiB for each election that the log knows, and the header of each chunk. If
    /// `before` still holds, reads the checkpoint only.
    ///
    /// # Errors
    /// [`Kind::SourceCorrupt`] if the directory does not hold a log.
    fn read(directories: &Directories, before: Option<Self>) -> Result<Option<Self>> {
        let path = Checkpoint::Epoch.under(&directories.db);
        let raw = RawCheckpoint::at(&path)?;
        if raw == RawCheckpoint::Missing {
            return Err(Error::new(Kind::Failed, "the epoch checkpoint is missing").at(&path));
        }
        let epoch = raw.position().map_err(|error| {
            Error::new(Kind::SourceCorrupt, "cannot read the epoch checkpoint")
                .at(&path)
                .because(error)
        })?;
        let Some(epoch) = epoch else { return Ok(None) };

        let writer = fs::status(&Checkpoint::Writer.under(&directories.db))?;
        let inode = writer.map_or(0, |status| status.inode);
        if let Some(before) = before
            && (before.epoch, before.inode) == (epoch, inode)
        {
            return Ok(Some(before));
        }

        let lineage = log::lineage(directories, &ChunkSet::read(directories)?, epoch)?;
        Ok(Some(Self {
            epoch,
            inode,
            lineage,
        }))
    }

    /// Whether a backup holds the beginning of this log, or all of it. The log may end a little
    /// before the backup, because this member may lag behind.
    fn is_in(&self, head: &Head) -> bool {
        let Some(first) = self.lineage.first() else {
            return false;
        };
        if head.source.identity.database != first.id {
            return false;
        }

        let backup_end = head.log.position.position();
        let everything = match self.lineage.last() {
            Some(last) => last.position.max(backup_end),
            None => LogPosition::ZERO,
        };
        let end = LogPosition::new(everything.get().saturating_add(1)).unwrap_or(everything);
        let relation = head.log.lineage.relation(backup_end, &self.lineage, end);

        matches!(relation, Relation::Same { .. })
    }
}

/// Looks at the repositories beside `own`. A member whose repository cannot be read counts as a
/// member without a backup.
fn look_beside(directory: &Path, own: &Path, own_log: &NodeLog) -> ClusterFacts {
    let mut facts = ClusterFacts::default();
    let own = fs::canonical(own).ok();

    for entry in fs::list(directory).unwrap_or_default() {
        let path = directory.join(&entry.name);
        if fs::canonical(&path).ok() == own {
            continue;
        }
        let Ok(repository) = open(&path) else {
            continue;
        };

        let name = entry.name.to_string_lossy();
        for (head, label) in good_backups(&*repository, own_log) {
            note(&mut facts, &head, label, &name, &repository.place());
        }
    }

    facts
}

fn open(path: &Path) -> Result<Box<dyn Repository>> {
    Location::parse(path)?.open()
}

fn good_backups(repository: &dyn Repository, own_log: &NodeLog) -> Vec<(Head, Label)> {
    let mut good = Vec::new();

    for listed in repository.list().unwrap_or_default() {
        let Ok(head) = listed.head else { continue };
        if !own_log.is_in(&head) {
            continue;
        }

        let Ok(verified) = remembered(repository, &listed.label) else {
            continue;
        };
        if is_good(&head, verified) {
            good.push((head, listed.label));
        }
    }

    good
}

/// Keeps the newest of all backups, and the time of the newest full.
fn note(facts: &mut ClusterFacts, head: &Head, label: Label, directory: &str, place: &str) {
    let backup = BackupFacts::of(head);
    if head.kind == BackupKind::Full {
        facts.newest_full = facts.newest_full.max(Some(backup.started));
    }

    if let Some(newest) = &facts.newest
        && newest.backup.started >= backup.started
    {
        return;
    }
    let endpoint = head.source.identity.endpoint.clone();
    facts.newest = Some(SiblingBackup {
        member: endpoint.unwrap_or_else(|| directory.to_owned()),
        place: place.to_owned(),
        label,
        backup,
    });
}
