//! Compares the entries of the tables with the log.

use std::cmp::Reverse;

use super::report::{IndexFault, IndexProblem, IndexProof};
use super::stream_filter::StreamFilter;
use super::tables::{CheckedTable, LATEST_ENTRIES};
use crate::error::Result;
use crate::format::chunk::Transform;
use crate::format::hash::stream_hash;
use crate::format::ptable::{Table, TableEntry};
use crate::format::record::{Lookup, Prepare, Record};
use crate::format::{self, WriterPosition};
use crate::log::{ChunkSet, LogFile, lookup, open_listed, with_place};
use crate::manifest::FileSet;
use crate::run::Run;

/// Entries that are looked up at once, in the order of the log.
const BATCH: usize = 100_000;

/// Looks up entries in the log, and reports contradictions.
pub(super) struct EntryReader<'a> {
    pub(super) files: &'a dyn FileSet,
    pub(super) chunks: &'a ChunkSet,
    pub(super) writer: WriterPosition,
    /// Whether the index as a whole reaches beyond the log. A finding says so already, so the
    /// entries behind the log's end are not reported one by one.
    pub(super) is_ahead: bool,
    /// The filter that has to know the stream of each entry. `None` if it is not to be asked.
    pub(super) stream_filter: Option<&'a StreamFilter>,
    pub(super) run: &'a Run,
    pub(super) proof: &'a mut IndexProof,
}

/// Compares the latest entries of captured tables with the active chunk that was captured after them,
/// as a verification does. Returns the first contradiction. All other chunks are proven by their own
/// MD5.
///
/// # Errors
/// What the storage reports, and an interruption.
pub fn contradicting_entry(
    files: &dyn FileSet,
    chunks: &ChunkSet,
    mut tables: Vec<CheckedTable>,
    writer: WriterPosition,
    run: &Run,
) -> Result<Option<IndexProblem>> {
    let active = chunks.in_use().last();
    let Some(active) = active.filter(|file| file.chunk.footer().is_none()) else {
        return Ok(None);
    };
    let begin = active.header().start_position();
    for table in &mut tables {
        table.latest.retain(|entry| entry.position >= begin);
    }

    let mut proof = IndexProof::default();
    let mut reader = EntryReader {
        files,
        chunks,
        writer,
        is_ahead: false,
        stream_filter: None,
        run,
        proof: &mut proof,
    };
    reader.compare_latest(&tables)?;
    Ok(proof.problems.into_iter().next())
}

/// An entry and its table.
struct SourcedEntry<'t> {
    entry: TableEntry,
    table: &'t CheckedTable,
}

