//! How a node's backups stand: one value that the page, the metrics and `kbackup status` show.
//! Pure: what was seen goes in.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cluster::{ClusterFacts, Sibling};
use super::exposure::Exposure;
use super::journal::{Job, Journal, Outcome, Record};
use super::observation::{Made, NodeFacts, Point, RepositoryFacts, Seen};
use super::planner::Plan;
use crate::clock::{Span, Timestamp, between};

/// So many of the last runs are shown.
const HISTORY: usize = 1_000;
/// Less free space than the newest backups needed so often is worth a word.
const ROOM_FOR: u64 = 3;

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// What was written is in a good backup, or will be soon.
    Safe,
    /// The node is backed up, but somebody should look.
    Attention,
    /// Too much would be lost, or all.
    Danger,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Safe => "safe",
            Self::Attention => "attention",
            Self::Danger => "danger",
        })
    }
}

/// The answer to "is this node safe now?".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// In a word.
    pub level: Level,
    /// In a sentence.
    pub sentence: String,
    /// Everything that is not as it should be, the worst first; the sentence tells the first.
    pub concerns: Vec<Concern>,
}

impl Verdict {
    fn of(mut concerns: Vec<Concern>, all_is_well: String) -> Self {
        // The worst first, and else in the order in which they were thought of.
        concerns.sort_by_key(|concern| std::cmp::Reverse(concern.level));
        let (level, sentence) = match concerns.first() {
            None => (Level::Safe, all_is_well),
            Some(Concern {
                level: Level::Danger,
                what,
                ..
            }) => (Level::Danger, format!("This node is not safe: {what}")),
            Some(Concern { level, what, .. }) => (
                *level,
                format!("This node is backed up, but look at this: {what}"),
            ),
        };
        Self {
            level,
            sentence,
            concerns,
        }
    }

    /// Something else is not as it should be.
    pub fn add(&mut self, concern: Concern) {
        let concerns = std::mem::take(&mut self.concerns)
            .into_iter()
            .chain([concern])
            .collect();
        *self = Self::of(concerns, std::mem::take(&mut self.sentence));
    }
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concern {
    /// How bad it is.
    pub level: Level,
    /// What it is.
    pub what: String,
    /// What helps.
    pub hints: Vec<String>,
}

/// Where one job stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    /// What comes next.
    #[serde(flatten)]
    pub plan: Plan,
    /// Its schedule, as it was written.
    pub schedule: String,
    /// When it last did what it should, or found nothing to do.
    pub last_success: Option<Timestamp>,
    /// Its last run.
    pub last: Option<Record>,
    /// How often it failed in a row.
    pub failures: u64,
}

/// A run that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// What is done.
    pub job: Job,
    /// Since when.
    pub began: Timestamp,
    /// Its step, in a word.
    pub step: String,
    /// Bytes handled in this step.
    pub done: u64,
    /// Bytes that this step will have to handle; 0 where that is not known.
    pub expected: u64,
    /// What it has taken from the node at this moment.
    pub holds: Vec<String>,
}

/// The agent itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentFacts {
    /// Its program: `kbackup 0.1.0`.
    pub version: String,
    /// When it was started.
    pub started: Timestamp,
    /// Why the configuration file's newest state is not in use.
    pub configuration: Option<String>,
    /// Why its journal cannot be written.
    pub journal: Option<String>,
    /// What an earlier run took from the node and could not give back yet.
    pub owed: Option<String>,
    /// Hooks that could not be told last time, each with why.
    #[serde(default)]
    pub hooks: Vec<String>,
}

/// How it stands with the backups of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// When this was true.
    pub at: Timestamp,
    /// Is the node safe?
    pub verdict: Verdict,
    /// The limit of the age of what is in no backup, in seconds.
    pub max_age_seconds: u64,
    /// What is in no backup; none where the node's files cannot be seen.
    pub exposure: Option<Exposure>,
    /// The newest good backup's label.
    pub newest: Option<String>,
    /// The repository.
    pub repository: Seen<RepositoryFacts>,
    /// The node; none where nobody looks at it.
    pub node: Option<Seen<NodeFacts>>,
    /// What other members' backups stand for; none where each has to have its own.
    pub cluster: Option<ClusterFacts>,
    /// The agent; none where there is none.
    pub agent: Option<AgentFacts>,
    /// Its jobs.
    pub jobs: Vec<JobStatus>,
    /// What it does now.
    pub running: Option<Running>,
    /// Its last runs, oldest first.
    pub history: Vec<Record>,
}

