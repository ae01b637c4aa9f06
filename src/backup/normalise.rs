//! Makes the captured log end at P. `writer.chk` and `chaser.chk` of a running node may lie inside
//! an append (O3, O38), and a server would show half of it (O32).

use super::capture::{Capture, changed};
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::format::checkpoint::{self, Checkpoint};
use crate::format::{Boundary, ChunkSize, Lineage};
use crate::log::{ChunkPlace, LogEndingAt};
use crate::manifest::{ReadCheckpoints, RelativePath, Role, StoredCheckpoints};

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
/// `Unstable` if P lies in another chunk than W: a running node mends that within milliseconds.
/// With `cut`, for a node that does not run, the later chunk is dropped and the earlier one cut at
/// P; `Refused` if that one is scavenged (O33).
pub(super) fn end(
    capture: &mut Capture<'_>,
    size: ChunkSize,
    read: &ReadCheckpoints,
    epochs: &Lineage,
    position: Boundary,
    cut: bool,
) -> Result<End> {
    let end = position.position();
    let log = LogEndingAt::new(size, position, epochs, read.proposal);

    if size.chunk_of(end) != size.chunk_of(read.writer.0) {
        if !cut {
            return Err(changed(format!(
                "the writer checkpoint {} lies inside an append \
                 that began in the chunk before, at {end}",
                read.writer
            )));
        }
        cut_at_end(capture, &log)?;
    }

    for which in Checkpoint::ALL {
        capture.write(
            &RelativePath::checkpoint(which),
            Role::Checkpoint,
            &checkpoint::encode(log.checkpoint(which)),
            clock::now(),
        )?;
    }

    Ok(End {
        position,
        lineage: epochs.at(end),
        stored: log.stored().clone(),
    })
}

/// Leaves the chunks as the server's own truncation would (disk-format §2.8, O30).
fn cut_at_end(capture: &mut Capture<'_>, log: &LogEndingAt) -> Result<()> {
    for row in capture.rows() {
        let Some(chunk) = row.chunk else { continue };

        match log.place_of(chunk.start, chunk.end) {
            ChunkPlace::Before => {}
            ChunkPlace::BeginsAtEnd | ChunkPlace::Beyond => capture.forget(&row.path)?,
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
                    let what = "the chunk size is beyond any server's";
                    return Err(Error::new(Kind::SourceCorrupt, what));
                };
                capture.cut(&row.path, log.active_bytes(), length)?;
            }
        }
    }

    Ok(())
}
