//! Removes the backups that a policy does not keep.
//!
//! [`plan`] changes nothing. Its [`ExpirePlan`] says which backups go, and why each other one
//! stays. [`execute`] takes the place of the repository's only writer, decides again before each
//! removal, and takes each backup out of the list in one step. The rules are in `policy`.
//!
//! Some backups stay under every policy: the last good backup of a branch, the last verified one,
//! the newest of all, and those that somebody reads. Nothing is removed while the newest backup is
//! not good, and while two backups carry the same number.

mod policy;

use serde::Serialize;
use uuid::Uuid;

pub use self::policy::{KeepReason, KeepRule, Policy};
use self::policy::{RetentionFacts, reasons};
use crate::clock::{Timestamp, Zone};
use crate::error::{Error, Kind, Result};
use crate::event::{Event, Step};
use crate::manifest::{Head, Label};
use crate::proof::Depth;
use crate::repository::{
    Remembered, Removal, Repository, is_good, remembered, same_number, same_number_in_words,
};
use crate::run::Run;

/// What an expiry would remove and keep.
#[derive(Debug, Clone, Serialize)]
pub struct ExpirePlan {
    /// The repository's place.
    pub repository: String,
    /// The repository's id: the plan holds for no other one.
    pub repository_id: Uuid,
    /// What to keep.
    pub policy: Policy,
    /// The time zone in which days begin.
    pub time_zone: String,
    /// The backups that go, oldest first.
    pub goes: Vec<Leaving>,
    /// The backups that stay, oldest first.
    pub stays: Vec<Staying>,
    /// How many bytes of storage come free.
    pub frees: u64,
    /// They come free only with `kbackup prune`.
    pub needs_prune: bool,
    #[serde(skip)]
    now: Timestamp,
    #[serde(skip)]
    zone: Zone,
}

/// A backup that the policy does not keep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Leaving {
    /// The backup.
    #[serde(flatten)]
    pub backup: BackupBrief,
    /// How many bytes of storage come free with it, after the backups before it are gone. A file
    /// that backups share comes free only with the last of them.
    pub frees: u64,
}

/// A backup that stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Staying {
    /// The backup.
    #[serde(flatten)]
    pub backup: BackupBrief,
    /// Why it stays; never empty.
    pub reasons: Vec<KeepReason>,
}

impl Staying {
    /// Why it stays, in words.
    #[must_use]
    pub fn why(&self) -> String {
        let reasons: Vec<String> = self.reasons.iter().map(ToString::to_string).collect();
        reasons.join(", ")
    }
}

/// What an operator has to know of a backup that may be removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupBrief {
    /// The backup's name.
    pub label: Label,
    /// Its branch; `None` if its manifest cannot be read.
    pub branch: Option<u32>,
    /// When it was finished; `None` if its manifest cannot be read.
    pub finished: Option<Timestamp>,
    /// Whether it holds chunks that were damaged at the source, stored files of it are known to be
    /// damaged, or its manifest cannot be read.
    pub damaged: bool,
}

/// What an expiry removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExpireReport {
    /// The repository's place.
    pub repository: String,
    /// The backups that are gone, oldest first.
    pub removed: Vec<Removed>,
    /// The backups that the plan would remove, and that stay because something has changed since.
    pub kept: Vec<Staying>,
    /// How many others stay.
    pub stays: u64,
    /// How many bytes of storage came free.
    pub freed: u64,
    /// How many bytes `kbackup prune` deletes later, as the plan counted them.
    pub left_to_prune: u64,
}

/// A backup that is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// The backup's name.
    pub label: Label,
    /// How many bytes of storage came free with it.
    pub freed: u64,
    /// How many bytes `kbackup prune` deletes later, as the plan counted them.
    pub left_to_prune: u64,
}

