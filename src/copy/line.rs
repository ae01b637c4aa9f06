//! The backups of the target, and the place of a copy among them. The target belongs to one node for
//! ever, as the repository of that node does, and the branches of its log are never mixed.
//!
//! A copy gets the next sequence number, and the numbers say which backup is newer. So a backup that
//! is older than one of the target is not copied: `latest` would name it.

use crate::error::{Error, Kind, Result};
use crate::format::Relation;
use crate::manifest::{BackupKind, Head, Identity, Label};
use crate::repository::{
    GivenNumbers, Listed, Repository, given_numbers, is_good, remembered, same_number,
    same_number_in_words,
};
use crate::run::Run;

use super::request::CopyRules;

/// The backups of the target, oldest first.
#[derive(Debug, Default)]
pub(super) struct TargetLine {
    backups: Vec<TargetBackup>,
    /// Backups whose manifests cannot be read.
    unreadable: Vec<Label>,
    given: GivenNumbers,
}

#[derive(Debug)]
struct TargetBackup {
    head: Head,
    /// Whether a copy may reuse its files.
    is_good: bool,
    /// Whether it is listed already. False for a copy that is only planned.
    is_listed: bool,
}

/// The place of a copy in the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlaceInLine {
    pub(super) sequence: u64,
    pub(super) branch: u32,
    pub(super) parent: Option<ParentInLine>,
}

/// The backup of the target that a copy reuses files from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ParentInLine {
    pub(super) label: Label,
    /// False for a copy that is only planned: its manifest is in the source repository.
    pub(super) is_listed: bool,
}

impl TargetLine {
    /// Lists the target.
    ///
    /// # Errors
    /// `Denied` if a manifest is somebody else's. As for [`given_numbers`].
    pub(super) fn read(target: &dyn Repository, run: &Run) -> Result<Self> {
        let listed = target.list()?;
        let given = given_numbers(target, &listed)?;

        let mut line = Self {
            given,
            ..Self::default()
        };
        for Listed { label, head } in listed {
            match head {
                Ok(head) => {
                    let is_good = is_good(&head, remembered(target, &label)?);
                    line.backups.push(TargetBackup {
                        head,
                        is_good,
                        is_listed: true,
                    });
                }
                Err(error) if error.kind() == Kind::Denied => return Err(error),
                Err(error) => {
                    run.warn(format!("{label}: {error}; this run ignores that backup"));
                    line.unreadable.push(label);
                }
            }
        }

        let heads = line.backups.iter().map(|backup| &backup.head);
        if let Some((one, other)) = same_number(heads) {
            run.warn(same_number_in_words(one, other));
        }
        Ok(line)
    }

    /// The backup of this label that is listed, or planned.
    pub(super) fn find(&self, label: &Label) -> Option<&Head> {
        let mut backups = self.backups.iter();
        let found = backups.find(|backup| backup.head.label == *label)?;
        Some(&found.head)
    }

    /// Whether a backup of this label is listed that cannot be read.
    pub(super) fn is_unreadable(&self, label: &Label) -> bool {
        self.unreadable.contains(label)
    }

    /// The newest label of the target, if it is not older than this one. Labels never go back in
    /// time, so the label says which backup is newer, also if its manifest cannot be read.
    pub(super) fn newer_than(&self, label: &Label) -> Option<&Label> {
        let readable = self.backups.iter().map(|backup| &backup.head.label);
        let newest = readable.chain(&self.unreadable).max()?;
        (newest >= label).then_some(newest)
    }

    /// Finds the place of a copy. `source` are the backups of the source repository: what the
    /// operator accepted there, such as a new address, is accepted here.
    ///
    /// # Errors
    /// `Refused` if the target belongs to another node, or if the log has left all its branches and
    /// neither the source nor the operator says that this is right.
    pub(super) fn place_for(
        &self,
        copy: &Head,
        source: &[Head],
        rules: CopyRules,
        run: &Run,
    ) -> Result<PlaceInLine> {
        self.check_identity(copy, source, rules, run)?;
        let sequence = self.given.sequence.checked_add(1).ok_or_else(|| {
            Error::new(Kind::StoredCorrupt, "no repository holds so many backups")
                .hint("run `kbackup verify --all`: a forged manifest raised the count")
        })?;

        let branch = match self.branch_that_continues(copy) {
            Some(branch) => branch,
            None => self.new_branch(copy, source, rules, run)?,
        };
        Ok(PlaceInLine {
            sequence,
            branch,
            parent: self.parent(copy, branch),
        })
    }

    /// Adds a planned copy.
    pub(super) fn add(&mut self, copy: Head) {
        self.given.sequence = self.given.sequence.max(copy.sequence);
        self.given.branch = self.given.branch.max(copy.branch);
        let is_good = copy.is_sound();
        self.backups.push(TargetBackup {
            head: copy,
            is_good,
            is_listed: false,
        });
    }

