//! The buffers that bytes go through, and their sizes.

use std::io;

use crate::fs::ReadAt;

/// Bytes that are read at once.
pub(super) const PIECE: usize = 1024 * 1024;
/// Offsets, lengths and addresses that go past the page cache are multiples of this: no disk asks
/// for more.
pub(super) const BLOCK: usize = 4096;
pub(super) static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// A buffer that is filled in part. It starts at an address that a write past the page cache takes.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    used: usize,
}

impl Buffer {
    /// The bytes that were read.
    pub(super) fn filled(&self) -> &[u8] {
        self.bytes
            .get(self.start..self.start + self.used)
            .unwrap_or_default()
    }

    /// How many bytes were read.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// Reads up to `wanted` bytes, fewer only at the end of the file. Returns how many there are.
    pub(super) fn fill(
        &mut self,
        source: &(impl ReadAt + ?Sized),
        offset: u64,
        wanted: usize,
    ) -> io::Result<usize> {
        if self.bytes.len() < wanted + BLOCK {
            self.bytes.resize(wanted + BLOCK, 0);
            self.start = self.bytes.as_ptr().align_offset(BLOCK).min(BLOCK);
        }

        self.used = 0;
        while self.used < wanted {
            let room = self
                .bytes
                .get_mut(self.start + self.used..self.start + wanted)
                .unwrap_or_default();
            match source.read_once_at(offset + self.used as u64, room) {
                Ok(0) => break,
                Ok(count) => self.used += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }

        Ok(self.used)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.filled()
    }
}
