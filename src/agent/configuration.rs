//! What the agent is told: its own options, and those of each verb that it runs, from the same flags, environment and file.

use std::path::Path;
use std::time::Duration;

use super::http::Guard;
use super::journal::Job;
use super::planner::{Rule, Rules};
use crate::clock::Window;
use crate::error::{Error, Kind, Result};
use crate::settings::arguments::{self, Cluster, Load, Verb};
use crate::settings::hook::Hook;
use crate::settings::{self, Settings, Unresolved};
use crate::verbs::{Common, node};

/// Where all are backed up one after another, each lets those that are preferred ask for their turn first.
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
    /// [`Kind::Usage`] for options of a job that make no sense, where no node is named, and for secrets that cannot be read.
    pub fn of(settings: &Settings) -> Result<Self> {
        let task = |job: Job| Task::of(job, settings);
        let tasks = [task(Job::Full)?, task(Job::Diff)?, task(Job::Verify)?, task(Job::Expire)?];
        let common = Common::of(settings);
        let Verb::Agent(agent) = &settings.arguments.verb else {
            return Err(Error::new(Kind::Usage, "these are no settings of an agent"));
        };
        if node::connection(&agent.node, common.secrets)?.is_none() {
            return Err(Error::new(Kind::Usage, "no node is named").hint("name the node that the agent keeps with `--node URL`"));
        }
        side_by_side(agent)?;
        Ok(Self { agent: arguments::Agent::clone(agent), common, guard: Guard::of(agent, settings)?, tasks })
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
    pub const fn schedule(&self, job: Job) -> &crate::schedule::Schedule {
        match job {
            Job::Full => &self.agent.full_schedule,
            Job::Diff => &self.agent.diff_schedule,
            Job::Verify => &self.agent.verify_schedule,
            Job::Expire => &self.agent.expire_schedule,
        }
    }

    /// Everybody who is told something.
    pub(super) fn hooks(&self) -> impl Iterator<Item = &Hook> {
        self.agent.on_success.iter().chain(&self.agent.on_failure).chain(&self.agent.on_too_old)
    }

    /// When everything takes place.
    #[must_use]
    pub(super) fn rules(&self) -> Rules {
        let rule = |job| Rule { schedule: self.schedule(job).clone(), window: self.task(job).window() };
        Rules {
            jobs: Job::ALL.map(rule),
            on_change: self.agent.on_change,
            jitter: self.agent.jitter.0,
            seed: self.agent.repository.repo.display().to_string(),
            max_age: self.agent.max_age.0,
            scavenge_rest: self.agent.scavenge_rest.0,
            grace: if self.agent.cluster == Cluster::One { self.agent.cluster_grace.0 } else { STAGGER },
        }
    }
}

impl Task {
    fn of(job: Job, settings: &Settings) -> Result<Self> {
        let settings = settings::resolve_as(job.name(), settings).map_err(|unresolved| match unresolved {
            Unresolved::Error(error) => error,
            Unresolved::Usage(usage) => Error::new(Kind::Usage, format!("the options of `{job}` make no sense")).because(plain(&usage)),
        })?;
        Ok(Self { common: Common::of(&settings), verb: settings.arguments.verb })
    }

    /// How much of the machine it may take.
    #[must_use]
    pub fn load(&self) -> Load {
        self.verb.load()
    }

    fn window(&self) -> Option<Window> {
        self.load().window
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

/// What clap has to say, without colours and without the usage that nobody typed.
fn plain(usage: &clap::Error) -> String {
    let text = usage.to_string();
    let lines = text.trim_start_matches("error: ").lines().take_while(|line| !line.is_empty()).map(str::trim);
    lines.collect::<Vec<_>>().join(" ")
}
