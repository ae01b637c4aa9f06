//! One target of a plan: what the plan has found there.

use std::fmt;
use std::path::PathBuf;

use bytesize::ByteSize;
use serde::Serialize;

use super::content::TargetContent;
use super::ownership::Ownership;
use super::path::as_text;
use crate::manifest::Directories;

/// One target of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedTarget {
    /// The db directory, absolute and without links.
    #[serde(serialize_with = "as_text")]
    pub db: PathBuf,
    /// The index directory, absolute and without links.
    #[serde(serialize_with = "as_text")]
    pub index: PathBuf,
    /// What is there now.
    pub found: TargetContent,
    /// Who will own the files.
    pub owner: Ownership,
    /// Bytes that will be written, as far as holes are known.
    pub bytes_needed: u64,
    /// Bytes that are free on the db directory's file system.
    pub bytes_free: u64,
}

impl PlannedTarget {
    pub(in crate::restore) fn directories(&self) -> Directories {
        Directories {
            db: self.db.clone(),
            index: self.index.clone(),
        }
    }
}

impl fmt::Display for PlannedTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "target: {}", self.db.display())?;
        writeln!(f, "  index: {}", self.index.display())?;

        match &self.found {
            TargetContent::Absent => writeln!(f, "  will be created")?,
            TargetContent::Empty => writeln!(f, "  empty")?,
            TargetContent::Finished => return writeln!(f, "  already restored; left as it is"),
            TargetContent::Interrupted(interrupted) => writeln!(
                f,
                "  resumes an interrupted restore of this backup; files there, to be proven: {}",
                interrupted.files
            )?,
        }

        let (user, group) = (self.owner.user, self.owner.group);
        writeln!(
            f,
            "  owner: {user}:{group}; completed chunks and tables are read-only"
        )?;
        writeln!(
            f,
            "  space: {} needed, {} free",
            ByteSize(self.bytes_needed),
            ByteSize(self.bytes_free)
        )
    }
}
