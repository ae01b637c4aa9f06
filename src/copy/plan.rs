//! The plan of a copy: which backups are copied, in which order, and what that costs.

use serde::Serialize;
use uuid::Uuid;

use super::arrival::{check_same, check_space, older_than, settle};
use super::files::FilesToBring;
use super::line::{PlaceInLine, TargetLine};
use super::request::{BackupsToCopy, CopyRules};
use crate::error::{Error, Kind, Result};
use crate::event::{Event, Step};
use crate::format::LogPosition;
use crate::manifest::{BackupKind, Head, Label, Manifest};
use crate::repository::{Listed, Repository};
use crate::run::Run;

/// What a copy would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupCopyPlan {
    /// The place of the repository that is read.
    pub from: String,
    /// Its id: the plan holds for no other one.
    pub from_id: Uuid,
    /// The place of the repository that is written; `None` if it would be made.
    pub to: Option<String>,
    /// Its id; `None` if it would be made.
    pub to_id: Option<Uuid>,
    /// The backups to copy, oldest first.
    pub copies: Vec<PlannedCopy>,
    /// The backups that the target holds already.
    pub already_there: Vec<Label>,
    /// The backups that are not copied although the operator asked for all.
    pub left_out: Vec<NotCopied>,
    /// Bytes to read from the source repository.
    pub bytes_to_read: u64,
    /// Bytes to write to the target, at most.
    pub bytes_to_write: u64,
    #[serde(skip)]
    pub(super) rules: CopyRules,
}

/// A backup to be copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedCopy {
    /// Its label, in both repositories.
    pub label: Label,
    /// Full or diff.
    pub kind: BackupKind,
    /// Its number in the target.
    pub sequence: u64,
    /// Its branch in the target.
    pub branch: u32,
    /// The backup of the target that it reuses files from.
    pub parent: Option<Label>,
    /// Where its log ends.
    pub position: LogPosition,
    /// Bytes that a restore writes.
    pub bytes: u64,
    /// Files to copy.
    pub files_to_copy: u64,
    /// Files of the parent to reuse.
    pub files_to_reuse: u64,
    /// Bytes to read from the source repository.
    pub bytes_to_read: u64,
    /// Bytes to write to the target, at most.
    pub bytes_to_write: u64,
}

/// A backup that is not copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotCopied {
    /// Its label.
    pub label: Label,
    /// Why it is left out.
    pub why: String,
}

/// Decides what to copy, and changes nothing. `to` is `None` if the target would be made.
///
/// # Errors
/// `NotFound` if a named backup is not there. `StoredCorrupt` if its manifest is damaged. `Refused`
/// if the target holds another backup of the same label, belongs to another node, or holds a newer
/// backup. `Failed` if the target has too little free space.
pub fn plan(
    from: &dyn Repository,
    to: Option<&dyn Repository>,
    which: &BackupsToCopy,
    rules: CopyRules,
    run: &Run,
) -> Result<BackupCopyPlan> {
    run.emit(Event::Step(Step::Preflight));
    let source = SourceBackups::read(from)?;
    let labels = source.chosen(from, which)?;
    let line = match to {
        Some(to) => TargetLine::read(to, run)?,
        None => TargetLine::default(),
    };

    let mut planning = Planning {
        from,
        to,
        source: &source.heads,
        is_lenient: *which == BackupsToCopy::All,
        line,
        plan: BackupCopyPlan {
            from: from.place(),
            from_id: from.id(),
            to: to.map(Repository::place),
            to_id: to.map(Repository::id),
            copies: Vec::new(),
            already_there: Vec::new(),
            left_out: Vec::new(),
            bytes_to_read: 0,
            bytes_to_write: 0,
            rules,
        },
    };
    for label in labels {
        run.check()?;
        planning.add(label, run)?;
    }

    let plan = planning.plan;
    if let Some(to) = to {
        check_space(plan.bytes_to_write, to)?;
    }
    Ok(plan)
}

/// The backups of the source repository, oldest first.
pub(super) struct SourceBackups {
    listed: Vec<Label>,
    /// The heads that can be read.
    pub(super) heads: Vec<Head>,
}

impl SourceBackups {
    pub(super) fn read(from: &dyn Repository) -> Result<Self> {
        let mut backups = Self {
            listed: Vec::new(),
            heads: Vec::new(),
        };
        for Listed { label, head } in from.list()? {
            backups.listed.push(label);
            match head {
                Ok(head) => backups.heads.push(head),
                Err(error) if error.kind() == Kind::Denied => return Err(error),
                // Whoever wants this backup reads the error again.
                Err(_) => {}
            }
        }
        Ok(backups)
    }

    /// The labels of the chosen backups, oldest first.
    fn chosen(&self, from: &dyn Repository, which: &BackupsToCopy) -> Result<Vec<Label>> {
        match which {
            BackupsToCopy::All => Ok(self.listed.clone()),
            BackupsToCopy::Newest => Ok(vec![self.newest(from)?]),
            BackupsToCopy::Named(named) => {
                for label in named {
                    if !self.listed.contains(label) {
                        return Err(no_such_backup(from, label));
                    }
                }
                let mut chosen = self.listed.clone();
                chosen.retain(|label| named.contains(label));
                Ok(chosen)
            }
        }
    }

