//! Finds one epoch in the log of a running node, and opens few of its chunks for that.

use std::path::{Path, PathBuf};

use super::access::of_source;
use super::checkpoints::RawCheckpoint;
use crate::error::{Error, Kind, Result};
use crate::format::checkpoint::Checkpoint;
use crate::format::chunk::{self, ChunkFile, Transform};
use crate::format::names::{ChunkName, DbFile};
use crate::format::record::Lookup;
use crate::format::{ChunkNumber, Epoch, EpochRecord, InContext, LogPosition};
use crate::fs;

/// The most chunk files that are opened. No directory holds more versions of one chunk at a time.
const MAX_LOOKS: usize = 64;

/// The epoch whose record is at `position` in the log of a running node. Returns `None` if no chunk
/// holds such a record.
///
/// # Errors
/// [`Kind::SourceCorrupt`] if the record, or a checkpoint, is not what a server writes;
/// [`Kind::Refused`] if the chunk is encrypted.
pub(crate) fn find_epoch(db: &Path, position: LogPosition) -> Result<Option<Epoch>> {
    // The newest chunk tells the chunk size, and so which chunk can hold the position.
    let mut last_possible: Option<ChunkNumber> = None;
    let mut looks = 0;

    for name in chunks_newest_first(db)? {
        if last_possible.is_some_and(|last| name.start > last) {
            continue;
        }

        looks += 1;
        if looks > MAX_LOOKS {
            break;
        }
        let Some(chunk) = OpenChunk::open(db, name)? else {
            continue;
        };

        let header = &chunk.found.header;
        last_possible = header.chunk_size.chunk_of(position);
        if header.covers(position)
            && let Some(epoch) = chunk.epoch_at(db, position)?
        {
            return Ok(Some(epoch));
        }
    }

    Ok(None)
}

fn chunks_newest_first(db: &Path) -> Result<Vec<ChunkName>> {
    let mut chunks = Vec::new();
    for name in fs::names(db)? {
        if let Some(name) = name.to_str()
            && let DbFile::Chunk(chunk) = DbFile::of(name)
        {
            chunks.push(chunk);
        }
    }

    chunks.sort();
    chunks.reverse();
    Ok(chunks)
}

struct OpenChunk {
    path: PathBuf,
    file: fs::File,
    found: ChunkFile,
}

impl OpenChunk {
    /// Returns `None` if a scavenge has replaced the file since it was listed, or if its header
    /// cannot be read.
    fn open(db: &Path, name: ChunkName) -> Result<Option<Self>> {
        let path = db.join(name.to_string());
        let file = match fs::open_source(&path) {
            Ok(file) => file,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(of_source(error)),
        };

        let Ok(found) = chunk::inspect(&file) else {
            return Ok(None);
        };
        Ok(Some(Self { path, file, found }))
    }

    fn epoch_at(&self, db: &Path, position: LogPosition) -> Result<Option<Epoch>> {
        let Self { path, file, found } = self;
        if found.header.transform != Transform::Identity {
            let what = "the chunk is encrypted, which is not supported yet";
            return Err(Error::new(Kind::Refused, what).at(path));
        }

        let data = match found.footer() {
            Some(_) => found.completed_data(),
            None => found.data_before(writer_position(db)?),
        };
        let data = data.in_source(path)?;
        let mut lookup = Lookup::new(file, found, data).in_source(path)?;

        let Some(frame) = lookup.read_at_position(position).in_source(path)? else {
            return Ok(None);
        };
        let record = EpochRecord::parse(&frame).in_source(path)?;
        Ok(Some(record.epoch))
    }
}

/// The writer position in the db directory of a running node.
///
/// # Errors
/// [`Kind::SourceCorrupt`] if the checkpoint is missing or holds no position.
pub(crate) fn writer_position(db: &Path) -> Result<LogPosition> {
    let position = position_in(db, Checkpoint::Writer)?;
    position.ok_or_else(|| {
        let what = "the writer checkpoint holds no position";
        Error::new(Kind::SourceCorrupt, what).at(&Checkpoint::Writer.under(db))
    })
}

/// The position in a checkpoint of a running node. Returns `None` for −1, and if there is no such
/// file.
///
/// # Errors
/// [`Kind::SourceCorrupt`] if the file is not what a server writes.
pub(crate) fn position_in(db: &Path, which: Checkpoint) -> Result<Option<LogPosition>> {
    let raw = RawCheckpoint::in_directory(db, which).map_err(of_source)?;
    raw.position().in_source(&which.under(db))
}