impl EntryReader<'_> {
    /// Compares the entries, of all tables together, that point to the latest events of the log.
    pub(super) fn compare_latest(&mut self, tables: &[CheckedTable]) -> Result<()> {
        let mut latest = Vec::new();
        for table in tables {
            for entry in &table.latest {
                latest.push(SourcedEntry {
                    entry: *entry,
                    table,
                });
            }
            latest.sort_by_key(|sourced| Reverse(sourced.entry.position));
            latest.truncate(LATEST_ENTRIES);
        }

        self.compare(latest)
    }

    /// Compares every entry.
    pub(super) fn compare_all(&mut self, tables: &[CheckedTable]) -> Result<()> {
        for table in tables {
            let source = open_listed(self.files, &table.path)?;
            let opened = with_place(self.files, &table.path, Table::open(&*source))?;

            let mut entries = opened.entries();
            loop {
                let mut batch = Vec::new();
                for entry in entries.by_ref().take(BATCH) {
                    let entry = with_place(self.files, &table.path, entry)?;
                    batch.push(SourcedEntry { entry, table });
                }
                if batch.is_empty() {
                    break;
                }
                self.compare(batch)?;
            }
        }
        Ok(())
    }

    /// Looks entries up in the order of the log, so that each chunk is opened once.
    fn compare(&mut self, mut entries: Vec<SourcedEntry<'_>>) -> Result<()> {
        entries.sort_by_key(|sourced| sourced.entry.position);

        let mut rest = entries.as_slice();
        while let Some(first) = rest.first() {
            self.run.check()?;

            let Some(file) = self.chunks.holding(first.entry.position) else {
                self.judge_outside(first);
                rest = rest.get(1..).unwrap_or_default();
                continue;
            };

            let end = file.header().end_position();
            let count = rest.partition_point(|sourced| sourced.entry.position < end);
            let (of_file, behind) = rest.split_at(count);
            self.compare_in(file, of_file)?;
            rest = behind;
        }
        Ok(())
    }

    /// Judges an entry whose position lies in no chunk. The entry is correct if the chunk is in an
    /// archive, or if the index is ahead of the log.
    fn judge_outside(&mut self, sourced: &SourcedEntry<'_>) {
        let SourcedEntry { entry, table } = sourced;
        let first = self.chunks.in_use().first();
        let is_archived = first.is_some_and(|file| entry.position < file.header().start_position());
        let is_beyond = self.is_ahead && entry.position >= self.writer.0;

        if !is_archived && !is_beyond {
            self.report(table, format!("{entry}, which lies in no chunk"));
        }
    }

    fn compare_in(&mut self, file: &LogFile, entries: &[SourcedEntry<'_>]) -> Result<()> {
        if file.header().transform != Transform::Identity {
            return Ok(());
        }

        let source = file.open(self.files)?;
        let mut lookup = match lookup(file, &*source) {
            Ok(lookup) => lookup,
            // The chunk itself is damaged. Another finding reports that.
            Err(format::Error::Malformed(_)) => return Ok(()),
            Err(error) => return with_place(self.files, &file.path, Err(error)),
        };

        for sourced in entries {
            self.proof.entries += 1;
            if let Some(wrong) = self.contradiction(file, &mut lookup, sourced)? {
                self.report(sourced.table, wrong);
            }
        }
        Ok(())
    }

    /// Says how the log contradicts an entry. Returns `None` if it does not.
    fn contradiction(
        &mut self,
        file: &LogFile,
        lookup: &mut Lookup<'_>,
        sourced: &SourcedEntry<'_>,
    ) -> Result<Option<String>> {
        let SourcedEntry { entry, table } = sourced;
        if entry.position >= self.writer.0 {
            if self.is_ahead {
                return Ok(None);
            }
            let end = self.writer;
            return Ok(Some(format!(
                "{entry}, which is beyond the log's end at {end}"
            )));
        }

        let found = match lookup.read_at_position(entry.position) {
            Ok(Some(frame)) => match &frame.record {
                Record::Prepare(prepare) => self.judge_event(entry, table, prepare)?,
                Record::Commit(_) | Record::System(_) => Some("no event is there".to_owned()),
            },
            // A scavenge has removed the record.
            Ok(None) if file.header().scavenged => {
                self.proof.dangling += 1;
                None
            }
            Ok(None) => Some("the chunk's records end before that position".to_owned()),
            Err(format::Error::Malformed(why)) => Some(why.to_string()),
            Err(error) => return with_place(self.files, &file.path, Err(error)),
        };
        Ok(found.map(|found| format!("{entry}: {found}")))
    }

    /// Says how an event contradicts the entry. Returns `None` if it does not.
    fn judge_event(
        &mut self,
        entry: &TableEntry,
        table: &CheckedTable,
        event: &Prepare<'_>,
    ) -> Result<Option<String>> {
        let name = event.stream_name();
        if table.version.entry_hash(stream_hash(&name)) != entry.stream {
            return Ok(Some(format!("an event of stream `{name}` is there")));
        }
        if let Some(number) = event.event_number()
            && number != entry.event_number
            && !is_old_deletion(entry, number)
        {
            return Ok(Some(format!("event {number} of its stream is there")));
        }

        // One gap is enough to show that the filter is incomplete.
        if let Some(filter) = self.stream_filter
            && !self
                .proof
                .has_problem(IndexFault::StreamFilterIncomplete, None)
        {
            let gap = filter.lacks(self.files, &name, entry.position)?;
            self.proof.problems.extend(gap);
        }
        Ok(None)
    }

    /// Adds a problem of a table. One problem for each table is enough.
    fn report(&mut self, table: &CheckedTable, what: String) {
        let fault = IndexFault::EntryWrong;
        if !self.proof.has_problem(fault, Some(&table.path)) {
            self.proof.add_problem(&table.path, fault, what);
        }
    }
}

/// Whether an entry is a deletion that was indexed when event numbers had 32 bits. Merges keep its
/// number, while the record is read with the number of today.
fn is_old_deletion(entry: &TableEntry, number: i64) -> bool {
    number == i64::MAX && entry.event_number == i64::from(i32::MAX)
}
