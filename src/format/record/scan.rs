//! Every record of a piece of a chunk's data, forwards or backwards.

use std::ops::Range;

use super::STRUCTURE;
use super::frame::{FRAME, body_length, check_room, load, loaded_i32, parse};
use super::model::Frame;
use super::placement::{RecordPlacement, check_order, check_range};
use crate::format::chunk::ChunkHeader;
use crate::format::window::FileWindow;
use crate::format::{LogPosition, Malformed, ReadAt, Result};

/// Bytes that a scan reads at once.
pub(super) const SCAN: usize = 256 * 1024;

/// Every record of a piece of a chunk's data, from the first to the last.
///
/// A lending iterator: each frame borrows from the window and must be dropped before the next.
#[derive(Debug)]
pub struct Forwards<'s> {
    window: FileWindow<'s>,
    placement: RecordPlacement,
    at: u64,
    end: u64,
    /// Bytes from here on may not be written yet, so none of them is read.
    written: u64,
    previous: Option<LogPosition>,
}

impl<'s> Forwards<'s> {
    /// Scans the bytes `data` of a chunk file, which begin and end between two records: those of
    /// [`ChunkFile::completed_data`](crate::format::chunk::ChunkFile::completed_data) or
    /// [`ChunkFile::data_before`](crate::format::chunk::ChunkFile::data_before), or a later part of
    /// them that begins where [`ChunkHeader::offset_of`] puts a boundary.
    ///
    /// # Errors
    /// Bytes that the header leaves no room for, or that the file does not have.
    pub fn new(source: &'s dyn ReadAt, header: &ChunkHeader, data: Range<u64>) -> Result<Self> {
        check_range(source, header, &data)?;
        Ok(Self {
            window: FileWindow::new(source, SCAN),
            placement: RecordPlacement::of(header),
            at: data.start,
            end: data.end,
            written: data.end,
            previous: None,
        })
    }

    /// For a file that is still being written: returns only records that lie completely before byte
    /// `written`. `previous` is the position of the record before these data, if one was read.
    #[must_use]
    pub fn as_far_as(self, written: u64, previous: Option<LogPosition>) -> Self {
        Self {
            written: written.min(self.end),
            previous,
            ..self
        }
    }

    /// The next record. Returns `None` at the end.
    ///
    /// # Errors
    /// Bytes that are not a whole, valid frame; a record with another position than the place where
    /// it lies; or what the storage reports.
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot lend")]
    pub fn next(&mut self) -> Result<Option<Frame<'_>>> {
        if self.at == self.end || !self.is_written()? {
            return Ok(None);
        }

        let length = load(&mut self.window, self.at, self.end, self.written)?;
        let frame = parse(&self.window, self.at, length, &self.placement)?;
        if let Some(previous) = self.previous.replace(frame.position) {
            check_order(previous, frame.position, self.at)?;
        }

        self.at += length;
        Ok(Some(frame))
    }

    /// Whether the next record is written completely. A record with an impossible length counts as
    /// written, so that the caller gets the error.
    fn is_written(&mut self) -> Result<bool> {
        if self.written == self.end {
            return Ok(true);
        }
        if self.written < self.at + 4 {
            return Ok(false);
        }

        self.window.forwards(self.at, 4, self.written)?;
        let prefix = loaded_i32(&self.window, self.at);
        match body_length(prefix, self.at, self.end - self.at) {
            Ok(body) => Ok(body + FRAME <= self.written - self.at),
            Err(_) => Ok(true),
        }
    }

    /// The byte of the file behind the last record given.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.at
    }

    /// The log position of the last record given.
    #[must_use]
    pub const fn previous(&self) -> Option<LogPosition> {
        self.previous
    }
}

/// Every record of a piece of a chunk's data, from the last to the first.
///
/// A lending iterator, as [`Forwards`].
#[derive(Debug)]
pub struct Backwards<'s> {
    window: FileWindow<'s>,
    placement: RecordPlacement,
    start: u64,
    at: u64,
    following: Option<LogPosition>,
}

impl<'s> Backwards<'s> {
    /// Scans the bytes `data` of a chunk file, which begin and end between two records, as in
    /// [`Forwards::new`].
    ///
    /// # Errors
    /// Bytes that the header leaves no room for, or that the file does not have.
    pub fn new(source: &'s dyn ReadAt, header: &ChunkHeader, data: Range<u64>) -> Result<Self> {
        check_range(source, header, &data)?;
        Ok(Self {
            window: FileWindow::new(source, SCAN),
            placement: RecordPlacement::of(header),
            start: data.start,
            at: data.end,
            following: None,
        })
    }

    /// The record before. Returns `None` at the start.
    ///
    /// # Errors
    /// As [`Forwards::next`].
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot lend")]
    pub fn next(&mut self) -> Result<Option<Frame<'_>>> {
        if self.at == self.start {
            return Ok(None);
        }

        let offset = self.frame_start()?;
        let length = load(&mut self.window, offset, self.at, self.at)?;
        if offset + length != self.at {
            let suffix = self.at - offset - FRAME;
            let expected = format!("a length of {suffix} bytes, as at the record's end");
            return Err(Malformed::new(STRUCTURE, offset, expected, length - FRAME).into());
        }

        let frame = parse(&self.window, offset, length, &self.placement)?;
        if let Some(following) = self.following.replace(frame.position) {
            check_order(frame.position, following, offset)?;
        }
        self.at = offset;
        Ok(Some(frame))
    }

    /// Where the frame that ends here begins, by the length at its end.
    fn frame_start(&mut self) -> Result<u64> {
        let room = self.at - self.start;
        check_room(self.start, room)?;

        let suffix_at = self.at.saturating_sub(4);
        self.window.backwards(self.at, 4, self.start)?;
        let suffix = loaded_i32(&self.window, suffix_at);
        let length = body_length(suffix, suffix_at, room)? + FRAME;

        // Read many short frames at once, up to this end. `load` reads a long one from its start.
        if let Ok(held) = usize::try_from(length)
            && held <= self.window.reach()
        {
            self.window.backwards(self.at, held, self.start)?;
        }
        Ok(self.at - length)
    }
}
