//! Reads where the node's log ends, and knows how old the last read is. The position is in one
//! small file of the node (`writer.chk`).

use std::path::Path;
use std::time::{Duration, Instant};

use super::scavenge_notes::NotesBehind;
use crate::clock::patience;
use crate::format::checkpoint::Checkpoint;
use crate::log::RawCheckpoint;

/// A read that takes longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// The reads of the writer checkpoint. There is never more than one at a time.
#[derive(Debug, Default)]
pub(super) struct WriterProbe {
    /// When the read under way began.
    began: Option<Instant>,
    /// When the last read that ended had begun. Its position is at least as new as that.
    last: Option<Instant>,
    /// When the loop first asked whether it knows a current position.
    asked: Option<Instant>,
}

impl WriterProbe {
    /// Whether a read may begin now. If so, it counts as begun, until [`Self::ended`] is called.
    pub(super) fn begins(&mut self) -> bool {
        if self.began.is_some() {
            return false;
        }

        self.began = Some(Instant::now());
        true
    }

    /// The read under way has ended.
    pub(super) fn ended(&mut self) {
        self.last = self.began.take();
    }

    /// Whether the read under way hangs, as on a network mount that is gone.
    pub(super) fn is_stuck(&self) -> bool {
        match self.began {
            Some(began) => began.elapsed() > patience(PATIENCE),
            None => false,
        }
    }

    /// Whether the last position is younger than `age`. Also true if the read under way hangs,
    /// because no decision waits for such a read.
    pub(super) fn is_recent(&self, age: Duration) -> bool {
        match self.last {
            Some(last) if last.elapsed() < age => true,
            _ => self.is_stuck(),
        }
    }

    /// Whether a read has ended that began after the first of these calls. [`Self::stop_asking`]
    /// ends the row of calls.
    pub(super) fn is_current(&mut self) -> bool {
        let asked = *self.asked.get_or_insert_with(Instant::now);
        self.last.is_some_and(|last| last > asked)
    }

    /// The loop needs no current position now. The next question starts anew.
    pub(super) fn stop_asking(&mut self) {
        self.asked = None;
    }
}

/// What one read of a node's files has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WriterReading {
    /// Where the log ends.
    pub position: u64,
    /// The server's notes of scavenging behind the newest backup, if they were followed.
    pub notes: Option<NotesBehind>,
}

impl WriterReading {
    /// Reads the writer position, and follows `notes` up to it. `None` if the position cannot be
    /// read. Blocks until the disk answers.
    pub(super) fn of(db: &Path, notes: Option<NotesBehind>) -> Option<Self> {
        let position = read(db)?;

        Some(Self {
            position,
            notes: notes.map(|notes| notes.read_on(db, position)),
        })
    }
}

/// The writer position in a db directory. `None` if it cannot be read. Blocks until the disk
/// answers.
pub(super) fn read(db: &Path) -> Option<u64> {
    let checkpoint = RawCheckpoint::in_directory(db, Checkpoint::Writer).ok()?;
    let position = checkpoint.position().ok()??;

    Some(position.get())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs;

    fn write(db: &Path, bytes: &[u8]) {
        let file = fs::open_or_create(&Checkpoint::Writer.under(db), 0o600).unwrap();
        file.write_all_at(0, bytes).unwrap();
    }

    #[test]
    fn only_a_whole_checkpoint_has_a_position() {
        let db = tempfile::tempdir().unwrap();
        assert_eq!(read(db.path()), None, "the file is missing");

        write(db.path(), &[7, 0, 0]);
        assert_eq!(read(db.path()), None, "the file is cut");

        write(db.path(), &4711_u64.to_le_bytes());
        assert_eq!(read(db.path()), Some(4711));
    }

    #[test]
    fn a_read_that_hangs_is_not_repeated_and_not_waited_for() {
        let hanging = WriterProbe {
            began: Instant::now().checked_sub(PATIENCE * 2),
            ..WriterProbe::default()
        };
        assert!(hanging.is_stuck() && hanging.is_recent(PATIENCE));

        let mut probe = WriterProbe::default();
        assert!(probe.begins() && !probe.begins());
        assert!(!probe.is_stuck() && !probe.is_recent(PATIENCE));

        probe.ended();
        assert!(probe.is_recent(PATIENCE) && !probe.is_recent(Duration::ZERO));
        assert!(probe.begins());
    }

    #[test]
    fn a_read_that_began_before_the_question_is_not_current() {
        let mut probe = WriterProbe::default();
        assert!(probe.begins());

        // The node may append now, after the read has seen its file.
        assert!(!probe.is_current());
        probe.ended();
        assert!(!probe.is_current());

        assert!(probe.begins());
        probe.ended();
        assert!(probe.is_current());
    }
}
