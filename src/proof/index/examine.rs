//! Examines the files of an index, and then compares their contents with the log.

use std::collections::HashSet;

use super::entries::EntryReader;
use super::hidden::hidden_events;
use super::report::IndexProof;
use super::scope::IndexScope;
use super::stream_filter::{IndexBeside, StreamFilter, check_stream_filter};
use super::streams::StreamReader;
use super::tables::{CheckedTable, check_table, read_map};
use crate::error::Result;
use crate::format::LogPosition;
use crate::format::indexmap::IndexMap;
use crate::format::names::IndexFile;
use crate::log::ChunkSet;
use crate::manifest::{FileSet, Root};
use crate::proof::depth::Depth;
use crate::run::Run;

/// Examines the index of a set of files. The result holds everything that is wrong.
///
/// # Errors
/// What the storage reports, and an interruption.
pub fn examine_index(files: &dyn FileSet, scope: &IndexScope<'_>, run: &Run) -> Result<IndexProof> {
    let mut proof = IndexProof::default();

    // The files themselves.
    let map = read_map(files, &mut proof)?;
    note_other_files(files, map.as_ref(), &mut proof)?;
    let mut tables = Vec::new();
    if let Some(map) = &map {
        for row in &map.tables {
            run.check()?;
            tables.extend(check_table(files, row.table, scope, &mut proof)?);
        }
    }
    let stream_filter = check_stream_filter(files, scope, &mut proof)?;

    // Their contents, compared with the log.
    if let Some(chunks) = scope.chunks
        && scope.depth > Depth::Quick
    {
        let contents = IndexContents {
            chunks,
            commit: map.as_ref().and_then(|map| map.commit),
            tables: &tables,
            stream_filter: stream_filter.as_ref(),
        };
        compare_with_log(files, scope, &contents, run, &mut proof)?;
    }

    proof.map = map;
    Ok(proof)
}

/// The contents of an index, and the log to compare them with.
struct IndexContents<'a> {
    chunks: &'a ChunkSet,
    /// How far into the log the index reaches.
    commit: Option<LogPosition>,
    tables: &'a [CheckedTable],
    stream_filter: Option<&'a StreamFilter>,
}

fn compare_with_log(
    files: &dyn FileSet,
    scope: &IndexScope<'_>,
    contents: &IndexContents<'_>,
    run: &Run,
    proof: &mut IndexProof,
) -> Result<()> {
    let IndexContents { chunks, tables, .. } = *contents;
    if let Some(filter) = contents.stream_filter {
        let commit = contents.commit.filter(|_| proof.fatal().next().is_none());
        let index = commit.map(|commit| IndexBeside { tables, commit });
        let gap = filter.lacks_any(files, chunks, scope.writer, index, run)?;
        proof.problems.extend(gap);
    }

    let is_deep = scope.depth == Depth::Deep;
    let mut reader = EntryReader {
        files,
        chunks,
        writer: scope.writer,
        is_ahead: contents
            .commit
            .is_some_and(|commit| commit >= scope.writer.0),
        // Asking the filter for each stream is worth the time only if all entries are read.
        stream_filter: contents.stream_filter.filter(|_| is_deep),
        run,
        proof,
    };
    if is_deep {
        reader.compare_all(tables)?;
    } else {
        reader.compare_latest(tables)?;
    }

    // Only of a whole index can one tell whether events are missing.
    if let Some(commit) = contents.commit
        && proof.fatal().next().is_none()
    {
        let end = scope.writer.0;
        proof.hidden = hidden_events(&StreamReader {
            files,
            chunks,
            tables,
            commit: commit.min(end),
            end,
            run,
        })?;
    }
    Ok(())
}

/// Notes tables and filters that `indexmap` does not name, and whether there is a stream-existence
/// filter.
fn note_other_files(
    files: &dyn FileSet,
    map: Option<&IndexMap>,
    proof: &mut IndexProof,
) -> Result<()> {
    let mut listed = HashSet::new();
    if let Some(map) = map {
        listed.extend(map.tables.iter().map(|row| row.table));
    }

    for entry in files.files()? {
        if entry.path.root() != Root::Index {
            continue;
        }
        match IndexFile::of(entry.path.below_root()) {
            IndexFile::Table(table) | IndexFile::BloomFilter(table) if !listed.contains(&table) => {
                proof.unlisted.push(entry.path);
            }
            IndexFile::StreamFilterData => proof.has_stream_filter = true,
            _ => {}
        }
    }
    Ok(())
}
