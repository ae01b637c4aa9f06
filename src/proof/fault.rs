//! What is wrong with a stored backup.

use std::fmt;

use crate::manifest::RelativePath;

/// A way in which a stored backup differs from its manifest, or from what a server needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupFault {
    /// The file. `None` if the fault concerns the whole backup.
    pub path: Option<RelativePath>,
    /// What is wrong, in words.
    pub what: String,
}

impl BackupFault {
    pub(super) fn of_file(path: &RelativePath, what: impl Into<String>) -> Self {
        Self {
            path: Some(path.clone()),
            what: what.into(),
        }
    }

    pub(super) fn of_backup(what: impl Into<String>) -> Self {
        Self {
            path: None,
            what: what.into(),
        }
    }
}

impl fmt::Display for BackupFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{path}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}
