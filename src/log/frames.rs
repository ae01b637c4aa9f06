//! Which bytes of a chunk file hold records, and single records in them.

use std::ops::Range;

use super::log_file::LogFile;
use crate::error::{Error, Kind, Result};
use crate::format::chunk::{ChunkFile, HEADER_LENGTH, Transform};
use crate::format::record::Lookup;
use crate::format::{self, LogPosition, ReadAt};
use crate::manifest::FileSet;

/// The bytes of a chunk file that hold records before `end`.
pub(crate) fn data_before(file: &ChunkFile, end: LogPosition) -> format::Result<Range<u64>> {
    // If the log ends inside the file, the footer means nothing (disk-format §3.7). If the log ends
    // with the file, the file may not be completed yet (§6.6).
    let header = &file.header;
    let lies_before = header.end_position() < end;
    let ends_there = header.end_position() == end;
    if lies_before || (ends_there && (file.footer().is_some() || header.scavenged)) {
        file.completed_data()
    } else {
        file.data_before(end)
    }
}

/// A reader of single records of a file.
pub(crate) fn lookup<'a>(file: &LogFile, source: &'a dyn ReadAt) -> format::Result<Lookup<'a>> {
    let data = match file.chunk.footer() {
        Some(_) => file.chunk.completed_data()?,
        None => HEADER_LENGTH..file.chunk.length.min(HEADER_LENGTH + capacity(file)),
    };
    Lookup::new(source, &file.chunk, data)
}

/// Bytes of log that a file covers.
fn capacity(file: &LogFile) -> u64 {
    let header = file.header();
    header.end_position().since(header.start_position())
}

/// Refuses an encrypted chunk, whose records cannot be read.
pub(crate) fn refuse_encrypted(files: &dyn FileSet, file: &LogFile) -> Result<()> {
    if file.header().transform == Transform::Identity {
        return Ok(());
    }

    let what = "the chunk is encrypted, so kbackup cannot prove its records";
    Err(Error::new(Kind::Refused, what)
        .on(files.place_of(&file.path))
        .hint("take volume snapshots of this node"))
}
