//! Opens and reads files of the node. They come, go and shrink while they are read.

use std::io::ErrorKind;
use std::time::SystemTime;

use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::fs;
use crate::log::of_source;
use crate::manifest::{Directories, RelativePath};

/// Opens a file of the node.
///
/// # Errors
/// [`Kind::Unstable`] if the file does not exist: the directory changed while it was read.
pub(super) fn open(source: &Directories, path: &RelativePath) -> Result<fs::File> {
    fs::open_source(&source.path_of(path)).map_err(of_source)
}

/// Opens a file that a node need not have. Returns `None` if it does not exist.
pub(super) fn open_if_present(
    source: &Directories,
    path: &RelativePath,
) -> Result<Option<fs::File>> {
    match open(source, path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == Kind::Unstable => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads a small file whole, through one descriptor, because a moment later another file may have
/// the name. Returns `None` if it does not exist.
///
/// # Errors
/// [`Kind::SourceCorrupt`] if the file is longer than `limit` bytes.
pub(super) fn read_small(
    source: &Directories,
    path: &RelativePath,
    limit: u64,
) -> Result<Option<(Vec<u8>, Timestamp)>> {
    let place = source.path_of(path);
    let file = match fs::open_source(&place) {
        Ok(file) => file,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(of_source(error)),
    };
    let modified = timestamp(file.status()?.modified);

    match file.read_small(limit) {
        Ok(bytes) => Ok(Some((bytes, modified))),
        Err(error) if error.source.kind() == ErrorKind::FileTooLarge => {
            let what = format!("the file is longer than {limit} bytes");
            Err(Error::new(Kind::SourceCorrupt, what).at(&place))
        }
        Err(error) => Err(of_source(error)),
    }
}

/// The time when a file was changed, as a row has it.
pub(super) fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The error for a source that is not what it was a moment ago: another attempt may succeed.
pub(super) fn changed(what: impl Into<String>) -> Error {
    Error::new(Kind::Unstable, what)
}
