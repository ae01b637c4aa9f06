//! One pass through the vendor's differential backup (D1–D17), and the proof of what it captured.

use std::time::{Duration, Instant};

use super::capture::Capture;
use super::checkpoints;
use super::chunk_rules::ChunkRules;
use super::chunks;
use super::databases;
use super::estimate::CopyEstimate;
use super::index::{self, CapturedIndex};
use super::lineage::captured_lineage;
use super::log_end::{Cutting, StoredEnd, end_log};
use super::missing_index::{self, CapturedLog, EarlierIndex};
use super::preflight::Preflight;
use super::quiesced::Quiesced;
use super::request::BackupRequest;
use super::retry::retry;
use super::source::Source;
use super::source_files::changed;
use super::stream_filter::{self, FilterPolicy};
use crate::clock::{self, Timestamp};
use crate::error::Result;
use crate::event::{Event, Step};
use crate::format::{Boundary, ChunkSize};
use crate::log::ChunkSet;
use crate::manifest::{ReadCheckpoints, Scavenging, SecondaryIndex};
use crate::proof::{self, LogProof};
use crate::repository::Repository;
use crate::transfer::Paced;

/// How long to wait before kbackup reads the checkpoints of a member that is behind its leader
/// again.
const CATCH_UP_PAUSE: Duration = Duration::from_millis(100);

/// What all attempts of a run have in common.
#[derive(Clone, Copy)]
pub(super) struct Procedure<'a> {
    pub(super) request: &'a BackupRequest,
    pub(super) source: &'a Source<'a>,
    pub(super) repository: &'a dyn Repository,
    pub(super) preflight: &'a Preflight,
    /// The newest backup that holds index tables, whatever its branch.
    pub(super) earlier_index: Option<&'a EarlierIndex>,
    /// What the chunks will cost, for the progress.
    pub(super) expected_chunks: CopyEstimate,
}

/// What one attempt has captured, besides the files.
pub(super) struct CapturedBackup {
    pub(super) index: CapturedIndex,
    pub(super) read: ReadCheckpoints,
    pub(super) chunk_size: ChunkSize,
    pub(super) secondary_index: SecondaryIndex,
    pub(super) end: StoredEnd,
    pub(super) proof: LogProof,
    pub(super) scavenging: Scavenging,
    /// When everything was proven.
    pub(super) finished: Timestamp,
    /// How often the procedure had to start over before.
    pub(super) retries: u32,
}

