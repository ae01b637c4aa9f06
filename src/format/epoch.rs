use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::LogPosition;

/// One election: the record that a new leader writes first (disk-format §4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// Where its record stands in the log.
    pub position: LogPosition,
    /// Counts elections; 0 for the first.
    pub number: i32,
    /// Random id.
    pub id: Uuid,
}

/// The epochs of a log, oldest first (disk-format §4.5).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lineage(Vec<Epoch>);

impl Lineage {
    /// The epochs, oldest first.
    #[must_use]
    pub fn epochs(&self) -> &[Epoch] {
        &self.0
    }
}
