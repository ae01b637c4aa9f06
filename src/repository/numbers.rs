//! The numbers of backups: the sequence number, which says which backup is newer, and the number of
//! a branch. No number is ever given twice, also if the backup that had it is gone or cannot be
//! read.
//!
//! The highest numbers are kept as a small value beside the backups, and raised before a backup
//! becomes visible. If that value is lost, the manifests say which numbers were given, and then all
//! of them must be readable.

use serde::{Deserialize, Serialize};

use super::{Listed, Repository};
use crate::error::{Error, Kind, Result};
use crate::manifest::{Head, Label};
use crate::run::Run;

/// The key under which the highest numbers are kept.
const KEY: &str = "numbers";

/// The highest numbers that were given to backups of a repository; 0 if none was.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GivenNumbers {
    /// The highest sequence number.
    pub sequence: u64,
    /// The highest number of a branch.
    pub branch: u32,
    /// The newest label, as far as it is kept.
    pub newest: Option<Label>,
}

/// The value that is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Counter {
    sequence: u64,
    branch: u32,
    /// The backup that was committed last. A backup with a later label was made by a kbackup that
    /// does not know this value.
    newest: Label,
}

impl GivenNumbers {
    fn raise(&mut self, sequence: u64, branch: u32) {
        self.sequence = self.sequence.max(sequence);
        self.branch = self.branch.max(branch);
    }

    fn raise_to(&mut self, other: Self) {
        self.raise(other.sequence, other.branch);
        self.newest = self.newest.take().max(other.newest);
    }
}

impl From<Counter> for GivenNumbers {
    fn from(counter: Counter) -> Self {
        Self {
            sequence: counter.sequence,
            branch: counter.branch,
            newest: Some(counter.newest),
        }
    }
}

/// The highest numbers that were given so far. `listed` are all backups of the repository.
///
/// # Errors
/// The kind of the error of a manifest, if that manifest cannot be read and may hold a higher number
/// than every other one. `Denied` if the kept value cannot be read.
pub fn given_numbers(repository: &dyn Repository, listed: &[Listed]) -> Result<GivenNumbers> {
    let mut given = kept(repository)?;
    let counted = given.newest.clone();

    for Listed { label, head } in listed {
        match head {
            Ok(head) => given.raise(head.sequence, head.branch),
            Err(error) => {
                let is_counted = counted.as_ref().is_some_and(|newest| label <= newest);
                if !is_counted {
                    return Err(unknown_number(label, error));
                }
            }
        }
    }
    Ok(given)
}

/// Keeps numbers that were given earlier, if the repository has lost them.
///
/// # Errors
/// `Locked` if another run writes, but only if numbers are lost. `Denied` if the kept value cannot
/// be read.
pub fn keep_given(repository: &dyn Repository, earlier: &GivenNumbers, run: &Run) -> Result<()> {
    if !has_lost(&kept(repository)?, earlier) {
        return Ok(());
    }

    // Only the writer may change the value, and another run may have changed it meanwhile.
    let _writer = repository.writer(run)?;
    let mut given = kept(repository)?;
    given.raise_to(earlier.clone());
    run.note("the repository has lost the numbers of its backups, and gets them back");
    keep(repository, given)
}

fn has_lost(kept: &GivenNumbers, earlier: &GivenNumbers) -> bool {
    kept.sequence < earlier.sequence || kept.branch < earlier.branch || kept.newest < earlier.newest
}

/// Whether a backup with this sequence number was committed, or a later one, as far as the kept
/// value says.
pub(super) fn is_given(repository: &dyn Repository, sequence: u64) -> Result<bool> {
    let counter = counter(repository)?;
    Ok(counter.is_some_and(|counter| counter.sequence >= sequence))
}

/// The highest sequence number that was given, as far as the kept value says.
pub(super) fn highest(repository: &dyn Repository) -> Result<u64> {
    let counter = counter(repository)?;
    Ok(counter.map_or(0, |counter| counter.sequence))
}

/// Keeps the numbers of a backup that is about to become visible. Only the writer may call it.
pub(super) fn give(repository: &dyn Repository, head: &Head) -> Result<()> {
    let mut given = kept(repository)?;
    given.raise_to(GivenNumbers {
        sequence: head.sequence,
        branch: head.branch,
        newest: Some(head.label.clone()),
    });

    keep(repository, given)
}

fn keep(repository: &dyn Repository, given: GivenNumbers) -> Result<()> {
    let Some(newest) = given.newest else {
        return Ok(());
    };
    let counter = Counter {
        sequence: given.sequence,
        branch: given.branch,
        newest,
    };

    let bytes = serde_json::to_vec(&counter)
        .map_err(|error| Error::new(Kind::Failed, "cannot write the numbers").because(error))?;
    repository.set_state(KEY, Some(&bytes))
}

/// Two backups that carry one sequence number. Nobody can say which of them is the newer one.
/// `heads` are in the order of their numbers.
pub fn same_number<'a>(heads: impl IntoIterator<Item = &'a Head>) -> Option<(&'a Head, &'a Head)> {
    let mut before: Option<&Head> = None;
    for head in heads {
        if let Some(before) = before
            && before.sequence == head.sequence
        {
            return Some((before, head));
        }
        before = Some(head);
    }
    None
}

/// What is wrong with two backups that [`same_number`] found.
#[must_use]
pub fn same_number_in_words(one: &Head, other: &Head) -> String {
    format!(
        "{} and {} carry the same sequence number, {}: kbackup does not know which is newer",
        one.label, other.label, one.sequence
    )
}

/// The kept numbers; 0 if none are kept.
fn kept(repository: &dyn Repository) -> Result<GivenNumbers> {
    let counter = counter(repository)?;
    Ok(counter.map(GivenNumbers::from).unwrap_or_default())
}

/// The kept value. A damaged one counts as lost: the manifests then say more.
fn counter(repository: &dyn Repository) -> Result<Option<Counter>> {
    let kept = repository.state(KEY)?;
    Ok(kept.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// The error for a manifest that hides which numbers were given.
fn unknown_number(label: &Label, error: &Error) -> Error {
    let what = "kbackup cannot tell the number of this backup, and gives no number twice";
    let mut unknown = Error::new(error.kind(), what)
        .on(label)
        .because(error.in_words());
    for hint in error.hints() {
        unknown = unknown.hint(hint.as_str());
    }
    if error.kind() == Kind::StoredCorrupt {
        unknown = unknown.hint(format!(
            "put `backups/{label}/manifest.json` back from a copy of the repository; if it is lost \
             for good, move `backups/{label}` out of the repository"
        ));
    }
    unknown
}
