//! Chooses the backup to restore: the named one, or the newest sound one.
//!
//! kbackup never chooses an older backup silently. If the newest one is damaged or unreadable, the
//! restore fails, and its hints name the backup to use instead.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::format::Boundary;
use crate::manifest::{BackupKind, Head, Label, Manifest};
use crate::repository::{Remembered, Repository, remembered, same_number, same_number_in_words};

/// The backup to be restored, as a plan shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChosenBackup {
    /// The backup's name.
    pub label: Label,
    /// The backup's number in the repository.
    pub sequence: u64,
    /// The branch of its log.
    pub branch: u32,
    /// Full or diff.
    pub kind: BackupKind,
    /// When the backup was finished: the log in it is not newer.
    pub finished: Timestamp,
    /// The version of the server that wrote the files.
    pub server_version: Option<String>,
}

impl ChosenBackup {
    pub(super) fn new(head: &Head) -> Self {
        Self {
            label: head.label.clone(),
            sequence: head.sequence,
            branch: head.branch,
            kind: head.kind,
            finished: head.finished,
            server_version: head.source.server_version.clone(),
        }
    }
}

/// A branch that the operator may have meant instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OtherBranch {
    /// The number of the branch.
    pub branch: u32,
    /// The newest sound backup of the branch.
    pub newest: Label,
    /// The position where the log of that backup ends.
    pub position: Boundary,
}

impl fmt::Display for OtherBranch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the newest of branch {} is {}, which ends at {}",
            self.branch, self.newest, self.position
        )
    }
}

/// A backup, and what the operator has to know about choosing it.
pub(super) struct Choice {
    pub(super) manifest: Manifest,
    /// Empty if the operator named the backup.
    pub(super) other_branches: Vec<OtherBranch>,
    pub(super) warnings: Vec<String>,
}

/// Chooses the backup with this label, or the newest sound one.
///
/// # Errors
/// `NotFound` if there is no such backup. `StoredCorrupt`, or the error of reading it, if the
/// newest backup is known to be damaged or cannot be read.
pub(super) fn choose(repository: &dyn Repository, label: Option<&Label>) -> Result<Choice> {
    match label {
        Some(label) => named(repository, label),
        None => newest(repository),
    }
}

fn named(repository: &dyn Repository, label: &Label) -> Result<Choice> {
    let manifest = repository.manifest(label)?;

    let mut warnings = Vec::new();
    if let Some(damage) = known_damage(repository, label)? {
        warnings.push(format!(
            "{damage}; the restore ends at the first damaged file"
        ));
    }

    Ok(Choice {
        manifest,
        other_branches: Vec::new(),
        warnings,
    })
}

fn newest(repository: &dyn Repository) -> Result<Choice> {
    let listed = ListedBackups::read(repository)?;
    listed.refuse_same_number(repository)?;
    let ListedBackups {
        sound,
        marked_damaged,
        newest_unreadable,
    } = listed;

    // Labels never go back in time, so the label of an unreadable backup says which is newer.
    if let Some((label, error)) = newest_unreadable
        && sound.last().is_none_or(|newest| newest.label < label)
    {
        return Err(unreadable(repository, &label, error, &sound));
    }

    let Some((newest, earlier)) = sound.split_last() else {
        return Err(match marked_damaged.last() {
            Some(damaged) => nothing_sound(repository, damaged),
            None => nothing_yet(repository),
        });
    };
    if let Some(damage) = known_damage(repository, &newest.label)? {
        return Err(damaged(repository, &newest.label, damage, earlier)?);
    }
    let manifest = match repository.manifest(&newest.label) {
        Ok(manifest) => manifest,
        Err(error) => return Err(unreadable(repository, &newest.label, error, earlier)),
    };

    let mut warnings = warn_of_later(&marked_damaged, newest);
    warnings.extend(warn_of_longer_log(earlier, newest));

    Ok(Choice {
        manifest,
        other_branches: other_branches(earlier, newest.branch),
        warnings,
    })
}

/// What the repository lists: the backups that `latest` may be, and the others. Oldest first.
#[derive(Default)]
struct ListedBackups {
    sound: Vec<Head>,
    marked_damaged: Vec<Head>,
    newest_unreadable: Option<(Label, Error)>,
}

impl ListedBackups {
    fn read(repository: &dyn Repository) -> Result<Self> {
        let mut found = Self::default();

        for listed in repository.list()? {
            match listed.head {
                Ok(head) if head.is_sound() => found.sound.push(head),
                Ok(head) => found.marked_damaged.push(head),
                Err(error) => found.add_unreadable(listed.label, error),
            }
        }

        found.sound.sort_by_key(|head| head.sequence);
        Ok(found)
    }

    /// With two backups of one number, nobody knows which backup is the newest.
    fn refuse_same_number(&self, repository: &dyn Repository) -> Result<()> {
        let mut heads: Vec<&Head> = self.sound.iter().chain(&self.marked_damaged).collect();
        heads.sort_by_key(|head| head.sequence);
        let Some((one, other)) = same_number(heads) else {
            return Ok(());
        };

        let both = format!(
            "`kbackup restore {}`, or `kbackup restore {}`",
            one.label, other.label
        );
        let mut error = Error::new(Kind::StoredCorrupt, same_number_in_words(one, other))
            .on(repository.place());
        error = match self.undoubted_newest() {
            Some(newest) => error
                .hint(format!(
                    "for the newest backup, run `kbackup restore {}`",
                    newest.label
                ))
                .hint(format!("for one of those two, which are older, run {both}")),
            None => error.hint(format!(
                "name the backup: {both}; `kbackup list` shows them all"
            )),
        };
        Err(error.hint("move the one that you do not need out of `backups/`"))
    }