/// All that a status is made from.
#[derive(Debug)]
pub struct Seeing<'a> {
    /// Now.
    pub now: Timestamp,
    /// The limit of the age of what is in no backup.
    pub max_age: Duration,
    /// The repository.
    pub repository: Seen<RepositoryFacts>,
    /// The node.
    pub node: Option<Seen<NodeFacts>>,
    /// The other members' backups, where they stand for the node's own.
    pub cluster: Option<ClusterFacts>,
    /// What is in no backup.
    pub exposure: Option<Exposure>,
    /// The agent.
    pub agent: Option<AgentFacts>,
    /// What the agent did.
    pub journal: Option<&'a Journal>,
    /// What it will do, with the schedules as they were written.
    pub plans: Vec<(Plan, String)>,
    /// What it does.
    pub running: Option<Running>,
}

impl Status {
    /// Puts together what was seen.
    #[must_use]
    pub fn of(seeing: Seeing<'_>) -> Self {
        let jobs: Vec<JobStatus> = seeing
            .plans
            .iter()
            .map(|(plan, schedule)| job(plan, schedule, seeing.journal))
            .collect();
        let verdict = Judge {
            seeing: &seeing,
            jobs: &jobs,
        }
        .verdict();
        let newest = seeing
            .repository
            .facts
            .as_ref()
            .and_then(RepositoryFacts::newest_good);
        let records = seeing.journal.map(Journal::records).unwrap_or_default();
        Self {
            at: seeing.now,
            verdict,
            max_age_seconds: seeing.max_age.as_secs(),
            exposure: seeing.exposure,
            newest: newest.map(|(point, _)| point.label.to_string()),
            history: records
                .get(records.len().saturating_sub(HISTORY)..)
                .unwrap_or_default()
                .to_vec(),
            repository: seeing.repository,
            node: seeing.node,
            cluster: seeing.cluster,
            agent: seeing.agent,
            jobs,
            running: seeing.running,
        }
    }

    /// The newest good backup.
    #[must_use]
    pub fn newest_good(&self) -> Option<(&Point, &Made)> {
        self.repository
            .facts
            .as_ref()
            .and_then(RepositoryFacts::newest_good)
    }

    /// For how long something has been in no good backup: nothing where everything is; none where
    /// there is no backup.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        let own = self.newest_good().map(|(_, made)| made);
        age(self.at, self.exposure, best(own, self.cluster.as_ref()).0)
    }
}

/// The backup that protects the node best, and whose it is where it is not the node's own.
pub(super) fn best<'a>(
    own: Option<&'a Made>,
    cluster: Option<&'a ClusterFacts>,
) -> (Option<&'a Made>, Option<&'a Sibling>) {
    match (own, cluster.and_then(|cluster| cluster.newest.as_ref())) {
        (Some(own), Some(other)) if own.writer >= other.made.writer => (Some(own), None),
        (_, Some(other)) => (Some(&other.made), Some(other)),
        (own, None) => (own, None),
    }
}

fn job(plan: &Plan, schedule: &str, journal: Option<&Journal>) -> JobStatus {
    let runs = || journal.into_iter().flat_map(|journal| journal.of(plan.job));
    JobStatus {
        plan: plan.clone(),
        schedule: schedule.to_owned(),
        last_success: runs()
            .find(|record| record.is_success())
            .map(|record| record.ended),
        last: runs().next().cloned(),
        failures: runs().take_while(|record| record.is_failure()).count() as u64,
    }
}

