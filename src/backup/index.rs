//! Steps D1–D6: copies `indexmap` and the tables that it names, until `indexmap` stays the same
//! during one reading. No other table is copied, and each is proven by its own MD5 (O2).

use std::path::Path;
use std::time::Duration;

use super::capture::{Capture, CopyRequest, StoredFile};
use super::filter_file;
use super::source_files::{open, read_small};
use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::format::indexmap::IndexMap;
use crate::format::names::TableId;
use crate::format::ptable::LatestEntries;
use crate::format::{InContext, LogPosition, ReadAt, WriterPosition, ptable};
use crate::fs;
use crate::log::ChunkSet;
use crate::manifest::{RelativePath, Role, Row};
use crate::parallel;
use crate::proof::{self, CheckedTable};
use crate::transfer::{Follow, Paced, files_at_once};

/// The roles of the index's files. The stream-existence filter is not one of them.
const INDEX: [Role; 3] = [Role::IndexMap, Role::Table, Role::TableFilter];

/// How often the index is read again before the backup goes on without it.
const READINGS: u32 = 20;
/// A node needs some milliseconds between deleting `indexmap` and renaming the new one into its
/// place.
const BETWEEN_READINGS: Duration = Duration::from_millis(20);
/// How often a bad table, or a bad `indexmap`, is read before the backup goes on without it.
const CORRUPT_READINGS: u32 = 3;
/// Header, footer and MD5: the bytes that kbackup reads of each table to identify it.
pub(super) const TABLE_IDENTITY_BYTES: u64 = 272;

/// The index in the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CapturedIndex {
    /// The node has no tables yet.
    Empty,
    /// `indexmap` and every table it names.
    Complete {
        /// Up to where the tables reach in the log.
        commit: Option<LogPosition>,
    },
    /// The node changed it too often, or it is bad. The server rebuilds it.
    LeftOut,
}

/// How one reading of the index ended.
enum IndexReading {
    Captured(CapturedIndex),
    /// The node changed the index during the reading.
    Changed,
    /// `indexmap` or a table is bad at the source, or was read in the middle of a change.
    Corrupt(Error),
}

/// Copies the index. An index that never comes to rest is left out: the server rebuilds it.
///
/// # Errors
/// `Unstable` if `indexmap` changed while it was read.
pub(super) fn copy(capture: &mut Capture<'_>) -> Result<CapturedIndex> {
    let mut corrupt_readings = 0;
    let mut why = "it never came to rest".to_owned();

    for reading in 0..READINGS {
        if reading > 0 {
            capture.run.pause(BETWEEN_READINGS)?;
            capture.look_again_for(&INDEX);
        }
        match read_once(capture)? {
            IndexReading::Captured(index) => return Ok(index),
            IndexReading::Changed => {}
            IndexReading::Corrupt(error) => {
                why = error.in_words();
                corrupt_readings += 1;
            }
        }
        if corrupt_readings >= CORRUPT_READINGS {
            break;
        }
    }

    let why = format!("{why}; the server will rebuild it from the log");
    leave_out(capture, &why)?;
    Ok(CapturedIndex::LeftOut)
}

/// Removes the index from the backup: the server rebuilds it from the log (O18).
pub(super) fn leave_out(capture: &mut Capture<'_>, why: &str) -> Result<()> {
    capture
        .run
        .warn(format!("this backup carries no index: {why}"));
    for path in capture.paths_of_roles(&INDEX) {
        capture.remove(&path)?;
    }
    Ok(())
}

/// Leaves out an index whose entries the log contradicts. The tables are proven by their own MD5, and
/// so are completed chunks. But the active chunk has none, and there only the index shows that an
/// event is not what the server wrote. Reused tables were compared when they were copied. Tables that an
/// interrupted run had copied are not read again while the node is quiesced.
pub(super) fn leave_out_if_contradicted(
    capture: &mut Capture<'_>,
    index: CapturedIndex,
    chunks: &ChunkSet,
    end: LogPosition,
) -> Result<CapturedIndex> {
    if !matches!(index, CapturedIndex::Complete { .. }) {
        return Ok(index);
    }
    let tables = capture.newly_copied_tables();
    let files = capture.files();
    let paced = Paced::new(&files, capture.run);
    let writer = WriterPosition(end);
    let found = proof::contradicting_entry(&paced, chunks, tables, writer, capture.run)?;
    let Some(problem) = found else {
        return Ok(index);
    };

    let why = format!(
        "{} contradicts the log ({}); the server will rebuild it from the log, but an event may be \
         damaged there",
        problem.path, problem.what
    );
    leave_out(capture, &why)?;
    Ok(CapturedIndex::LeftOut)
}

