//! Steps S1–S3, S5 and S6: keeps scavenging away from the copy, and gives it back to the node.

use std::time::Duration;

use super::source::{Source, SourceNode};
use super::source_files::changed;
use crate::error::{Error, Kind, Result};
use crate::format::LogPosition;
use crate::manifest::{Quiet, Scavenging};
use crate::node::{
    self, NodeFiles, QuiesceCheck, QuiesceSettings, QuiescedOffline, QuiescedOnline,
};
use crate::repository::Repository;
use crate::run::Run;

/// Under this key a repository keeps a copy of the release record.
const RELEASE_RECORD: &str = "debt.json";

/// A source in which no scavenge runs.
pub(super) enum Quiesced<'a> {
    Running(Box<QuiescedOnline<'a>>),
    Stopped(QuiescedOffline<'a>),
}

impl<'a> Quiesced<'a> {
    /// Steps S1–S3: keeps scavenges away until [`Self::release`], for a copy that takes the time
    /// `copy_takes`. A copy of the release record goes to the repository. `files` tells the node
    /// from others.
    pub(super) fn quiesce(
        source: &Source<'a>,
        files: &NodeFiles,
        copy_takes: Duration,
        repository: &dyn Repository,
        run: &'a Run,
    ) -> Result<Self> {
        let running = match &source.node {
            SourceNode::Running(running) => running,
            SourceNode::Stopped => {
                let offline = QuiescedOffline::begin(&source.directories, run)?;
                return Ok(Self::Stopped(offline));
            }
        };

        let settings = QuiesceSettings {
            copy_takes,
            ..running.quiesce.clone()
        };
        let online = node::quiesce(
            running.session,
            running.release_records,
            files,
            settings,
            run,
        )?;
        if let Some(record) = online.release_record() {
            let text = serde_json::to_vec_pretty(record).map_err(|error| {
                Error::new(Kind::Failed, "cannot write the release record").because(error)
            })?;
            repository.set_state(RELEASE_RECORD, Some(&text))?;
        }
        Ok(Self::Running(Box::new(online)))
    }

    /// Checks that the source stayed quiesced until now: no scavenge, no restart, no truncation.
    ///
    /// # Errors
    /// `Unstable` if it did not; `Refused` if a server was started on the directories of a backup
    /// with `--offline`.
    pub(super) fn check(&self, pending_truncation: Option<LogPosition>) -> Result<()> {
        if let Some(position) = pending_truncation {
            return Err(truncation_is_pending(position));
        }

        let (check, kind) = match self {
            Self::Running(online) => (online.check_undisturbed()?, Kind::Unstable),
            Self::Stopped(offline) => (offline.check_undisturbed()?, Kind::Refused),
        };
        match check {
            QuiesceCheck::Undisturbed => Ok(()),
            QuiesceCheck::Disturbed(what) => Err(changed(what).with_kind(kind)),
        }
    }

    /// Quiesces the source again before another attempt.
    pub(super) fn quiesce_again(&mut self) -> Result<()> {
        match self {
            Self::Running(online) => online.quiesce_again(),
            Self::Stopped(offline) => offline.begin_again(),
        }
    }

    pub(super) fn scavenging(&self) -> Scavenging {
        match self {
            Self::Running(online) => online.scavenging(),
            Self::Stopped(_) => Scavenging {
                quiet: Quiet::Offline,
                stopped: None,
                auto_paused: false,
                auto_found: None,
            },
        }
    }

    /// Steps S5 and S6: gives scavenging back to the node.
    pub(super) fn release(self, repository: &dyn Repository, run: &Run) -> Result<()> {
        let online = match self {
            Self::Running(online) => online,
            Self::Stopped(_) => return Ok(()),
        };
        online.release()?;

        if let Err(error) = remove_record(repository) {
            run.warn(format!(
                "the node got everything back, but kbackup could not remove the copy of the \
                 release record from the repository: {error}"
            ));
        }
        Ok(())
    }
}

/// Removes the copy, also that of a killed run: `kbackup release` needs no repository, because the
/// repository may be what hangs. So it leaves the copy.
fn remove_record(repository: &dyn Repository) -> Result<()> {
    if repository.state(RELEASE_RECORD)?.is_some() {
        repository.set_state(RELEASE_RECORD, None)?;
    }
    Ok(())
}

/// The error for a `truncate.chk` that is set.
pub(super) fn truncation_is_pending(position: LogPosition) -> Error {
    changed(format!(
        "a truncation to {position} is pending: truncate.chk is set"
    ))
}
