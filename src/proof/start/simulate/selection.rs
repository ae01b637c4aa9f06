//! Which chunk files a server uses at this start, and for which chunk numbers. The rules are in
//! `crate::log`; a truncation may have removed some of the files.

use std::ops::RangeInclusive;

use super::state::ServerStart;
use crate::format::{ChunkNumber, ChunkSize, LogPosition};
use crate::log::{ListedChunk, select};
use crate::proof::start::facts::ChunkFact;
use crate::server::facts::TRUSTS_VERSION_ZERO;

/// The files that a server uses, and the chunk numbers that no file covers.
#[derive(Default)]
pub(super) struct UsedFiles<'a> {
    pub(super) used: Vec<UsedFile<'a>>,
    pub(super) missing: Vec<RangeInclusive<u32>>,
}

/// A file that a server uses.
#[derive(Clone, Copy)]
pub(super) struct UsedFile<'a> {
    pub(super) fact: &'a ChunkFact,
    /// The first chunk number that the server takes it for.
    pub(super) first: u32,
    /// The last chunk number that the server takes it for.
    pub(super) last: u32,
}

impl<'a> UsedFiles<'a> {
    /// The file that holds a chunk number.
    pub(super) fn covering(&self, number: u32) -> Option<UsedFile<'a>> {
        let mut used = self.used.iter();
        used.find(|file| (file.first..=file.last).contains(&number))
            .copied()
    }

    /// The first missing chunk number below `limit`.
    pub(super) fn missing_below(&self, limit: u32) -> Option<u32> {
        let mut starts = self.missing.iter().map(|range| *range.start());
        starts.find(|start| *start < limit)
    }
}

impl<'a> ServerStart<'a> {
    /// Walks the files that are still there as the server does (disk-format §3.8).
    pub(super) fn used_files(&self) -> UsedFiles<'a> {
        let names: Vec<ListedChunk> = self.files.iter().map(|fact| fact.listed.clone()).collect();
        let selection = select(&names, self.line, |index, listed| {
            let last = self.files.get(index).map(|fact| self.last_number(fact));
            Ok(ChunkNumber(last.unwrap_or(listed.name.start.0)))
        });
        let Ok(selection) = selection else {
            return UsedFiles::default();
        };

        let mut files = UsedFiles::default();
        for index in selection.used {
            let Some(fact) = self.files.get(index) else {
                continue;
            };
            files.used.push(UsedFile {
                fact,
                first: fact.listed.name.start.0,
                last: self.last_number(fact),
            });
        }
        for range in selection.missing {
            files.missing.push(range.start().0..=range.end().0);
        }
        files
    }

    /// The last chunk number that a server of this line takes a file for.
    fn last_number(&self, fact: &ChunkFact) -> u32 {
        let start = fact.listed.name.start.0;
        if self.line.has(TRUSTS_VERSION_ZERO) && fact.listed.name.version.0 == 0 {
            return start;
        }
        match &fact.file {
            Ok(file) => file.header.end.0.max(start),
            Err(_) => start,
        }
    }
}

/// The number of the chunk that a position lies in.
pub(super) fn number_of(size: ChunkSize, position: LogPosition) -> u32 {
    size.chunk_of(position).map_or(u32::MAX, |chunk| chunk.0)
}
