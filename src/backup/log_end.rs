//! Makes the captured log end at P. `writer.chk` and `chaser.chk` of a running node may lie inside
//! an append (O3, O38), and a server would show half of it (O32).

use super::capture::Capture;
use super::source_files::changed;
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::format::checkpoint::{self, Checkpoint};
use crate::format::{Boundary, ChunkSize, Lineage};
use crate::log::{ChunkPlace, LogEndingAt};
use crate::manifest::{ReadCheckpoints, RelativePath, Role, StoredCheckpoints};

/// The end of the stored log.
#[derive(Debug, Clone)]
pub(super) struct StoredEnd {
    /// P.
    pub(super) position: Boundary,
    /// The epochs before P.
    pub(super) lineage: Lineage,
    pub(super) checkpoints: StoredCheckpoints,
}

/// Whether to cut chunks so that the log ends at P.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cutting {
    /// The node runs. It finishes the append within milliseconds, so another attempt helps.
    No,
    /// The node is stopped, so another attempt would find the same.
    Allowed,
}

/// Ends the log at P, the last boundary that was found up to the writer checkpoint, and stores the
/// checkpoints for it.
///
/// # Errors
/// `Unstable` if P lies in another chunk than W and nothing may be cut. If cutting is allowed, the
/// later chunk is removed and the earlier one cut at P; `Refused` if that one is scavenged (O33).
pub(super) fn end_log(
    capture: &mut Capture<'_>,
    chunk_size: ChunkSize,
    read: &ReadCheckpoints,
    epochs: &Lineage,
    position: Boundary,
    cutting: Cutting,
) -> Result<StoredEnd> {
    let end = position.position();
    let log = LogEndingAt::new(chunk_size, position, epochs, read.proposal);

    if chunk_size.chunk_of(end) != chunk_size.chunk_of(read.writer.0) {
        if cutting == Cutting::No {
            return Err(changed(format!(
                "the writer checkpoint {} lies inside an append that began in the chunk before, at \
                 {end}",
                read.writer
            )));
        }
        cut_at_end(capture, &log)?;
    }

    for which in Checkpoint::ALL {
        let path = RelativePath::checkpoint(which);
        let bytes = checkpoint::encode(log.checkpoint(which));
        capture.write(&path, Role::Checkpoint, &bytes, clock::now())?;
    }

    Ok(StoredEnd {
        position,
        lineage: epochs.at(end),
        checkpoints: log.stored().clone(),
    })
}

/// Leaves the chunks as the server's own truncation would (disk-format §2.8, O30).
fn cut_at_end(capture: &mut Capture<'_>, log: &LogEndingAt) -> Result<()> {
    for row in capture.rows() {
        let Some(chunk) = row.chunk else { continue };

        match log.place_of(chunk.start, chunk.end) {
            ChunkPlace::Before => {}
            ChunkPlace::BeginsAtEnd | ChunkPlace::Beyond => capture.remove(&row.path)?,
            ChunkPlace::HoldsEnd if chunk.scavenged || chunk.start != chunk.end => {
                let what = format!(
                    "the log ends inside an append, at {}, and the chunk there is scavenged",
                    log.position()
                );
                return Err(Error::new(Kind::Refused, what)
                    .on(&row.path)
                    .hint("start the node and stop it again, then repeat the backup"));
            }
            ChunkPlace::HoldsEnd => {
                let Some(length) = log.active_length() else {
                    let what = "no server has chunks as large as these";
                    return Err(Error::new(Kind::SourceCorrupt, what));
                };
                capture.cut(&row.path, log.active_bytes(), length)?;
            }
        }
    }

    Ok(())
}
