//! Placed → finished: writes the final checkpoints, in an order in which no server starts from the
//! target before the very last write.

use super::checkpoints::write_in_place;
use super::outcome::FinalCheckpoints;
use super::place::Placed;
use super::report::Placement;
use crate::clock;
use crate::error::Result;
use crate::format::checkpoint::Checkpoint;
use crate::fs;

/// A directory that a server starts from.
pub(super) struct Finished {
    pub(super) placement: Placement,
}

impl Placed<'_> {
    /// Writes the checkpoints, each durable before the next, and `writer.chk` very last: with it
    /// the directory becomes startable, in one write of eight bytes.
    ///
    /// The guard is C = 2⁶³−1 above W = 2⁶³−2. The goal is W = C = P, with T = P or −1.
    /// On the way there C stays above W until the last write, so that every server refuses to start
    /// (O14, O15), whatever it does before it compares the two:
    ///
    /// * *The truncator runs first* if T ≠ −1 (disk-format §2.3). It lowers C and W to T, and never
    ///   raises them. Only `MaxTruncation` would stop it at the guard's W, and that can be switched
    ///   off; then it would take the guard down. So W goes to P − 1 before T is written: the
    ///   truncator finds W below T, cuts at P, where nothing is lost, lowers C to P at most, and C
    ///   is still above W.
    /// * *C must not come down while W is high*: with W = 2⁶³−2 the number of its chunk overflows,
    ///   and nobody has seen what a server deletes then.
    /// * *W must not be 0, or anything far below P*: a node with an archive first fetches the
    ///   chunks that W lacks, and sets C = W (disk-format §10). At P − 1 it does what it would do
    ///   at P.
    ///
    /// # Errors
    /// `Failed` or `Denied` if a file cannot be written. The directory is still guarded, unless the
    /// very last write failed after it was done.
    pub(super) fn finish(self) -> Result<Finished> {
        let Self {
            target,
            writer_checkpoint,
            mark,
            placement,
        } = self;
        let FinalCheckpoints {
            epoch,
            proposal,
            truncate,
            position,
        } = target.plan.outcome.checkpoints;
        let just_below = position.saturating_sub(1).max(0);

        // A server reads these two only after it has passed the guard, so they come first.
        target.write_checkpoint((Checkpoint::Epoch, epoch))?;
        target.write_checkpoint((Checkpoint::Proposal, proposal))?;

        // The mark says "finished" before the writer is written: once a server can start, it may
        // change the database, and then nothing may look like an interrupted restore, which the
        // next restore would resume. Until then the guard, and not the mark, says that the restore
        // is not done.
        target.write_mark(&mark.finish(clock::now()))?;

        write_in_place(&writer_checkpoint, just_below)?;
        target.write_checkpoint((Checkpoint::Truncate, truncate))?;
        target.write_checkpoint((Checkpoint::Chaser, position))?;
        fs::sync_directory(&target.directories.db)?;

        if let Err(error) = write_in_place(&writer_checkpoint, position) {
            // The write may be lost, so no server may start from here. If raising the guard again
            // fails as well, the first error is still the one to report.
            let _ = write_in_place(&writer_checkpoint, just_below);
            return Err(error);
        }
        // The lock on `writer.chk` ends with its file.
        drop(writer_checkpoint);
        Ok(Finished { placement })
    }
}
