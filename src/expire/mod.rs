//! Removes the backups that a policy does not keep.
//!
//! First a [`Plan`], which changes nothing and says of each backup why it stays. Then each one that
//! goes is looked at once more, in the repository's only writer's place, and leaves the list in one
//! step. The last good backup of a branch, the last one that was verified, the newest of all, and
//! what somebody reads are never removed, whatever the policy says; while the newest backup is not
//! good, nothing is.

mod policy;

use serde::Serialize;
use uuid::Uuid;

use self::policy::{Facts, reasons};
pub use self::policy::{Policy, Reason, Rule};
use crate::clock::{Timestamp, Zone};
use crate::error::{Error, Kind, Result};
use crate::event::{Event, Step};
use crate::manifest::{Head, Label};
use crate::proof::Depth;
use crate::repository::{Remembered, Removal, Repository, is_good, remembered};
use crate::run::Run;

/// What would become of each backup. Making it changes nothing.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// Where the backups are.
    pub repository: String,
    /// The repository's id.
    pub repository_id: Uuid,
    /// What to keep.
    pub policy: Policy,
    /// Where days begin.
    pub time_zone: String,
    /// What goes, oldest first.
    pub goes: Vec<Leaving>,
    /// What stays, oldest first.
    pub stays: Vec<Staying>,
    /// Bytes of disk space that come free.
    pub frees: u64,
    #[serde(skip)]
    now: Timestamp,
    #[serde(skip)]
    zone: Zone,
}

/// A backup that the policy does not keep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Leaving {
    /// Which.
    #[serde(flatten)]
    pub backup: Summary,
    /// Bytes of disk space that come free when it goes after those before it: a file that others
    /// share frees nothing before the last of them goes.
    pub frees: u64,
}

/// A backup that stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Staying {
    /// Which.
    #[serde(flatten)]
    pub backup: Summary,
    /// Why; never empty.
    pub reasons: Vec<Reason>,
}

impl Staying {
    /// Why, in words.
    #[must_use]
    pub fn why(&self) -> String {
        self.reasons
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// What an operator has to know of a backup to let it go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Its name.
    pub label: Label,
    /// Its branch; none where its manifest cannot be read, as with what follows.
    pub branch: Option<u32>,
    /// When it was finished.
    pub finished: Option<Timestamp>,
    /// It holds chunks that were damaged at the source, stored files of it are known to be damaged,
    /// or its manifest cannot be read.
    pub damaged: bool,
}

/// What was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Where.
    pub repository: String,
    /// What has gone, oldest first.
    pub removed: Vec<Removed>,
    /// What was to go, and stays: something has changed since it was planned.
    pub kept: Vec<Staying>,
    /// How many others stay.
    pub stays: u64,
    /// Bytes of disk space that came free.
    pub freed: u64,
}

/// A backup that has gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// Its name.
    pub label: Label,
    /// Bytes of disk space that came free with it.
    pub freed: u64,
}

/// Decides what stays and what goes; changes nothing. `now` is the time that [`Policy::within`]
/// counts from at the latest.
///
/// # Errors
/// [`Kind::Usage`] where no rule is given; what the storage reports.
pub fn plan(
    repository: &dyn Repository,
    policy: &Policy,
    now: Timestamp,
    time_zone: &Zone,
    run: &Run,
) -> Result<Plan> {
    run.emit(Event::Step(Step::Preflight));
    if policy.is_empty() {
        return Err(
            Error::new(Kind::Usage, "no rule says which backups to keep").hint(
                "say what to keep, such as `--keep-last 7 --keep-weekly 4 --keep-monthly 12`",
            ),
        );
    }
    let Decision { goes, stays } = decide(repository, policy, now, time_zone)?;
    for Staying { backup, reasons } in &stays {
        for reason in reasons
            .iter()
            .filter(|reason| reason.rule == Rule::Unreadable)
        {
            run.warn(format!("{} is left alone, {reason}", backup.label));
        }
    }
    if let Some(reason) = stays
        .iter()
        .flat_map(|staying| &staying.reasons)
        .find(|reason| reason.rule == Rule::NewestNotGood)
    {
        run.warn(format!(
            "nothing is removed while the newest backup, {}, is not good",
            reason.of.as_deref().unwrap_or_default()
        ));
    }
    run.check()?;
    let labels: Vec<&Label> = goes.iter().map(|backup| &backup.label).collect();
    let frees = repository.would_free(&labels)?;
    let goes: Vec<Leaving> = goes
        .iter()
        .zip(&frees)
        .map(|(backup, frees)| Leaving {
            backup: backup.clone(),
            frees: *frees,
        })
        .collect();
    Ok(Plan {
        repository: repository.place(),
        repository_id: repository.id(),
        policy: policy.clone(),
        time_zone: time_zone.to_string(),
        frees: goes
            .iter()
            .map(|backup| backup.frees)
            .fold(0, u64::saturating_add),
        goes,
        stays,
        now,
        zone: time_zone.clone(),
    })
}

