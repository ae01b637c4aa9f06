//! Opens and reads files of a set, and gives each error the file that it is about.

use crate::error::{Error, Kind, Result};
use crate::format::{self, InContext, Malformed, ReadAt};
use crate::fs;
use crate::manifest::{FileSet, RelativePath};

/// Opens a file that the set listed a moment ago. If it has vanished since, the error is
/// [`Kind::Unstable`].
pub(crate) fn open_listed(files: &dyn FileSet, path: &RelativePath) -> Result<Box<dyn ReadAt>> {
    let Some(source) = files.open(path)? else {
        return Err(Error::new(
            Kind::Unstable,
            "the file vanished while kbackup looked at it",
        )
        .on(files.place_of(path)));
    };

    Ok(source)
}

/// Adds to a parser's error the file that it is about.
pub(crate) fn with_place<T>(
    files: &dyn FileSet,
    path: &RelativePath,
    parsed: format::Result<T>,
) -> Result<T> {
    match parsed {
        Ok(value) => Ok(value),
        // Only an error needs the place: a set may have tens of thousands of files.
        error => error.in_source(files.place_of(path).as_ref()),
    }
}

/// Reads the whole of a file of at most `limit` bytes.
pub(crate) fn read_small(source: &dyn ReadAt, limit: u64) -> format::Result<Vec<u8>> {
    let size = source.size();
    let length = usize::try_from(size).unwrap_or(usize::MAX);
    if size > limit || length == usize::MAX {
        let wanted = format!("at most {limit} bytes");
        return Err(Malformed::new("file", 0, wanted, size).into());
    }

    let mut bytes = vec![0; length];
    source.read_exact_at(0, &mut bytes)?;
    Ok(bytes)
}

/// Turns an error on a file of a running node into an error for the user. If the path leads to
/// something else than a regular file, the source is corrupt.
pub(crate) fn of_live_file(error: fs::IoError) -> Error {
    let is_no_plain_file = error.is_no_plain_file();
    let error = Error::from(error);
    if is_no_plain_file {
        error.with_kind(Kind::SourceCorrupt)
    } else {
        error
    }
}
