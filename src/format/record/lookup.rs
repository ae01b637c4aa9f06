//! Single records of a chunk, by their log position.

use std::ops::Range;

use super::STRUCTURE;
use super::frame::{load, parse};
use super::model::Frame;
use super::placement::{RecordPlacement, check_range};
use crate::format::chunk::{ChunkFile, ChunkHeader};
use crate::format::position_map::PositionMap;
use crate::format::window::FileWindow;
use crate::format::{LogPosition, Malformed, ReadAt, Result};

/// Bytes that reading one record begins with.
const PROBE: usize = 4096;

/// Reads single records of a chunk by their log position.
#[derive(Debug)]
pub struct Lookup<'s> {
    window: FileWindow<'s>,
    placement: RecordPlacement,
    header: ChunkHeader,
    data: Range<u64>,
    /// Only in a scavenged chunk.
    map: Option<PositionMap<'s>>,
}

impl<'s> Lookup<'s> {
    /// For the records in the bytes `data` of a chunk file: [`ChunkFile::completed_data`] or
    /// [`ChunkFile::data_before`].
    ///
    /// # Errors
    /// Bytes that the header leaves no room for, or that the file does not have.
    pub fn new(source: &'s dyn ReadAt, chunk: &ChunkFile, data: Range<u64>) -> Result<Self> {
        check_range(source, &chunk.header, &data)?;
        let map = if chunk.header.scavenged {
            Some(PositionMap::new(source, chunk)?)
        } else {
            None
        };
        Ok(Self {
            window: FileWindow::new(source, PROBE),
            placement: RecordPlacement::of(&chunk.header),
            header: chunk.header,
            data,
            map,
        })
    }

    /// The record at `position`. Returns `None` if the position is outside the data, or if a
    /// scavenge removed the record.
    ///
    /// # Errors
    /// In a chunk that was not scavenged, a position at which no record begins; else as
    /// [`Forwards::next`](super::Forwards::next).
    pub fn read_at_position(&mut self, position: LogPosition) -> Result<Option<Frame<'_>>> {
        if !self.header.covers(position) {
            return Ok(None);
        }
        let offset = match &mut self.map {
            Some(map) => map.offset_of(position)?,
            None => self.header.offset_of(position),
        };
        let Some(offset) = offset.filter(|offset| self.data.contains(offset)) else {
            return Ok(None);
        };

        let end = self.data.end;
        let length = load(&mut self.window, offset, end, end)?;
        let frame = parse(&self.window, offset, length, &self.placement)?;
        if frame.position != position {
            let expected = format!("the log position {position}, as in the position map");
            return Err(Malformed::new(STRUCTURE, offset + 6, expected, frame.position).into());
        }
        Ok(Some(frame))
    }
}
