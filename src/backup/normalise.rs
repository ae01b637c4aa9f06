//! Where the stored log ends. `writer.chk` and `chaser.chk` of a running node may lie inside an
//! append (O3, O38), and a server would show half of it (O32).

use super::capture::{Capture, changed};
use super::checkpoints::path_of;
use super::chunks::full_length;
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::format::checkpoint::{self, Checkpoint};
use crate::format::{Boundary, ChunkSize, Epoch, Lineage, LogPosition, chunk};
use crate::manifest::{ReadCheckpoints, Role, StoredCheckpoints};

/// The end of the stored log.
#[derive(Debug, Clone)]
pub(super) struct End {
    /// P.
    pub(super) position: Boundary,
    /// The epochs before P.
    pub(super) lineage: Lineage,
    pub(super) stored: StoredCheckpoints,
}

/// Ends the log at `position`, the last boundary that was found up to the writer checkpoint.
///
/// # Errors
/// `Unstable` where P lies in another chunk than W: a running node mends that within milliseconds.
/// With `cut`, for a node that does not run, the later chunk is dropped and the earlier one cut at
/// P; `Refused` where that one is scavenged (O33).
pub(super) fn end(
    capture: &mut Capture<'_>,
    size: ChunkSize,
    read: &ReadCheckpoints,
    epochs: &Lineage,
    position: Boundary,
    cut: bool,
) -> Result<End> {
    let end = position.position();
    if size.chunk_of(end) != size.chunk_of(read.writer.0) {
        if !cut {
            return Err(changed(format!(
                "the writer checkpoint {} lies inside an append that began in the chunk before, at {end}",
                read.writer
            )));
        }
        cut_at(capture, size, position)?;
    }
    let lineage = epochs.at(end);
    let last: Option<&Epoch> = lineage.epochs().last();
    let proposal = read.proposal.max(last.map(|epoch| i64::from(epoch.number)));
    let stored = StoredCheckpoints {
        epoch: last.map(|epoch| epoch.position),
        proposal,
    };
    let values = [
        (Checkpoint::Writer, end.to_signed()),
        (Checkpoint::Chaser, end.to_signed()),
        (
            Checkpoint::Epoch,
            stored.epoch.map_or(-1, LogPosition::to_signed),
        ),
        (Checkpoint::Proposal, stored.proposal.unwrap_or(-1)),
        (Checkpoint::Truncate, -1),
    ];
    for (which, value) in values {
        capture.write(
            &path_of(which)?,
            Role::Checkpoint,
            &checkpoint::encode(value),
            clock::now(),
        )?;
    }
    Ok(End {
        position,
        lineage,
        stored,
    })
}

/// The state that the server's own truncation would leave (disk-format §2.8, O30).
fn cut_at(capture: &mut Capture<'_>, size: ChunkSize, position: Boundary) -> Result<()> {
    let end = position.position();
    for row in capture.rows() {
        let Some(chunk) = row.chunk else { continue };
        if size.start_of(chunk.start) >= end {
            capture.forget(&row.path)?;
        } else if size.end_of(chunk.end) > end {
            if chunk.scavenged || chunk.start != chunk.end {
                return Err(Error::new(
                    Kind::Refused,
                    format!(
                        "the log ends inside an append, at {end}, and the chunk there is scavenged"
                    ),
                )
                .on(&row.path)
                .hint("start the node and stop it again, then repeat the backup"));
            }
            capture.cut(
                &row.path,
                chunk::HEADER_LENGTH + size.local(end),
                full_length(size)?,
            )?;
        }
    }
    Ok(())
}
