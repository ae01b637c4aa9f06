//! The result of a verification.

use std::fmt;

use serde::Serialize;

use crate::manifest::{Label, RelativePath, Row};
use crate::proof::Depth;
use crate::run::Run;

/// Something that is wrong with a backup.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct VerifyFinding {
    /// The file; `None` if the backup as a whole is wrong.
    pub path: Option<RelativePath>,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for VerifyFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{path}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

/// What a verification found of one backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifiedBackup {
    /// The backup's name.
    pub label: Label,
    /// How many files were looked at.
    pub files: u64,
    /// How many records of the log were read.
    pub records: u64,
    /// How many index entries were compared with the log.
    pub entries: u64,
    /// Everything that is wrong; empty for an intact backup.
    pub findings: Vec<VerifyFinding>,
    /// Chunks that failed their own MD5 at the source already, and were copied because the operator
    /// accepted that. They are not findings.
    pub damaged_at_source: Vec<RelativePath>,
    /// Files that are one stored file with another one of the backup. They are no damage.
    #[serde(skip)]
    pub(super) twins: Vec<Row>,
}

/// What a verification found of all backups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// How much was read.
    pub depth: Depth,
    /// Each backup, oldest first.
    pub backups: Vec<VerifiedBackup>,
    /// How many bytes were hashed; a file that backups share counts once.
    pub bytes_hashed: u64,
}

impl VerifyReport {
    /// Whether nothing is wrong with any backup.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.backups.iter().all(|backup| backup.findings.is_empty())
    }

    /// Warns of names of one backup that lead to one file.
    pub(super) fn warn_of_twins(&self, run: &Run) {
        for VerifiedBackup { label, twins, .. } in &self.backups {
            for twin in twins {
                run.warn(format!(
                    "{} of {label} is one file with another name of that backup: a copy that keeps \
                     hard links (`cp -a`, `rsync -H`) would make a server write to both at once; \
                     `kbackup verify {label} --repair` separates them",
                    twin.path
                ));
            }
        }
    }
}
