//! What an operation changes on the disk.

use std::path::Path;

/// One change. A test records the changes, to find out what a loss of power would leave of them.
#[derive(Clone, Copy)]
#[cfg_attr(
    not(feature = "faults"),
    expect(dead_code, reason = "only a recording reads it")
)]
pub(super) enum Change<'a> {
    /// The path and its missing parents were created. If the path existed already, nothing was.
    Made(&'a Path),
    Written(&'a std::fs::File, u64, &'a [u8]),
    /// The kernel wrote bytes; where and how many is not known.
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