    /// The backup that `latest` means for a restore, too. If the newest manifest cannot be read,
    /// this names it all the same: an older backup is not the newest.
    fn newest(&self, from: &dyn Repository) -> Result<Label> {
        for label in self.listed.iter().rev() {
            let mut heads = self.heads.iter();
            match heads.find(|head| head.label == *label) {
                Some(head) if !head.is_sound() => {}
                _ => return Ok(label.clone()),
            }
        }

        let what = "the repository has no good backup to copy";
        let error = Error::new(Kind::NotFound, what).on(from.place());
        match self.listed.last() {
            None => Err(error.hint("take one with `kbackup full`")),
            Some(label) => Err(error.hint(format!(
                "{label} is marked as damaged: name it to copy it all the same"
            ))),
        }
    }
}

fn no_such_backup(from: &dyn Repository, label: &Label) -> Error {
    Error::new(Kind::NotFound, "the repository has no such backup")
        .on(label)
        .because(format!("it is not in {}", from.place()))
        .hint("run `kbackup list` to see the labels")
}

/// A plan in the making.
struct Planning<'a> {
    from: &'a dyn Repository,
    to: Option<&'a dyn Repository>,
    source: &'a [Head],
    /// Leave out what cannot be copied, instead of failing: the operator asked for all, and a
    /// backup that was expired in the target must not come back.
    is_lenient: bool,
    line: TargetLine,
    plan: BackupCopyPlan,
}

impl Planning<'_> {
    fn add(&mut self, label: Label, run: &Run) -> Result<()> {
        if self.line.is_unreadable(&label) {
            let what = "the target holds a backup of this label that cannot be read";
            let error = Error::new(Kind::StoredCorrupt, what).on(&label);
            return self.leave_out(label, error, run);
        }
        if self.line.find(&label).is_none()
            && let Some(newer) = self.line.newer_than(&label)
        {
            if !self.is_lenient {
                return Err(older_than(newer, &label));
            }
            let why = format!("it is older than {newer}, which is in the target");
            self.plan.left_out.push(NotCopied { label, why });
            return Ok(());
        }

        let original = match self.from.manifest(&label) {
            Ok(original) => original,
            Err(error) if error.kind() == Kind::StoredCorrupt => {
                return self.leave_out(label, error, run);
            }
            Err(error) => return Err(error),
        };
        if self.line.find(&label).is_some() {
            return self.add_as_there(&original, run);
        }
        self.add_copy(&original, run)
    }

    fn add_as_there(&mut self, original: &Manifest, run: &Run) -> Result<()> {
        let Some(to) = self.to else {
            return Ok(());
        };
        match to.manifest(&original.label) {
            Ok(there) => check_same(&there, original)?,
            Err(error) if error.kind() == Kind::StoredCorrupt => {
                return self.leave_out(original.label.clone(), error, run);
            }
            Err(error) => return Err(error),
        }
        self.plan.already_there.push(original.label.clone());
        Ok(())
    }

    fn add_copy(&mut self, original: &Manifest, run: &Run) -> Result<()> {
        let (place, parent) = self.settle(original, run)?;
        let files = FilesToBring::of(original, parent.as_ref());

        let planned = PlannedCopy {
            label: original.label.clone(),
            kind: original.kind,
            sequence: place.sequence,
            branch: place.branch,
            parent: parent.map(|parent| parent.head.label),
            position: original.log.position.position(),
            bytes: original.totals.bytes,
            files_to_copy: files.copied.len() as u64,
            files_to_reuse: files.reused.len() as u64,
            bytes_to_read: files.bytes_to_read(original),
            bytes_to_write: files.bytes_to_write(original),
        };
        let plan = &mut self.plan;
        plan.bytes_to_read = plan.bytes_to_read.saturating_add(planned.bytes_to_read);
        plan.bytes_to_write = plan.bytes_to_write.saturating_add(planned.bytes_to_write);
        plan.copies.push(planned);

        let mut head = original.head.clone();
        (head.sequence, head.branch) = (place.sequence, place.branch);
        self.line.add(head);
        Ok(())
    }

    /// Finds the place of a copy, and the manifest of its parent. Ignores a parent whose rows are
    /// damaged.
    fn settle(
        &mut self,
        original: &Manifest,
        run: &Run,
    ) -> Result<(PlaceInLine, Option<Manifest>)> {
        let rules = self.plan.rules;
        settle(
            &mut self.line,
            original,
            self.source,
            rules,
            run,
            |parent| match self.to {
                Some(to) if parent.is_listed => to.manifest(&parent.label),
                _ => self.from.manifest(&parent.label),
            },
        )
    }

    /// Leaves a backup out that cannot be read, and warns.
    fn leave_out(&mut self, label: Label, error: Error, run: &Run) -> Result<()> {
        if !self.is_lenient {
            return Err(error);
        }
        let why = error.in_words();
        run.warn(format!("{label} is not copied: {why}"));
        self.plan.left_out.push(NotCopied { label, why });
        Ok(())
    }
}
