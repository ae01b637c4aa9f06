//! The rules by which a server chooses among the chunk files of a directory (disk-format §3.8).
//!
//! The rules differ between server versions, so the simulated start in `proof` uses them too. They
//! read no file: the caller tells the last chunk number of each.

use std::borrow::Borrow;
use std::ops::RangeInclusive;

use crate::error::Result;
use crate::format::ChunkNumber;
use crate::format::names::ChunkName;
use crate::fs::Stamp;
use crate::manifest::{FileEntry, RelativePath, Root};
use crate::server::ServerLine;
use crate::server::facts::TRUSTS_VERSION_ZERO;

/// A file of a set that is named like a chunk.
#[derive(Debug, Clone)]
pub(crate) struct ListedChunk {
    pub(crate) path: RelativePath,
    pub(crate) name: ChunkName,
    pub(crate) mode: u32,
    pub(crate) stamp: Option<Stamp>,
}

impl ListedChunk {
    /// Returns `None` if the entry is not named like a chunk in the db directory.
    fn of(entry: &FileEntry) -> Option<Self> {
        if entry.path.root() != Root::Db {
            return None;
        }

        let name = entry.path.below_root().parse().ok()?;
        Some(Self {
            path: entry.path.clone(),
            name,
            mode: entry.mode,
            stamp: entry.stamp,
        })
    }
}

/// The chunk files of a set in the server's order: by number, then by version.
pub(crate) fn listed_chunks(
    entries: impl IntoIterator<Item: Borrow<FileEntry>>,
) -> Vec<ListedChunk> {
    let mut chunks = Vec::new();
    for entry in entries {
        chunks.extend(ListedChunk::of(entry.borrow()));
    }
    chunks.sort_by_key(|listed| listed.name);

    chunks
}

/// Which of the sorted files a server uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selection {
    /// Indices of the files that the server uses.
    pub(crate) used: Vec<usize>,
    /// Indices of the files whose numbers other files cover.
    pub(crate) superseded: Vec<usize>,
    /// Chunk numbers before the last used file that no file covers.
    pub(crate) missing: Vec<RangeInclusive<ChunkNumber>>,
}

/// Walks the sorted files as servers of a line do.
///
/// `end_of` returns the last chunk number in the header of a file. It is called once for each used
/// file, with the file's index.
pub(crate) fn select(
    listed: &[ListedChunk],
    line: ServerLine,
    mut end_of: impl FnMut(usize, &ListedChunk) -> Result<ChunkNumber>,
) -> Result<Selection> {
    let mut selection = Selection {
        used: Vec::new(),
        superseded: Vec::new(),
        missing: Vec::new(),
    };

    // The number that the next file should begin with.
    let mut expected = 0;
    for (index, chunk) in listed.iter().enumerate() {
        let start = chunk.name.start.0;
        if start < expected || is_replaced(listed, index) {
            selection.superseded.push(index);
            continue;
        }

        if start > expected {
            let gap = ChunkNumber(expected)..=ChunkNumber(start - 1);
            selection.missing.push(gap);
        }

        selection.used.push(index);
        let end = end_of(index, chunk)?.0.max(start);
        let counts_once = line.has(TRUSTS_VERSION_ZERO) && chunk.name.version.0 == 0;
        let last = if counts_once { start } else { end };
        expected = last.saturating_add(1);
    }

    Ok(selection)
}

/// Whether the next file has the same chunk number. Its version is higher then.
pub(super) fn is_replaced(listed: &[ListedChunk], index: usize) -> bool {
    match (listed.get(index), listed.get(index + 1)) {
        (Some(chunk), Some(next)) => chunk.name.start == next.name.start,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: &str) -> ListedChunk {
        ListedChunk {
            path: RelativePath::new(Root::Db, name).unwrap(),
            name: name.parse().unwrap(),
            mode: 0o444,
            stamp: None,
        }
    }

    /// Selects among files, which are given with the last chunk number of their headers. Returns
    /// the used names, the superseded names, and the missing numbers.
    fn selected(
        files: &[(&str, u32)],
        line: ServerLine,
    ) -> (Vec<String>, Vec<String>, Vec<RangeInclusive<u32>>) {
        let chunks: Vec<ListedChunk> = files.iter().map(|(name, _)| listed(name)).collect();
        let selection = select(&chunks, line, |index, chunk| {
            let (name, end) = files[index];
            assert_eq!(name, chunk.path.below_root());
            Ok(ChunkNumber(end))
        })
        .unwrap();

        let missing = selection
            .missing
            .iter()
            .map(|range| range.start().0..=range.end().0)
            .collect();
        (
            names(files, &selection.used),
            names(files, &selection.superseded),
            missing,
        )
    }

    fn names(files: &[(&str, u32)], indices: &[usize]) -> Vec<String> {
        let mut names = Vec::new();
        for index in indices {
            names.push(files[*index].0.to_owned());
        }
        names
    }

    #[test]
    fn the_highest_version_wins_and_merged_files_cover_their_range() {
        let files = [
            ("chunk-000000.000001", 0),
            ("chunk-000000.000002", 2),
            ("chunk-000001.000000", 1),
            ("chunk-000002.000001", 2),
            ("chunk-000003.000000", 3),
            ("chunk-000006.000000", 6),
        ];

        let (used, superseded, missing) = selected(&files, ServerLine::NEWEST);

        assert_eq!(
            used,
            [
                "chunk-000000.000002",
                "chunk-000003.000000",
                "chunk-000006.000000"
            ]
        );
        assert_eq!(
            superseded,
            [
                "chunk-000000.000001",
                "chunk-000001.000000",
                "chunk-000002.000001"
            ]
        );
        assert_eq!(missing, [4..=5]);
    }

    #[test]
    fn a_merged_file_of_version_zero_counts_once_from_21_10_on() {
        let files = [("chunk-000000.000000", 2), ("chunk-000003.000000", 3)];

        assert_eq!(selected(&files, ServerLine::V20_10).2, []);
        assert_eq!(selected(&files, ServerLine::V21_10).2, [1..=2]);
    }

    proptest::proptest! {
        #[test]
        fn every_number_is_covered_once_or_missing(
            files in proptest::collection::btree_map(0_u32..20, (0_u32..4, 0_u32..3), 1..12)
        ) {
            let mut text = Vec::new();
            for (start, (length, version)) in &files {
                let end = start + if *version == 0 { 0 } else { *length };
                text.push((format!("chunk-{start:06}.{version:06}"), end));
            }
            let borrowed: Vec<(&str, u32)> =
                text.iter().map(|(name, end)| (name.as_str(), *end)).collect();

            let (used, superseded, missing) = selected(&borrowed, ServerLine::NEWEST);
            assert_eq!(used.len() + superseded.len(), files.len());

            let mut numbers: Vec<u32> = missing.into_iter().flatten().collect();
            for name in &used {
                let start: u32 = name.get(6..12).unwrap().parse().unwrap();
                let end = borrowed.iter().find(|(other, _)| other == name).unwrap().1;
                numbers.extend(start..=end);
            }
            numbers.sort_unstable();
            let last = *numbers.last().unwrap();
            assert_eq!(numbers, (0..=last).collect::<Vec<_>>());
        }
    }
}
