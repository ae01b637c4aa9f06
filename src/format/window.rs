//! A bounded piece of a file in memory. A scan moves it over the file.

use super::{ReadAt, Result};

/// The part of a file that is in memory. It moves forwards or backwards, and reads no byte twice on
/// its way.
pub(super) struct FileWindow<'s> {
    source: &'s dyn ReadAt,
    buffer: Vec<u8>,
    /// File offset of the buffer's first byte.
    start: u64,
    /// Bytes of the buffer that hold bytes of the file.
    filled: usize,
    /// Bytes to read at once.
    reach: usize,
}

impl<'s> FileWindow<'s> {
    pub(super) fn new(source: &'s dyn ReadAt, reach: usize) -> Self {
        Self {
            source,
            buffer: Vec::new(),
            start: 0,
            filled: 0,
            reach,
        }
    }

    /// Bytes that are read at once if the file has them.
    pub(super) const fn reach(&self) -> usize {
        self.reach
    }

    /// The `length` bytes from `offset`. Returns `None` if the window does not hold all of them.
    pub(super) fn get(&self, offset: u64, length: usize) -> Option<&[u8]> {
        let from = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        let to = from.checked_add(length).filter(|to| *to <= self.filled)?;
        self.buffer.get(from..to)
    }

    /// The bytes from `offset` to the end of the window.
    pub(super) fn tail(&self, offset: u64) -> Option<&[u8]> {
        let from = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        self.buffer.get(from..self.filled)
    }

    /// Moves the window so that it holds the `length` bytes from `offset`, and more bytes behind
    /// them if they lie before `end`. The caller limits `length`.
    pub(super) fn forwards(&mut self, offset: u64, length: usize, end: u64) -> Result<()> {
        if self.get(offset, length).is_some() {
            return Ok(());
        }

        let rest = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = length.max(self.reach.min(rest));
        let kept = self.keep(offset);
        self.read(offset, kept, wanted)
    }

    /// Moves the window so that it holds the `length` bytes before `end`, and more bytes in front
    /// of them if they lie behind `start`. The caller limits `length`.
    pub(super) fn backwards(&mut self, end: u64, length: usize, start: u64) -> Result<()> {
        if let Some(offset) = end.checked_sub(length as u64)
            && self.get(offset, length).is_some()
        {
            return Ok(());
        }

        let rest = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
        let wanted = length.max(self.reach.min(rest));
        self.read(end.saturating_sub(wanted as u64), 0, wanted)
    }

    /// Reads a few bytes outside the window.
    pub(super) fn beside<const N: usize>(&self, offset: u64) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.source.read_exact_at(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// Moves the bytes that the window holds from `offset` on to the front of the buffer. Returns
    /// their number.
    fn keep(&mut self, offset: u64) -> usize {
        let Some(from) = offset.checked_sub(self.start) else {
            return 0;
        };
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        if from >= self.filled {
            return 0;
        }
        self.buffer.copy_within(from..self.filled, 0);
        self.filled - from
    }

    fn read(&mut self, start: u64, kept: usize, wanted: usize) -> Result<()> {
        // If the read fails, the window holds nothing.
        self.filled = 0;
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        let missing = self.buffer.get_mut(kept..wanted).unwrap_or_default();
        self.source.read_exact_at(start + kept as u64, missing)?;
        (self.start, self.filled) = (start, wanted);
        Ok(())
    }
}

impl std::fmt::Debug for FileWindow<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileWindow")
            .field("start", &self.start)
            .field("filled", &self.filled)
            .finish_non_exhaustive()
    }
}
