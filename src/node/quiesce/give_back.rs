//! Gives back to the node what is on record: starts a stopped scavenge again, and resumes
//! auto-scavenge.

use std::time::Duration;

use super::borrowed::Borrowed;
use super::poll::Poll;
use super::scavenges::{current_scavenge, has_succeeded};
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::node::release_record::{ReleaseRecord, StoppedScavenge};
use crate::node::{
    AutoScavenge, AutoScavengeResume, Client, CurrentScavenge, Patience, ScavengeExtent,
    ScavengeStart,
};
use crate::server::{ServerVersion, facts};

/// How long giving back may take after a success or a failure.
pub(super) const GIVE_BACK_LIMIT: Duration = Duration::from_secs(30);
/// How long giving back may take after a signal: an operator or a supervisor waits.
pub(super) const HASTY_LIMIT: Duration = Duration::from_millis(1500);
/// If a scavenge that was told to stop runs for longer than this, a later run gives it back.
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(5);
/// No scavenge takes longer to stop. It cannot be interrupted while it completes a chunk, and by
/// default a backup waits for at most this long.
const LONGEST_STOP: Duration = Duration::from_secs(300);
const LATER: &str = "it stays on record: run `kbackup release` later";

/// Gives back everything on record, and removes it from the record. Doing it twice is harmless: it
/// does not start what already runs, and does not resume what is not paused.
///
/// The stopped scavenge comes first: a scavenge of the resumed auto-scavenge could be mistaken for
/// it.
pub(super) fn give_back(
    client: &Client,
    version: &ServerVersion,
    borrowed: &mut Borrowed<'_>,
    limit: Duration,
) -> Result<()> {
    if borrowed.record().is_empty() {
        return Ok(());
    }

    // Each question may send a request that the node has just refused.
    let poll = Poll::regardless(limit).less_and_less();
    check_node(client, borrowed.record(), poll.patience())?;

    let scavenge = give_back_scavenge(client, version, borrowed, limit);
    let auto_scavenge = give_back_auto_scavenge(client, borrowed, poll);

    // The record comes last: its disk may hang, and the node must not wait for that.
    let scavenge = scavenge.and_then(|outcome| match outcome {
        ScavengeOutcome::NotTaken => Ok(()),
        ScavengeOutcome::Runs => borrowed.gave_back_scavenge(),
        ScavengeOutcome::NeedsNothing => borrowed.scavenge_needs_nothing(),
    });
    let auto_scavenge = auto_scavenge.and_then(|is_back| match is_back {
        true => borrowed.gave_back_auto_scavenge(),
        false => Ok(()),
    });
    scavenge.and(auto_scavenge)
}

/// What became of the scavenge on record.
enum ScavengeOutcome {
    /// There is none.
    NotTaken,
    /// It, or another one in its place, runs again.
    Runs,
    /// It had finished, or was never stopped.
    NeedsNothing,
}

/// Checks that this is the recorded node. It may have been restarted since, but it must not be a
/// neighbour.
fn check_node(client: &Client, record: &ReleaseRecord, patience: Patience<'_>) -> Result<()> {
    let Some(recorded) = &record.node.endpoint else {
        return Ok(());
    };
    let Some(gossip) = client.gossip(patience)? else {
        return Ok(());
    };

    let found = gossip.endpoint();
    if found == *recorded {
        return Ok(());
    }
    Err(Error::new(
        Kind::Refused,
        format!("another node answers: the release record is for {recorded}, {found} answers"),
    )
    .on(client.place())
    .hint("give that node's own address"))
}

/// Starts a scavenge again in place of the stopped one. Waits first until the stopped one has
/// cleaned up.
fn give_back_scavenge(
    client: &Client,
    version: &ServerVersion,
    borrowed: &Borrowed<'_>,
    limit: Duration,
) -> Result<ScavengeOutcome> {
    let Some(stopped) = borrowed.record().scavenge.clone() else {
        return Ok(ScavengeOutcome::NotTaken);
    };

    let mut clean_up = Poll::regardless(limit.min(CLEAN_UP_LIMIT)).steady();
    let mut poll = Poll::regardless(limit).less_and_less();
    loop {
        let is_old = client.current_scavenge(poll.patience())? == CurrentScavenge::NotSupported;
        match current_scavenge(client, poll.patience())? {
            // It was told to stop and cleans up (O40), or it never was told.
            CurrentScavenge::Running(id) if id == stopped.id => {
                if clean_up.is_over() && was_never_told(&stopped) {
                    borrowed.run().note(format!(
                        "scavenge {id} still runs: the run that wanted to stop it died before, \
                         and nothing of it has to be given back"
                    ));
                    return Ok(ScavengeOutcome::NeedsNothing);
                }
                clean_up.again(|| still_runs(&stopped).on(client.place()))?;
                continue;
            }
            // A scavenge runs in its place already.
            CurrentScavenge::Running(_) => break,
            // It had done its work before it was asked to stop.
            _ if has_succeeded(client, &stopped.id, poll.patience())? => {
                return Ok(ScavengeOutcome::NeedsNothing);
            }
            _ => {}
        }

        let extent = extent_for(version, is_old, &stopped);
        let Some(problem) = start_again(client, borrowed, &stopped, extent, poll.patience())?
        else {
            break;
        };
        poll.again(|| {
            let what = format!("scavenge {} could not be given back", stopped.id);
            Error::new(Kind::Failed, what)
                .on(client.place())
                .because(problem)
                .hint(LATER)
        })?;
    }

    Ok(ScavengeOutcome::Runs)
}

