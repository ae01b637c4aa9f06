//! What the agent is configured to do: its own options and the options of each job. All come from
//! the same flags, environment and file.
//!
//! `check.rs` refuses what cannot work, at the start, at a reload and with `--check-config`. The
//! last one also checks the directories.

mod check;

use std::collections::BTreeMap;
use std::time::Duration;

use super::access::AccessRules;
use super::planner::{JobRule, PlanningRules, ScavengingRule};
use super::run_record::Job;
use crate::clock::Window;
use crate::error::{Error, Kind, Result};
use crate::repository::absolute_place;
use crate::run::Run;
use crate::schedule::Schedule;
use crate::settings::hook::Hook;
use crate::settings::options::{
    AgentOptions, ClusterMode, GeneralOptions, LoadOptions, PruneOptions, Verb,
};
use crate::settings::{self, Setting, Settings};
use crate::verbs;

/// With `--turns one-after-another`, each member waits this long for each preferred member, so that
/// the preferred one asks for its turn first.
const STAGGER: Duration = Duration::from_secs(10);

/// The whole configuration of an agent.
#[derive(Debug)]
pub struct Configuration {
    /// The agent's own options.
    pub agent: AgentOptions,
    /// The options that all verbs share.
    pub general: GeneralOptions,
    /// Which readers may read the page.
    pub(super) access: AccessRules,
    /// The settings of each of [`Job::ALL`], in that order.
    jobs: [JobSettings; 4],
    /// The options of the prune that follows each expiry.
    pub(super) prune: PruneOptions,
    /// When the jobs run.
    rules: PlanningRules,
}

/// The settings of one job. They are those of its verb on the command line.
#[derive(Debug)]
pub(super) struct JobSettings {
    pub verb: Verb,
    pub general: GeneralOptions,
    /// Every option that has a value.
    values: BTreeMap<String, Setting>,
}

impl Configuration {
    /// Resolves the settings of the agent and of its jobs.
    ///
    /// # Errors
    /// [`Kind::Usage`] if something of it cannot work: the module `check` lists what.
    pub fn of(settings: &Settings) -> Result<Self> {
        let [full, diff, verify, expire] = Job::ALL.map(|job| JobSettings::of(job, settings));
        let jobs = [full?, diff?, verify?, expire?];

        let Verb::Agent(agent) = &settings.verb else {
            return Err(Error::new(
                Kind::Usage,
                "these are not the settings of an agent",
            ));
        };
        check_cluster_directory(agent)?;
        check::check(agent, settings, &jobs)?;
        let prune = prune_options(agent, settings)?;

        Ok(Self {
            agent: AgentOptions::clone(agent),
            general: settings.general.clone(),
            access: AccessRules::of(agent)?,
            rules: rules(agent, &jobs),
            jobs,
            prune,
        })
    }

    /// Checks the directories that the configuration names. An agent that is started does without
    /// this check: it must run, and say so, while a disk is not mounted yet.
    ///
    /// # Errors
    /// What every backup would say.
    pub fn check_places(&self, run: &Run) -> Result<()> {
        verbs::places::check(&self.agent, &self.general, run)
    }

    /// Checks that this configuration can take the place of `before` while the agent runs.
    ///
    /// # Errors
    /// [`Kind::Usage`] if it changes something that the agent reads only when it is started.
    pub(super) fn can_replace(&self, before: &Self) -> Result<()> {
        let (agent, old) = (&self.agent, &before.agent);
        let (general, old_general) = (&self.general, &before.general);

        let mut changed = Vec::new();
        if agent.listen != old.listen {
            changed.push("`listen`");
        }
        if absolute_place(&agent.repository) != absolute_place(&old.repository) {
            changed.push("`repo`");
        }
        if general.state_directory()? != old_general.state_directory()? {
            changed.push("`state-dir`");
        }
        if (general.log, general.log_format) != (old_general.log, old_general.log_format) {
            changed.push("`log` or `log-format`");
        }
        if changed.is_empty() {
            return Ok(());
        }

        let changed = changed.join(" and ");
        let what = format!(
            "{changed} cannot change while the agent runs, so nothing of the new configuration is \
             used: restart the agent"
        );
        Err(Error::new(Kind::Usage, what))
    }

    /// The settings of a job.
    pub(super) const fn job_settings(&self, job: Job) -> &JobSettings {
        let [full, diff, verify, expire] = &self.jobs;
        match job {
            Job::Full => full,
            Job::Diff => diff,
            Job::Verify => verify,
            Job::Expire => expire,
        }
    }