/// Removes what the plan says, as far as it is still right to: before each removal all is decided
/// anew, as a verification may have found damage meanwhile.
///
/// # Errors
/// [`Kind::Refused`] where the plan was made for another repository, [`Kind::Locked`] where another
/// run writes; what the storage reports, and an interruption. Each backup is whole, or not listed
/// any more.
pub fn execute(repository: &dyn Repository, plan: &Plan, run: &Run) -> Result<Report> {
    if repository.id() != plan.repository_id {
        return Err(
            Error::new(Kind::Refused, "the plan was made for another repository")
                .on(repository.place())
                .hint("plan it again"),
        );
    }
    let mut report = Report {
        repository: repository.place(),
        removed: Vec::new(),
        kept: Vec::new(),
        stays: plan.stays.len() as u64,
        freed: 0,
    };
    // Also where nothing goes: what a sudden end has left of an earlier removal does.
    let writer = repository.writer(run)?;
    run.emit(Event::Step(Step::Expire));
    for Leaving { backup, .. } in &plan.goes {
        run.check()?;
        let Decision { goes, stays } = decide(repository, &plan.policy, plan.now, &plan.zone)?;
        if let Some(kept) = stays
            .into_iter()
            .find(|kept| kept.backup.label == backup.label)
        {
            report.kept.push(kept);
            continue;
        }
        if goes.iter().all(|leaving| leaving.label != backup.label) {
            run.note(format!("{} has gone already", backup.label));
            continue;
        }
        match writer.remove(&backup.label)? {
            Removal::Freed(bytes) => {
                report.freed = report.freed.saturating_add(bytes);
                report.removed.push(Removed {
                    label: backup.label.clone(),
                    freed: bytes,
                });
            }
            Removal::InUse => report.kept.push(Staying {
                backup: backup.clone(),
                reasons: vec![Reason::new(Rule::InUse, None)],
            }),
            Removal::Later => report.kept.push(Staying {
                backup: backup.clone(),
                reasons: vec![Reason::new(Rule::RemovedLater, None)],
            }),
        }
    }
    for kept in &report.kept {
        run.note(format!("{} stays: {}", kept.backup.label, kept.why()));
    }
    Ok(report)
}

struct Decision {
    goes: Vec<Summary>,
    stays: Vec<Staying>,
}

/// A listed backup, and what the rules have to know of it; none where its manifest cannot be read.
struct Candidate {
    backup: Summary,
    facts: Result<Facts>,
}

fn decide(
    repository: &dyn Repository,
    policy: &Policy,
    now: Timestamp,
    zone: &Zone,
) -> Result<Decision> {
    let candidates: Vec<Candidate> = repository
        .list()?
        .into_iter()
        .map(|listed| candidate(repository, listed.label, listed.head))
        .collect::<Result<_>>()?;
    let newest = candidates
        .last()
        .filter(|newest| newest.backup.damaged)
        .map(|newest| newest.backup.label.to_string());
    let facts: Vec<Facts> = candidates
        .iter()
        .filter_map(|candidate| candidate.facts.as_ref().ok().cloned())
        .collect();
    let mut by_rules = reasons(policy, &facts, now, zone).into_iter();
    let mut decision = Decision {
        goes: Vec::new(),
        stays: Vec::new(),
    };
    for Candidate { backup, facts } in candidates {
        let mut reasons = match facts {
            Ok(_) => by_rules.next().unwrap_or_default(),
            Err(error) => vec![Reason::new(Rule::Unreadable, Some(error.to_string()))],
        };
        if reasons.is_empty() {
            reasons.extend(
                newest
                    .clone()
                    .map(|newest| Reason::new(Rule::NewestNotGood, Some(newest))),
            );
        }
        if reasons.is_empty() && repository.is_held(&backup.label)? {
            reasons.push(Reason::new(Rule::InUse, None));
        }
        if reasons.is_empty() {
            decision.goes.push(backup);
        } else {
            decision.stays.push(Staying { backup, reasons });
        }
    }
    Ok(decision)
}

fn candidate(repository: &dyn Repository, label: Label, head: Result<Head>) -> Result<Candidate> {
    let head = match head {
        Ok(head) => head,
        Err(error) => {
            return Ok(Candidate {
                backup: Summary {
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
    // A quick look reads none of the stored bytes.
    let read = |known: Remembered| known.depth >= Depth::Normal && !known.is_damaged();
    let facts = Facts {
        branch: head.branch,
        finished: head.finished,
        good,
        verified: known.is_some_and(read),
    };
    let backup = Summary {
        label,
        branch: Some(head.branch),
        finished: Some(head.finished),
        damaged: !good,
    };
    Ok(Candidate {
        backup,
        facts: Ok(facts),
    })
}
