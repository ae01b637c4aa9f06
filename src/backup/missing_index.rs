//! An index that should be there and is not: the volume of the index directory may not be mounted.
//!
//! A young node has no index table, because a server writes its first one after a million events.
//! So an empty index alone means nothing. This file asks what else is known.

use std::path::Path;

use super::index::CapturedIndex;
use crate::error::Result;
use crate::format::chunk::Transform;
use crate::format::record::Forwards;
use crate::format::{self, LogPosition};
use crate::log::{ChunkSet, LogFile, data_before, with_place};
use crate::manifest::{FileSet, Label};
use crate::run::Run;
use crate::server::facts::EVENTS_BEFORE_A_TABLE;

/// Chunks whose records are counted for the estimate.
const SAMPLED_CHUNKS: usize = 16;
/// Records that are counted of each of these chunks.
const RECORDS_OF_CHUNK: u64 = 1000;
/// The count is an estimate, and some records are no events. So only this many times the events of
/// a table are too many.
const MARGIN: u64 = 2;

/// The newest backup that holds index tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EarlierIndex {
    pub(super) label: Label,
    /// Up to where its tables reach in the log.
    pub(super) commit: LogPosition,
}

/// The captured log, in which records are counted.
pub(super) struct CapturedLog<'a> {
    pub(super) files: &'a dyn FileSet,
    pub(super) chunks: &'a ChunkSet,
    /// Where the log ends.
    pub(super) end: LogPosition,
}

/// Warns if the node has no index although it should have one.
///
/// # Errors
/// What the storage reports, and an interruption.
pub(super) fn warn_if_missing(
    index: CapturedIndex,
    directory: &Path,
    earlier: Option<&EarlierIndex>,
    log: &CapturedLog<'_>,
    run: &Run,
) -> Result<()> {
    if index != CapturedIndex::Empty {
        return Ok(());
    }
    let Some(why) = reason_for_an_index(earlier, log, run)? else {
        return Ok(());
    };

    run.warn(format!(
        "`{}` holds no index, although {why}: is everything mounted there, and is it the node's \
         index directory? This backup carries no index, and after a restore the server rebuilds \
         it from the whole log",
        directory.display()
    ));
    Ok(())
}

/// Why the node should have an index. Returns `None` if it may have none.
fn reason_for_an_index(
    earlier: Option<&EarlierIndex>,
    log: &CapturedLog<'_>,
    run: &Run,
) -> Result<Option<String>> {
    // A log that was set back behind the tables may have none again.
    if let Some(earlier) = earlier
        && earlier.commit < log.end
    {
        let EarlierIndex { label, commit } = earlier;
        return Ok(Some(format!(
            "the index in the backup {label} reaches to {commit}"
        )));
    }

    let records = estimated_records(log, run)?;
    if !are_too_many(records) {
        return Ok(None);
    }
    Ok(Some(format!(
        "the log has about {records} records, and a server writes an index table after \
         {EVENTS_BEFORE_A_TABLE} events"
    )))
}

fn are_too_many(records: u64) -> bool {
    records > MARGIN * EVENTS_BEFORE_A_TABLE
}

/// How many records the log has, by the lengths of some of them.
fn estimated_records(log: &CapturedLog<'_>, run: &Run) -> Result<u64> {
    let mut readable = Vec::new();
    let mut bytes: u64 = 0;
    for file in log.chunks.in_use() {
        let header = file.header();
        if header.transform != Transform::Identity || header.start_position() >= log.end {
            continue;
        }
        if let Ok(data) = data_before(&file.chunk, log.end) {
            bytes = bytes.saturating_add(data.end.saturating_sub(data.start));
            readable.push(file);
        }
    }

    let (mut sampled_records, mut sampled_bytes) = (0, 0);
    let every = readable.len().div_ceil(SAMPLED_CHUNKS).max(1);
    for file in readable.into_iter().step_by(every) {
        run.check()?;
        let (records, length) = first_records(log, file)?;
        sampled_records += records;
        sampled_bytes += length;
    }
    Ok(scaled(sampled_records, sampled_bytes, bytes))
}

/// The number of records in `bytes`, if they are as long as the sampled ones.
fn scaled(sampled_records: u64, sampled_bytes: u64, bytes: u64) -> u64 {
    if sampled_bytes == 0 {
        return 0;
    }
    let records = u128::from(sampled_records) * u128::from(bytes) / u128::from(sampled_bytes);
    u64::try_from(records).unwrap_or(u64::MAX)
}

/// Counts some records at the beginning of a chunk, and their bytes. The proof of the log reports
/// damage, so the count only ends there.
fn first_records(log: &CapturedLog<'_>, file: &LogFile) -> Result<(u64, u64)> {
    let source = file.open(log.files)?;
    let data = data_before(&file.chunk, log.end);
    let frames = data.and_then(|data| Forwards::new(&*source, file.header(), data));
    let mut frames = match frames {
        Ok(frames) => frames,
        Err(format::Error::Malformed(_)) => return Ok((0, 0)),
        Err(error) => return with_place(log.files, &file.path, Err(error)),
    };

    let (mut records, mut bytes) = (0, 0);
    while records < RECORDS_OF_CHUNK {
        match frames.next() {
            Ok(Some(frame)) => {
                records += 1;
                bytes += frame.length;
            }
            Ok(None) | Err(format::Error::Malformed(_)) => break,
            Err(error) => return with_place(log.files, &file.path, Err(error)),
        }
    }
    Ok((records, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_log_with_far_more_events_than_a_table_needs_an_index() {
        let chunk = 256 * 1024 * 1024;

        // Small events fill a table within few chunks.
        assert!(are_too_many(scaled(1000, 150_000, 2 * chunk)));
        // Large events may fill many chunks before.
        assert!(!are_too_many(scaled(1000, 30_000_000, 100 * chunk)));
        assert!(!are_too_many(scaled(1000, 150_000, chunk / 2)));
        assert!(!are_too_many(scaled(0, 0, 100 * chunk)));
    }
}
