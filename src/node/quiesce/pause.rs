//! Keeps auto-scavenge, which the whole cluster shares, away from a copy (http-api §2.3).
//!
//! A pause is an entry in the node's log, a resume moves the schedule, and both concern the whole
//! cluster. So an auto-scavenge that will not begin during the copy is left alone.

use super::borrowed::Borrowed;
use super::poll::Poll;
use super::scavenges::{auto_at_work, still_scavenging};
use super::settings::QuiesceSettings;
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::node::{AutoScavenge, AutoScavengeStatus, Client, Patience};
use crate::run::Run;

/// The result of pausing auto-scavenge.
pub(super) struct PauseResult {
    /// Its state before. `None` if there is none.
    pub(super) found: Option<AutoScavenge>,
    /// kbackup paused it, in this run or an earlier one, and has to resume it.
    pub(super) is_ours: bool,
    /// It may have run a scavenge on this node.
    pub(super) was_at_work: bool,
}

impl PauseResult {
    /// Nothing was paused.
    const fn left_alone(found: Option<AutoScavenge>) -> Self {
        Self {
            found,
            is_ours: false,
            was_at_work: false,
        }
    }
}

/// Pauses auto-scavenge, and waits until it is paused. Leaves it alone if its next cycle begins only
/// after the copy.
///
/// # Errors
/// [`Kind::Scavenging`] if it runs a cycle that may not be interrupted, [`Kind::Unstable`] if it
/// does not pause in time.
pub(super) fn pause_auto_scavenge(
    client: &Client,
    borrowed: &mut Borrowed<'_>,
    settings: &QuiesceSettings,
    patience: Patience<'_>,
) -> Result<PauseResult> {
    let mut poll = Poll::new(settings.pause_within, patience);
    let status = settled_status(client, &mut poll)?;
    let state = status.state.clone();

    let is_on_record = borrowed.record().auto_scavenge.is_some();
    match state {
        AutoScavenge::Absent => return Ok(PauseResult::left_alone(None)),
        AutoScavenge::NotConfigured => return Ok(PauseResult::left_alone(Some(state))),
        AutoScavenge::Paused => {
            return Ok(PauseResult {
                found: Some(state),
                is_ours: is_on_record,
                was_at_work: false,
            });
        }
        _ if is_far_away(&status, settings) => {
            note_left_alone(&status, borrowed);
            // Somebody has resumed what an earlier run paused.
            if is_on_record {
                borrowed.gave_back_auto_scavenge()?;
            }
            return Ok(PauseResult::left_alone(Some(state)));
        }
        _ => {}
    }
    if state.is_at_work() && !is_on_record && !settings.may_stop_scavenges {
        return Err(still_scavenging(client, auto_at_work(&state)));
    }

    // kbackup never resumes what an operator paused.
    let is_ours = is_on_record || state != AutoScavenge::Pausing;
    if is_ours && !is_on_record {
        borrowed.take_auto_scavenge(&status, settings.max_pause)?;
    }

    let run = borrowed.run();
    run.note(format!(
        "auto-scavenge is {state}; waiting until it is paused"
    ));
    note_cycle_at_risk(&status, run);
    let was_at_work = state != AutoScavenge::Waiting;
    wait_until_paused(client, state.clone(), is_ours, settings, poll)?;

    if is_ours {
        run.emit(Event::AutoScavengePaused);
    }
    Ok(PauseResult {
        found: Some(state),
        is_ours,
        was_at_work,
    })
}

/// Whether auto-scavenge waits, and its next cycle begins only after the copy. The end of the run
/// checks that none began nevertheless.
fn is_far_away(status: &AutoScavengeStatus, settings: &QuiesceSettings) -> bool {
    match (&status.state, status.until_next_cycle) {
        (AutoScavenge::Waiting, Some(until)) => until > settings.copy_takes,
        _ => false,
    }
}

fn note_left_alone(status: &AutoScavengeStatus, borrowed: &Borrowed<'_>) {
    let until = status.until_next_cycle.unwrap_or_default();
    borrowed.run().note(format!(
        "auto-scavenge is not paused: its next cycle begins in {}, after this backup",
        clock::length(until)
    ));
}

/// A resume moves the schedule, so a cycle that falls into the pause never begins (http-api §2.6).
fn note_cycle_at_risk(status: &AutoScavengeStatus, run: &Run) {
    if let (AutoScavenge::Waiting, Some(until)) = (&status.state, status.until_next_cycle) {
        run.note(format!(
            "its next cycle begins in {}: if this backup takes longer, the server leaves that \
             cycle out; if that happens each time, run the backup at another hour",
            clock::length(until)
        ));
    }
}

/// The status of auto-scavenge. A cluster between two leaders answers with errors for a while
/// (http-api §2.3).
pub(super) fn settled_status(client: &Client, poll: &mut Poll<'_>) -> Result<AutoScavengeStatus> {
    loop {
        match client.auto_scavenge_status(poll.patience()) {
            Err(error) if error.kind() == Kind::Failed => poll.again(|| error)?,
            result => return result,
        }
    }
}

/// Repeats the request until auto-scavenge is paused, because a new leader may not know of it.
fn wait_until_paused(
    client: &Client,
    mut state: AutoScavenge,
    is_ours: bool,
    settings: &QuiesceSettings,
    mut poll: Poll<'_>,
) -> Result<()> {
    poll.expect_change();
    loop {
        let ask = is_ours && state != AutoScavenge::Pausing;
        match ask_and_look(client, ask, poll.patience()) {
            Ok(AutoScavenge::Paused) => return Ok(()),
            Ok(now) => {
                state = now;
                poll.again(|| does_not_pause(client, &state, settings))?;
            }
            // Between two leaders.
            Err(error) if error.kind() == Kind::Failed => poll.again(|| error)?,
            Err(error) => return Err(error),
        }
    }
}

fn ask_and_look(client: &Client, ask: bool, patience: Patience<'_>) -> Result<AutoScavenge> {
    if ask {
        client.pause_auto_scavenge(patience)?;
    }
    client.auto_scavenge(patience)
}

fn does_not_pause(client: &Client, state: &AutoScavenge, settings: &QuiesceSettings) -> Error {
    Error::new(Kind::Unstable, "auto-scavenge does not pause in time")
        .on(client.place())
        .because(format!(
            "it is {state} after {} s",
            settings.pause_within.as_secs()
        ))
        .hint(
            "a running scavenge has to stop first; allow it more time with `--quiesce-wait`, \
             or run the backup at another hour",
        )
}
