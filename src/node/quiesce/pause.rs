//! Pauses auto-scavenge, which the whole cluster shares (http-api §2.3).

use super::borrowed::Borrowed;
use super::poll::Poll;
use super::settings::QuiesceSettings;
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::node::{AutoScavenge, Client, Patience};

/// The result of pausing auto-scavenge.
pub(super) struct PauseResult {
    /// kbackup paused it, in this run or an earlier one, and has to resume it.
    pub(super) is_ours: bool,
    /// It may have run a scavenge on this node.
    pub(super) was_at_work: bool,
}

/// Pauses auto-scavenge, and waits until it is paused.
///
/// # Errors
/// [`Kind::Unstable`] if it does not pause in time.
pub(super) fn pause_auto_scavenge(
    client: &Client,
    borrowed: &mut Borrowed<'_>,
    settings: &QuiesceSettings,
    patience: Patience<'_>,
) -> Result<PauseResult> {
    let mut poll = Poll::new(settings.pause_within, patience);
    let state = first_state(client, &mut poll)?;

    let is_on_record = borrowed.record().auto_scavenge.is_some();
    if matches!(
        state,
        AutoScavenge::Absent | AutoScavenge::NotConfigured | AutoScavenge::Paused
    ) {
        return Ok(PauseResult {
            is_ours: is_on_record && state == AutoScavenge::Paused,
            was_at_work: false,
        });
    }

    // kbackup never resumes what an operator paused.
    let is_ours = is_on_record || state != AutoScavenge::Pausing;
    if is_ours && !is_on_record {
        borrowed.take_auto_scavenge(settings.max_pause)?;
    }

    let run = borrowed.run();
    run.note(format!(
        "auto-scavenge is {state}; waiting until it is paused"
    ));
    let was_at_work = state != AutoScavenge::Waiting;
    wait_until_paused(client, state, is_ours, settings, poll)?;

    if is_ours {
        run.emit(Event::AutoScavengePaused);
    }
    Ok(PauseResult {
        is_ours,
        was_at_work,
    })
}

/// The state at the beginning. A cluster between two leaders answers with errors for a while
/// (http-api §2.3).
fn first_state(client: &Client, poll: &mut Poll<'_>) -> Result<AutoScavenge> {
    loop {
        match client.auto_scavenge(poll.patience()) {
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
