use super::capture::{Capture, Take, changed, open};
use crate::error::{Error, Kind, Result};
use crate::format::LogPosition;
use crate::manifest::{Directories, Quiet, RelativePath, Role, Scavenging, SecondaryIndex};
use crate::node::{
    self, QuiesceCheck, QuiesceSettings, QuiescedOffline, QuiescedOnline, ReleaseRecords, Session,
};
use crate::repository::Repository;
use crate::run::Run;

/// Under this key a repository keeps a copy of what the node is owed.
const DEBT: &str = "debt.json";

/// Where a backup is taken from.
pub struct Source<'a> {
    /// The node's directories, as they are seen here.
    pub directories: Directories,
    /// The server's version, as far as anybody knows it.
    pub server_version: Option<String>,
    /// Whether a server works on them.
    pub node: Node<'a>,
}

/// The server of the directories.
pub enum Node<'a> {
    /// It runs, and can be asked.
    Running(Running<'a>),
    /// It is stopped, or the directories are a snapshot.
    Stopped,
}

/// A running node that was found fit.
pub struct Running<'a> {
    /// The conversation with it.
    pub session: &'a Session,
    /// Where debts are remembered.
    pub release_records: &'a ReleaseRecords,
    /// How far quiescing goes.
    pub quiet: QuiesceSettings,
    /// Its role.
    pub state: String,
    /// For a member that does not lead: where the leader's log ended before the backup.
    pub leader_end: Option<LogPosition>,
}

impl<'a> Source<'a> {
    pub(super) const fn is_running(&self) -> bool {
        matches!(self.node, Node::Running(_))
    }

    pub(super) fn leader_end(&self) -> Option<LogPosition> {
        match &self.node {
            Node::Running(running) => running.leader_end,
            Node::Stopped => None,
        }
    }

    pub(super) fn endpoint(&self) -> Option<String> {
        match &self.node {
            Node::Running(running) => running.session.whereabouts().endpoint.clone(),
            Node::Stopped => None,
        }
    }

    pub(super) fn instance(&self) -> Option<uuid::Uuid> {
        match &self.node {
            Node::Running(running) => running.session.whereabouts().instance,
            Node::Stopped => None,
        }
    }

    pub(super) fn state(&self) -> Option<String> {
        match &self.node {
            Node::Running(running) => Some(running.state.clone()),
            Node::Stopped => None,
        }
    }

    /// Steps S1–S3: keeps scavenges away until the result is released. A copy of what the node is
    /// then owed goes to the repository.
    pub(super) fn quiesce(&self, repository: &dyn Repository, run: &'a Run) -> Result<Still<'a>> {
        match &self.node {
            Node::Running(running) => {
                let quiet = node::quiesce(
                    running.session,
                    running.release_records,
                    Some(&self.directories.db),
                    running.quiet.clone(),
                    run,
                )?;
                if let Some(debt) = quiet.release_record() {
                    let text = serde_json::to_vec_pretty(debt).map_err(|error| {
                        Error::new(Kind::Failed, "cannot write the debt").because(error)
                    })?;
                    repository.set_state(DEBT, Some(&text))?;
                }
                Ok(Still::Running(Box::new(quiet)))
            }
            Node::Stopped => Ok(Still::Stopped(QuiescedOffline::begin(
                &self.directories,
                run,
            )?)),
        }
    }
}

/// A source that holds still.
pub(super) enum Still<'a> {
    Running(Box<QuiescedOnline<'a>>),
    Stopped(QuiescedOffline<'a>),
}

impl Still<'_> {
    /// Whether it held still until now: no scavenge, no restart, no truncation.
    ///
    /// # Errors
    /// `Unstable` where it did not; `Refused` where a server was started on directories that were
    /// said to be nobody's.
    pub(super) fn check(&self, pending_truncation: Option<LogPosition>) -> Result<()> {
        if let Some(position) = pending_truncation {
            return Err(changed(format!(
                "a truncation to {position} is pending: truncate.chk is set"
            )));
        }
        let (stillness, kind) = match self {
            Self::Running(quiet) => (quiet.check_undisturbed()?, Kind::Unstable),
            Self::Stopped(quiet) => (quiet.check_undisturbed()?, Kind::Refused),
        };
        match stillness {
            QuiesceCheck::Undisturbed => Ok(()),
            QuiesceCheck::Disturbed(what) => Err(changed(what).with_kind(kind)),
        }
    }

    /// Makes the node quiet again before another attempt.
    pub(super) fn settle_again(&mut self) -> Result<()> {
        match self {
            Self::Running(quiet) => quiet.quiesce_again(),
            Self::Stopped(quiet) => quiet.begin_again(),
        }
    }

    pub(super) fn scavenging(&self) -> Scavenging {
        match self {
            Self::Running(quiet) => quiet.scavenging(),
            Self::Stopped(_) => Scavenging {
                quiet: Quiet::Offline,
                stopped: None,
                auto_paused: false,
            },
        }
    }

    /// Steps S5 and S6.
    pub(super) fn release(self, repository: &dyn Repository, run: &Run) -> Result<()> {
        match self {
            Self::Running(quiet) => {
                quiet.release()?;
                // Also the copy of a killed run whose debt was given back without the repository.
                let removed = repository.state(DEBT).and_then(|copy| {
                    if copy.is_some() {
                        repository.set_state(DEBT, None)
                    } else {
                        Ok(())
                    }
                });
                if let Err(error) = removed {
                    run.warn(format!(
                        "the node has everything back, and the repository keeps a record of it that cannot be removed: {error}"
                    ));
                }
                Ok(())
            }
            Self::Stopped(_) => Ok(()),
        }
    }
}

/// The secondary indexes change in place, file and write-ahead log, so that they can be copied only
/// while no server runs (U8, O35).
pub(super) fn secondary_index(capture: &mut Capture<'_>, running: bool) -> Result<SecondaryIndex> {
    let path = RelativePath::secondary_index();
    let file = match open(capture.source, &path) {
        Ok(file) => file,
        Err(error) if error.kind() == Kind::Unstable => return Ok(SecondaryIndex::Absent),
        Err(error) => return Err(error),
    };
    if running {
        return Ok(SecondaryIndex::LeftOut);
    }
    capture.take(&path, &Take::whole(Role::SecondaryIndex, &file))?;
    let path = RelativePath::secondary_index_log();
    match open(capture.source, &path) {
        Ok(file) => capture
            .take(&path, &Take::whole(Role::SecondaryIndex, &file))
            .map(drop)?,
        Err(error) if error.kind() == Kind::Unstable => {}
        Err(error) => return Err(error),
    }
    Ok(SecondaryIndex::Included)
}
