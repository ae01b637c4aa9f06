//! Tells the service manager, if one started the agent, that the agent lives and how safe the node
//! is (`NOTIFY_SOCKET`, `WATCHDOG_USEC`).

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::debug;

/// The service manager.
#[derive(Debug)]
pub(super) struct ServiceManager {
    /// The manager restarts an agent that was silent for this long.
    watchdog: Option<Duration>,
    /// The sentence that the manager got last.
    last_sentence: String,
}

impl ServiceManager {
    pub(super) fn new() -> Self {
        Self {
            watchdog: sd_notify::watchdog_enabled(),
            last_sentence: String::new(),
        }
    }

    /// How long the loop may sleep at most.
    pub(super) fn beat(&self) -> Duration {
        match self.watchdog {
            Some(limit) => limit / 2,
            None => Duration::MAX,
        }
    }

    /// Services that wait for the agent may start.
    pub(super) fn ready(&self) {
        notify(&[NotifyState::Ready]);
    }

    /// The loop has gone round. `sentence` says how safe the node is.
    pub(super) fn alive(&mut self, sentence: &str) {
        if self.watchdog.is_some() {
            notify(&[NotifyState::Watchdog]);
        }

        // In this protocol, a line end would begin another message.
        let sentence = sentence.replace(char::is_control, " ");
        if sentence != self.last_sentence {
            notify(&[NotifyState::Status(&sentence)]);
            self.last_sentence = sentence;
        }
    }

    /// The agent reads its configuration again. [`Self::ready`] follows.
    pub(super) fn reloading(&self) {
        // Without the time, systemd takes the message for one of an earlier reload.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => notify(&[NotifyState::Reloading, now]),
            Err(error) => debug!("cannot read the monotonic clock: {error}"),
        }
    }

    /// The agent ends.
    pub(super) fn stopping(&self) {
        notify(&[NotifyState::Stopping]);
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!("cannot tell the service manager: {error}");
    }
}
