//! The release record of the run that holds it. Each change is on the disk before the run goes on.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::last_stop;
use super::release_record::{PausedAutoScavenge, RecordedNode, ReleaseRecord, StoppedScavenge};
use crate::clock::{self, Timestamp};
use crate::error::{Error, Kind, Result};
use crate::fs;

const MAX_RECORD: u64 = 64 * 1024;
/// How long the disk has to say what is on record. The node does not wait for a disk that hangs.
const DISK_ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// One node's record. No other run can change it until this value is dropped.
#[derive(Debug)]
pub struct HeldRecord {
    directory: PathBuf,
    path: PathBuf,
    record: ReleaseRecord,
    /// When this run put the scavenge on record, by the monotonic clock.
    scavenge_recorded: Option<Instant>,
    pause_recorded: Option<Instant>,
    /// `None` if an operator took the record from a run that hangs.
    _lock: Option<fs::File>,
}

impl HeldRecord {
    pub(super) fn new(
        directory: &Path,
        path: PathBuf,
        record: ReleaseRecord,
        lock: Option<fs::File>,
    ) -> Self {
        Self {
            directory: directory.to_owned(),
            path,
            record,
            scavenge_recorded: None,
            pause_recorded: None,
            _lock: lock,
        }
    }

    /// The same record without its lock, for the guard of the run that holds it.
    pub(super) fn for_guard(&self, record: ReleaseRecord) -> Self {
        Self {
            directory: self.directory.clone(),
            path: self.path.clone(),
            record,
            scavenge_recorded: self.scavenge_recorded,
            pause_recorded: self.pause_recorded,
            _lock: None,
        }
    }

    /// What is left on record if somebody else has given back what this run holds: the guard of this
    /// run, or an operator with `kbackup release --force`. Returns `None` if nobody has, and if the
    /// disk does not answer soon.
    pub(super) fn left_by_others(&self) -> Option<ReleaseRecord> {
        if self.record.is_empty() {
            return None;
        }

        let (path, lock) = (self.path.clone(), self.path.with_extension("lock"));
        let (send, found) = mpsc::channel();
        std::thread::Builder::new()
            .name("read record".to_owned())
            .spawn(move || {
                // Nobody may wait any more.
                let _ = send.send(on_disk(&path, &lock));
            })
            .ok()?;
        let stored = found.recv_timeout(DISK_ANSWERS_WITHIN).ok()?.ok()?;

        let mut left = self.record.clone();
        match stored {
            None => (left.scavenge, left.auto_scavenge) = (None, None),
            Some(stored) => {
                let scavenge = left.scavenge.take();
                left.scavenge =
                    scavenge.filter(|stopped| stored.scavenge_of(&stopped.id).is_some());
                if stored.auto_scavenge.is_none() {
                    left.auto_scavenge = None;
                }
            }
        }
        (left != self.record).then_some(left)
    }

    /// Notes what others have left on record. They have written the file. Returns how long the pause
    /// and the scavenge were on record, if they are not any more.
    pub(super) fn others_have_left(
        &mut self,
        left: ReleaseRecord,
    ) -> (Option<Duration>, Option<Duration>) {
        let (mut pause, mut scavenge) = (None, None);
        if let (Some(gone), None) = (&self.record.auto_scavenge, &left.auto_scavenge) {
            pause = Some(time_on_record(self.pause_recorded.take(), Some(gone.since)));
        }
        if let (Some(gone), None) = (&self.record.scavenge, &left.scavenge) {
            let recorded = self.scavenge_recorded.take();
            scavenge = Some(time_on_record(recorded, Some(gone.since)));
        }

        self.record = left;
        (pause, scavenge)
    }

    /// What has to be given back now.
    #[must_use]
    pub const fn record(&self) -> &ReleaseRecord {
        &self.record
    }

    /// Puts a scavenge on record. It replaces an earlier one, because each scavenge continues where
    /// the one before it was stopped. Returns how long the replaced one was on record.
    ///
    /// # Errors
    /// [`Kind::Failed`] if the record cannot be written. Then nothing may be taken from the node.
    pub fn record_scavenge(
        &mut self,
        id: &str,
        threads: u32,
        throttle_percent: u32,
        start_from_chunk: Option<u32>,
    ) -> Result<Option<Duration>> {
        // An earlier run may have stopped the same scavenge.
        let told = match self.record.scavenge_of(id) {
            Some(stopped) => stopped.told,
            None => false,
        };
        let replaced = match &self.record.scavenge {
            Some(earlier) if earlier.id != id => Some(earlier.since),
            _ => None,
        };

        let stopped = StoppedScavenge {
            id: id.to_owned(),
            threads,
            throttle_percent,
            start_from_chunk,
            since: clock::now(),
            told,
        };
        self.change(|record| record.scavenge = Some(stopped))?;

        let recorded = self.scavenge_recorded.replace(Instant::now());
        Ok(replaced.map(|since| time_on_record(recorded, Some(since))))
    }

