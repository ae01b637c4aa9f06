//! All that the agent knows. Only the event loop can read or change it.
//!
//! Nothing here touches a disk or the network. Observations and ended runs go in. The next step and
//! the status come out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::announcements::Announcements;
use super::cluster::ClusterRank;
use super::configuration::Configuration;
use super::exposure::{Exposure, WriterHistory};
use super::facts::{BackupFacts, ClusterFacts, SiblingBackup};
use super::journal::Journal;
use super::last_known::LastKnown;
use super::observation::{Look, Observation};
use super::planner::{self, JobPlan, PlannerInput};
use super::run_record::{Job, JobOrder, RunOutcome, RunRecord};
use super::run_totals::RunTotals;
use super::scavenge_notes::NotesBehind;
use super::siblings::Siblings;
use super::status::{self, AgentFacts, RunningJob, Status, StatusInput};
use super::turns;
use super::writer_probe::WriterReading;
use crate::clock::{self, Timestamp, patience};
use crate::error::Result;

/// How often a member that has to wait for its turn asks again.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// How long the status shows a wait for the turn that was not repeated.
const SHOW_WAIT: Duration = Duration::from_secs(15);

/// A job that is due and has not begun for this long is late. So is a writer position.
const LATE: Duration = Duration::from_mins(5);

/// Everything that the agent knows. The threads and tasks that work for it are not part of this.
pub(super) struct AgentState {
    started: Timestamp,
    pub configuration: Arc<Configuration>,
    /// Why the newest configuration is not in use.
    pub configuration_error: Option<String>,
    pub journal: Journal,
    /// Why the journal cannot be written.
    journal_error: Option<String>,
    pub observation: Observation,
    pub writer_history: WriterHistory,
    /// The server's notes of scavenging behind the newest backup, as far as they were followed.
    scavenge_notes: Option<NotesBehind>,
    pub totals: RunTotals,
    pub announcements: Announcements,
    /// Why a backup that is due has to wait for its turn.
    pub waiting: Option<Waiting>,
    /// When a backup became due that is still due.
    backup_due_since: Option<Timestamp>,
    /// Since when each job has been due without anything that holds it back.
    ready_since: BTreeMap<Job, Instant>,
    /// What was last known of the backups.
    last_known: Option<LastKnown>,
    /// Why the members of the cluster cannot take turns.
    pub turn_error: Option<String>,
}

/// A backup that has to wait for its turn.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub since: Instant,
    pub reason: String,
}

/// What the loop does next.
pub(super) enum NextStep {
    /// No run is ready. Look again after this time.
    Sleep(Duration),
    /// Begin this run.
    Begin(JobOrder),
    /// This run is due, but would find nothing to do.
    Skip(JobOrder),
}

impl AgentState {
    pub(super) fn new(configuration: Configuration, journal: Journal) -> Self {
        let started = clock::now();

        Self {
            started,
            observation: Observation::nothing_yet(&configuration),
            configuration: Arc::new(configuration),
            configuration_error: None,
            last_known: LastKnown::of_journal(&journal),
            journal,
            journal_error: None,
            writer_history: WriterHistory::default(),
            scavenge_notes: None,
            totals: RunTotals::default(),
            announcements: Announcements::new(started),
            waiting: None,
            backup_due_since: None,
            ready_since: BTreeMap::new(),
            turn_error: None,
        }
    }

    /// Plans all jobs and chooses the run that is to begin.
    pub(super) fn next_step(&mut self, shortest: Duration, longest: Duration) -> NextStep {
        let input = self.planner_input(ASK_AGAIN);
        let now = input.now.timestamp();
        let plans = planner::plan(self.configuration.rules(), &input);
        let is_up_to_date = planner::is_up_to_date(&input);

        let mut order = None;
        if let Some(ready) = planner::most_urgent(&plans, now) {
            order = Some(JobOrder {
                job: ready.job,
                trigger: ready.trigger,
                repository: self.journal.repository(),
                may_stop_scavenges: planner::may_stop_scavenges(
                    self.configuration.rules(),
                    &input,
                    ready.job,
                ),
            });
        }
        self.note_due_backup(&plans, now);

        match order {
            None => NextStep::Sleep(until_due(&plans, now).clamp(shortest, longest)),
            Some(order) if order.job == Job::Diff && is_up_to_date => NextStep::Skip(order),
            Some(order) => NextStep::Begin(order),
        }
    }

