//! Brings a backup back into one or several directories that a server then starts from.
//!
//! First a [`Plan`], which writes nothing and can be printed. Then, for each target on its own, one
//! walk: a target that is proven empty is guarded against every server, filled with proven files,
//! and only the very last write, eight bytes of `writer.chk`, makes it startable. Whatever ends the
//! walk earlier leaves a directory that no server starts from and that the same restore takes up
//! again.

mod closing;
mod finish;
mod guard;
mod place;
mod plan;
mod target;

use std::fmt;
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use serde::{Serialize, Serializer};

use crate::error::{Error, Kind, Result};
use crate::event::{Event, Step};
use crate::format::Boundary;
use crate::manifest::Label;
use crate::repository::Repository;
use crate::run::Run;
pub use closing::{Behaviour, Closing, FirstStart, Note};
pub use guard::holds_database;
pub use plan::{Accept, Chosen, Plan, PlannedTarget, Request, Target, Truncation, plan};
pub use target::{Found, Ownership};

/// What became of a restore.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The backup that was restored.
    pub label: Label,
    /// The log ends here, in every target.
    pub position: Boundary,
    /// Each target, in the order of the request.
    pub targets: Vec<Restored>,
    /// What the operator is told at the end.
    pub closing: Closing,
}

impl Report {
    /// The first failure, which decides about the exit code; none where every target was restored.
    #[must_use]
    pub fn failure(&self) -> Option<&Error> {
        self.targets
            .iter()
            .find_map(|target| match &target.outcome {
                Outcome::Failed(error) => Some(error),
                Outcome::Restored(_) | Outcome::AlreadyRestored | Outcome::NotBegun => None,
            })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for target in &self.targets {
            write!(f, "{}: ", target.db.display())?;
            match &target.outcome {
                Outcome::Restored(placement) => {
                    let Placement {
                        files_written: files,
                        bytes_written,
                        ..
                    } = *placement;
                    let plural = if files == 1 { "" } else { "s" };
                    write!(
                        f,
                        "restored {}, {files} file{plural}, {}",
                        self.label,
                        ByteSize(bytes_written)
                    )?;
                    if placement.files_kept > 0 {
                        write!(
                            f,
                            "; of those that were there already, {} proved right",
                            placement.files_kept
                        )?;
                    }
                    writeln!(f)?;
                }
                Outcome::Failed(error) => writeln!(f, "failed, {error}")?,
                Outcome::AlreadyRestored => {
                    writeln!(f, "already restored {}, left as it is", self.label)?
                }
                Outcome::NotBegun => writeln!(f, "not begun")?,
            }
        }
        if self.targets.iter().any(|target| {
            matches!(
                target.outcome,
                Outcome::Restored(_) | Outcome::AlreadyRestored
            )
        }) {
            writeln!(f, "position: {}", self.position)?;
            write!(f, "{}", self.closing)?;
        }
        Ok(())
    }
}

/// One target of a restore.
#[derive(Debug, Serialize)]
pub struct Restored {
    /// Its db directory.
    #[serde(serialize_with = "as_text")]
    pub db: PathBuf,
    /// Its index directory.
    #[serde(serialize_with = "as_text")]
    pub index: PathBuf,
    /// How it ended.
    pub outcome: Outcome,
}

/// How the restore of one target ended.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Everything is in place.
    Restored(Placement),
    /// An earlier restore to several targets had finished this one; nothing was written.
    AlreadyRestored,
    /// It failed; what is there is guarded, and taken up again by the same restore.
    Failed(#[serde(serialize_with = "failure")] Error),
    /// The run was told to end before it was this target's turn; nothing was written.
    NotBegun,
}

/// What was written into one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Placement {
    /// Files written.
    pub files_written: u64,
    /// Their bytes, holes included.
    pub bytes_written: u64,
    /// Files that an interrupted restore had left, and that proved to be right.
    pub files_kept: u64,
}

/// Does what was planned, target by target; the failure of one leaves the others alone.
///
/// # Errors
/// [`Kind::Refused`] where the plan was made for another repository, [`Kind::NotFound`] where the
/// backup was removed meanwhile. What becomes of the targets is in the report, failures too.
pub fn execute(repository: &dyn Repository, plan: &Plan, run: &Run) -> Result<Report> {
    if repository.id() != plan.repository_id {
        return Err(
            Error::new(Kind::Refused, "the plan was made for another repository")
                .on(repository.place())
                .hint("plan the restore again"),
        );
    }
    // Before anything is written: a backup that is removed by then is not there, and from here on
    // it stays.
    let _held = repository.hold(&plan.backup.label)?;
    for warning in &plan.warnings {
        run.warn(warning.as_str());
    }
    run.emit(Event::Step(Step::Place));
    let mut targets = Vec::with_capacity(plan.targets.len());
    for target in &plan.targets {
        let outcome = if run.check().is_err() && !targets.is_empty() {
            Outcome::NotBegun
        } else {
            one(repository, plan, target, run).unwrap_or_else(Outcome::Failed)
        };
        targets.push(Restored {
            db: target.db.clone(),
            index: target.index.clone(),
            outcome,
        });
    }
    Ok(Report {
        label: plan.backup.label.clone(),
        position: plan.position,
        targets,
        closing: plan.closing.clone(),
    })
}

fn one(
    repository: &dyn Repository,
    plan: &Plan,
    target: &PlannedTarget,
    run: &Run,
) -> Result<Outcome> {
    run.check()?;
    if target.found == Found::Finished {
        return guard::still_finished(plan, target, run).map(|()| Outcome::AlreadyRestored);
    }
    let guarded = guard::Empty::prove(plan, target, run)?.guard()?;
    let placement = guarded
        .place(repository, run)
        .and_then(place::Placed::finish)
        .map_err(|error| taken_up(error, target))?;
    Ok(Outcome::Restored(placement.report()))
}

fn taken_up(error: Error, target: &PlannedTarget) -> Error {
    error.hint(match guard::stands(&target.db) {
        Ok(true) => "no server starts from this target as it is; the same restore takes it up again",
        Ok(false) | Err(_) => {
            "start no server from this target: its last write may not last; empty it, and restore again once its disk works"
        }
    })
}

/// A path may hold bytes that JSON cannot: they are shown as U+FFFD.
fn as_text<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
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
    Failure {
        kind: error.kind().name(),
        exit_code: error.kind().exit_code(),
        message: error.what(),
        on: error.place(),
        causes: error.causes(),
        hints: error.hints(),
    }
    .serialize(serializer)
}
