//! The events of a run, as lines of the log.

use tracing::{debug, info, warn};

use crate::clock;
use crate::event::Event;

/// Writes an event into the log. Progress is left out: a progress bar or a page shows it.
pub(crate) fn tell(event: &Event) {
    match event {
        Event::Step(step) => debug!("{}", step.name()),
        Event::Expected { files, bytes } => debug!(files, bytes, "expected"),
        Event::Progress { .. } => {}
        Event::Copied { path, bytes } => debug!(path, bytes, "copied"),
        Event::Resumed { path, bytes } => debug!(path, bytes, "resumed"),
        Event::Reused { path } => debug!(path, "reused"),
        Event::Retry {
            attempt,
            of,
            reason,
        } => info!(attempt, of, "starting over: {reason}"),
        Event::AutoScavengePaused => info!("auto-scavenge paused"),
        Event::ScavengeStopped { scavenge } => info!(scavenge, "scavenge stopped"),
        Event::Taken { what, since, .. } => debug!(%since, "{what} has to be given back"),
        Event::GivenBack { what, after } => {
            info!(after = %clock::length(*after), "{what} given back");
        }
        Event::NothingToGiveBack { what, after } => {
            debug!(after = %clock::length(*after), "{what} had finished, so it is not given back");
        }
        Event::Committed { label, position } => info!(label, position, "committed"),
        Event::Warning(text) => warn!("{text}"),
        Event::Note(text) => info!("{text}"),
    }
}
