use std::fmt;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::manifest::Label;
use crate::proof::Depth;
use crate::repository::Repository;

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
    /// A look that found nothing and went less deep says less than what is known already.
    fn says_less_than(&self, known: &Self) -> bool {
        self.findings == 0 && self.depth < known.depth
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

fn key(label: &Label) -> String {
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

/// Keeps a result.
pub(super) fn remember(repository: &dyn Repository, label: &Label, result: &Remembered) -> Result<()> {
    if remembered(repository, label)?.is_some_and(|known| result.says_less_than(&known)) {
        return Ok(());
    }
    let bytes = serde_json::to_vec(result).map_err(|error| Error::new(Kind::Failed, "cannot write the result").because(error))?;
    repository.set_state(&key(label), Some(&bytes))
}
