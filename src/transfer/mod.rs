//! Copies bytes and hashes them on the way. The source is read once, and the hashes are those of
//! the stored bytes.
//!
//! * If the file system can, a copy shares the blocks of its source (`FICLONE`) and is hashed in
//!   the target; the blocks of a live file are never shared. If another machine serves both files,
//!   it copies (`copy_file_range`). Elsewhere bytes are read, hashed and written.
//! * A file has one thread, which reads, writes and computes the BLAKE3. [`FILES_AT_ONCE`] files
//!   have their MD5s computed beside that, together ([`crate::md5`]).
//! * Code that needs the content of the file reads it while it is copied ([`Follow`]), so that
//!   nothing is read from a disk twice.
//! * Holes of the source stay holes, and aligned blocks of zeros become holes; the hashes cover
//!   them as zeros.
//! * The node syncs with every append, and its syncs wait for all that the disk has been given. So
//!   large files are written past the page cache (`O_DIRECT`), and the sync at the end has nothing
//!   left to write. If the file system cannot do that, at most 8 MiB of a file are dirty. A run at
//!   low priority uses the disk with one thread at a time, and leaves it alone for a while after
//!   each piece ([`crate::pace::Pace::in_turn`]).
//! * The page cache: bytes that kbackup reads do not stay in it (`RWF_DONTCACHE`, Linux 6.14), and
//!   bytes that were there before stay. On older kernels (6.3) the pages are at least not marked as
//!   used. Nothing is ever dropped from the source's cache, because that would evict the pages that
//!   the node itself reads. Whoever proves a file of kbackup drops it first
//!   ([`crate::fs::File::settle`]).
//! * The pace: each byte that is read or copied is taken from the run's budget once. For files that
//!   other rooms read, [`Paced`] does that.

mod buffer;
mod copy;
mod extents;
mod failure;
mod hashing;
mod paced;
mod plan;
mod writeback;

pub use copy::{Copied, continue_copy, copy};
pub use failure::CopyFailure;
pub use hashing::{Digest, hash_file, hash_followed};
pub use paced::{Paced, paced};
pub use plan::{CopyPlan, Follow, Follower, Segment};
pub use writeback::sync;

use crate::run::Run;

/// How many files are worth handling at once: each has a thread of its own. Eight fill so many
/// lanes of the MD5 that it no longer limits the run, and they hide the latency of a disk. With
/// more, an interrupted run would leave more half-copied files.
pub const FILES_AT_ONCE: usize = 8;
/// One file alone gets on at this rate at least, in bytes a second, on any disk that is in use.
const RATE_OF_ONE_FILE: u64 = 64 << 20;

/// How many files a run copies at once. The next run hashes again what an interruption left of each,
/// and a kill wastes it. So under a rate limit there are no more than that rate keeps busy: the first
/// of them is done sooner.
#[must_use]
pub fn files_at_once(run: &Run) -> usize {
    let Some(limit) = run.pace().limit() else {
        return FILES_AT_ONCE;
    };
    let busy = limit.div_ceil(RATE_OF_ONE_FILE);
    usize::try_from(busy)
        .unwrap_or(FILES_AT_ONCE)
        .min(FILES_AT_ONCE)
}