    /// Remembers since when a backup is due.
    fn note_due_backup(&mut self, plans: &[JobPlan], now: Timestamp) {
        let has_due_backup = plans
            .iter()
            .any(|plan| plan.job.is_backup() && plan.is_due(now));

        if !has_due_backup {
            self.backup_due_since = None;
        } else if self.backup_due_since.is_none() {
            self.backup_due_since = Some(now);
        }
    }

    /// What the planner needs. A member that was told to wait for its turn counts as waiting for
    /// the time `wait_counts`.
    fn planner_input(&self, wait_counts: Duration) -> PlannerInput<'_> {
        let configuration = &self.configuration;
        let node = self.observation.node_facts();

        let mut rank = None;
        if configuration.agent.takes_turns()
            && let Some(node) = node
        {
            rank = ClusterRank::of(node);
        }

        let mut waits_for_turn = None;
        if let Some(waiting) = &self.waiting
            && waiting.since.elapsed() < wait_counts
        {
            waits_for_turn = Some(waiting.reason.clone());
        }

        PlannerInput {
            now: configuration.agent.time_zone.at(clock::now()),
            started: self.started,
            journal: &self.journal,
            repository: self.observation.repository.facts.as_ref(),
            node,
            well_since: self.observation.well_since,
            exposure: self.exposure(),
            rank,
            backup_due_since: self.backup_due_since,
            waits_for_turn,
            next_login: self.observation.next_login(),
            cluster: self.observation.siblings.cluster.as_ref(),
        }
    }

    /// What is in no backup. `None` if the node's files or the repository cannot be read.
    fn exposure(&self) -> Option<Exposure> {
        let (newest, sibling) = self.newest_backup();
        let newest = newest.map(|backup| self.with_scavenge_notes(backup));

        if let (Some(backup), Some(_)) = (&newest, sibling) {
            return self.writer_history.exposure_beside(backup);
        }
        // The content of a repository that cannot be read is not known.
        self.observation.repository.facts.as_ref()?;
        self.writer_history.exposure(newest.as_ref())
    }

    /// The backup that protects the node best, and the other member that took it.
    fn newest_backup(&self) -> (Option<&BackupFacts>, Option<&SiblingBackup>) {
        let own = self.observation.newest_own();
        let cluster = self.observation.siblings.cluster.as_ref();
        status::best(own, cluster)
    }

    /// A backup as it counts with the server's notes of scavenging behind it.
    fn with_scavenge_notes(&self, backup: &BackupFacts) -> BackupFacts {
        match (self.scavenge_notes, self.writer_history.writer()) {
            (Some(notes), Some(writer)) => notes.extend(backup, writer),
            _ => *backup,
        }
    }

    /// The notes behind the newest backup that the next read of the writer position follows.
    pub(super) fn notes_to_follow(&self) -> Option<NotesBehind> {
        let (newest, _) = self.newest_backup();
        let newest = newest?;

        match self.scavenge_notes {
            Some(notes) if notes.are_behind(newest) => Some(notes),
            _ => NotesBehind::of(newest),
        }
    }

    /// Whether the last read of the writer position followed the notes behind the newest backup, or
    /// need not have.
    pub(super) fn knows_scavenge_notes(&self) -> bool {
        let is_exposed = self.exposure().is_some_and(|exposure| exposure.bytes > 0);
        !is_exposed || self.notes_to_follow() == self.scavenge_notes
    }

    /// Remembers what a read of the writer position has shown.
    pub(super) fn observe_writer(&mut self, reading: Option<WriterReading>) {
        match reading {
            Some(WriterReading { position, notes }) => {
                self.writer_history.see(clock::now(), position);
                self.scavenge_notes = notes;
            }
            None => self.writer_history.lose_sight(),
        }
    }

    /// Remembers the result of a look.
    pub(super) fn observe(&mut self, look: Look) {
        // If the position is known, it may come from a read that is newer than the look.
        if let Look::Node(seen) = &look
            && let Some(position) = seen.writer_position
            && self.writer_history.is_unknown()
        {
            self.writer_history.see(clock::now(), position);
        }

        self.observation.note(look);
        if self.journal.repository().is_none()
            && let Some(facts) = &self.observation.repository.facts
        {
            self.journal.know(facts.id);
        }
        self.forget_old_moments();
    }

    pub(super) fn observe_siblings(&mut self, siblings: Siblings) {
        self.observation.siblings = siblings;
        self.forget_old_moments();
    }

    /// Forgets the moments of the writer position that every question about exposure is past.
    fn forget_old_moments(&mut self) {
        if let (Some(backup), _) = self.newest_backup() {
            let writer = backup.writer;
            self.writer_history.forget_before(writer);
        }
    }

    /// The record of a backup that another member has taken for all members. `None` if the journal
    /// has it.
    pub(super) fn newly_covered(&self) -> Option<RunRecord> {
        let (_, sibling) = self.newest_backup();
        let sibling = sibling?;

        let covered = format!("up to date by {}: {}", sibling.member, sibling.label);
        turns::newly_covered(&self.journal, covered)
    }

    /// Remembers a run that has ended, and logs it.
    pub(super) fn remember(&mut self, record: RunRecord) {
        log(&record);
        if record.made_backup() {
            self.observation.run_logged_in();
        }
        self.totals.count(&record);
        self.announcements.ended(&record, &self.journal);

        let result = self.journal.remember(record);
        if result.is_err() {
            self.note_journal(result);
        }
    }

    /// The journal was written, or could not be written. Then the agent goes on from memory.
    pub(super) fn note_journal(&mut self, result: Result<()>) {
        let problem = result.err().map(|problem| problem.in_words());
        if let (Some(problem), None) = (&problem, &self.journal_error) {
            error!("the journal cannot be written: {problem}");
        }

        self.journal_error = problem;
    }

    /// The jobs that have been due for minutes, that nothing holds back, and that have not begun.
    fn late_jobs(&mut self, plans: &[JobPlan], is_running: bool) -> Vec<Job> {
        let now = clock::now();
        let mut late = Vec::new();

        for plan in plans {
            // A job waits for the end of a run.
            if is_running || !plan.is_ready(now) {
                self.ready_since.remove(&plan.job);
                continue;
            }

            let since = *self
                .ready_since
                .entry(plan.job)
                .or_insert_with(Instant::now);
            if since.elapsed() >= patience(LATE) {
                late.push(plan.job);
            }
        }

        late
    }

    /// The status now. `hooks`: the problems of hooks that could not be told.
    pub(super) fn status(&mut self, running: Option<RunningJob>, hooks: Vec<String>) -> Status {
        let plans = planner::plan(self.configuration.rules(), &self.planner_input(SHOW_WAIT));
        let late = self.late_jobs(&plans, running.is_some());
        let position_is_unknown = self.writer_history.has_been_blind_for(patience(LATE));

        let configuration = &self.configuration;
        let observation = &self.observation;
        let mut scheduled = Vec::new();
        for plan in plans {
            let schedule = configuration.schedule(plan.job).to_string();
            scheduled.push((plan, schedule));
        }

        let mut cluster = observation.siblings.cluster.clone();
        // A new configuration may have ended the turns since the error.
        if configuration.agent.takes_turns()
            && let Some(problem) = &self.turn_error
        {
            cluster = Some(ClusterFacts {
                problem: Some(problem.clone()),
                ..cluster.unwrap_or_default()
            });
        }

        let status = Status::of(StatusInput {
            now: clock::now(),
            max_age: configuration.agent.max_age,
            repository: observation.repository.clone(),
            node: observation.node.clone(),
            cluster,
            exposure: self.exposure(),
            position_is_unknown,
            last_known: self.last_known.as_ref(),
            agent: Some(AgentFacts {
                version: concat!("kbackup ", env!("CARGO_PKG_VERSION")).to_owned(),
                started: self.started,
                configuration: self.configuration_error.clone(),
                journal: self.journal_error.clone(),
                owed: observation.to_be_given_back.clone(),
                hooks,
            }),
            journal: Some(&self.journal),
            plans: scheduled,
            late,
            running,
        });

        if let Some(known) = status.known() {
            self.last_known = Some(known);
        }
        status
    }
}

fn log(record: &RunRecord) {
    let job = record.job.name();

    match &record.outcome {
        RunOutcome::Done { .. } => info!(job, seconds = record.seconds(), "done"),
        RunOutcome::UpToDate => info!(job, "nothing was written since the newest backup"),
        RunOutcome::Skipped { because } => info!(job, "not needed: {because}"),
        RunOutcome::Interrupted { why } => warn!(job, "{why}"),
        RunOutcome::Failed { message, .. } if record.had_to_wait() => {
            info!(job, "waits: {message}");
        }
        RunOutcome::Failed { message, .. } => error!(job, "{message}"),
    }
}

/// How long it is until the next job is due. A job that something holds back does not count.
fn until_due(plans: &[JobPlan], now: Timestamp) -> Duration {
    let mut wait = Duration::MAX;

    for plan in plans {
        if plan.hold.is_none()
            && let Some(due) = plan.due
        {
            wait = wait.min(clock::between(now, due));
        }
    }

    wait
}
