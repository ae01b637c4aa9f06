//! The start of a server, step by step as disk-format §6 lists it, on facts instead of files.
//!
//! Nothing here touches a disk, so tests can check each rule alone. `state` holds what the start
//! has done so far. The other files hold the steps: `truncation`, `checkpoints`, `chunks` (which of
//! them the server uses, `selection` tells), `index`, `log_end`, and `beside` for the other files.

mod beside;
mod checkpoints;
mod chunks;
mod index;
mod log_end;
mod selection;
mod state;
mod truncation;

use self::state::{ServerStart, Step};
use super::facts::DirectoryFacts;
use super::observation::StartObservation;
use crate::format::checkpoint::{self, Checkpoint};
use crate::server::ServerLine;

/// What a server of `line` does at its start with these files, in its own order. The list ends with
/// the step at which the server gives up.
pub(super) fn start(line: ServerLine, facts: &DirectoryFacts) -> Vec<StartObservation> {
    let mut start = ServerStart::new(line, facts);

    // The observations tell whether the start came to its end.
    let _ = run(&mut start, facts.checkpoint(Checkpoint::Truncate));

    start.seen
}

fn run(start: &mut ServerStart<'_>, truncate: i64) -> Step {
    start.guard(truncate)?;
    if truncate != checkpoint::NONE {
        start.truncate(truncate)?;
    }

    start.secondary_index()?;
    start.order_of_checkpoints()?;
    let tail = start.chunks()?;
    start.epochs()?;

    let replayed_from = start.index();
    if tail.is_some() {
        start.log_end(replayed_from)?;
    }

    // The rest happens after the start.
    if let Some(tail) = tail {
        start.background_hashing(tail);
    }
    start.stream_filter();
    start.scavenge_state();
    Ok(())
}