    /// Excludes a backup whose rows cannot be read from the parents.
    pub(super) fn mark_damaged(&mut self, label: &Label) {
        for backup in &mut self.backups {
            if backup.head.label == *label {
                backup.is_good = false;
            }
        }
    }

    fn check_identity(
        &self,
        copy: &Head,
        source: &[Head],
        rules: CopyRules,
        run: &Run,
    ) -> Result<()> {
        let ours = &copy.source.identity;
        for backup in &self.backups {
            let theirs = &backup.head.source.identity;
            if theirs.database != ours.database {
                return Err(of_another_node(theirs, ours).on(&copy.label));
            }
        }

        let heads = self.backups.iter().rev().map(|backup| &backup.head);
        let mut identities = heads.map(|head| &head.source.identity);
        let Some(last) = identities.find(|identity| identity.endpoint.is_some()) else {
            return Ok(());
        };
        let (Some(before), Some(now)) = (&last.endpoint, &ours.endpoint) else {
            return Ok(());
        };
        let was_accepted = source
            .iter()
            .any(|head| head.source.identity.endpoint.as_ref() == Some(before));
        if before == now || was_accepted {
            return Ok(());
        }
        if !rules.new_address {
            return Err(of_another_node(last, ours).on(&copy.label).hint(
                "if it is the same node, and only its address has changed, use `--new-address` \
                 once",
            ));
        }
        run.note(format!(
            "the node's address was {before}, and is {now} from now on"
        ));
        Ok(())
    }

    /// The branch with the newest backup, among the branches that the log of the copy continues: it
    /// has to continue all backups of a branch.
    fn branch_that_continues(&self, copy: &Head) -> Option<u32> {
        for newest in self.backups.iter().rev() {
            let branch = newest.head.branch;
            let mut of_branch = self.backups.iter();
            if of_branch.all(|backup| backup.head.branch != branch || continues(&backup.head, copy))
            {
                return Some(branch);
            }
        }
        None
    }

    /// Begins a branch. That is right for the first backup, and if the source repository holds a
    /// backup of the target on another branch: then the operator accepted the fork there.
    fn new_branch(&self, copy: &Head, source: &[Head], rules: CopyRules, run: &Run) -> Result<u32> {
        let next = self.given.branch.saturating_add(1);
        let Some(newest) = self.backups.last() else {
            return Ok(next);
        };

        let was_accepted = source
            .iter()
            .any(|head| head.branch != copy.branch && self.find(&head.label).is_some());
        if !was_accepted && !rules.new_branch {
            let what = "the log of this backup is not the one that the target's backups hold";
            return Err(Error::new(Kind::Refused, what)
                .on(&copy.label)
                .because(how_they_part(&newest.head, copy))
                .hint(
                    "if the node was restored to an earlier point or truncated on purpose, use \
                     `--new-branch`: the backups so far stay as they are",
                ));
        }

        run.note(format!(
            "the log of {} has left the branches of the target: a new branch begins there",
            copy.label
        ));
        Ok(next)
    }

    /// The newest good backup of the branch whose log the copy continues. A full shares no file
    /// with an earlier backup, wherever it is kept.
    fn parent(&self, copy: &Head, branch: u32) -> Option<ParentInLine> {
        if copy.kind == BackupKind::Full {
            return None;
        }

        for TargetBackup {
            head,
            is_good,
            is_listed,
        } in self.backups.iter().rev()
        {
            let is_before = head.log.position.position() <= copy.log.position.position();
            if head.branch == branch && *is_good && is_before && continues(head, copy) {
                return Some(ParentInLine {
                    label: head.label.clone(),
                    is_listed: *is_listed,
                });
            }
        }
        None
    }
}

fn continues(backup: &Head, copy: &Head) -> bool {
    matches!(relation(backup, copy), Relation::Same { .. })
}

fn relation(backup: &Head, copy: &Head) -> Relation {
    let (log, other) = (&backup.log, &copy.log);
    let end = log.position.position();
    log.lineage
        .relation(end, &other.lineage, other.position.position())
}

fn how_they_part(backup: &Head, copy: &Head) -> String {
    match relation(backup, copy) {
        Relation::Fork { at } => format!("{} parts from it at log position {at}", backup.label),
        Relation::Same { .. } => "it continues only some backups of each branch".to_owned(),
        Relation::Unrelated => format!("{} has no epoch in common with it", backup.label),
    }
}

fn of_another_node(theirs: &Identity, ours: &Identity) -> Error {
    let what = format!("the target holds backups of {theirs}, this is one of {ours}");
    Error::new(Kind::Refused, what)
        .hint("each node needs a repository of its own: choose another target")
}
