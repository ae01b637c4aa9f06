use super::Placement;
use super::guard::write_in_place;
use super::place::Placed;
use super::plan::Truncation;
use crate::clock;
use crate::error::Result;
use crate::format::LogPosition;
use crate::format::checkpoint::{self, Checkpoint};
use crate::fs;
use crate::log::LogEndingAt;
use crate::manifest::{Log, Manifest};

/// A directory that a server starts from.
pub(super) struct Finished {
    placement: Placement,
}

impl Finished {
    pub(super) fn report(&self) -> Placement {
        self.placement
    }
}

impl Placed<'_> {
    /// Writes the checkpoints, each durable before the next, and `writer.chk` very last: with it
    /// the directory becomes startable, in one write of eight bytes.
    ///
    /// # Errors
    /// What the file system reports; unless the very last write was done the directory is still
    /// guarded.
    pub(super) fn finish(self) -> Result<Finished> {
        let Self {
            site,
            writer,
            mark,
            placement,
        } = self;
        let steps = Steps::new(&site.plan.manifest.log, site.plan.truncation.value());
        // While the guard of before stands: these two are read only behind it.
        site.checkpoint((Checkpoint::Epoch, steps.epoch))?;
        site.checkpoint((Checkpoint::Proposal, steps.proposal))?;
        // The mark says "finished" before the writer is written: once a server can start it may
        // change the database, and then nothing may look like an interrupted restore, which would
        // be taken up again. Until then the guard, and not the mark, tells that the restore is not
        // done.
        site.mark(&mark.finish(clock::now()))?;
        write_in_place(&writer, steps.writer_below)?;
        site.checkpoint((Checkpoint::Truncate, steps.truncate))?;
        site.checkpoint((Checkpoint::Chaser, steps.position))?;
        fs::sync_directory(&site.directories.db)?;
        if let Err(error) = write_in_place(&writer, steps.position) {
            // Not known to be durable, and so not to be started from. Where the guard does not come
            // back either, the first error stays the one to tell.
            let _ = write_in_place(&writer, steps.writer_below);
            return Err(error);
        }
        // The lock on `writer.chk` ends here, with the file.
        drop(writer);
        Ok(Finished { placement })
    }
}

/// The checkpoints of a restored directory that no server has touched.
pub(super) fn checkpoints(manifest: &Manifest, truncation: &Truncation) -> [(Checkpoint, i64); 5] {
    let steps = Steps::new(&manifest.log, truncation.value());
    [
        (Checkpoint::Epoch, steps.epoch),
        (Checkpoint::Proposal, steps.proposal),
        (Checkpoint::Truncate, steps.truncate),
        (Checkpoint::Chaser, steps.position),
        (Checkpoint::Writer, steps.position),
    ]
}

/// The values of the last writes, in their order.
///
/// The guard is C = 2⁶³−1 above W = 2⁶³−2, and what is wanted is W = C = P, with T = P or −1. On
/// the way there C stays above W until the last write, so that every server refuses to start (O14,
/// O15), whatever it does before it compares the two:
///
/// * *The truncator runs first* if T ≠ −1 (disk-format §2.3), and lowers C and W to T, never raises
///   them. With the guard's W it would be stopped only by `MaxTruncation`, which can be switched
///   off, and would then take the guard down. So W goes to P − 1 before T is written: the truncator
///   finds W below T, cuts at P, where nothing is lost, lowers C to P at most, and C is still above
///   W.
/// * *C must not come down while W is high*: with W = 2⁶³−2 the number of its chunk overflows, and
///   nobody has seen what a server deletes then.
/// * *W must not be 0, or anything far below P*: a node with an archive first fetches the chunks
///   that W lacks, and sets C = W (disk-format §10). At P − 1 it does what it would do at P.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Steps {
    epoch: i64,
    proposal: i64,
    writer_below: i64,
    truncate: i64,
    position: i64,
}

impl Steps {
    fn new(log: &Log, truncate: Option<LogPosition>) -> Self {
        let log = LogEndingAt::of(log);
        let position = log.position().to_signed();
        Self {
            epoch: log.checkpoint(Checkpoint::Epoch),
            proposal: log.checkpoint(Checkpoint::Proposal),
            writer_below: position.saturating_sub(1).max(0),
            truncate: checkpoint::signed(truncate),
            position,
        }
    }
}
