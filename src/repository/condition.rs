//! Remembers the condition of each backup. A run that has read stored bytes keeps its result as a
//! small value beside the backups.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Repository;
use crate::clock::{self, Timestamp};
use crate::error::{Error, Kind, Result};
use crate::manifest::{Head, Label};
use crate::proof::Depth;

/// When a backup was last verified, and with what result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// When the verification ended.
    pub at: Timestamp,
    /// How much was read.
    pub depth: Depth,
    /// How many things were wrong; 0 for an intact backup.
    pub findings: u64,
}

impl Remembered {
    /// Whether something is wrong with the backup.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.findings > 0
    }

    /// What is known after this look. A look that read less neither clears nor replaces what a
    /// deeper one has found.
    fn after(self, known: Option<Self>) -> Self {
        let Some(known) = known else {
            return self;
        };
        if self.depth >= known.depth {
            return self;
        }

        if !self.is_damaged() {
            return known;
        }
        if !known.is_damaged() {
            return self;
        }
        Self {
            at: self.at,
            depth: known.depth,
            findings: self.findings.max(known.findings),
        }
    }
}

impl fmt::Display for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.strftime("%Y-%m-%d %H:%M");
        match (self.findings, self.depth) {
            (0, Depth::Quick) => write!(f, "{at} (quick)"),
            (0, Depth::Normal) => write!(f, "{at}"),
            (0, Depth::Deep) => write!(f, "{at} (deep)"),
            (_, _) => write!(f, "{at} DAMAGED"),
        }
    }
}

/// Whether a backup is good: kbackup knows of no damage to it, neither from its manifest nor from
/// an earlier look at its stored bytes.
#[must_use]
pub fn is_good(head: &Head, known: Option<Remembered>) -> bool {
    let is_known_damaged = known.is_some_and(|known| known.is_damaged());
    head.is_sound() && !is_known_damaged
}

/// The key under which the result of a verification is kept.
pub(super) fn key(label: &Label) -> String {
    format!("verified-{label}")
}

/// What is known of a backup; `None` if it was never verified.
pub fn remembered(repository: &dyn Repository, label: &Label) -> Result<Option<Remembered>> {
    let kept = repository.state(&key(label))?;
    // A value that cannot be read counts as lost.
    Ok(kept.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// Keeps the result of a verification, unless a deeper one has found more.
pub fn remember(repository: &dyn Repository, label: &Label, result: Remembered) -> Result<()> {
    let known = remembered(repository, label)?;
    keep(repository, label, result.after(known))
}

/// Remembers that stored bytes of a backup are damaged. Only a look that reads all of them
/// ([`Depth::Normal`] or deeper) can clear that again.
pub fn remember_damage(repository: &dyn Repository, label: &Label) -> Result<()> {
    if let Some(known) = remembered(repository, label)?
        && known.is_damaged()
        && known.depth >= Depth::Normal
    {
        return Ok(());
    }

    let damaged = Remembered {
        at: clock::now(),
        depth: Depth::Normal,
        findings: 1,
    };
    keep(repository, label, damaged)
}

fn keep(repository: &dyn Repository, label: &Label, result: Remembered) -> Result<()> {
    let bytes = serde_json::to_vec(&result)
        .map_err(|error| Error::new(Kind::Failed, "cannot write the result").because(error))?;
    repository.set_state(&key(label), Some(&bytes))
}