/// Where the node's files cannot be seen, everything since the newest backup may be new.
fn age(now: Timestamp, exposure: Option<Exposure>, newest: Option<&Made>) -> Option<Duration> {
    let made = newest?;
    let since = match exposure {
        Some(Exposure { since: None, .. }) => return Some(Duration::ZERO),
        Some(Exposure {
            since: Some(since), ..
        }) => since,
        None => made.started,
    };
    Some(between(since, now))
}

struct Judge<'a> {
    seeing: &'a Seeing<'a>,
    jobs: &'a [JobStatus],
}

impl Judge<'_> {
    fn verdict(&self) -> Verdict {
        let mut concerns: Vec<Concern> = [self.repository(), self.exposure(), self.newest()]
            .into_iter()
            .flatten()
            .collect();
        concerns.extend(self.failures());
        concerns.extend(
            [
                self.node(),
                self.cluster(),
                self.room(),
                self.configuration(),
                self.journal(),
                self.owed(),
            ]
            .into_iter()
            .flatten(),
        );
        concerns.extend(self.hooks());
        Verdict::of(concerns, self.all_is_well())
    }

    fn facts(&self) -> Option<&RepositoryFacts> {
        self.seeing.repository.facts.as_ref()
    }

    fn best(&self) -> (Option<&Made>, Option<&Sibling>) {
        let own = self
            .facts()
            .and_then(RepositoryFacts::newest_good)
            .map(|(_, made)| made);
        best(own, self.seeing.cluster.as_ref())
    }

    fn all_is_well(&self) -> String {
        let (newest, by) = self.best();
        let age = age(self.seeing.now, self.seeing.exposure, newest).unwrap_or_default();
        let by = by.map_or_else(String::new, |by| format!(" by {}", by.member));
        match self.seeing.exposure {
            Some(Exposure { since: None, .. }) => {
                format!("This node is safe: everything it has written is backed up{by}")
            }
            Some(_) => format!(
                "This node is safe: all that it has written is backed up{by}, except for the last {}",
                roughly(age)
            ),
            None => format!(
                "This node is safe: its newest backup was taken{by} {} ago",
                roughly(age)
            ),
        }
    }

    fn repository(&self) -> Option<Concern> {
        let problem = self.seeing.repository.problem.as_ref()?;
        let hints = self.seeing.repository.hints.clone();
        let concern = |level| {
            Some(Concern {
                level,
                what: format!("its repository cannot be read: {problem}"),
                hints,
            })
        };
        match self.best() {
            (_, None) => concern(Level::Danger),
            // One that never had to take a backup has no repository.
            (_, Some(_))
                if self.seeing.journal.is_some_and(|journal| {
                    journal.records().iter().all(|run| run.repository.is_none())
                }) =>
            {
                None
            }
            (_, Some(_)) => concern(Level::Attention),
        }
    }

    fn cluster(&self) -> Option<Concern> {
        let problem = self.seeing.cluster.as_ref()?.problem.as_ref()?;
        let what = format!("it cannot be told how the other members are backed up: {problem}");
        Some(Concern {
            level: Level::Attention,
            what,
            hints: Vec::new(),
        })
    }

    fn exposure(&self) -> Option<Concern> {
        let (newest, limit) = (self.best().0, Span(self.seeing.max_age));
        let points = self.facts().map(|facts| facts.points.as_slice());
        match age(self.seeing.now, self.seeing.exposure, newest) {
            // That says it all.
            None if points.is_none() => None,
            None if points.is_some_and(<[_]>::is_empty) => Some(Concern {
                level: Level::Danger,
                what: "there is no backup yet".to_owned(),
                hints: vec!["the first one is a full, and may take its time".to_owned()],
            }),
            None => Some(Concern {
                level: Level::Danger,
                what: "no backup is known to be good".to_owned(),
                hints: vec!["`kbackup list` tells more".to_owned()],
            }),
            Some(age) if age >= self.seeing.max_age => Some(Concern {
                level: Level::Danger,
                what: match self.seeing.exposure {
                    Some(_) => format!(
                        "what it wrote {} ago is in no backup, and the limit is {limit}",
                        roughly(age)
                    ),
                    None => format!(
                        "its newest good backup is {} old, and the limit is {limit}",
                        roughly(age)
                    ),
                },
                hints: Vec::new(),
            }),
            Some(_) => None,
        }
    }

    /// A damaged backup that is newer than the newest good one, or any other.
    fn newest(&self) -> Option<Concern> {
        let damaged: Vec<&Point> = self
            .facts()?
            .points
            .iter()
            .filter(|point| point.good().is_none())
            .collect();
        let first = damaged.last()?;
        let others = match damaged.len() {
            1 => String::new(),
            2 => ", and another one".to_owned(),
            many => format!(", and {} others", many - 1),
        };
        let what = format!("backup {} is damaged{others}", first.label);
        Some(Concern {
            level: Level::Attention,
            what,
            hints: vec!["`kbackup verify --repair` mends what a sound copy is left of".to_owned()],
        })
    }

    fn failures(&self) -> impl Iterator<Item = Concern> {
        self.jobs
            .iter()
            .filter_map(|job| match job.last.as_ref().map(|last| &last.outcome) {
                Some(Outcome::Failed { message, hints, .. })
                    if !job.last.as_ref().is_some_and(Record::had_to_wait) =>
                {
                    let times = if job.failures > 1 {
                        format!(" {} times in a row", job.failures)
                    } else {
                        String::new()
                    };
                    let what = format!("`{}` failed{times}: {message}", job.plan.job);
                    Some(Concern {
                        level: Level::Attention,
                        what,
                        hints: hints.clone(),
                    })
                }
                _ => None,
            })
    }

    fn node(&self) -> Option<Concern> {
        let node = self.seeing.node.as_ref()?;
        let problem = node.problem.as_ref()?;
        Some(Concern {
            level: Level::Attention,
            what: format!("the node does not answer: {problem}"),
            hints: node.hints.clone(),
        })
    }

    fn room(&self) -> Option<Concern> {
        let facts = self.facts()?;
        let free = facts.free_bytes?;
        let needed = facts
            .points
            .iter()
            .rev()
            .filter_map(|point| point.made)
            .take(10)
            .map(|made| made.bytes_stored)
            .max()?;
        (free < needed.saturating_mul(ROOM_FOR)).then(|| Concern {
            level: Level::Attention,
            what: format!(
                "the repository has {} left, and the last backups took up to {}",
                bytesize::ByteSize(free),
                bytesize::ByteSize(needed)
            ),
            hints: vec![
                "remove old backups with `kbackup expire`, or give it more room".to_owned(),
            ],
        })
    }

    fn journal(&self) -> Option<Concern> {
        let problem = self.seeing.agent.as_ref()?.journal.as_ref()?;
        Some(Concern {
            level: Level::Attention,
            what: format!("the agent's journal cannot be written: {problem}"),
            hints: vec!["it goes on from memory, until it is started again".to_owned()],
        })
    }

    fn owed(&self) -> Option<Concern> {
        let owed = self.seeing.agent.as_ref()?.owed.as_ref()?;
        Some(Concern {
            level: Level::Attention,
            what: format!(
                "a run that was cut short took something from the node, and it is not given back yet: {owed}"
            ),
            hints: vec!["`kbackup release` gives it back".to_owned()],
        })
    }

    fn hooks(&self) -> impl Iterator<Item = Concern> {
        let problems = self.seeing.agent.iter().flat_map(|agent| &agent.hooks);
        problems.map(|problem| Concern {
            level: Level::Attention,
            what: format!("a hook could not be told: {problem}"),
            hints: vec!["the agent's log holds what it said".to_owned()],
        })
    }

    fn configuration(&self) -> Option<Concern> {
        let problem = self.seeing.agent.as_ref()?.configuration.as_ref()?;
        Some(Concern {
            level: Level::Attention,
            what: format!(
                "its configuration was changed and cannot be used, the one before goes on: {problem}"
            ),
            hints: vec!["`kbackup agent --check-config` tells what is wrong with it".to_owned()],
        })
    }
}

/// A length of time in its largest unit.
#[must_use]
pub fn roughly(length: Duration) -> String {
    let seconds = length.as_secs();
    let (count, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7200 => (seconds / 60, "minute"),
        7200..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86400, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}