fn read_once(capture: &mut Capture<'_>) -> Result<IndexReading> {
    // D1, D2: a node with tables has an `indexmap`. If it is missing, the node is replacing it.
    let Some((bytes, modified)) = read_index_map(capture)? else {
        return Ok(if has_tables(&capture.source.index)? {
            IndexReading::Changed
        } else {
            IndexReading::Captured(CapturedIndex::Empty)
        });
    };
    // The server replaces the file as a whole. A file that does not parse is bad at the source, or
    // another tool was copying it.
    let map = match IndexMap::parse(&bytes).in_source(&capture.source.index) {
        Ok(map) => map,
        Err(error) => return Ok(IndexReading::Corrupt(error)),
    };

    // D3, D4.
    match copy_tables(capture, &map) {
        Ok(()) => {}
        Err(error) if error.kind() == Kind::Unstable => return Ok(IndexReading::Changed),
        Err(error) if error.kind() == Kind::SourceCorrupt => {
            return Ok(IndexReading::Corrupt(error));
        }
        Err(error) => return Err(error),
    }

    // D5.
    let Some((after, _)) = read_index_map(capture)? else {
        return Ok(IndexReading::Changed);
    };
    if after != bytes {
        return Ok(IndexReading::Changed);
    }
    let path = RelativePath::index_map();
    capture.write(&path, Role::IndexMap, &bytes, modified)?;
    Ok(IndexReading::Captured(CapturedIndex::Complete {
        commit: map.commit,
    }))
}

fn read_index_map(capture: &mut Capture<'_>) -> Result<Option<(Vec<u8>, Timestamp)>> {
    let path = RelativePath::index_map();
    let read = read_small(capture.source, &path, IndexMap::MAXIMUM_SIZE)?;
    if let Some((bytes, _)) = &read {
        capture.cost.bytes_read += bytes.len() as u64;
    }
    Ok(read)
}

