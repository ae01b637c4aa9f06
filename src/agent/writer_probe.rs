//! Reads how far the node's log has come: one small file of the node, on a blocking thread.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::format::checkpoint::Checkpoint;
use crate::log::RawCheckpoint;

/// A read that takes longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// The reads of the writer checkpoint. There is never more than one at a time.
#[derive(Debug, Default)]
pub(super) struct WriterProbe {
    /// When the read under way began.
    began: Option<Instant>,
    /// When the last read ended.
    last: Option<Instant>,
}

impl WriterProbe {
    /// Begins to read, unless a read is under way. `ended` gets the position, or `None` if it
    /// cannot be read.
    pub(super) fn begin(&mut self, db: &Path, ended: impl FnOnce(Option<u64>) + Send + 'static) {
        if self.began.is_some() {
            return;
        }

        self.began = Some(Instant::now());
        let db = db.to_owned();
        tokio::task::spawn_blocking(move || ended(read(&db)));
    }

    /// The read under way has ended.
    pub(super) fn ended(&mut self) {
        self.began = None;
        self.last = Some(Instant::now());
    }

    /// Whether the read under way hangs, as on a network mount that is gone.
    pub(super) fn is_stuck(&self) -> bool {
        match self.began {
            Some(began) => began.elapsed() > PATIENCE,
            None => false,
        }
    }

    /// Whether the last position is younger than `age`. One that cannot be had is not waited for.
    pub(super) fn is_recent(&self, age: Duration) -> bool {
        match self.last {
            Some(last) if last.elapsed() < age => true,
            _ => self.is_stuck(),
        }
    }
}

/// The writer position in a db directory. This may block for as long as the disk likes.
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
        assert_eq!(read(db.path()), None, "there is none");

        write(db.path(), &[7, 0, 0]);
        assert_eq!(read(db.path()), None, "it is cut");

        write(db.path(), &4711_u64.to_le_bytes());
        assert_eq!(read(db.path()), Some(4711));
    }

    #[test]
    fn a_read_that_hangs_is_not_repeated_and_not_waited_for() {
        let hanging = WriterProbe {
            began: Instant::now().checked_sub(PATIENCE * 2),
            last: None,
        };
        assert!(hanging.is_stuck() && hanging.is_recent(PATIENCE));

        let mut probe = WriterProbe {
            began: Some(Instant::now()),
            last: None,
        };
        assert!(!probe.is_stuck() && !probe.is_recent(PATIENCE));

        // Without a runtime, a second read would panic.
        probe.begin(Path::new("/db"), |_| {});
        probe.ended();
        assert!(probe.is_recent(PATIENCE) && !probe.is_recent(Duration::ZERO));
    }
}
