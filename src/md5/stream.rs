//! One unfinished MD5.

use super::lanes::{Block, State};

/// The hash of the bytes so far.
#[derive(Debug, Clone)]
pub(super) struct Md5Stream {
    pub(super) state: State,
    length: u64,
    /// Its first `length % 64` bytes are not in the state yet.
    rest: Block,
}

impl Default for Md5Stream {
    fn default() -> Self {
        Self {
            state: [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476],
            length: 0,
            rest: [0; 64],
        }
    }
}

impl Md5Stream {
    /// Adds the bytes, except for the whole blocks among them: it returns those, and the caller
    /// compresses them into the state.
    pub(super) fn take<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [Block] {
        let begun = self.begun();
        self.length += bytes.len() as u64;

        // Complete the unfinished block first.
        if begun > 0 {
            let room = self.rest.get_mut(begun..).unwrap_or_default();
            let Some((filling, after)) = bytes.split_at_checked(room.len()) else {
                write(room, bytes);
                return &[];
            };
            write(room, filling);
            ::md5::block_api::compress(&mut self.state, &[self.rest]);
            bytes = after;
        }

        let (blocks, rest) = bytes.as_chunks();
        write(&mut self.rest, rest);
        blocks
    }

    /// Number of bytes in the unfinished block.
    fn begun(&self) -> usize {
        usize::try_from(self.length % 64).unwrap_or_default()
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        let blocks = self.take(bytes);
        ::md5::block_api::compress(&mut self.state, blocks);
    }

    /// RFC 1321, section 3.1 and 3.2: a one, zeros up to eight bytes before the end of a block, and
    /// the length in bits.
    pub(super) fn finish(mut self) -> [u8; 16] {
        let bits = self.length.wrapping_mul(8);
        let padding = if self.begun() < 56 { 56 } else { 120 } - self.begun();
        let mut marked = [0; 64];
        marked[0] = 0x80;
        self.update(marked.get(..padding).unwrap_or_default());
        self.update(&bits.to_le_bytes());

        let mut hash = [0; 16];
        for (bytes, word) in hash.as_chunks_mut().0.iter_mut().zip(self.state) {
            *bytes = word.to_le_bytes();
        }
        hash
    }
}

fn write(room: &mut [u8], bytes: &[u8]) {
    for (room, byte) in room.iter_mut().zip(bytes) {
        *room = *byte;
    }
}
