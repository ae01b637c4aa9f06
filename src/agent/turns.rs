//! How a run takes its turn among the members of a cluster.
//!
//! The loop makes a [`TurnRequest`]. The thread of the run takes the lock, looks at the newest
//! backups of the other members, and asks the loop whether the run is still due.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::configuration::Configuration;
use super::journal::Journal;
use super::report::Report;
use super::run_record::{Job, RunOutcome, RunRecord};
use super::siblings::Siblings;
use super::turn_lock::TurnLock;
use crate::clock::{self, Timestamp};
use crate::error::Error;

/// How long a member leaves the turn to the waiting members after its own run.
const YIELD: Duration = Duration::from_secs(10);

/// What a run has to know to take its turn.
pub(super) struct TurnRequest {
    pub job: Job,
    pub configuration: Arc<Configuration>,
    /// This member's name, for the messages of the members that wait.
    pub member: String,
    /// This node's db directory, if it is known.
    pub db: Option<PathBuf>,
    pub siblings: Siblings,
    pub reports: mpsc::UnboundedSender<Report>,
}

impl TurnRequest {
    /// Takes the turn, if the members take turns. Blocks until the loop has answered.
    ///
    /// # Errors
    /// Why the run has to come again later.
    pub(super) fn take(self) -> Result<Option<TurnLock>, String> {
        let options = &self.configuration.agent;
        if !self.job.is_backup() || !options.takes_turns() {
            return Ok(None);
        }

        let turn = match &options.cluster_dir {
            Some(directory) => self.lock(directory)?,
            None => None,
        };

        // Another member may have finished a backup while this one asked.
        let siblings = self.siblings.look(&self.configuration, self.db.as_deref());
        if self.is_still_wanted(siblings)? {
            Ok(turn)
        } else {
            Err("it is not due any more: another member may have been backed up".to_owned())
        }
    }

    /// Takes the lock. If the file system has no locks, the run goes on without a turn.
    fn lock(&self, directory: &Path) -> Result<Option<TurnLock>, String> {
        let taken = TurnLock::take(directory, &self.member);
        let turn_error = taken.as_ref().err().map(Error::in_words);
        if let Some(problem) = &turn_error {
            warn!("the members of the cluster cannot take turns: {problem}");
        }
        // If the loop has ended, no reader is left.
        drop(self.reports.send(Report::TurnTried { turn_error }));

        match taken {
            Ok(Ok(turn)) => Ok(Some(turn)),
            Ok(Err(holder)) => Err(format!(
                "it waits for its turn: {holder} is being backed up"
            )),
            Err(_) => Ok(None),
        }
    }

    fn is_still_wanted(&self, siblings: Siblings) -> Result<bool, String> {
        let (reply, answer) = oneshot::channel();
        let question = Report::SiblingsSeen {
            job: self.job,
            siblings: Box::new(siblings),
            reply,
        };
        drop(self.reports.send(question));

        // The loop drops the question if the agent is to end.
        answer
            .blocking_recv()
            .map_err(|_| "the agent ends".to_owned())
    }
}

/// Why a run should leave the turn to the members that wait, if it should.
pub(super) fn must_yield(journal: &Journal, now: Timestamp) -> Option<String> {
    let last = journal
        .records()
        .iter()
        .rev()
        .find(|run| took_a_turn(run))?;

    let since = Duration::try_from(now.duration_since(last.ended)).unwrap_or(YIELD);
    if since >= YIELD {
        return None;
    }

    Some(
        "it waits for its turn: the other members may go first, \
         because this one has just been backed up"
            .to_owned(),
    )
}

fn took_a_turn(run: &RunRecord) -> bool {
    let took_none = matches!(
        run.outcome,
        RunOutcome::Skipped { .. } | RunOutcome::UpToDate
    );

    run.job.is_backup() && !took_none
}

/// Why this member needs no backup of its own now, if that is new: another member has taken it.
pub(super) fn newly_covered(journal: &Journal, covered: String) -> Option<RunRecord> {
    let last = journal
        .records()
        .iter()
        .rev()
        .find(|run| run.job.is_backup());
    if let Some(last) = last
        && let RunOutcome::Skipped { because } = &last.outcome
        && *because == covered
    {
        return None;
    }

    Some(RunRecord::left_to_another(clock::now(), covered))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::run_record::{JobOrder, Trigger};

    fn journal(outcome: RunOutcome, ended: i64) -> Journal {
        let order = JobOrder {
            job: Job::Diff,
            trigger: Trigger::Schedule,
            repository: None,
            may_stop_scavenges: false,
        };
        let mut journal = Journal::default();
        let record = RunRecord::of(&order, at(ended), outcome);
        journal.remember(record).unwrap();
        journal
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn after_a_backup_the_others_have_ten_seconds() {
        let done = RunOutcome::Done {
            label: None,
            warnings: Vec::new(),
        };
        let taken = journal(done, 100);
        assert!(must_yield(&taken, at(109)).is_some());
        assert_eq!(must_yield(&taken, at(110)), None);
        assert_eq!(must_yield(&taken, at(50)), None, "the clock went back");

        let nothing_to_do = journal(RunOutcome::UpToDate, 100);
        assert_eq!(must_yield(&nothing_to_do, at(101)), None);
    }

    #[test]
    fn a_backup_of_another_member_is_noted_once() {
        let covered = "up to date by node2:2113: LABEL".to_owned();
        let first = newly_covered(&Journal::default(), covered.clone()).unwrap();
        let RunOutcome::Skipped { because } = &first.outcome else {
            panic!("{first:?}");
        };
        assert_eq!(*because, covered);

        let known = journal(first.outcome, 100);
        assert_eq!(newly_covered(&known, covered), None);
        assert!(newly_covered(&known, "by another one".to_owned()).is_some());
    }
}
