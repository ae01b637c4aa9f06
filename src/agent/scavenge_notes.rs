//! The server's own notes of scavenging behind a backup. They are no change of the node.
//!
//! kbackup itself makes the server write such notes when it stops or pauses scavenging, also for a
//! backup of another member of the cluster. If they counted, each backup would ask for the next.

use std::path::Path;

use super::facts::BackupFacts;
use crate::format::{LogPosition, WriterPosition};
use crate::log;

/// How far the log holds nothing but notes behind the end of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotesBehind {
    /// The writer position that the backup saw.
    backup: u64,
    /// Where the notes end.
    end: u64,
    /// Whether another record follows them.
    is_over: bool,
}

impl NotesBehind {
    /// Behind this backup, before anything was read. Returns `None` if the backup ends before the
    /// writer position that it saw: what follows belongs to an append.
    pub(super) fn of(backup: &BackupFacts) -> Option<Self> {
        (backup.position == backup.writer).then_some(Self {
            backup: backup.writer,
            end: backup.writer,
            is_over: false,
        })
    }

    pub(super) fn are_behind(&self, backup: &BackupFacts) -> bool {
        self.backup == backup.writer
    }

    /// Reads on to the position `writer` in a db directory. Blocks until the disk answers.
    pub(super) fn read_on(mut self, db: &Path, writer: u64) -> Self {
        if self.is_over || self.end >= writer {
            return self;
        }
        let (Some(from), Some(writer)) = (LogPosition::new(self.end), LogPosition::new(writer))
        else {
            return self;
        };

        // A log that cannot be read here counts as changed.
        let read = log::end_of_scavenge_notes(db, from, WriterPosition(writer));
        self.end = read.unwrap_or(from).get();
        self.is_over = self.end < writer.get();
        self
    }

    /// The backup as it counts if the log ends at `writer` now: the notes are as good as backed up.
    pub(super) fn extend(&self, backup: &BackupFacts, writer: u64) -> BackupFacts {
        let mut extended = *backup;
        // A log that has become shorter is another one.
        if self.are_behind(backup) && self.end <= writer {
            extended.writer = self.end;
        }
        extended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup(position: u64, writer: u64) -> BackupFacts {
        BackupFacts {
            position,
            writer,
            ..BackupFacts::sample()
        }
    }

    #[test]
    fn notes_extend_their_own_backup_alone() {
        let notes = NotesBehind {
            end: 150,
            ..NotesBehind::of(&backup(100, 100)).unwrap()
        };
        assert_eq!(notes.extend(&backup(100, 100), 200).writer, 150);
        assert_eq!(
            notes.extend(&backup(100, 100), 120).writer,
            100,
            "another log"
        );
        assert_eq!(
            notes.extend(&backup(110, 110), 200).writer,
            110,
            "another backup"
        );
    }

    #[test]
    fn behind_half_an_append_no_note_counts() {
        assert_eq!(NotesBehind::of(&backup(90, 100)), None);
    }

    #[test]
    fn a_directory_that_cannot_be_read_has_changed() {
        let notes = NotesBehind::of(&backup(100, 100)).unwrap();
        let read = notes.read_on(Path::new("/missing"), 150);
        assert_eq!((read.end, read.is_over), (100, true));
    }
}
