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
use crate::settings::arguments::{self, Cluster, Load, Verb};
use crate::settings::hook::Hook;
use crate::settings::{self, Settings};
use crate::verbs::{Common, node};

/// Where all are backed up one after another, each lets those that are preferred ask for their turn
/// first.
const STAGGER: Duration = Duration::from_secs(10);

/// Everything that the agent is told.
#[derive(Debug)]
pub struct Configuration {
    /// Its own options.
    pub agent: arguments::Agent,
    /// What it shares with every verb.
    pub common: Common,
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
    pub common: Common,
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
        let common = Common::of(settings);
        let Verb::Agent(agent) = &settings.arguments.verb else {
            return Err(Error::new(Kind::Usage, "these are no settings of an agent"));
        };
        if node::connection(&agent.node, common.secrets)?.is_none() {
            return Err(Error::new(Kind::Usage, "no node is named")
                .hint("name the node that the agent keeps with `--node URL`"));
        }
        side_by_side(agent)?;
        let rules = rules(agent, &tasks);
        Ok(Self {
            agent: arguments::Agent::clone(agent),
            common,
            guard: Guard::of(agent, settings)?,
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
            common: Common::of(&settings),
            verb: settings.arguments.verb,
        })
    }

    /// How much of the machine it may take.
    #[must_use]
    pub fn load(&self) -> Load {
        self.verb.load()
    }

    /// The hours in which it may run.
    pub(super) fn window(&self) -> Option<Window> {
        self.load().window
    }
}

const fn schedule(agent: &arguments::Agent, job: Job) -> &Schedule {
    match job {
        Job::Full => &agent.full_schedule,
        Job::Diff => &agent.diff_schedule,
        Job::Verify => &agent.verify_schedule,
        Job::Expire => &agent.expire_schedule,
    }
}

fn rules(agent: &arguments::Agent, tasks: &[Task; 4]) -> Rules {
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
        jitter: agent.jitter.0,
        seed: agent.repository.repo.display().to_string(),
        max_age: agent.max_age.0,
        scavenge_rest: agent.scavenge_rest.0,
        grace: if agent.cluster == Cluster::One {
            agent.cluster_grace.0
        } else {
            STAGGER
        },
    }
}

/// The other members' repositories are found beside the own one, and the others find it there.
fn side_by_side(agent: &arguments::Agent) -> Result<()> {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let repository = absolute(&agent.repository.repo);
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
