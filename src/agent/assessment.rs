//! Makes a [`Status`] from what was seen, and judges it: what is wrong, how bad it is, and what
//! helps. Pure.

use std::time::Duration;

use super::exposure::Exposure;
use super::facts::{BackupFacts, RepositoryFacts, RestorePoint, SiblingBackup};
use super::journal::Journal;
use super::last_known::LastKnown;
use super::planner::JobPlan;
use super::run_record::{RunOutcome, RunRecord};
use super::status::{JobStatus, Status, StatusInput, age, best};
use super::verdict::{Concern, Verdict, roughly};
use crate::clock::{Span, ahead, between};

/// How many of the last runs a status holds.
const HISTORY: usize = 1_000;
/// The repository should have space for this many backups of the size of the largest recent one.
const BACKUPS_AHEAD: u64 = 3;
/// How many of the last backups count as recent for that.
const LAST_BACKUPS: usize = 10;

impl Status {
    /// Makes a status.
    #[must_use]
    pub fn of(input: StatusInput<'_>) -> Self {
        let jobs: Vec<JobStatus> = input
            .plans
            .iter()
            .map(|(plan, schedule)| job_status(plan, schedule, input.journal))
            .collect();
        let assessment = Assessment {
            input: &input,
            jobs: &jobs,
        };
        let verdict = assessment.verdict();
        let last_known = assessment.last_known().cloned();

        let mut newest = None;
        if let Some(facts) = &input.repository.facts
            && let Some((point, _)) = facts.newest_good()
        {
            newest = Some(point.label.to_string());
        }

        let records = input.journal.map(Journal::records).unwrap_or_default();
        let shown = records.len().saturating_sub(HISTORY);
        let history = records.get(shown..).unwrap_or_default().to_vec();

        Self {
            at: input.now,
            verdict,
            max_age_seconds: input.max_age.as_secs(),
            exposure: input.exposure,
            newest,
            last_known,
            history,
            repository: input.repository,
            node: input.node,
            cluster: input.cluster,
            agent: input.agent,
            jobs,
            running: input.running,
        }
    }
}

fn job_status(plan: &JobPlan, schedule: &str, journal: Option<&Journal>) -> JobStatus {
    let mut status = JobStatus {
        plan: plan.clone(),
        schedule: schedule.to_owned(),
        last_success: None,
        last: None,
        failures: 0,
    };
    let Some(journal) = journal else {
        return status;
    };

    let has_failed = |record: &&RunRecord| record.is_failure();
    status.failures = journal.of(plan.job).take_while(has_failed).count() as u64;
    status.last = journal.of(plan.job).next().cloned();
    status.last_success = journal
        .of(plan.job)
        .find(|record| record.is_success())
        .map(|record| record.ended);

    status
}

/// A look that has not ended for this time. Other concerns may be out of date meanwhile.
pub(super) fn hanging_look(subject: &str, length: Duration) -> Concern {
    let length = roughly(length);
    let what = format!(
        "the agent has looked at {subject} for {length} without an answer, \
         and no run begins before the answer"
    );

    Concern::attention(what)
        .hint("check that the disks of the repository, the node and the state directory answer")
}

/// The loop has published nothing for this time.
pub(super) fn stuck_loop(length: Duration) -> Concern {
    let length = roughly(length);

    Concern::danger(format!(
        "the agent has been stuck for {length}, and no backup begins"
    ))
    .hint("restart the agent, and report this as a defect of kbackup, with its log")
}

/// Finds everything that is wrong.
struct Assessment<'a> {
    input: &'a StatusInput<'a>,
    jobs: &'a [JobStatus],
}

