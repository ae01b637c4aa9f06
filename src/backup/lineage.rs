//! Reads the epochs of the captured log, and checks that the log has not left its branch.

use super::capture::Capture;
use super::preflight::Preflight;
use super::source_files::changed;
use crate::error::{Error, Kind, Result};
use crate::format::{Lineage, LogPosition, Relation};
use crate::log::{self, ChunkSet};
use crate::manifest::{ReadCheckpoints, Row};
use crate::proof::LogProof;
use crate::repository::Repository;

/// Reads the epochs of the captured log that the preflight did not see. Those that were written
/// after `epoch.chk` was read lie in the newly read bytes.
///
/// # Errors
/// `Unstable` if the log has left its branch since the preflight, or if a stored chunk that holds
/// an epoch is damaged; `SourceCorrupt` if an epoch is wrong at the source.
pub(super) fn captured_lineage(
    capture: &mut Capture<'_>,
    repository: &dyn Repository,
    preflight: &Preflight,
    set: &ChunkSet,
    read: &ReadCheckpoints,
    proof: &LogProof,
) -> Result<Lineage> {
    let last_seen = proof.seen.epochs.last().map(|epoch| epoch.position);
    let lineage = match last_seen.max(read.epoch) {
        None => preflight.lineage.clone(),
        Some(epoch) => {
            let known = std::slice::from_ref(&preflight.lineage);
            match log::lineage_after(&capture.files(), set, epoch, known) {
                Ok(lineage) => lineage,
                Err(error) if error.kind() == Kind::SourceCorrupt => {
                    refuse_damaged_epochs(capture, repository, preflight)?;
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
        }
    };

    if !is_of_same_branch(capture, preflight, &lineage, read.writer.0) {
        refuse_damaged_epochs(capture, repository, preflight)?;
        return Err(left_the_branch(capture));
    }
    Ok(lineage)
}

/// Whether the log of this lineage, which ends at `end`, continues both the parent's log and the
/// log that the preflight saw.
fn is_of_same_branch(
    capture: &Capture<'_>,
    preflight: &Preflight,
    lineage: &Lineage,
    end: LogPosition,
) -> bool {
    if end < preflight.end {
        return false;
    }

    if let Some(parent) = capture.parent() {
        let relation = parent
            .log
            .lineage
            .relation(parent.log.position.position(), lineage, end);
        if !matches!(relation, Relation::Same { .. }) {
            return false;
        }
    }
    let relation = preflight.lineage.relation(preflight.end, lineage, end);
    matches!(relation, Relation::Same { .. })
}

fn left_the_branch(capture: &Capture<'_>) -> Error {
    changed("the log left its branch during the backup").at(&capture.source.db)
}

/// Checks the reused chunks that hold epochs, before kbackup blames the node: they may be damaged
/// in the repository.
///
/// # Errors
/// `Unstable` if a chunk was damaged: the next attempt reads it from the node.
fn refuse_damaged_epochs(
    capture: &mut Capture<'_>,
    repository: &dyn Repository,
    preflight: &Preflight,
) -> Result<()> {
    if capture.remove_damaged_reused(|row| holds_an_epoch(row, preflight))? {
        return Err(changed("a stored chunk is damaged").on(repository.place()));
    }
    Ok(())
}

fn holds_an_epoch(row: &Row, preflight: &Preflight) -> bool {
    let Some(chunk) = row.chunk else {
        return false;
    };
    let start = preflight.chunk_size.start_of(chunk.start);
    let end = preflight.chunk_size.end_of(chunk.end);

    let mut epochs = preflight.lineage.epochs().iter();
    epochs.any(|epoch| start <= epoch.position && epoch.position < end)
}
