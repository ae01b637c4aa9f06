//! What is known of a backup's condition: kept beside the backups, by whoever has looked.

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
    /// How much was wrong; 0 for an intact backup.
    pub findings: u64,
}

impl Remembered {
    /// Whether something is wrong with the backup.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.findings > 0
    }

    /// What is known after this look: one that went less deep neither clears nor replaces what a
    /// deeper one has found.
    fn after(self, known: Option<Self>) -> Self {
        match known {
            Some(known) if self.depth < known.depth && !self.is_damaged() => known,
            Some(known) if self.depth < known.depth && known.is_damaged() => Self {
                at: self.at,
                depth: known.depth,
                findings: self.findings.max(known.findings),
            },
            _ => self,
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

/// Whether a backup can be restored for all that is known: what its manifest says, and what a look
/// at its stored bytes has found.
#[must_use]
pub fn is_good(head: &Head, known: Option<Remembered>) -> bool {
    head.is_sound() && !known.is_some_and(|known| known.is_damaged())
}

/// Under which key the result of a verification is kept.
pub(super) fn key(label: &Label) -> String {
    format!("verified-{label}")
}

/// What is known of a backup; none where it was never verified.
///
/// # Errors
/// What the storage reports.
pub fn remembered(repository: &dyn Repository, label: &Label) -> Result<Option<Remembered>> {
    let kept = repository.state(&key(label))?;
    // What cannot be read any more was of no other use than this.
    Ok(kept.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// Keeps the result of a verification.
///
/// # Errors
/// What the storage reports.
pub fn remember(repository: &dyn Repository, label: &Label, result: Remembered) -> Result<()> {
    keep(
        repository,
        label,
        result.after(remembered(repository, label)?),
    )
}

/// Keeps that stored bytes of a backup were found to be wrong. Only a look at least as deep as
/// [`Depth::Normal`], which reads them all, clears that again.
///
/// # Errors
/// What the storage reports.
pub fn remember_damage(repository: &dyn Repository, label: &Label) -> Result<()> {
    match remembered(repository, label)? {
        Some(known) if known.is_damaged() && known.depth >= Depth::Normal => Ok(()),
        _ => keep(
            repository,
            label,
            Remembered {
                at: clock::now(),
                depth: Depth::Normal,
                findings: 1,
            },
        ),
    }
}

fn keep(repository: &dyn Repository, label: &Label, result: Remembered) -> Result<()> {
    let bytes = serde_json::to_vec(&result)
        .map_err(|error| Error::new(Kind::Failed, "cannot write the result").because(error))?;
    repository.set_state(&key(label), Some(&bytes))
}
