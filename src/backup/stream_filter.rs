//! Steps D7 and D8: the stream-existence filter and its checkpoint. A server makes a missing filter
//! anew, so a bad one is left out.

use std::time::Duration;

use super::capture::{Capture, CopyRequest};
use super::filter_file;
use super::source_files::{open_if_present, read_small};
use crate::clock::{self, Timestamp};
use crate::error::{Error, Kind, Result};
use crate::format::checkpoint;
use crate::format::{InContext, LogPosition, WriterPosition};
use crate::log::ChunkSet;
use crate::manifest::{RelativePath, Role};
use crate::proof;
use crate::transfer::Paced;

/// How many bytes of the checkpoint kbackup reads at most. A good one has 8; more are read only to
/// report its length.
const CHECKPOINT_LIMIT: u64 = 64;

/// Which held filter may be kept, by the time when it was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct FilterPolicy {
    /// A pair that was read earlier than this is read again.
    read_since: Timestamp,
    /// If a pair was read later than this, the clock was wrong then.
    now: Timestamp,
}

impl FilterPolicy {
    /// Keeps a pair for `age`.
    pub(super) fn keep_for(age: Duration) -> Self {
        let seconds = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        let now = clock::now();
        let since = now.as_second().saturating_sub(seconds);
        Self {
            read_since: Timestamp::from_second(since).unwrap_or(Timestamp::MIN),
            now,
        }
    }

    /// Whether a pair is new enough. A pair from the future is not: it would stay fresh until the
    /// clock caught up.
    fn is_fresh(self, captured: Timestamp) -> bool {
        self.read_since <= captured && captured <= self.now
    }
}

/// Copies the pair: the checkpoint first, because the filter is always ahead of it. An older pair
/// of the same log is as good, because the server brings it up to date (O21).
pub(super) fn copy(capture: &mut Capture<'_>, policy: FilterPolicy) -> Result<()> {
    let checkpoint_path = RelativePath::stream_filter_checkpoint();
    let filter_path = RelativePath::stream_filter();
    if keep_pair(capture, policy)? {
        return Ok(());
    }

    let Some((bytes, modified)) = read_checkpoint(capture)? else {
        return Ok(());
    };
    let Some(filter) = open_if_present(capture.source, &filter_path)? else {
        return Ok(());
    };
    if !filter_file::is_usable(capture, &filter)? {
        return Ok(());
    }

    // The checkpoint was read first and is stored last. If the copy fails, nothing is stored that the
    // next attempt could take for a half of another pair.
    capture.copy_and_add(
        &filter_path,
        &CopyRequest::whole(Role::StreamFilter, &filter),
    )?;
    capture.cost.bytes_read += bytes.len() as u64;
    let role = Role::StreamFilterCheckpoint;
    capture.write(&checkpoint_path, role, &bytes, modified)
}

/// Keeps a pair that is held already. Both halves have to come from one place: from the parent, or
/// from this run. Otherwise the checkpoint could be ahead of the filter, and a server would miss
/// streams. What is left of an incomplete pair is removed, because the node may have none.
fn keep_pair(capture: &mut Capture<'_>, policy: FilterPolicy) -> Result<bool> {
    let checkpoint_path = RelativePath::stream_filter_checkpoint();
    let filter_path = RelativePath::stream_filter();

    let is_one_pair = capture.is_captured(&checkpoint_path) == capture.is_captured(&filter_path);
    let is_held = capture.held_row(&checkpoint_path).is_some();
    let is_fresh = match capture.held_row(&filter_path) {
        Some(row) => policy.is_fresh(row.captured),
        None => false,
    };
    if is_one_pair
        && is_held
        && is_fresh
        && capture.keep(&checkpoint_path)?
        && capture.keep(&filter_path)?
    {
        return Ok(true);
    }

    capture.remove(&checkpoint_path)?;
    capture.remove(&filter_path)?;
    Ok(false)
}

/// Reads the filter's checkpoint. Returns `None` if there is none, and warns of a bad one.
fn read_checkpoint(capture: &Capture<'_>) -> Result<Option<(Vec<u8>, Timestamp)>> {
    match read_valid_checkpoint(capture) {
        Err(error) if error.kind() == Kind::SourceCorrupt => {
            capture.run.warn(format!(
                "{}; this backup leaves the stream-existence filter out, and the server makes \
                 another one",
                error.in_words()
            ));
            Ok(None)
        }
        read => read,
    }
}

fn read_valid_checkpoint(capture: &Capture<'_>) -> Result<Option<(Vec<u8>, Timestamp)>> {
    let path = RelativePath::stream_filter_checkpoint();
    let Some((bytes, modified)) = read_small(capture.source, &path, CHECKPOINT_LIMIT)? else {
        return Ok(None);
    };
    checkpoint::position(&bytes).in_source(&capture.source.path_of(&path))?;
    Ok(Some((bytes, modified)))
}

/// Sets the checkpoint back to the end of the log. The filter may be ahead of the log that a
/// restore brings back, but its checkpoint never.
pub(super) fn hold_checkpoint_back(capture: &mut Capture<'_>, end: LogPosition) -> Result<()> {
    let path = RelativePath::stream_filter_checkpoint();
    let Some(row) = capture.held_row(&path) else {
        return Ok(());
    };
    let modified = row.modified;
    let Some(file) = capture.incoming.open(&path)? else {
        return Ok(());
    };

    let mut bytes = [0; checkpoint::LENGTH];
    file.read_exact_at(0, &mut bytes).map_err(|error| {
        Error::new(Kind::Failed, "cannot read")
            .on(&path)
            .because(error)
    })?;
    if i64::from_le_bytes(bytes) <= end.to_signed() {
        return Ok(());
    }
    let bytes = checkpoint::encode(end.to_signed());
    capture.write(&path, Role::StreamFilterCheckpoint, &bytes, modified)
}

/// Leaves out a filter that lacks streams of the log before its checkpoint: a server would believe
/// that these streams do not exist yet. A reused filter was examined when it was copied.
pub(super) fn leave_out_if_incomplete(
    capture: &mut Capture<'_>,
    chunks: &ChunkSet,
    end: LogPosition,
) -> Result<()> {
    let filter_path = RelativePath::stream_filter();
    if !capture.is_newly_read(&filter_path) {
        return Ok(());
    }

    let files = capture.files();
    let paced = Paced::new(&files, capture.run);
    let gap = proof::stream_filter_gap(&paced, chunks, WriterPosition(end), capture.run)?;
    let Some(gap) = gap else {
        return Ok(());
    };

    capture.run.warn(format!(
        "{}: {}; this backup leaves the stream-existence filter out, and the server makes another \
         one",
        gap.path, gap.what
    ));
    capture.remove(&RelativePath::stream_filter_checkpoint())?;
    capture.remove(&filter_path)
}
