//! The plan of a copy: its segments, and the follower that reads the file while it is copied.

use crate::fs::ReadAt;
use crate::manifest::Blake3Hash;

/// How a file is put together. Every byte keeps its offset.
#[derive(Debug, Clone, Copy)]
pub struct CopyPlan<'a> {
    /// Where its bytes come from, in order.
    pub segments: &'a [Segment<'a>],
    /// Length of the target. After the last segment follows a hole.
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
    /// First byte after the segment.
    pub end: u64,
    /// Read every byte: share no blocks, let the kernel copy nothing, and do not believe the file
    /// system that a range is a hole. Needed unless a hash that somebody else made shows that the
    /// copy is right, and for a file that the node may write to.
    pub reads_every_byte: bool,
    /// For the first segment: the hash of its whole file, which the copy proves. For that, the copy
    /// also reads the file's data after the segment's end.
    pub whole: Option<Blake3Hash>,
}

impl std::fmt::Debug for Segment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} up to {}", self.place, self.end)
    }
}

/// Looks at a file while it is being copied.
pub trait Follow: Send {
    /// Called when all bytes of `stored` before `end` are stored. Most likely they can be read
    /// without the disk.
    fn follow(&mut self, stored: &dyn ReadAt, end: u64);

    /// All of `stored` is there, and it has its name. The store calls this once, after the copy.
    fn finish(&mut self, stored: &dyn ReadAt);
}

/// The follower of a file that is copied, if there is one.
pub type Follower<'a> = Option<&'a mut (dyn Follow + 'static)>;
