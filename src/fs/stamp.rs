//! Tells files and their states apart. A file system does that by device, inode and times, a store
//! of blobs by hashes. Only this file knows which of them is used.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::status::FileStatus;

/// Tells one state of one file from all others, as far as the storage can: a write to the file, or
/// another file in its place, changes the stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp(State);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    File {
        device: u64,
        inode: u64,
        size: u64,
        modified: SystemTime,
        changed: SystemTime,
    },
    /// The name of a blob that is written once.
    Content([u8; 32]),
}

impl Stamp {
    /// The stamp of bytes that are kept under their hash, and so cannot change.
    #[must_use]
    pub const fn of_content(hash: [u8; 32]) -> Self {
        Self(State::Content(hash))
    }

    /// The file that the name led to. Names with an equal result are hard links to one file. Returns
    /// `None` for a blob, which has no other name.
    #[must_use]
    pub const fn file(&self) -> Option<CopyId> {
        match self.0 {
            State::File { device, inode, .. } => Some(CopyId(CopyPlace::File { device, inode })),
            State::Content(_) => None,
        }
    }

    /// Whether the file has not changed since before `moment`. File systems keep times in ticks: of
    /// two changes in one tick only the first one shows.
    #[must_use]
    pub fn is_before(&self, moment: SystemTime) -> bool {
        match self.0 {
            State::File {
                modified, changed, ..
            } => changed < moment && modified < moment,
            State::Content(_) => true,
        }
    }

    /// The bytes of this file as a text that a later process compares. A new hard link changes the
    /// stamp, but not this text.
    #[must_use]
    pub fn bytes_to_text(&self) -> String {
        match self.0 {
            State::File {
                inode,
                size,
                modified,
                ..
            } => format!(
                "inode {inode}, {size} bytes, modified {}",
                nanoseconds(modified)
            ),
            State::Content(_) => self.to_text(),
        }
    }

    /// The stamp as a text that a later process compares with the stamp of the same name. Leaves
    /// the device out: its number may be another one after a restart.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self.0 {
            State::File {
                inode,
                size,
                modified,
                changed,
                ..
            } => format!(
                "inode {inode}, {size} bytes, modified {}, changed {}",
                nanoseconds(modified),
                nanoseconds(changed)
            ),
            State::Content(hash) => format!("content {}", blake3::Hash::from(hash)),
        }
    }
}

/// Nanoseconds from 1970 to a time, and negative ones for an earlier time.
fn nanoseconds(time: SystemTime) -> i128 {
    let signed = |length: Duration| i128::try_from(length.as_nanos()).unwrap_or(i128::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => signed(since),
        Err(before) => -signed(before.duration()),
    }
}

impl From<&FileStatus> for Stamp {
    fn from(status: &FileStatus) -> Self {
        Self(State::File {
            device: status.device,
            inode: status.inode,
            size: status.size,
            modified: status.modified,
            changed: status.changed,
        })
    }
}

/// Which stored copy of its bytes a name leads to. Names with equal ids share one copy, so damage
/// to it shows under all of them. Equal bytes may also be stored in several copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CopyId(CopyPlace);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum CopyPlace {
    File { device: u64, inode: u64 },
    Content([u8; 32]),
}

impl CopyId {
    /// The only copy of bytes that are kept under their hash.
    #[must_use]
    pub const fn of_content(hash: [u8; 32]) -> Self {
        Self(CopyPlace::Content(hash))
    }
}

impl From<&FileStatus> for CopyId {
    fn from(status: &FileStatus) -> Self {
        Self(CopyPlace::File {
            device: status.device,
            inode: status.inode,
        })
    }
}
