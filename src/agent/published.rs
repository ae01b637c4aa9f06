//! What the loop publishes: the only thing that the page, the metrics and the health check read.
//!
//! The loop owns all of the agent's state and the only [`Publisher`]. After each event it replaces
//! the snapshot. A reader gets the newest snapshot and never waits for the loop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::assessment::stuck_loop;
use super::configuration::Configuration;
use super::run_totals::RunTotals;
use super::status::Status;

/// A loop that has published nothing for this long is stuck. It publishes every few seconds,
/// whatever it waits for.
const STUCK: Duration = Duration::from_mins(2);

/// One state of the agent.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// When the loop made it. If this is long ago, the loop is stuck.
    pub at: Instant,
    pub status: Arc<Status>,
    pub totals: RunTotals,
    pub configuration: Arc<Configuration>,
}

/// The loop's end.
#[derive(Debug)]
pub(super) struct Publisher(watch::Sender<Arc<Snapshot>>);

/// The readers' end.
#[derive(Debug, Clone)]
pub(super) struct Published(watch::Receiver<Arc<Snapshot>>);

impl Snapshot {
    /// For how long the loop has published nothing, if it is stuck.
    pub(super) fn stuck_for(&self) -> Option<Duration> {
        let silent_for = self.at.elapsed();
        (silent_for > STUCK).then_some(silent_for)
    }

    /// The status, as far as it is still known: a stuck loop knows nothing.
    pub(super) fn known_status(&self) -> Arc<Status> {
        let Some(silent_for) = self.stuck_for() else {
            return Arc::clone(&self.status);
        };

        let mut status = Status::clone(&self.status);
        status.lose_sight();
        status.verdict.add(stuck_loop(silent_for));
        Arc::new(status)
    }
}

impl Publisher {
    pub(super) fn new(first: Snapshot) -> (Self, Published) {
        let (sender, receiver) = watch::channel(Arc::new(first));
        (Self(sender), Published(receiver))
    }

    pub(super) fn publish(&self, snapshot: Snapshot) {
        self.0.send_replace(Arc::new(snapshot));
    }
}

impl Published {
    /// The newest snapshot.
    pub(super) fn now(&self) -> Arc<Snapshot> {
        Arc::clone(&self.0.borrow())
    }
}
