//! What an operation changes on the disk.

use std::path::Path;

/// One change, told so that a test can say what a loss of power leaves of it.
#[derive(Clone, Copy)]
#[cfg_attr(
    not(feature = "faults"),
    expect(dead_code, reason = "only a recording reads it")
)]
pub(super) enum Change<'a> {
    /// The path, and what is missing above it, unless it exists already.
    Made(&'a Path),
    Written(&'a std::fs::File, u64, &'a [u8]),
    /// The kernel put bytes somewhere.
    Content(&'a std::fs::File),
    Resized(&'a std::fs::File, u64),
    Attributes(&'a std::fs::File),
    AttributesOf(&'a Path),
    Synced(&'a std::fs::File),
    SyncedPath(&'a Path),
    Renamed(&'a Path, &'a Path),
    Linked(&'a Path, &'a Path),
    Removed(&'a Path),
    RemovedTree(&'a Path),
}