/// Decides what stays and what goes, and changes nothing. `now` is the latest time that
/// [`Policy::within`] counts from.
///
/// # Errors
/// [`Kind::Usage`] if no rule is given. [`Kind::Denied`] if a manifest is somebody else's.
pub fn plan(
    repository: &dyn Repository,
    policy: &Policy,
    now: Timestamp,
    time_zone: &Zone,
    run: &Run,
) -> Result<ExpirePlan> {
    run.emit(Event::Step(Step::Preflight));
    if policy.is_empty() {
        return Err(
            Error::new(Kind::Usage, "no rule says which backups to keep").hint(
                "say what to keep, such as `--keep-last 7 --keep-weekly 4 --keep-monthly 12`",
            ),
        );
    }

    let Decision { goes, stays } = decide(repository, policy, now, time_zone)?;
    warn_of(&stays, run);

    run.check()?;
    let labels: Vec<&Label> = goes.iter().map(|backup| &backup.label).collect();
    let freed = repository.would_free(&labels)?;
    let mut leaving = Vec::with_capacity(goes.len());
    let mut frees: u64 = 0;
    for (backup, bytes) in goes.into_iter().zip(freed) {
        frees = frees.saturating_add(bytes);
        leaving.push(Leaving {
            backup,
            frees: bytes,
        });
    }

    Ok(ExpirePlan {
        repository: repository.place(),
        repository_id: repository.id(),
        policy: policy.clone(),
        time_zone: time_zone.to_string(),
        goes: leaving,
        stays,
        frees,
        needs_prune: repository.leaves_space_to_prune(),
        now,
        zone: time_zone.clone(),
    })
}

/// Warns of backups that stay although the policy would remove them.
fn warn_of(stays: &[Staying], run: &Run) {
    let mut is_told = false;
    for Staying { backup, reasons } in stays {
        for reason in reasons {
            if reason.rule == KeepRule::Unreadable {
                run.warn(format!("{} is left alone, {reason}", backup.label));
            }
            if reason.rule == KeepRule::SameNumber && !is_told {
                is_told = true;
                run.warn(format!(
                    "nothing is removed: {}. Move the one that you do not need out of the \
                     repository",
                    reason.of.as_deref().unwrap_or_default()
                ));
            }
            if reason.rule == KeepRule::NewestNotGood && !is_told {
                is_told = true;
                run.warn(format!(
                    "nothing is removed while the newest backup, {}, is not good",
                    reason.of.as_deref().unwrap_or_default()
                ));
            }
        }
    }
}

/// Removes the backups of the plan. Decides again before each removal, because a verification may
/// have found damage meanwhile.
///
/// # Errors
/// [`Kind::Refused`] if the plan was made for another repository, [`Kind::Locked`] if another run
/// writes. After every error, each backup is whole or not listed.
pub fn execute(repository: &dyn Repository, plan: &ExpirePlan, run: &Run) -> Result<ExpireReport> {
    if repository.id() != plan.repository_id {
        return Err(
            Error::new(Kind::Refused, "the plan was made for another repository")
                .on(repository.place())
                .hint("plan it again"),
        );
    }

    let mut report = ExpireReport {
        repository: repository.place(),
        removed: Vec::new(),
        kept: Vec::new(),
        stays: plan.stays.len() as u64,
        freed: 0,
        left_to_prune: 0,
    };

    // Take the writer's place even if nothing goes: it finishes earlier removals that were
    // interrupted.
    let writer = repository.writer(run)?;
    run.emit(Event::Step(Step::Expire));
    for leaving in &plan.goes {
        let backup = &leaving.backup;
        run.check()?;
        let decision = decide(repository, &plan.policy, plan.now, &plan.zone)?;
        match decision.on(&backup.label) {
            Some(RetentionVerdict::Goes) => {}
            Some(RetentionVerdict::Stays(kept)) => {
                report.kept.push(kept);
                continue;
            }
            None => {
                run.note(format!("{} is gone already", backup.label));
                continue;
            }
        }

        let removal = writer.remove(&backup.label)?;
        report.add(leaving, removal);
    }

    for kept in &report.kept {
        run.note(format!("{} stays: {}", kept.backup.label, kept.why()));
    }
    Ok(report)
}

impl ExpireReport {
    fn add(&mut self, leaving: &Leaving, removal: Removal) {
        match removal {
            Removal::Freed(freed) => self.add_removed(leaving, freed, 0),
            Removal::LeftToPrune => self.add_removed(leaving, 0, leaving.frees),
            Removal::InUse => self.add_kept(leaving, KeepRule::InUse),
            Removal::Later => self.add_kept(leaving, KeepRule::RemovedLater),
        }
    }

    fn add_removed(&mut self, leaving: &Leaving, freed: u64, left_to_prune: u64) {
        self.freed = self.freed.saturating_add(freed);
        self.left_to_prune = self.left_to_prune.saturating_add(left_to_prune);
        self.removed.push(Removed {
            label: leaving.backup.label.clone(),
            freed,
            left_to_prune,
        });
    }

    fn add_kept(&mut self, leaving: &Leaving, rule: KeepRule) {
        self.kept.push(Staying {
            backup: leaving.backup.clone(),
            reasons: vec![KeepReason::new(rule, None)],
        });
    }
}

