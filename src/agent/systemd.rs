//! What the service manager is told, where there is one (`NOTIFY_SOCKET`, `WATCHDOG_USEC`).

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::debug;

/// The service manager.
#[derive(Debug)]
pub(super) struct Manager {
    /// It ends an agent that was silent for so long.
    watchdog: Option<Duration>,
    /// What it was told last of how it stands.
    told: String,
}

impl Manager {
    pub(super) fn new() -> Self {
        Self {
            watchdog: sd_notify::watchdog_enabled(),
            told: String::new(),
        }
    }

    /// The loop has to go round at least so often.
    pub(super) fn beat(&self) -> Duration {
        self.watchdog.map_or(Duration::MAX, |limit| limit / 2)
    }

    /// Those who wait for this one may start.
    pub(super) fn ready(&self) {
        notify(&[NotifyState::Ready]);
    }

    /// The loop has come round, and so it stands.
    pub(super) fn alive(&mut self, sentence: &str) {
        if self.watchdog.is_some() {
            notify(&[NotifyState::Watchdog]);
        }
        // A line's end would begin another assignment.
        let sentence = sentence.replace(char::is_control, " ");
        if sentence != self.told {
            notify(&[NotifyState::Status(&sentence)]);
            self.told = sentence;
        }
    }

    /// Reads its configuration again; [`Self::ready`] follows.
    pub(super) fn reloading(&self) {
        // systemd takes a message without the time for one of an earlier reload.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => notify(&[NotifyState::Reloading, now]),
            Err(error) => debug!("the time is not known: {error}"),
        }
    }

    /// Ends.
    pub(super) fn stopping(&self) {
        notify(&[NotifyState::Stopping]);
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!("the service manager cannot be told: {error}");
    }
}