/// Whether there are files that are named like tables.
fn has_tables(index: &Path) -> Result<bool> {
    if fs::status(index)?.is_none() {
        return Ok(false);
    }
    for entry in fs::list(index)? {
        if let Some(name) = entry.name.to_str()
            && name.parse::<TableId>().is_ok()
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Reuses or copies the tables that `indexmap` names, and their filters.
fn copy_tables(capture: &mut Capture<'_>, map: &IndexMap) -> Result<()> {
    let mut new = Vec::new();
    for entry in &map.tables {
        let table = SourceTable::open(capture, entry.table)?;
        capture.cost.bytes_read += TABLE_IDENTITY_BYTES;

        if table.is_held(capture) && capture.keep(&table.path)? {
            keep_filter(capture, entry.table)?;
        } else {
            new.push(entry.table);
        }
    }
    copy_new(capture, &new)
}

/// Copies tables that are not held, with their filters, on several threads.
fn copy_new(capture: &mut Capture<'_>, new: &[TableId]) -> Result<()> {
    let mut stored = Vec::new();
    let mut filter_error = None;
    let reader = &*capture;
    let tables: Result<()> = parallel::for_each(
        files_at_once(reader.run),
        new,
        |table| {
            reader.run.check()?;
            let stored = SourceTable::open(reader, *table)?.copy(reader)?;
            Ok((stored, filter_file::copy(reader, *table)))
        },
        |_, (table, filter)| {
            stored.push(table);
            match filter {
                Ok(filter) => stored.extend(filter),
                Err(error) => {
                    filter_error.get_or_insert(error);
                }
            }
        },
    );

    // Keep these also after a failure, so that the next reading need not copy them again.
    for file in stored {
        capture.add(file);
    }
    tables?;
    match filter_error {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Reuses the filter of a table that is reused. The server writes a filter once, before `indexmap`
/// names the table. A filter has no checksum, so kbackup reuses it only with its table. It was
/// compared with the table when it was copied.
fn keep_filter(capture: &mut Capture<'_>, table: TableId) -> Result<()> {
    let Some((path, file)) = filter_file::open(capture, table)? else {
        return Ok(());
    };
    let is_held = match capture.held_row(&path) {
        Some(row) => row.size == file.size(),
        None => false,
    };
    if is_held && capture.keep(&path)? {
        return Ok(());
    }

    if let Some(filter) = filter_file::copy(capture, table)? {
        capture.add(filter);
    }
    Ok(())
}

/// An open index table of the source.
pub(super) struct SourceTable {
    pub(super) path: RelativePath,
    file: fs::File,
    pub(super) layout: ptable::TableLayout,
}

impl SourceTable {
    pub(super) fn open(capture: &Capture<'_>, table: TableId) -> Result<Self> {
        let path = RelativePath::table(table);
        let file = open(capture.source, &path)?;
        let layout = ptable::inspect(&file).in_source(file.path())?;
        Ok(Self { path, file, layout })
    }

    /// Whether it is captured already, or the parent has it.
    pub(super) fn is_held(&self, capture: &Capture<'_>) -> bool {
        match capture.held_row(&self.path) {
            Some(row) => self.is_described_by(row),
            None => false,
        }
    }

    fn is_described_by(&self, row: &Row) -> bool {
        row.size == self.layout.size && row.table_md5 == Some(self.layout.md5)
    }

    pub(super) fn request(&self) -> CopyRequest<'_> {
        CopyRequest {
            md5: Some(self.layout.md5),
            ..CopyRequest::whole(Role::Table, &self.file)
        }
    }

    pub(super) fn copy(&self, capture: &Capture<'_>) -> Result<StoredFile> {
        let request = self.request();
        let mut stored = self.copy_followed(capture, &request)?;
        if stored.md5 != Some(self.layout.md5) {
            // The file system may have reported data as a hole. Reading gives the data all the same.
            let request = CopyRequest {
                reads_every_byte: true,
                ..request
            };
            stored = self.copy_followed(capture, &request)?;
        }
        if stored.md5 != Some(self.layout.md5) {
            capture.incoming.remove(&self.path)?;
            let what = "the index table fails its own MD5";
            return Err(Error::new(Kind::SourceCorrupt, what).at(self.file.path()));
        }
        stored.bytes_read += TABLE_IDENTITY_BYTES;
        capture.keep_proof(&stored)?;
        Ok(stored)
    }

    /// Copies the table, and finds its entries for the latest events meanwhile.
    fn copy_followed(
        &self,
        capture: &Capture<'_>,
        request: &CopyRequest<'_>,
    ) -> Result<StoredFile> {
        let mut follower = TableFollower::new(self.layout);
        let mut stored = capture.copy(&self.path, request, Some(&mut follower))?;
        stored.table = follower.into_checked(&self.path);
        Ok(stored)
    }
}

/// Finds the entries for the latest events while a table is copied, so that nobody has to read the
/// table again.
struct TableFollower {
    layout: ptable::TableLayout,
    /// `None` once an entry could not be read.
    latest: Option<LatestEntries>,
}

impl TableFollower {
    fn new(layout: ptable::TableLayout) -> Self {
        Self {
            layout,
            latest: Some(LatestEntries::new(layout, proof::LATEST_ENTRIES)),
        }
    }

    fn into_checked(self, path: &RelativePath) -> Option<Box<CheckedTable>> {
        Some(Box::new(CheckedTable {
            path: path.clone(),
            version: self.layout.version,
            latest: self.latest?.into_entries(),
        }))
    }
}

impl Follow for TableFollower {
    fn follow(&mut self, stored: &dyn ReadAt, end: u64) {
        let Some(latest) = &mut self.latest else {
            return;
        };
        if latest.read_up_to(stored, end).is_err() {
            self.latest = None;
        }
    }

    fn finish(&mut self, _stored: &dyn ReadAt) {}
}
