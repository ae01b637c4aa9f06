//! Data and holes of a file.

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::fs::{File, Operation};

/// A range of a file's bytes, the end exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// Bytes to be read.
    Data {
        /// First byte after it.
        end: u64,
    },
    /// A hole, which reads as zeros.
    Hole {
        /// First byte after it.
        end: u64,
    },
}

/// The data or the hole that begins at byte `start` of a file, up to `end` at most. If the file
/// system does not report holes, or if the file ends before `start`, everything is data.
pub(super) fn extent_at(file: &File, start: u64, end: u64) -> Extent {
    match seek(file, SeekFrom::Data(start)) {
        Ok(data) if data > start => Extent::Hole { end: data.min(end) },
        Ok(_) => match seek(file, SeekFrom::Hole(start)) {
            Ok(hole) if hole > start => Extent::Data { end: hole.min(end) },
            _ => Extent::Data { end },
        },
        // No data from here to the end of the file, wherever that is now.
        Err(Some(Errno::NXIO)) => match file.status() {
            Ok(status) if status.size > start => Extent::Hole {
                end: status.size.min(end),
            },
            _ => Extent::Data { end },
        },
        Err(_) => Extent::Data { end },
    }
}

fn seek(file: &File, to: SeekFrom) -> Result<u64, Option<Errno>> {
    file.system(Operation::Seek, |fd| rustix::fs::seek(fd, to))
        .map_err(|error| Errno::from_io_error(&error.source))
}