/// How much of the stopped scavenge to start. A server that ignores `syncOnly` starts over in any
/// case, and then a whole scavenge is right, because it was running one (O43, http-api §1.4).
fn extent_for(version: &ServerVersion, is_old: bool, stopped: &StoppedScavenge) -> ScavengeExtent {
    let is_unfinished_development = is_old && version.is_development();
    if version.has(facts::RESUMES_SCAVENGES) && !is_unfinished_development {
        return ScavengeExtent::Unfinished;
    }

    match stopped.start_from_chunk {
        Some(chunk) if chunk > 0 => ScavengeExtent::From(chunk),
        _ => ScavengeExtent::Whole,
    }
}

/// Starts a scavenge in place of the stopped one. Returns why none runs yet.
fn start_again(
    client: &Client,
    borrowed: &Borrowed<'_>,
    stopped: &StoppedScavenge,
    extent: ScavengeExtent,
    patience: Patience<'_>,
) -> Result<Option<String>> {
    let started =
        client.start_scavenge(extent, stopped.threads, stopped.throttle_percent, patience)?;

    Ok(match started {
        ScavengeStart::Started(id) => {
            let old = &stopped.id;
            borrowed.run().note(match extent {
                ScavengeExtent::Unfinished => format!("scavenge {old} continues as {id}"),
                ScavengeExtent::Whole | ScavengeExtent::From(_) => format!(
                    "scavenge {old} starts over as {id}: \
                     this server cannot continue where it was stopped"
                ),
            });
            None
        }
        ScavengeStart::AlreadyRunning(_) => None,
        ScavengeStart::Refused(why) => Some(why),
        // It may run: look before the next request.
        ScavengeStart::NoAnswer => Some("the node does not answer".to_owned()),
    })
}

/// Whether a scavenge that still runs was never told to stop: otherwise it would have stopped by
/// now. If the clock went back, the answer is no.
fn was_never_told(stopped: &StoppedScavenge) -> bool {
    if stopped.told {
        return false;
    }
    match Duration::try_from(clock::now().duration_since(stopped.since)) {
        Ok(passed) => passed >= LONGEST_STOP,
        Err(_) => false,
    }
}

fn still_runs(stopped: &StoppedScavenge) -> Error {
    let id = &stopped.id;
    if stopped.told {
        return Error::new(
            Kind::Failed,
            format!("scavenge {id} was told to stop and still runs"),
        )
        .hint(LATER);
    }

    Error::new(
        Kind::Failed,
        format!("scavenge {id} still runs, and kbackup does not know whether it was told to stop"),
    )
    .because("the run that wanted to stop it died at that moment")
    .hint(format!(
        "run `kbackup release` again {} minutes after {}; if the scavenge still runs then, \
         nothing has to be given back. The next backup settles it, too",
        LONGEST_STOP.as_secs() / 60,
        stopped.since.strftime("%Y-%m-%d %H:%M:%S UTC"),
    ))
}

/// Resumes auto-scavenge if it is on record. Returns whether it was.
fn give_back_auto_scavenge(
    client: &Client,
    borrowed: &Borrowed<'_>,
    mut poll: Poll<'_>,
) -> Result<bool> {
    if borrowed.record().auto_scavenge.is_none() {
        return Ok(false);
    }

    loop {
        let (state, problem) = look_and_resume(client, poll.patience())?;
        match state {
            // Without the plugin, nothing can be resumed.
            AutoScavenge::Absent => return Err(not_resumed(client, &state, problem)),
            AutoScavenge::Paused | AutoScavenge::Pausing => {
                poll.again(|| not_resumed(client, &state, problem))?;
            }
            _ => return Ok(true),
        }
    }
}

/// Resumes auto-scavenge if it is paused. Returns its state afterwards, and what went wrong.
fn look_and_resume(
    client: &Client,
    patience: Patience<'_>,
) -> Result<(AutoScavenge, Option<Error>)> {
    let state = client.auto_scavenge(patience)?;
    if state != AutoScavenge::Paused {
        return Ok((state, None));
    }

    match client.resume_auto_scavenge(patience) {
        Ok(AutoScavengeResume::Accepted) => Ok((client.auto_scavenge(patience)?, None)),
        Ok(AutoScavengeResume::StillPausing) => Ok((AutoScavenge::Pausing, None)),
        // Between two leaders (http-api §2.3).
        Err(error) if error.kind() == Kind::Failed => Ok((state, Some(error))),
        Err(error) => Err(error),
    }
}

fn not_resumed(client: &Client, state: &AutoScavenge, problem: Option<Error>) -> Error {
    let error = Error::new(
        Kind::Failed,
        format!("auto-scavenge could not be resumed (it is {state})"),
    )
    .on(client.place())
    .hint("it stays on record: run `kbackup release` later, or `POST /auto-scavenge/resume`");

    match problem {
        Some(problem) => error.because(problem),
        None => error,
    }
}
