//! Copies bytes and hashes them on the way: the source is read once, and what is hashed is what is stored.
//!
//! * A few buffers are read, hashed and written. Where the file system shares blocks or copies on its server, and where reading would fill the page cache anyway,
//!   the kernel copies on one file system (`copy_file_range`), and the hashes are taken from the *copy* while it is cached; never a live file, whose blocks must not be shared.
//! * Each hash has a thread of its own, fed with the same buffers: MD5 is the slow one.
//! * Holes of the source stay holes, and aligned blocks of zeros become holes; the hashes cover them as zeros.
//! * Write-back begins while the copy goes on: at most 32 MiB of a file are dirty. The node syncs with every append, and a
//!   large dirty amount would stall it.
//! * The page cache: what is read once does not stay in it (`RWF_DONTCACHE`, Linux 6.14), and what was there before stays. On older kernels (6.3) the pages are at least
//!   not marked as used. Nothing is ever dropped from the source's cache, because that would evict the pages the node itself reads.
//! * The pace: what is read or copied goes from the run's budget, once. Of files that others read, [`Paced`] sees to it.

mod copy;
mod extents;
mod hashing;
mod paced;

pub use copy::{Copied, Copy, Failure, Segment, clone, copy};
pub use hashing::{Digest, hash_file};
pub use paced::{Paced, paced};
