//! The bloom filter of a table: does it know the streams of the table's entries? A server does not
//! look into a table whose filter does not know the stream, so the events would be hidden
//! (disk-format §5.3).

use super::filter::FilterFile;
use super::report::{IndexFault, IndexProblem, IndexProof};
use crate::error::Result;
use crate::format::bloom::{self, Filter};
use crate::format::names::TableId;
use crate::format::ptable::Table;
use crate::format::{self, ReadAt};
use crate::log::with_place;
use crate::manifest::{FileSet, RelativePath};
use crate::proof::depth::Depth;

/// Entries, evenly over the table, whose streams are looked up, unless all are.
const SAMPLES: u64 = 1000;
/// Streams that are looked up at once.
const BATCH: usize = 250_000;

/// Checks the filter of a table. Not every server writes one.
pub(super) fn check_table_filter(
    files: &dyn FileSet,
    id: TableId,
    table: &Table<'_>,
    depth: Depth,
    proof: &mut IndexProof,
) -> Result<()> {
    const FAULT: IndexFault = IndexFault::TableFilter;

    let path = RelativePath::table_filter(id);
    let Some(source) = files.open(&path)? else {
        return Ok(());
    };
    let filter = FilterFile {
        path: &path,
        source: &*source,
        fault: FAULT,
    };
    if !filter.is_good(files, depth, proof)? || depth == Depth::Quick {
        return Ok(());
    }

    let unknown = unknown_stream(table, &*source, depth);
    if let Some(Some(stream)) = proof.judge(files, &path, FAULT, unknown)? {
        proof.problems.push(lacks(&path, stream));
    }
    Ok(())
}

/// Looks up a sample of the streams of a captured table in the filter that was captured with it, as
/// a verification does. Returns `None` if there is no filter, or if nothing is wrong with it.
///
/// # Errors
/// [`Kind::SourceCorrupt`](crate::error::Kind::SourceCorrupt) if the table or its filter cannot be
/// read at all.
pub fn table_filter_gap(files: &dyn FileSet, id: TableId) -> Result<Option<IndexProblem>> {
    let table_path = RelativePath::table(id);
    let path = RelativePath::table_filter(id);
    let (Some(table), Some(source)) = (files.open(&table_path)?, files.open(&path)?) else {
        return Ok(None);
    };

    let filter = with_place(files, &path, bloom::inspect(&*source))?;
    let lines = with_place(files, &path, filter.check_lines())?;
    if !lines.accepted() {
        let what = format!("more than 5 % of its {} lines are damaged", lines.total);
        return Ok(Some(IndexProblem::new(
            &path,
            IndexFault::TableFilter,
            what,
        )));
    }

    let table = with_place(files, &table_path, Table::open(&*table))?;
    let unknown = unknown_stream(&table, &*source, Depth::Normal);
    match with_place(files, &path, unknown)? {
        Some(stream) => Ok(Some(lacks(&path, stream))),
        None => Ok(None),
    }
}

fn lacks(path: &RelativePath, stream: u64) -> IndexProblem {
    let what = format!(
        "it does not know a stream of its table (hash {stream:016x}), so a server does not find that \
         stream's events"
    );
    IndexProblem::new(path, IndexFault::TableFilterIncomplete, what)
}

/// The hash of a stream that the table has an entry of and the filter does not know.
fn unknown_stream(
    table: &Table<'_>,
    filter: &dyn ReadAt,
    depth: Depth,
) -> format::Result<Option<u64>> {
    let filter = bloom::inspect(filter)?;
    let is_small = table.layout().entries <= SAMPLES;
    if depth == Depth::Deep || is_small {
        return unknown_among_all(table, &filter);
    }

    let entries = table.layout().entries;
    let mut streams = Vec::new();
    for number in 0..SAMPLES {
        // The product needs more bits than the number of entries has.
        let index = u128::from(number) * u128::from(entries) / u128::from(SAMPLES);
        let entry = table.entry(u64::try_from(index).unwrap_or(entries))?;
        streams.extend(entry.map(|entry| entry.stream));
    }
    streams.dedup();
    filter.first_unknown(&streams)
}

/// The entries are in the order of their streams, so those of one stream follow each other.
fn unknown_among_all(table: &Table<'_>, filter: &Filter<'_>) -> format::Result<Option<u64>> {
    let mut streams = Vec::new();
    let mut last = None;
    for entry in table.entries() {
        let stream = entry?.stream;
        if last == Some(stream) {
            continue;
        }
        last = Some(stream);
        streams.push(stream);

        if streams.len() == BATCH {
            if let Some(unknown) = filter.first_unknown(&streams)? {
                return Ok(Some(unknown));
            }
            streams.clear();
        }
    }
    filter.first_unknown(&streams)
}
