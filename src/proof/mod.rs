//! Would a node start from these files? Evidence, over any set of files: a capture in progress, a stored backup, a directory on a disk.

/// A value that was proven; only this room makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven<T>(T);

impl<T> std::ops::Deref for Proven<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