    /// Notes that the scavenge on record has been told to stop.
    ///
    /// # Errors
    /// [`Kind::Failed`] if the record cannot be written.
    pub fn record_stop_request(&mut self) -> Result<()> {
        self.change(|record| {
            if let Some(stopped) = &mut record.scavenge {
                stopped.told = true;
            }
        })
    }

    /// Notes that a scavenge is interrupted now, for `--scavenge-rest`.
    ///
    /// # Errors
    /// [`Kind::Failed`] if the note cannot be written.
    pub fn note_stop(&self) -> Result<()> {
        last_stop::note(&last_stop::path(&self.directory, &self.record.node))
    }

    /// Puts a pause of auto-scavenge on record.
    ///
    /// # Errors
    /// As [`Self::record_scavenge`].
    pub fn record_pause(&mut self) -> Result<()> {
        let paused = PausedAutoScavenge {
            since: clock::now(),
        };
        self.change(|record| record.auto_scavenge = Some(paused))?;

        self.pause_recorded = Some(Instant::now());
        Ok(())
    }

    /// Removes the scavenge from the record, because it was given back or had finished. Returns how
    /// long it was on record.
    ///
    /// # Errors
    /// [`Kind::Failed`] if the record cannot be written. The scavenge may then be given back twice,
    /// which is harmless.
    pub fn clear_scavenge(&mut self) -> Result<Duration> {
        let since = self.record.scavenge.as_ref().map(|stopped| stopped.since);
        self.change(|record| record.scavenge = None)?;

        Ok(time_on_record(self.scavenge_recorded.take(), since))
    }

    /// Removes the pause from the record, because auto-scavenge was resumed. Returns how long it
    /// was on record.
    ///
    /// # Errors
    /// As [`Self::clear_scavenge`].
    pub fn clear_pause(&mut self) -> Result<Duration> {
        let since = self
            .record
            .auto_scavenge
            .as_ref()
            .map(|paused| paused.since);
        self.change(|record| record.auto_scavenge = None)?;

        Ok(time_on_record(self.pause_recorded.take(), since))
    }

    /// Adds what another record of the same node holds.
    ///
    /// # Errors
    /// [`Kind::Failed`] if the record cannot be written.
    pub(super) fn add(&mut self, other: ReleaseRecord) -> Result<()> {
        self.change(|record| record.add(other))
    }

    /// Notes that the node is found in another way now.
    ///
    /// # Errors
    /// [`Kind::Failed`] if the record cannot be written.
    pub(super) fn move_to(&mut self, node: RecordedNode) -> Result<()> {
        self.change(|record| record.node = node)
    }

    /// Changes the file before the copy in memory, so that memory never holds more than the disk.
    fn change(&mut self, change: impl FnOnce(&mut ReleaseRecord)) -> Result<()> {
        let mut record = self.record.clone();
        change(&mut record);

        if record.is_empty() {
            fs::remove_file(&self.path)?;
            fs::sync_directory(&self.directory)?;
        } else {
            let text = serde_json::to_vec_pretty(&record).map_err(|error| {
                Error::new(Kind::Failed, "cannot write the release record")
                    .at(&self.path)
                    .because(error)
            })?;
            fs::write_durably(&self.path, &text, 0o600)?;
        }

        self.record = record;
        Ok(())
    }
}

/// The record in a file. Returns `None` if there is no such file.
///
/// # Errors
/// [`Kind::StoredCorrupt`] if it is damaged, [`Kind::Refused`] if a newer kbackup wrote it.
pub(super) fn read(path: &Path) -> Result<Option<ReleaseRecord>> {
    if fs::status(path)?.is_none() {
        return Ok(None);
    }
    let bytes = match fs::read_small(path, MAX_RECORD) {
        Err(error) if error.is_not_found() => return Ok(None),
        result => result?,
    };

    ReleaseRecord::parse(&bytes, path).map(Some)
}

/// The record of a run as it is now. A release leaves the lock where it is. If that is gone, too,
/// the whole state directory was lost, and nothing was given back.
fn on_disk(path: &Path, lock: &Path) -> Result<Option<ReleaseRecord>> {
    let record = read(path)?;
    if record.is_none() && fs::status(lock)?.is_none() {
        return Err(Error::new(Kind::Failed, "the release record is lost").at(path));
    }
    Ok(record)
}

/// How long something was on record. If an earlier run recorded it, this uses the wall clock, and
/// returns zero if that went back.
fn time_on_record(recorded: Option<Instant>, since: Option<Timestamp>) -> Duration {
    if let Some(recorded) = recorded {
        return recorded.elapsed();
    }
    let Some(since) = since else {
        return Duration::ZERO;
    };

    Duration::try_from(clock::now().duration_since(since)).unwrap_or_default()
}