impl Procedure<'_> {
    /// Repeats the attempt until the source does not change during one.
    ///
    /// # Errors
    /// The error of the last attempt.
    pub(super) fn capture(
        &self,
        capture: &mut Capture<'_>,
        quiesced: &mut Quiesced<'_>,
    ) -> Result<CapturedBackup> {
        // `retry` sees the outer result, so an inner error ends the run without a further attempt.
        retry(self.request.attempts, capture.run, |number| {
            if number > 1 {
                capture.start_over();
                // A node that cannot be quiesced again was restarted, or is gone: no further
                // attempt can help.
                if let Err(error) = quiesced.quiesce_again() {
                    return Ok(Err(error));
                }
            }

            let mut captured = self.attempt(capture, quiesced)?;
            captured.retries = number - 1;
            Ok(Ok(captured))
        })?
    }

    fn attempt(
        &self,
        capture: &mut Capture<'_>,
        quiesced: &Quiesced<'_>,
    ) -> Result<CapturedBackup> {
        let run = capture.run;
        let is_running = self.source.is_running();

        // D1–D6, D7 and D8, D9.
        run.emit(Event::Step(Step::Index));
        let index = index::copy(capture)?;
        let policy = FilterPolicy::keep_for(self.request.filter_max_age);
        stream_filter::copy(capture, policy)?;
        databases::copy_scavenge_state(capture)?;

        // D11–D14.
        run.emit(Event::Step(Step::Checkpoints));
        let read = self.read_checkpoints(capture)?;

        // D10, D15–D17.
        run.emit(Event::Step(Step::Chunks));
        run.emit(Event::Expected {
            files: self.expected_chunks.files,
            bytes: self.expected_chunks.bytes,
        });
        let rules = ChunkRules {
            writer: read.writer,
            accepts_damaged: self.request.accept_damaged,
            is_running,
        };
        let copied = chunks::copy(capture, self.repository, rules)?;
        let chunk_size = copied.chunk_size;
        let read = ReadCheckpoints {
            writer: copied.writer,
            ..read
        };
        let secondary_index = databases::copy_secondary_index(capture, is_running)?;
        // An earlier attempt may have captured files that this one did not find. They are no part
        // of the log, so they go before the proof.
        capture.remove_unwanted()?;

        // Prove the log, and make it end at the last consistent position.
        run.emit(Event::Step(Step::Prove));
        let set = capture.chunks()?;
        let proof = scan(capture, &set, &read)?;
        let (repository, preflight) = (self.repository, self.preflight);
        let epochs = captured_lineage(capture, repository, preflight, &set, &read, &proof)?;
        let cutting = if is_running {
            Cutting::No
        } else {
            Cutting::Allowed
        };
        let end = end_log(capture, chunk_size, &read, &epochs, proof.boundary, cutting)?;

        // The index, the filter and the scavenge state must not reach beyond it.
        stream_filter::hold_checkpoint_back(capture, end.position.position())?;
        let index = self.index_within_log(capture, index, end.position)?;
        let index =
            index::leave_out_if_contradicted(capture, index, &set, end.position.position())?;
        stream_filter::leave_out_if_incomplete(capture, &set, end.position.position())?;
        databases::leave_out_bad_scavenge_state(capture, &set, end.position.position())?;

        // The captured files are of use only if the source stayed quiesced until now.
        quiesced.check(checkpoints::pending_truncation(&self.source.directories)?)?;
        let log = CapturedLog {
            files: &capture.files(),
            chunks: &set,
            end: end.position.position(),
        };
        let directory = &self.source.directories.index;
        missing_index::warn_if_missing(index, directory, self.earlier_index, &log, run)?;

        Ok(CapturedBackup {
            index,
            read,
            chunk_size,
            secondary_index,
            end,
            proof,
            scavenging: quiesced.scavenging(),
            finished: clock::now(),
            retries: 0,
        })
    }

    /// Reads the checkpoints. A member that does not lead is given time to reach the position where
    /// its leader was when the backup began.
    fn read_checkpoints(&self, capture: &mut Capture<'_>) -> Result<ReadCheckpoints> {
        let deadline = Instant::now() + self.request.catch_up;
        loop {
            let read = checkpoints::read(&self.source.directories)?;

            let is_behind = match self.source.leader_end() {
                Some(leader) => read.writer.0 < leader,
                None => false,
            };
            if !is_behind || Instant::now() >= deadline {
                capture.cost.bytes_read += checkpoints::BYTES_READ;
                return Ok(read);
            }
            capture.run.pause(CATCH_UP_PAUSE)?;
        }
    }

    /// Leaves out an index that reaches beyond the log: the server would copy it away and rebuild
    /// everything (O37). The server brings an index that ends earlier up to date.
    fn index_within_log(
        &self,
        capture: &mut Capture<'_>,
        index: CapturedIndex,
        end: Boundary,
    ) -> Result<CapturedIndex> {
        let CapturedIndex::Complete {
            commit: Some(commit),
        } = index
        else {
            return Ok(index);
        };
        if commit < end.position() {
            return Ok(index);
        }

        if self.source.is_running() {
            return Err(changed(format!(
                "the index reaches to {commit}, into an append that the log holds only in part"
            )));
        }
        let why = format!("it reaches to {commit}, and the log ends at {end}");
        index::leave_out(capture, &why)?;
        Ok(CapturedIndex::LeftOut)
    }
}

/// Parses every frame of the log bytes that this run has read.
fn scan(capture: &Capture<'_>, set: &ChunkSet, read: &ReadCheckpoints) -> Result<LogProof> {
    let mut start = Boundary::ZERO;
    if let Some(parent) = capture.parent()
        && parent.log.position.position() <= read.writer.0
    {
        start = parent.log.position;
    }

    let files = capture.files();
    let paced = Paced::new(&files, capture.run);
    let stretches = capture.newly_read_log();
    proof::scan(&paced, set, &stretches, start, read.writer, capture.run)
}
