//! What the agent is told: its own options, and those of each verb that it runs, from the same
//! flags, environment and file.

use std::path::Path;
use std::time::Duration;

use super::http::Guard;
use super::journal::Job;
use super::planner::{Rule, Rules};
use crate::clock::Window;
use crate::error::{Error, Kind, Result};
use crate::schedule::Schedule;
use crate::settings::hook::Hook;
use crate::settings::options::{AgentOptions, ClusterMode, GeneralOptions, LoadOptions, Verb};
use crate::settings::{self, Settings};
use crate::verbs::connection::connection;

/// Where all are backed up one after another, each lets those that are preferred ask for their turn
/// first.
const STAGGER: Duration = Duration::from_secs(10);

/// Everything that the agent is told.
#[derive(Debug)]
pub struct Configuration {
    /// Its own options.
    pub agent: AgentOptions,
    /// What it shares with every verb.
    pub general: GeneralOptions,
    /// Who may read its page.
    pub(super) guard: Guard,
    /// What its jobs are told.
    tasks: [Task; 4],
    /// When they take place.
    rules: Rules,
}

/// One verb with its options, as if somebody had typed it.
#[derive(Debug)]
pub struct Task {
    /// The verb.
    pub verb: Verb,
    /// What every verb is told.
    pub general: GeneralOptions,
}

impl Configuration {
    /// Resolves what each job is told beside the agent's own settings.
    ///
    /// # Errors
    /// [`Kind::Usage`] for options of a job that make no sense, where no node is named, and for
    /// secrets that cannot be read.
    pub fn of(settings: &Settings) -> Result<Self> {
        let [full, diff, verify, expire] = Job::ALL.map(|job| Task::of(job, settings));
        let tasks = [full?, diff?, verify?, expire?];
        let Verb::Agent(agent) = &settings.verb else {
            return Err(Error::new(Kind::Usage, "these are no settings of an agent"));
        };
        if connection(&agent.node)?.is_none() {
            return Err(Error::new(Kind::Usage, "no node is named")
                .hint("name the node that the agent keeps with `--node URL`"));
        }
        side_by_side(agent)?;
        let rules = rules(agent, &tasks);
        Ok(Self {
            agent: AgentOptions::clone(agent),
            general: settings.general.clone(),
            guard: Guard::of(agent)?,
            tasks,
            rules,
        })
    }

    /// What a job is told.
    #[must_use]
    pub const fn task(&self, job: Job) -> &Task {
        let [full, diff, verify, expire] = &self.tasks;
        match job {
            Job::Full => full,
            Job::Diff => diff,
            Job::Verify => verify,
            Job::Expire => expire,
        }
    }

    /// When a job takes place.
    #[must_use]
    pub const fn schedule(&self, job: Job) -> &Schedule {
        schedule(&self.agent, job)
    }

    /// Everybody who is told something.
    pub(super) fn hooks(&self) -> impl Iterator<Item = &Hook> {
        self.agent
            .on_success
            .iter()
            .chain(&self.agent.on_failure)
            .chain(&self.agent.on_too_old)
    }

    /// When everything takes place.
    #[must_use]
    pub(super) const fn rules(&self) -> &Rules {
        &self.rules
    }
}

impl Task {
    fn of(job: Job, settings: &Settings) -> Result<Self> {
        let settings = settings::resolve_as(job.name(), settings).map_err(|unresolved| {
            unresolved.into_error(&format!("the options of `{job}` make no sense"))
        })?;
        Ok(Self {
            general: settings.general,
            verb: settings.verb,
        })
    }

    /// How much of the machine it may take.
    #[must_use]
    pub fn load(&self) -> LoadOptions {
        self.verb.load()
    }

    /// The hours in which it may run.
    pub(super) fn window(&self) -> Option<Window> {
        self.load().window
    }
}

const fn schedule(agent: &AgentOptions, job: Job) -> &Schedule {
    match job {
        Job::Full => &agent.full_schedule,
        Job::Diff => &agent.diff_schedule,
        Job::Verify => &agent.verify_schedule,
        Job::Expire => &agent.expire_schedule,
    }
}

fn rules(agent: &AgentOptions, tasks: &[Task; 4]) -> Rules {
    let [full, diff, verify, expire] = tasks;
    let rule = |job, task: &Task| Rule {
        schedule: schedule(agent, job).clone(),
        window: task.window(),
    };
    Rules {
        jobs: [
            rule(Job::Full, full),
            rule(Job::Diff, diff),
            rule(Job::Verify, verify),
            rule(Job::Expire, expire),
        ],
        on_change: agent.on_change,
        jitter: agent.jitter,
        seed: agent.repository.display().to_string(),
        max_age: agent.max_age,
        scavenge_rest: agent.scavenge_rest,
        grace: if agent.cluster == ClusterMode::One {
            agent.cluster_grace
        } else {
            STAGGER
        },
    }
}

/// The other members' repositories are found beside the own one, and the others find it there.
fn side_by_side(agent: &AgentOptions) -> Result<()> {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let repository = absolute(&agent.repository);
    match &agent.cluster_dir {
        Some(directory) if repository.parent() != Some(&absolute(directory)) => {
            Err(Error::new(Kind::Usage, "the repository does not lie in `--cluster-dir`")
                .at(&repository)
                .hint("for example: `--repo /backup/node1 --cluster-dir /backup`, and `--repo /backup/node2 --cluster-dir /backup` for the next member"))
        }
        None if agent.takes_turns() => Err(Error::new(Kind::Usage, "`--cluster one` and `--turns one-after-another` need `--cluster-dir`")
            .hint("name the directory in which the repositories of all members lie side by side")),
        _ => Ok(()),
    }
}
