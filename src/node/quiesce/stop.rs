//! Stops the scavenges that run on the node (http-api §1.6).

use std::time::Duration;

use super::borrowed::Borrowed;
use super::poll::Poll;
use super::scavenges::{current_scavenge, has_succeeded, parameters_of, still_scavenging};
use super::settings::QuiesceSettings;
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::node::{Client, CurrentScavenge, Patience, ScavengeStop};

/// A leader that stops its own scavenge after a pause needs a moment to clean up. Only a scavenge
/// that lasts longer was started by hand.
const AUTO_CLEAN_UP: Duration = Duration::from_secs(3);
/// A DELETE often gets no answer (O41), and the current scavenge shows the result.
const DELETE_LIMIT: Duration = Duration::from_secs(2);

/// Stops every scavenge that runs, and waits until none does. Returns the id of the one that was
/// stopped before it was done.
///
/// # Errors
/// [`Kind::Scavenging`] if one runs that may not be stopped, [`Kind::Unstable`] if one does not
/// stop in time.
pub(super) fn stop_scavenges(
    client: &Client,
    borrowed: &mut Borrowed<'_>,
    settings: &QuiesceSettings,
    patience: Patience<'_>,
) -> Result<Option<String>> {
    let mut stopped: Option<String> = None;
    let mut poll = Poll::new(settings.stop_within, patience);

    while let CurrentScavenge::Running(scavenge) = current_scavenge(client, patience)? {
        let is_told = stopped.as_ref() == Some(&scavenge);
        if is_told || poll.is_over() {
            poll.again(|| does_not_stop(client, &scavenge))?;
            continue;
        }

        // An earlier run may have told it to stop.
        let is_on_record = matches!(&borrowed.record().scavenge, Some(on) if on.id == scavenge);
        if !settings.may_stop_scavenges && !is_on_record {
            return Err(still_scavenging(
                client,
                format!("scavenge {scavenge} runs"),
            ));
        }

        tell_to_stop(client, borrowed, &scavenge, settings, patience)?;
        poll.expect_change();
        // The limit covers all scavenges together, from the first one on, because an operator may
        // start one after the other.
        if stopped.replace(scavenge).is_none() {
            poll = Poll::new(settings.stop_within, patience);
        }
    }

    let Some(scavenge) = stopped else {
        return Ok(None);
    };
    if has_succeeded(client, &scavenge, patience)? {
        // It had done its work before it was asked to stop.
        borrowed.scavenge_needs_nothing()?;
        return Ok(None);
    }

    borrowed.run().emit(Event::ScavengeStopped {
        scavenge: scavenge.clone(),
    });
    Ok(Some(scavenge))
}

/// Waits until a scavenge of auto-scavenge, which was just paused, has cleaned up.
pub(super) fn wait_for_auto_clean_up(client: &Client, patience: Patience<'_>) -> Result<()> {
    let mut poll = Poll::new(AUTO_CLEAN_UP, patience);
    while matches!(
        current_scavenge(client, patience)?,
        CurrentScavenge::Running(_)
    ) {
        if !poll.pause()? {
            break;
        }
    }

    Ok(())
}

fn tell_to_stop(
    client: &Client,
    borrowed: &mut Borrowed<'_>,
    scavenge: &str,
    settings: &QuiesceSettings,
    patience: Patience<'_>,
) -> Result<()> {
    let told = parameters_of(client, scavenge, patience);
    borrowed.run().check()?;
    borrowed.take_scavenge(scavenge, told, settings)?;
    borrowed.run().note(format!("stopping scavenge {scavenge}"));

    // What is on record is told to stop, even if a signal comes now: only then is it known what has
    // to be given back. Whatever the node answers, `current` says when the scavenge has ended
    // (http-api §1.6).
    let patience = Patience::regardless(DELETE_LIMIT);
    let _: ScavengeStop = client.stop_scavenge(scavenge, patience)?;
    borrowed.scavenge_was_told()
}

fn does_not_stop(client: &Client, scavenge: &str) -> Error {
    Error::new(
        Kind::Unstable,
        format!("scavenge {scavenge} does not stop in time"),
    )
    .on(client.place())
    .hint(
        "completing a large chunk takes a while; allow it more time with `--quiesce-wait`, \
         or run the backup at another hour",
    )
}
