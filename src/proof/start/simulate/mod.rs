//! The start of a server, step by step as disk-format §6 lists it, on facts instead of files.
//!
//! Nothing here touches a disk, so each rule can be tested by itself. `state` holds what the start
//! has done so far. The other files hold its steps: the truncation, the checkpoints, the chunks, the
//! end of the log, the index, and what lies beside them.

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
use super::observation::Observation;
use crate::format::checkpoint::{self, Checkpoint};
use crate::server::ServerLine;

/// What a server of `line` does at its start with these files, in its order. After the step at which
/// it gives up, nothing is told.
pub(super) fn start(line: ServerLine, facts: &DirectoryFacts) -> Vec<Observation> {
    let mut start = ServerStart::new(line, facts);

    // Whether the start came to its end is in what it has seen.
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

    // What follows happens after the start.
    if let Some(tail) = tail {
        start.background_hashing(tail);
    }
    start.stream_filter();
    start.scavenge_state();
    Ok(())
}