    /// When a job runs.
    #[must_use]
    pub const fn schedule(&self, job: Job) -> &Schedule {
        schedule(&self.agent, job)
    }

    /// All hooks.
    pub(super) fn hooks(&self) -> impl Iterator<Item = &Hook> {
        let agent = &self.agent;
        agent
            .on_success
            .iter()
            .chain(&agent.on_failure)
            .chain(&agent.on_too_old)
    }

    /// When the jobs run.
    pub(super) const fn rules(&self) -> &PlanningRules {
        &self.rules
    }
}

impl JobSettings {
    fn of(job: Job, settings: &Settings) -> Result<Self> {
        let settings = settings::resolve_as(job.name(), settings).map_err(|unresolved| {
            unresolved.into_error(&format!("cannot use the options of `{job}`"))
        })?;

        Ok(Self {
            general: settings.general,
            verb: settings.verb,
            values: settings.values,
        })
    }

    /// How much of the machine the job may use.
    pub(super) fn load(&self) -> LoadOptions {
        self.verb.load()
    }

    /// The hours in which the job may run.
    pub(super) fn window(&self) -> Option<Window> {
        self.load().window
    }
}

fn prune_options(agent: &AgentOptions, settings: &Settings) -> Result<PruneOptions> {
    let settings = settings::resolve_as("prune", settings)
        .map_err(|unresolved| unresolved.into_error("cannot use the options of `prune`"))?;
    let Verb::Prune(options) = settings.verb else {
        return Err(Error::new(Kind::Failed, "`prune` has other options"));
    };
    check::check_prune(agent, &options)?;
    Ok(options)
}

const fn schedule(agent: &AgentOptions, job: Job) -> &Schedule {
    match job {
        Job::Full => &agent.full_schedule,
        Job::Diff => &agent.diff_schedule,
        Job::Verify => &agent.verify_schedule,
        Job::Expire => &agent.expire_schedule,
    }
}

fn rules(agent: &AgentOptions, [full, diff, verify, expire]: &[JobSettings; 4]) -> PlanningRules {
    let grace = if agent.cluster == ClusterMode::One {
        agent.cluster_grace
    } else {
        STAGGER
    };

    PlanningRules {
        jobs: [
            rule(agent, Job::Full, full),
            rule(agent, Job::Diff, diff),
            rule(agent, Job::Verify, verify),
            rule(agent, Job::Expire, expire),
        ],
        on_change: agent.on_change,
        jitter: agent.jitter,
        seed: agent.repository.display().to_string(),
        grace,
    }
}

fn rule(agent: &AgentOptions, job: Job, settings: &JobSettings) -> JobRule {
    JobRule {
        schedule: schedule(agent, job).clone(),
        window: settings.window(),
        scavenging: scavenging_rule(agent, settings),
    }
}

/// What the table of a job says goes before what is said to the agent.
fn scavenging_rule(agent: &AgentOptions, settings: &JobSettings) -> ScavengingRule {
    let mut rule = ScavengingRule {
        manner: agent.scavenge,
        rest: agent.scavenge_rest,
        max_age: agent.max_age,
    };
    let (Verb::Full(options) | Verb::Diff(options)) = &settings.verb else {
        return rule;
    };

    rule.manner = options.scavenge.unwrap_or(rule.manner);
    rule.rest = options.scavenge_rest.unwrap_or(rule.rest);
    rule.max_age = options.max_age.unwrap_or(rule.max_age);
    rule
}

/// The repositories of all members have to be side by side, because each agent looks for the others
/// there.
fn check_cluster_directory(agent: &AgentOptions) -> Result<()> {
    let Some(directory) = &agent.cluster_dir else {
        if agent.takes_turns() {
            return Err(Error::new(
                Kind::Usage,
                "`--cluster one` and `--turns one-after-another` need `--cluster-dir`",
            )
            .hint("name the directory that holds the repositories of all members"));
        }
        return Ok(());
    };

    let repository = absolute_place(&agent.repository);
    if repository.parent() == Some(&absolute_place(directory)) {
        return Ok(());
    }
    Err(
        Error::new(Kind::Usage, "the repository is not in `--cluster-dir`")
            .at(&repository)
            .hint(
                "say for example `--repo /backup/node1 --cluster-dir /backup`, \
                 and `--repo /backup/node2 --cluster-dir /backup` for the next member",
            ),
    )
}