/// Which of the listed backups go, and which stay.
struct Decision {
    goes: Vec<BackupBrief>,
    stays: Vec<Staying>,
}

/// What was decided on one backup.
enum RetentionVerdict {
    Goes,
    Stays(Staying),
}

impl Decision {
    /// What was decided on a backup; `None` if it is not listed.
    fn on(self, label: &Label) -> Option<RetentionVerdict> {
        if self.goes.iter().any(|backup| backup.label == *label) {
            return Some(RetentionVerdict::Goes);
        }
        let staying = self
            .stays
            .into_iter()
            .find(|staying| staying.backup.label == *label)?;
        Some(RetentionVerdict::Stays(staying))
    }
}

/// A listed backup, and what the rules have to know of it: an error if its manifest cannot be read.
struct Candidate {
    backup: BackupBrief,
    facts: Result<RetentionFacts>,
}

fn decide(
    repository: &dyn Repository,
    policy: &Policy,
    now: Timestamp,
    zone: &Zone,
) -> Result<Decision> {
    let listed = repository.list()?;
    let readable = listed.iter().filter_map(|listed| listed.head.as_ref().ok());
    let doubt = same_number(readable).map(|(one, other)| same_number_in_words(one, other));

    let mut candidates = Vec::new();
    for listed in listed {
        candidates.push(candidate(repository, listed.label, listed.head)?);
    }

    let mut readable = Vec::with_capacity(candidates.len());
    for candidate in &candidates {
        readable.extend(candidate.facts.as_ref().ok().cloned());
    }
    let mut by_rules = reasons(policy, &readable, now, zone).into_iter();
    let damaged_newest = damaged_newest(&candidates);

    let mut decision = Decision {
        goes: Vec::new(),
        stays: Vec::new(),
    };
    for Candidate { backup, facts } in candidates {
        let mut reasons = match facts {
            Ok(_) => by_rules.next().unwrap_or_default(),
            Err(error) => vec![KeepReason::new(
                KeepRule::Unreadable,
                Some(error.to_string()),
            )],
        };
        if reasons.is_empty()
            && let Some(doubt) = &doubt
        {
            reasons.push(KeepReason::new(KeepRule::SameNumber, Some(doubt.clone())));
        }
        if reasons.is_empty() {
            reasons.extend(obstacle(repository, &backup, damaged_newest.as_ref())?);
        }

        if reasons.is_empty() {
            decision.goes.push(backup);
        } else {
            decision.stays.push(Staying { backup, reasons });
        }
    }
    Ok(decision)
}

/// The newest backup, if it is not good.
fn damaged_newest(candidates: &[Candidate]) -> Option<Label> {
    let newest = &candidates.last()?.backup;
    newest.damaged.then(|| newest.label.clone())
}

/// What keeps a backup that no rule keeps.
fn obstacle(
    repository: &dyn Repository,
    backup: &BackupBrief,
    damaged_newest: Option<&Label>,
) -> Result<Option<KeepReason>> {
    if let Some(newest) = damaged_newest {
        let newest = Some(newest.to_string());
        return Ok(Some(KeepReason::new(KeepRule::NewestNotGood, newest)));
    }
    if repository.is_held(&backup.label)? {
        return Ok(Some(KeepReason::new(KeepRule::InUse, None)));
    }
    Ok(None)
}

fn candidate(repository: &dyn Repository, label: Label, head: Result<Head>) -> Result<Candidate> {
    let head = match head {
        Ok(head) => head,
        // The backup may be a good one. Whoever may not read it must not decide on it.
        Err(error) if error.kind() == Kind::Denied => return Err(error),
        Err(error) => {
            return Ok(Candidate {
                backup: BackupBrief {
                    label,
                    branch: None,
                    finished: None,
                    damaged: true,
                },
                facts: Err(error),
            });
        }
    };

    let known = remembered(repository, &label)?;
    let good = is_good(&head, known);
    Ok(Candidate {
        backup: BackupBrief {
            label,
            branch: Some(head.branch),
            finished: Some(head.finished),
            damaged: !good,
        },
        facts: Ok(RetentionFacts {
            branch: head.branch,
            finished: head.finished,
            good,
            verified: known.is_some_and(is_verified),
        }),
    })
}

/// Whether all stored bytes were read and found intact. A quick look reads none of them.
fn is_verified(known: Remembered) -> bool {
    known.depth >= Depth::Normal && !known.is_damaged()
}