impl Assessment<'_> {
    fn verdict(&self) -> Verdict {
        let mut concerns = Vec::new();
        concerns.extend(self.repository());
        concerns.extend(self.exposure());
        concerns.extend(self.last_known_is_too_old());
        concerns.extend(self.future_backup());
        concerns.extend(self.same_number());
        concerns.extend(self.unreadable_backups());
        concerns.extend(self.damaged_backups());
        concerns.extend(self.failures());
        concerns.extend(self.late_jobs());
        concerns.extend(self.still_run());
        concerns.extend(self.node());
        concerns.extend(self.position());
        concerns.extend(self.cluster());
        concerns.extend(self.same_disk());
        concerns.extend(self.space());
        concerns.extend(self.configuration());
        concerns.extend(self.journal());
        concerns.extend(self.to_be_given_back());
        concerns.extend(self.hooks());

        Verdict::of(concerns, self.all_is_well())
    }

    fn facts(&self) -> Option<&RepositoryFacts> {
        self.input.repository.facts.as_ref()
    }

    /// The backup that protects the node best, and the other member that took it.
    fn best(&self) -> (Option<&BackupFacts>, Option<&SiblingBackup>) {
        let own = self.facts().and_then(RepositoryFacts::newest_good);

        best(own.map(|(_, backup)| backup), self.input.cluster.as_ref())
    }

    fn all_is_well(&self) -> String {
        let (newest, sibling) = self.best();
        let age = roughly(age(self.input.now, self.input.exposure, newest).unwrap_or_default());
        let by = match sibling {
            Some(sibling) => format!(" by {}", sibling.member),
            None => String::new(),
        };

        match self.input.exposure {
            Some(Exposure { since: None, .. }) => {
                format!("This node is safe: everything it has written is backed up{by}")
            }
            Some(_) => format!(
                "This node is safe: everything it has written is backed up{by}, \
                 except for the last {age}"
            ),
            None => format!("This node is safe: its newest backup was taken{by} {age} ago"),
        }
    }

    /// What was last known of the backups. `None` while a good backup is known.
    fn last_known(&self) -> Option<&LastKnown> {
        match self.best() {
            (Some(_), _) => None,
            (None, _) => self.input.last_known,
        }
    }

    fn repository(&self) -> Option<Concern> {
        let repository = &self.input.repository;
        let problem = repository.problem.as_ref()?;
        let what = if repository.unknown_since.is_some() {
            format!("the state of its repository is {problem}")
        } else {
            format!("its repository cannot be read: {problem}")
        };
        let hints = &repository.hints;

        if self.best().0.is_none() {
            return Some(Concern::danger(what).hints(hints));
        }

        // Another member protects this node. This member has never taken a backup, so its
        // repository need not exist.
        if let Some(journal) = self.input.journal
            && journal.records().iter().all(|run| run.repository.is_none())
        {
            return None;
        }
        Some(Concern::attention(what).hints(hints))
    }

    /// Too much may be in no backup since the repository was read last.
    fn last_known_is_too_old(&self) -> Option<Concern> {
        let age = between(self.last_known()?.exposed_since, self.input.now);
        if age < self.input.max_age {
            return None;
        }

        let (age, limit) = (roughly(age), Span(self.input.max_age));
        Some(Concern::danger(format!(
            "what it wrote {age} ago is in no backup that the agent can read, \
             and the limit is {limit}"
        )))
    }

    /// Too much is in no backup, or there is no backup.
    fn exposure(&self) -> Option<Concern> {
        let (newest, _) = self.best();

        let Some(age) = age(self.input.now, self.input.exposure, newest) else {
            return self.no_good_backup();
        };
        if age < self.input.max_age {
            return None;
        }

        let (age, limit) = (roughly(age), Span(self.input.max_age));
        let what = if self.input.exposure.is_some() {
            format!("what it wrote {age} ago is in no backup, and the limit is {limit}")
        } else {
            format!("its newest good backup is {age} old, and the limit is {limit}")
        };
        Some(Concern::danger(what))
    }

    fn no_good_backup(&self) -> Option<Concern> {
        // If the repository cannot be read, another concern already says so.
        let facts = self.facts()?;

        let concern = if facts.points.is_empty() {
            Concern::danger("there is no backup yet".to_owned()).hint(
                "wait for the agent, or run `kbackup full`; the first backup may take a while",
            )
        } else {
            Concern::danger("no backup is known to be good".to_owned())
                .hint("run `kbackup list` to see what is wrong with them")
        };
        Some(concern)
    }

    /// The newest backup is from the future, so nobody knows how old it is.
    fn future_backup(&self) -> Option<Concern> {
        let (newest, _) = self.best();
        let ahead = ahead(newest?.started, self.input.now)?;

        let what = format!(
            "its newest backup seems to be from the future, by {}, so kbackup does not know how \
             old it is",
            roughly(ahead)
        );
        Some(Concern::attention(what).hint(
            "compare this machine's clock with another one: it is wrong now, or it was wrong when \
             the backup was taken; in the second case, take a new backup",
        ))
    }

    /// Two backups carry one number, so nobody knows which is newer.
    fn same_number(&self) -> Option<Concern> {
        let mut before: Option<&RestorePoint> = None;
        for point in &self.facts()?.points {
            let Some(backup) = &point.backup else {
                continue;
            };
            if let Some(before) = before
                && before
                    .backup
                    .is_some_and(|other| other.sequence == backup.sequence)
            {
                let what = format!(
                    "{} and {} carry the same sequence number, {}: kbackup does not know which is \
                     newer",
                    before.label, point.label, backup.sequence
                );
                return Some(Concern::attention(what).hint(
                    "move the one that you do not need out of the repository's `backups/`: until \
                     then nothing is removed, and a restore needs a label",
                ));
            }
            before = Some(point);
        }
        None
    }

    /// Backups that may be good ones, and that the agent may not read.
    fn unreadable_backups(&self) -> Option<Concern> {
        let points = &self.facts()?.points;
        let newest_first = points.iter().rev();
        let mut problems = newest_first.filter_map(|point| point.problem.as_ref());

        let problem = problems.next()?;
        let others = match problems.count() {
            0 => String::new(),
            others => format!(" (and {others} more)"),
        };
        Some(Concern::attention(format!(
            "a backup cannot be read{others}: {problem}"
        )))
    }

    /// The repository would be lost together with the node.
    fn same_disk(&self) -> Option<Concern> {
        if !self.facts()?.on_nodes_disk {
            return None;
        }
        let what = "the repository is on the node's own disk, and would be lost with it";
        Some(Concern::attention(what.to_owned()).hint(
            "move the repository to another disk or machine; if the storage below cannot lose \
             both, say so with `--accept-same-disk`",
        ))
    }

    fn damaged_backups(&self) -> Option<Concern> {
        let points = self.facts()?.points.iter();
        let is_damaged = |point: &&RestorePoint| point.good().is_none() && point.problem.is_none();
        let damaged: Vec<_> = points.filter(is_damaged).collect();
        let newest = damaged.last()?;

        let others = match damaged.len() {
            1 => String::new(),
            2 => ", and another one".to_owned(),
            many => format!(", and {} others", many - 1),
        };
        let what = format!("backup {} is damaged{others}", newest.label);
        Some(
            Concern::attention(what)
                .hint("run `kbackup verify --repair` to repair it from intact copies"),
        )
    }

    fn failures(&self) -> Vec<Concern> {
        let mut concerns = Vec::new();

        for job in self.jobs {
            let Some(last) = &job.last else { continue };
            let RunOutcome::Failed { message, hints, .. } = &last.outcome else {
                continue;
            };
            if last.had_to_wait() {
                continue;
            }

            let times = if job.failures > 1 {
                format!(" {} times in a row", job.failures)
            } else {
                String::new()
            };
            let what = format!("`{}` failed{times}: {message}", job.plan.job);
            concerns.push(Concern::attention(what).hints(hints));
        }

        concerns
    }

    /// A job that is due, that nothing holds back, and that has not begun for minutes.
    fn late_jobs(&self) -> Vec<Concern> {
        let mut concerns = Vec::new();

        for job in self.jobs {
            let plan = &job.plan;
            if !self.input.late.contains(&plan.job) {
                continue;
            }
            let Some(due) = plan.due else { continue };

            let due = due.strftime("%Y-%m-%d %H:%M:%S UTC");
            let what = format!("`{}` has been due since {due}, and has not begun", plan.job);
            concerns.push(Concern::attention(what).hint(
                "check that the disks of the repository, the node and the state directory answer: \
                 no run begins before the agent has looked at them",
            ));
        }

        concerns
    }

    /// A run that makes no progress. It may hang on a write although all reads are well.
    fn still_run(&self) -> Option<Concern> {
        let running = self.input.running.as_ref()?;
        let still = between(running.still_since?, self.input.now);

        let what = format!(
            "`{}` has made no progress for {}, in its step {}, and no other run begins before it \
             has ended",
            running.job,
            roughly(still),
            running.step
        );
        let mut concern = Concern::attention(what).hint(
            "check that the disks of the repository and the node answer, also to writes: a pool \
             that is full may let them wait",
        );
        if !running.holds.is_empty() {
            concern = concern
                .hint("`kbackup release --force` gives the node back now what the run has stopped");
        }
        Some(concern)
    }

    fn node(&self) -> Option<Concern> {
        let node = self.input.node.as_ref()?;
        let problem = node.problem.as_ref()?;

        let what = if node.unknown_since.is_some() {
            format!("the state of the node is {problem}")
        } else {
            format!("the node does not answer: {problem}")
        };
        Some(Concern::attention(what).hints(&node.hints))
    }

    /// The node answers, but nobody knows how much of its log is in no backup.
    fn position(&self) -> Option<Concern> {
        let node = self.input.node.as_ref()?.facts.as_ref()?;
        if !self.input.position_is_unknown {
            return None;
        }

        let db = node.db.display();
        let what = format!(
            "how much is in no backup is not known, because `writer.chk` in `{db}` cannot be read"
        );
        Some(Concern::attention(what).hint(
            "check that the disk of the db directory answers, and that kbackup may read the file",
        ))
    }

    fn cluster(&self) -> Option<Concern> {
        let problem = self.input.cluster.as_ref()?.problem.as_ref()?;

        Some(Concern::attention(format!(
            "the agent does not know how the other members are backed up: {problem}"
        )))
    }

    /// The repository will soon be full.
    fn space(&self) -> Option<Concern> {
        let facts = self.facts()?;
        let free = facts.free_bytes?;

        let newest_first = facts.points.iter().rev();
        let stored = newest_first.filter_map(|point| Some(point.backup?.bytes_stored));
        let needed = stored.take(LAST_BACKUPS).max()?;
        if free >= needed.saturating_mul(BACKUPS_AHEAD) {
            return None;
        }

        let what = format!(
            "the repository has {} left, and the last backups took up to {}",
            bytesize::ByteSize(free),
            bytesize::ByteSize(needed)
        );
        Some(
            Concern::attention(what)
                .hint("remove old backups with `kbackup expire`, or give it more space"),
        )
    }

    fn configuration(&self) -> Option<Concern> {
        let problem = self.input.agent.as_ref()?.configuration.as_ref()?;

        let what = format!(
            "its configuration was changed and cannot be used, so the old one stays: {problem}"
        );
        Some(Concern::attention(what).hint(
            "run `kbackup agent --check-config` to see what is wrong with it; if it finds \
                 nothing, restart the agent",
        ))
    }

    fn journal(&self) -> Option<Concern> {
        let problem = self.input.agent.as_ref()?.journal.as_ref()?;

        let what = format!("the agent's journal cannot be written: {problem}");
        Some(Concern::attention(what).hint(
            "repair the state directory: the agent goes on from memory, until it is restarted",
        ))
    }

    fn to_be_given_back(&self) -> Option<Concern> {
        let what = self.input.agent.as_ref()?.owed.as_ref()?;

        let what = format!(
            "an interrupted run stopped something at the node, and it is not given back yet: {what}"
        );
        Some(Concern::attention(what).hint("run `kbackup release` to give it back now"))
    }

    fn hooks(&self) -> Vec<Concern> {
        let Some(agent) = &self.input.agent else {
            return Vec::new();
        };

        let mut concerns = Vec::new();
        for problem in &agent.hooks {
            let what = format!("a hook could not be told: {problem}");
            let concern = Concern::attention(what)
                .hint("look into the agent's log to see what the hook said");
            concerns.push(concern);
        }

        concerns
    }
}
