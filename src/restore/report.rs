//! The result of a restore, for people and as JSON.

use std::fmt;
use std::path::PathBuf;

use bytesize::ByteSize;
use serde::{Serialize, Serializer};

use super::closing::ClosingNotes;
use super::target::as_text;
use crate::error::Error;
use crate::format::Boundary;
use crate::manifest::Label;

/// The result of a restore.
#[derive(Debug, Serialize)]
pub struct RestoreReport {
    /// The backup that was restored.
    pub label: Label,
    /// The position where the log ends, in every target.
    pub position: Boundary,
    /// Each target, in the order of the request.
    pub targets: Vec<TargetReport>,
    /// What the operator has to know afterwards.
    pub closing: ClosingNotes,
}

/// The result for one target.
#[derive(Debug, Serialize)]
pub struct TargetReport {
    /// The db directory.
    #[serde(serialize_with = "as_text")]
    pub db: PathBuf,
    /// The index directory.
    #[serde(serialize_with = "as_text")]
    pub index: PathBuf,
    /// How the restore of this target ended.
    pub outcome: TargetOutcome,
}

/// How the restore of one target ended.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetOutcome {
    /// Everything is in place.
    Restored(Placement),
    /// An earlier restore to several targets had finished this one; nothing was written.
    AlreadyRestored,
    /// It failed. No server starts from the target, and the same restore resumes it.
    Failed(#[serde(serialize_with = "failure")] Error),
    /// The run was interrupted before this target; nothing was written.
    NotBegun,
}

/// What was written into one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Placement {
    /// Files that this restore wrote.
    pub files_written: u64,
    /// The bytes of those files, holes included.
    pub bytes_written: u64,
    /// Files that an interrupted restore had left, and that this restore has proven.
    pub files_kept: u64,
}

impl RestoreReport {
    /// The first failure, which decides about the exit code. Returns `None` if every target was
    /// restored.
    #[must_use]
    pub fn failure(&self) -> Option<&Error> {
        for target in &self.targets {
            if let TargetOutcome::Failed(error) = &target.outcome {
                return Some(error);
            }
        }
        None
    }

    fn has_restored_target(&self) -> bool {
        self.targets.iter().any(TargetReport::is_restored)
    }
}

impl TargetReport {
    fn is_restored(&self) -> bool {
        matches!(
            self.outcome,
            TargetOutcome::Restored(_) | TargetOutcome::AlreadyRestored
        )
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, label: &Label) -> fmt::Result {
        write!(f, "{}: ", self.db.display())?;
        match &self.outcome {
            TargetOutcome::Restored(placement) => writeln!(f, "restored {label}, {placement}"),
            TargetOutcome::Failed(error) => writeln!(f, "failed, {error}"),
            TargetOutcome::AlreadyRestored => {
                writeln!(f, "already restored {label}, left as it is")
            }
            TargetOutcome::NotBegun => writeln!(f, "not begun"),
        }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = self.files_written;
        let plural = if files == 1 { "" } else { "s" };
        write!(f, "{files} file{plural}, {}", ByteSize(self.bytes_written))?;

        if self.files_kept > 0 {
            write!(
                f,
                "; kept {} that an interrupted restore had written, and that were proven",
                self.files_kept
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for RestoreReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for target in &self.targets {
            target.write(f, &self.label)?;
        }

        if self.has_restored_target() {
            writeln!(f, "position: {}", self.position)?;
            write!(f, "{}", self.closing)?;
        }
        Ok(())
    }
}

fn failure<S: Serializer>(error: &Error, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Failure<'a> {
        kind: &'static str,
        exit_code: u8,
        message: &'a str,
        on: Option<&'a str>,
        causes: Vec<String>,
        hints: &'a [String],
    }

    let failure = Failure {
        kind: error.kind().name(),
        exit_code: error.kind().exit_code(),
        message: error.what(),
        on: error.place(),
        causes: error.causes(),
        hints: error.hints(),
    };
    failure.serialize(serializer)
}
