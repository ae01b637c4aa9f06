//! The result of a verification.

use std::fmt;

use serde::Serialize;

use crate::error::{Error, Kind};
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
    /// How many files were looked at; 0 if the manifest cannot be read.
    pub files: u64,
    /// How many records of the log were read.
    pub records: u64,
    /// How many index entries were compared with the log.
    pub entries: u64,
    /// Everything that is wrong; empty for an intact backup.
    pub findings: Vec<VerifyFinding>,
    /// Why the backup could not be read, so that nobody knows whether it is intact; `None` if it was
    /// read. It is no finding.
    pub unread: Option<Unread>,
    /// Chunks that failed their own MD5 at the source already, and were copied because the operator
    /// accepted that. They are not findings.
    pub damaged_at_source: Vec<RelativePath>,
    /// Files that are one stored file with another one of the backup. They are no damage.
    #[serde(skip)]
    pub(super) twins: Vec<Row>,
}

/// Why a backup could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Unread {
    /// The reason, in one line.
    pub why: String,
    /// What the operator can do.
    #[serde(skip)]
    pub hints: Vec<String>,
    /// Its kind, which decides the exit code.
    #[serde(skip)]
    pub kind: Kind,
}

impl VerifiedBackup {
    /// The report of a backup that could not be read.
    pub(super) fn unread(label: Label, error: &Error) -> Self {
        let unread = Unread {
            why: error.in_words(),
            hints: error.hints().to_vec(),
            kind: error.kind(),
        };
        Self {
            unread: Some(unread),
            ..Self::nothing_read(label)
        }
    }

    /// A report before anything was read.
    pub(super) fn nothing_read(label: Label) -> Self {
        Self {
            label,
            files: 0,
            records: 0,
            entries: 0,
            findings: Vec::new(),
            unread: None,
            damaged_at_source: Vec::new(),
            twins: Vec::new(),
        }
    }

    /// Whether the manifest is damaged. A repair finds nothing to repair then.
    #[must_use]
    pub const fn has_damaged_manifest(&self) -> bool {
        self.files == 0 && self.unread.is_none()
    }
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
    /// Whether every backup was read, and nothing is wrong with any of them.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.worst().is_none()
    }

    /// Whether something is wrong with a backup that was read.
    #[must_use]
    pub fn has_findings(&self) -> bool {
        self.backups
            .iter()
            .any(|backup| !backup.findings.is_empty())
    }

    /// Whether each backup could be read.
    pub(super) fn has_read_all(&self) -> bool {
        self.backups.iter().all(|backup| backup.unread.is_none())
    }

    /// The kind of what is wrong: damage first, then why a backup could not be read.
    #[must_use]
    pub fn worst(&self) -> Option<Kind> {
        if self.has_findings() {
            return Some(Kind::StoredCorrupt);
        }
        let mut unread = self
            .backups
            .iter()
            .filter_map(|backup| backup.unread.as_ref());
        unread.next().map(|unread| unread.kind)
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
