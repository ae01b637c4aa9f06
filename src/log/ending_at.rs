//! What a directory has to hold if its log ends at P: its checkpoints and its chunk files.
//!
//! Backup makes a captured log end at P, the gate proves it, and restore writes its checkpoints.
//! All of them take the description from here. It is pure: it reads and writes nothing.

use crate::format::checkpoint::{self, Checkpoint};
use crate::format::chunk::{self, HEADER_LENGTH, Transform};
use crate::format::{Boundary, ChunkNumber, ChunkSize, Epoch, Lineage, LogPosition};
use crate::manifest::{ChunkRow, LogRecord, StoredCheckpoints};

/// A log that ends at P, the last consistent position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEndingAt {
    chunk_size: ChunkSize,
    position: Boundary,
    stored: StoredCheckpoints,
}

/// Where the range of a chunk file lies, as seen from P.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkPlace {
    /// All of it lies before P, so the file does not change.
    Before,
    /// P lies inside, so the file is cut at P.
    HoldsEnd,
    /// It begins at P, so the file holds nothing of the log. The server may have made it already.
    BeginsAtEnd,
    /// It begins behind P. No server starts with such a file (O16).
    Beyond,
}

impl LogEndingAt {
    /// The log that ends at `position`, of a node with these epochs and this `proposal.chk`.
    ///
    /// A server ignores epochs at or behind its chaser position, which is P here. So `epoch.chk`
    /// names the last epoch before P, and `proposal.chk` is at least that epoch's number.
    #[must_use]
    pub fn new(
        chunk_size: ChunkSize,
        position: Boundary,
        epochs: &Lineage,
        proposal: Option<i64>,
    ) -> Self {
        let last: Option<&Epoch> = epochs.last_before(position.position());
        Self {
            chunk_size,
            position,
            stored: StoredCheckpoints {
                epoch: last.map(|epoch| epoch.position),
                proposal: proposal.max(last.map(|epoch| i64::from(epoch.number))),
            },
        }
    }

    /// The log of a backup, as its manifest describes it.
    #[must_use]
    pub fn of(log: &LogRecord) -> Self {
        Self {
            chunk_size: log.chunk_size,
            position: log.position,
            stored: log.stored.clone(),
        }
    }

    /// P, where the log ends.
    #[must_use]
    pub fn position(&self) -> LogPosition {
        self.position.position()
    }

    /// The two checkpoints that do not follow from P alone.
    #[must_use]
    pub fn stored(&self) -> &StoredCheckpoints {
        &self.stored
    }

    /// The number in a checkpoint file if no truncation is pending.
    #[must_use]
    pub fn checkpoint(&self, which: Checkpoint) -> i64 {
        match which {
            Checkpoint::Writer | Checkpoint::Chaser => self.position().to_signed(),
            Checkpoint::Epoch => checkpoint::signed(self.stored.epoch),
            Checkpoint::Proposal => self.stored.proposal.unwrap_or(checkpoint::NONE),
            Checkpoint::Truncate => checkpoint::NONE,
        }
    }

    /// Where the range of a chunk file with these first and last numbers lies.
    #[must_use]
    pub fn place_of(&self, start: ChunkNumber, end: ChunkNumber) -> ChunkPlace {
        let position = self.position();
        let begin = self.chunk_size.start_of(start);
        if begin > position {
            ChunkPlace::Beyond
        } else if begin == position {
            ChunkPlace::BeginsAtEnd
        } else if self.chunk_size.end_of(end) > position {
            ChunkPlace::HoldsEnd
        } else {
            ChunkPlace::Before
        }
    }

    /// Whether the server goes on writing into this chunk file.
    #[must_use]
    pub fn is_active(&self, chunk: &ChunkRow) -> bool {
        let place = self.place_of(chunk.start, chunk.end);
        !chunk.scavenged && matches!(place, ChunkPlace::HoldsEnd | ChunkPlace::BeginsAtEnd)
    }

    /// Bytes of the active chunk file that hold header and records. The rest, up to the full
    /// length, is zeros.
    #[must_use]
    pub fn active_bytes(&self) -> u64 {
        HEADER_LENGTH + self.chunk_size.local(self.position())
    }

    /// The full length of the active chunk file. Returns `None` if no server has chunks of this
    /// size.
    #[must_use]
    pub fn active_length(&self) -> Option<u64> {
        chunk::full_length(self.chunk_size, Transform::Identity)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn position(bytes: u64) -> LogPosition {
        LogPosition::new(bytes).unwrap()
    }

    fn ending_at(bytes: u64) -> LogEndingAt {
        let epoch = |at: u64, number: i32| Epoch {
            position: position(at),
            number,
            id: Uuid::nil(),
        };
        let epochs = Lineage::try_from(vec![epoch(0, 0), epoch(1500, 7)]).unwrap();
        let end = Boundary::proven_at(position(bytes));
        LogEndingAt::new(ChunkSize::new(1000).unwrap(), end, &epochs, Some(5))
    }

    fn place(log: &LogEndingAt, start: u32, end: u32) -> ChunkPlace {
        log.place_of(ChunkNumber(start), ChunkNumber(end))
    }

    #[test]
    fn the_checkpoints_name_what_lies_before_the_end() {
        let values = |log: &LogEndingAt| Checkpoint::ALL.map(|which| log.checkpoint(which));

        assert_eq!(values(&ending_at(2000)), [2000, 2000, 1500, 7, -1]);
        // The epoch record at P is not in the log.
        assert_eq!(values(&ending_at(1500)), [1500, 1500, 0, 5, -1]);
        assert_eq!(values(&ending_at(0)), [0, 0, -1, 5, -1]);
    }

    #[test]
    fn a_chunk_lies_before_at_or_beyond_the_end() {
        let inside = ending_at(1500);
        assert_eq!(place(&inside, 0, 0), ChunkPlace::Before);
        assert_eq!(place(&inside, 1, 1), ChunkPlace::HoldsEnd);
        assert_eq!(place(&inside, 0, 3), ChunkPlace::HoldsEnd);
        assert_eq!(place(&inside, 2, 2), ChunkPlace::Beyond);

        let between = ending_at(2000);
        assert_eq!(place(&between, 0, 1), ChunkPlace::Before);
        assert_eq!(place(&between, 2, 2), ChunkPlace::BeginsAtEnd);
        assert_eq!(place(&between, 3, 3), ChunkPlace::Beyond);
    }
}
