//! The metrics of the node, its backups and the repository.

use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Unit;

use super::{Labels, MetricSheet, flag, maybe, one, second};
use crate::agent::facts::{RepositoryFacts, RestorePoint};
use crate::agent::status::Status;
use crate::agent::verdict::Level;
use crate::clock::between;

const LEVELS: [(Level, &str); 3] = [
    (Level::Safe, "safe"),
    (Level::Attention, "attention"),
    (Level::Danger, "danger"),
];

impl MetricSheet {
    pub(super) fn verdict(&mut self, status: &Status) {
        let verdict = &status.verdict;

        let mut levels = Vec::new();
        let mut concerns = Vec::new();
        for (level, name) in LEVELS {
            let labels: Labels = vec![("level", name)];
            levels.push((labels.clone(), flag(verdict.level == level)));
            // There are no concerns of the level safe.
            if level != Level::Safe {
                let of_level = verdict
                    .concerns
                    .iter()
                    .filter(|concern| concern.level == level);
                concerns.push((labels, of_level.count() as u64));
            }
        }

        self.gauge(
            "verdict",
            None,
            "Whether the node is safe: 1 for the level that applies, 0 for the others",
            levels,
        );
        self.gauge("concerns", None, "How many things are wrong", concerns);
    }

    pub(super) fn agent(&mut self, status: &Status) {
        let Some(agent) = &status.agent else {
            return;
        };

        let version = agent.version.trim_start_matches("kbackup ").to_owned();
        self.0.register(
            "build",
            "The version of kbackup",
            Info::new(vec![("version", version)]),
        );
        self.gauge(
            "agent_start_time",
            Some(Unit::Seconds),
            "When the agent was started",
            one(second(agent.started)),
        );
        self.gauge(
            "configuration_in_use",
            None,
            "0 if the configuration was changed and cannot be used, else 1",
            one(flag(agent.configuration.is_none())),
        );
        self.gauge(
            "give_back_pending",
            None,
            "1 if an earlier run stopped something that the node has not got back yet, else 0",
            one(flag(agent.owed.is_some())),
        );
    }

    pub(super) fn node(&mut self, status: &Status) {
        let Some(node) = &status.node else {
            return;
        };
        self.gauge(
            "node_reachable",
            None,
            "1 if the node answered the last look, else 0",
            one(flag(node.facts.is_some())),
        );

        let Some(facts) = &node.facts else {
            return;
        };
        self.gauge(
            "node_scavenging",
            None,
            "1 while the node scavenges, else 0",
            one(flag(facts.scavenge.is_some())),
        );
    }

    pub(super) fn exposure(&mut self, status: &Status) {
        self.gauge(
            "recovery_point_lag",
            Some(Unit::Seconds),
            "For how long something that the node wrote has been in no good backup",
            maybe(status.age().map(|age| age.as_secs())),
        );
        self.gauge(
            "recovery_point_lag",
            Some(Unit::Bytes),
            "Bytes of the log that are in no good backup",
            maybe(status.exposure.map(|exposure| exposure.bytes)),
        );

        self.gauge(
            "recovery_point_lag_limit",
            Some(Unit::Seconds),
            "The limit of kbackup_recovery_point_lag_seconds (--max-age)",
            one(status.max_age_seconds),
        );
    }

    /// While the repository cannot be read, these tell what was last known.
    pub(super) fn newest_backup(&mut self, status: &Status) {
        let newest = status.newest_good().map(|(_, backup)| backup);
        let started = match (newest, &status.last_known) {
            (Some(newest), _) => newest.started,
            (None, Some(known)) => known.started,
            (None, None) => return,
        };

        self.gauge(
            "newest_backup_age",
            Some(Unit::Seconds),
            "Age of the newest good backup",
            one(between(started, status.at).as_secs()),
        );
        self.gauge(
            "newest_backup_timestamp",
            Some(Unit::Seconds),
            "When the newest good backup began",
            one(second(started)),
        );
        self.gauge(
            "newest_backup_size",
            Some(Unit::Bytes),
            "Bytes that a restore of the newest good backup writes",
            maybe(newest.map(|newest| newest.bytes)),
        );
    }

    /// While the repository cannot be read, these tell what was last known.
    pub(super) fn times(&mut self, status: &Status) {
        let times = status.times();

        let mut newest = Vec::new();
        for (kind, at) in [("full", times.newest_full), ("diff", times.newest_diff)] {
            if let Some(at) = at {
                newest.push((vec![("verb", kind)], second(at)));
            }
        }
        self.gauge(
            "newest_backup_of_kind_timestamp",
            Some(Unit::Seconds),
            "When the newest good backup of each kind began",
            newest,
        );
        self.gauge(
            "newest_verification_timestamp",
            Some(Unit::Seconds),
            "When a backup was last verified, whatever the result",
            maybe(times.verified.map(second)),
        );
    }

    /// When the agent last saw what the other metrics tell of.
    pub(super) fn looks(&mut self, status: &Status) {
        let mut looks = vec![(vec![("what", "repository")], second(status.repository.at))];
        if let Some(node) = &status.node {
            looks.push((vec![("what", "node")], second(node.at)));
        }

        self.gauge(
            "last_look_timestamp",
            Some(Unit::Seconds),
            "When the last look at it ended",
            looks,
        );
    }

    pub(super) fn repository(&mut self, status: &Status) {
        let facts = status.repository.facts.as_ref();
        self.gauge(
            "repository_readable",
            None,
            "1 if the last look could read the repository, else 0",
            one(flag(facts.is_some())),
        );
        let Some(facts) = facts else {
            return;
        };

        self.gauge(
            "repository_free",
            Some(Unit::Bytes),
            "Bytes that can still be stored in the repository",
            maybe(facts.free_bytes),
        );
        self.gauge(
            "repository_stored",
            Some(Unit::Bytes),
            "Bytes that all backups of the repository have stored",
            one(stored_bytes(facts)),
        );
        self.gauge(
            "restore_points",
            None,
            "Backups in the repository, by their condition",
            conditions(facts),
        );
    }
}

fn stored_bytes(facts: &RepositoryFacts) -> u64 {
    let mut sum = 0_u64;
    for point in &facts.points {
        if let Some(backup) = point.backup {
            sum = sum.saturating_add(backup.bytes_stored);
        }
    }

    sum
}

fn conditions(facts: &RepositoryFacts) -> Vec<(Labels, u64)> {
    let mut counts = Vec::new();
    for state in ["good", "damaged", "unreadable"] {
        let of_state = facts
            .points
            .iter()
            .filter(|point| condition(point) == state);
        counts.push((vec![("state", state)], of_state.count() as u64));
    }

    counts
}

fn condition(point: &RestorePoint) -> &'static str {
    if point.backup.is_none() {
        "unreadable"
    } else if point.good().is_none() {
        "damaged"
    } else {
        "good"
    }
}
