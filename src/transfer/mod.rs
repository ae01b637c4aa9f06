//! Copies bytes and hashes them on the way: the source is read once, and what is hashed is what is stored.
//!
//! * On one file system the kernel copies (`copy_file_range`), and the hashes are taken from the *copy* while it is cached. Elsewhere, and for a live file, whose
//!   blocks must never be shared, a few buffers are read, hashed and written.
//! * Each hash has a thread of its own, fed with the same buffers: MD5 is the slow one.
//! * Holes of the source stay holes, and aligned blocks of zeros become holes; the hashes cover them as zeros.
//! * Write-back begins while the copy goes on: at most 32 MiB of a file are dirty. The node syncs with every append, and a
//!   large dirty amount would stall it.
//! * The page cache: the source is opened for reading in sequence and, where the kernel knows that (6.3), without marking its pages as used. Nothing is
//!   ever dropped from the source's cache, because that would evict the pages the node itself reads.

mod copy;
mod extents;
mod hashing;

pub use copy::{Copied, Copy, Failure, Segment, clone, copy};
pub use hashing::{Digest, hash_file};
