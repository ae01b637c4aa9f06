//! What a copy is made of: its segments, and whoever looks at it on the way.

use crate::fs::ReadAt;
use crate::manifest::Blake3Hash;

/// How a file is put together. Every byte keeps its offset.
#[derive(Debug, Clone, Copy)]
pub struct CopyPlan<'a> {
    /// Where its bytes come from, in order.
    pub segments: &'a [Segment<'a>],
    /// Length of the target. What the segments do not reach is a hole.
    pub full_length: u64,
    /// Compute the MD5 of all but the last 16 bytes, too.
    pub md5: bool,
}

/// A part of a file. It begins at the end of the segment before it.
#[derive(Clone, Copy)]
pub struct Segment<'a> {
    /// The file that holds it at the same offset.
    pub source: &'a dyn ReadAt,
    /// The file's name for the operator.
    pub place: &'a str,
    /// First byte behind the segment.
    pub end: u64,
    /// Somebody writes to the file: never share its blocks.
    pub live: bool,
    /// For the first segment: what all bytes of its file hash to. That is proven on the way; behind
    /// the segment's end only the data of the file is read for it, not its holes.
    pub whole: Option<Blake3Hash>,
}

impl std::fmt::Debug for Segment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} up to {}", self.place, self.end)
    }
}

/// Looks at a file while it is being copied.
pub trait Follow: Send {
    /// All bytes of `stored` before `end` are there now. They will most likely not have to be read
    /// from a disk.
    fn follow(&mut self, stored: &dyn ReadAt, end: u64);
}

/// The one that looks at a file while it is copied, if there is one.
pub type Follower<'a> = Option<&'a mut (dyn Follow + 'static)>;