    /// The newest backup, if it is sound, and no other one may be newer.
    fn undoubted_newest(&self) -> Option<&Head> {
        let (newest, earlier) = self.sound.split_last()?;

        let is_older = |head: &Head| head.sequence < newest.sequence;
        let is_readable = |(label, _): &(Label, Error)| *label < newest.label;
        let is_newest = earlier.last().is_none_or(is_older)
            && self.marked_damaged.iter().all(is_older)
            && self.newest_unreadable.as_ref().is_none_or(is_readable);
        is_newest.then_some(newest)
    }

    fn add_unreadable(&mut self, label: Label, error: Error) {
        if let Some((newest, _)) = &self.newest_unreadable
            && *newest >= label
        {
            return;
        }
        self.newest_unreadable = Some((label, error));
    }
}

/// The newest backup of each branch but `chosen`. `earlier` is ordered, oldest first.
fn other_branches(earlier: &[Head], chosen: u32) -> Vec<OtherBranch> {
    let mut newest_of = BTreeMap::new();

    for head in earlier {
        if head.branch == chosen {
            continue;
        }
        let other = OtherBranch {
            branch: head.branch,
            newest: head.label.clone(),
            position: head.log.position,
        };
        newest_of.insert(head.branch, other);
    }

    newest_of.into_values().collect()
}

fn warn_of_later(marked_damaged: &[Head], chosen: &Head) -> Vec<String> {
    let mut warnings = Vec::new();

    for later in marked_damaged {
        if later.sequence > chosen.sequence {
            warnings.push(format!(
                "the later backup {} is marked as damaged, so kbackup restores {}",
                later.label, chosen.label
            ));
        }
    }

    warnings
}

/// Warns if an earlier backup of the branch has a longer log: usually the newest has the longest.
fn warn_of_longer_log(earlier: &[Head], chosen: &Head) -> Option<String> {
    let position = chosen.log.position;

    for head in earlier.iter().rev() {
        if head.branch == chosen.branch && head.log.position > position {
            return Some(format!(
                "the earlier backup {} of the same branch reaches further, to {}, and this one \
                 ends at {position}: was an older copy of the node backed up?",
                head.label, head.log.position
            ));
        }
    }

    None
}

/// The error for a repository in which no backup was finished.
fn nothing_yet(repository: &dyn Repository) -> Error {
    Error::new(Kind::NotFound, "the repository holds no backup yet")
        .on(repository.place())
        .hint("take one: `kbackup full`")
        .hint("if there should be backups, check `--repo`, and whether the right disk is mounted")
}

fn nothing_sound(repository: &dyn Repository, damaged: &Head) -> Error {
    Error::new(Kind::NotFound, "there is no good backup to restore")
        .on(repository.place())
        .hint(format!(
            "`kbackup restore {}` restores one that is marked as damaged",
            damaged.label
        ))
}

/// The error for a newest backup that is known to be damaged.
fn damaged(
    repository: &dyn Repository,
    label: &Label,
    damage: String,
    others: &[Head],
) -> Result<Error> {
    let what = format!(
        "the newest backup, {label}, is known to be damaged, and kbackup does not restore an older \
         one unasked"
    );
    Ok(Error::new(Kind::StoredCorrupt, what)
        .on(repository.place())
        .because(damage)
        .hint(format!(
            "`kbackup verify {label} --repair` repairs it if the repository holds the same bytes \
             elsewhere"
        ))
        .hint(hint_at_other(repository, others)?))
}

/// The error for a newest backup that cannot be read.
fn unreadable(repository: &dyn Repository, label: &Label, error: Error, others: &[Head]) -> Error {
    let what = format!(
        "the newest backup, {label}, cannot be read, and kbackup does not restore an older one \
         unasked"
    );
    let hints = error.hints().to_vec();
    let mut unreadable = Error::new(error.kind(), what)
        .on(repository.place())
        .because(error);
    for hint in hints {
        unreadable = unreadable.hint(hint);
    }

    match hint_at_other(repository, others) {
        Ok(hint) => unreadable.hint(hint),
        Err(error) => unreadable.hint(format!(
            "kbackup cannot read the condition of the other backups either: {error}"
        )),
    }
}

/// The hint that names the newest of `others` without known damage. `others` is ordered, oldest
/// first.
fn hint_at_other(repository: &dyn Repository, others: &[Head]) -> Result<String> {
    for head in others.iter().rev() {
        if known_damage(repository, &head.label)?.is_none() {
            return Ok(format!(
                "`kbackup restore {}` restores the newest one that is not known to be damaged, of \
                 {}",
                head.label, head.finished
            ));
        }
    }

    if others.is_empty() {
        return Ok("there is no other good backup".to_owned());
    }
    Ok(
        "every other backup is known to be damaged, too: `kbackup verify --all --repair` repairs \
         what it can"
            .to_owned(),
    )
}

/// What an earlier run found wrong with a backup's stored files.
fn known_damage(repository: &dyn Repository, label: &Label) -> Result<Option<String>> {
    let known = remembered(repository, label)?;
    let Some(known) = known.filter(Remembered::is_damaged) else {
        return Ok(None);
    };

    let at = known.at.strftime("%Y-%m-%d %H:%M");
    Ok(Some(format!(
        "damage was found in the stored files of {label} at {at}"
    )))
}
