//! How the agent shares the work with those of the cluster's other members: what they have backed
//! up, and whose turn it is.

use std::time::Duration;

use tracing::warn;

use super::cluster::{self, ClusterFacts, OwnLog};
use super::configuration::Configuration;
use super::journal::{Job, Outcome, Record};
use super::observation::RepositoryFacts;
use super::turn::Turn;
use super::{Agent, Sight, lock, status};
use crate::clock;
use crate::error::Result;
use crate::manifest::Directories;
use crate::settings::options::ClusterMode;

/// After its turn a member leaves so much time to those that wait.
const YIELD: Duration = Duration::from_secs(10);

impl Agent {
    /// Sees what other members have backed up, where that stands for this node.
    pub(super) fn look_at_others(&self, configuration: &Configuration) {
        let options = &configuration.agent;
        let (Some(directory), ClusterMode::One) = (&options.cluster_dir, options.cluster) else {
            let mut seen = lock(&self.seen);
            (seen.cluster, seen.log) = (None, None);
            return;
        };
        let Sight { db, log, .. } = lock(&self.seen).clone();
        let log = db
            .map(|db| Directories::new(db, options.directories.index.clone()))
            .map_or(Ok(None), |own| OwnLog::read(&own, log));
        let (cluster, log) = match log {
            Ok(log) => (
                log.as_ref()
                    .map(|log| cluster::look(directory, &options.repository, log))
                    .unwrap_or_default(),
                log,
            ),
            Err(error) => (
                ClusterFacts {
                    problem: Some(error.in_words()),
                    ..ClusterFacts::default()
                },
                None,
            ),
        };
        let mut seen = lock(&self.seen);
        let own = seen
            .repository
            .facts
            .as_ref()
            .and_then(RepositoryFacts::newest_good)
            .map(|(_, made)| made);
        let covered = status::best(own, Some(&cluster))
            .1
            .map(|by| format!("up to date by {}: {}", by.member, by.label));
        (seen.cluster, seen.log) = (Some(cluster), log);
        drop(seen);
        self.left_to_another(covered);
    }

    /// Remembers, once, that another member has taken the backup that this one did not have to
    /// take.
    fn left_to_another(&self, covered: Option<String>) {
        let Some(because) = covered else { return };
        let is_known = lock(&self.journal)
            .records()
            .iter()
            .rev()
            .find(|run| run.job.is_backup())
            .is_some_and(|last| matches!(&last.outcome, Outcome::Skipped { because: known } if *known == because));
        if !is_known && lock(&self.worker).is_none() {
            self.remember(Record::left_to_another(clock::now(), because));
        }
    }

    /// What a backup has to have before it begins: its turn, where the members of the cluster take
    /// turns. Else, why it has to wait.
    pub(super) fn turn(
        &self,
        job: Job,
        configuration: &Configuration,
    ) -> std::result::Result<Option<Turn>, String> {
        if !job.is_backup() || !configuration.agent.takes_turns() {
            return Ok(None);
        }
        let turn = match self.take_turn(configuration) {
            Ok(turn) => turn.map_err(|why| format!("it waits for its turn: {why}"))?,
            Err(problem) => {
                // That nobody can be asked keeps no node from being backed up.
                warn!(
                    "the turns of the cluster's members cannot be kept: {}",
                    problem.in_words()
                );
                *lock(&self.no_turns) = Some(problem.in_words());
                None
            }
        };
        // While it was asked for, another one may have ended.
        self.look_at_others(configuration);
        let (order, _) = self.due(configuration);
        match order {
            Some((order, false)) if order.job == job => Ok(turn),
            _ => Err("another member has just been backed up".to_owned()),
        }
    }

    /// The turn; none where the node is in no cluster. Else, who has it.
    fn take_turn(
        &self,
        configuration: &Configuration,
    ) -> Result<std::result::Result<Option<Turn>, String>> {
        let node = lock(&self.seen)
            .node
            .as_ref()
            .and_then(|node| node.facts.clone());
        let Some(directory) = &configuration.agent.cluster_dir else {
            return Ok(Ok(None));
        };
        let last = lock(&self.journal)
            .records()
            .iter()
            .rev()
            .find(|run| {
                run.job.is_backup()
                    && !matches!(run.outcome, Outcome::Skipped { .. } | Outcome::UpToDate)
            })
            .map(|last| last.ended);
        let rested = last.map_or(YIELD, |last| {
            Duration::try_from(clock::now().duration_since(last)).unwrap_or(YIELD)
        });
        if rested < YIELD {
            return Ok(Err(
                "the others may go first, as it has just been backed up".to_owned(),
            ));
        }
        let name = || {
            configuration
                .agent
                .repository
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
        };
        let member = node
            .and_then(|node| node.endpoint)
            .or_else(name)
            .unwrap_or_default();
        let taken = Turn::take(directory, &member)?;
        *lock(&self.no_turns) = None;
        Ok(taken
            .map(Some)
            .map_err(|holder| format!("{holder} is being backed up")))
    }
}
