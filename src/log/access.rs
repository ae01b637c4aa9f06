//! Opens and reads files of a set, and gives each error the file that it is about.

use std::io::ErrorKind;

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

/// What an error on a file of a node says about the node. A running node removes files and cuts
/// them, so a file that is gone or became shorter is [`Kind::Unstable`]. All of its files are plain
/// files, so anything else is [`Kind::SourceCorrupt`].
pub(crate) fn of_source(error: fs::IoError) -> Error {
    match error.source.kind() {
        ErrorKind::NotFound | ErrorKind::StaleNetworkFileHandle => {
            Error::new(Kind::Unstable, "a file vanished").at(&error.path)
        }
        ErrorKind::UnexpectedEof => {
            Error::new(Kind::Unstable, "a file became shorter").at(&error.path)
        }
        _ if error.is_no_plain_file() => no_plain_file(error),
        _ => error.into(),
    }
}

fn no_plain_file(error: fs::IoError) -> Error {
    let what = "this should be a plain file of the node";
    Error::new(Kind::SourceCorrupt, what)
        .at(&error.path)
        .because(error.source)
        .hint("kbackup does not follow links, also not to other disks")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn an_error_on_a_file_of_a_node_says_what_is_wrong_with_the_node() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("writer.chk");
        let error = of_source(fs::open_source(&path).unwrap_err());
        assert_eq!(
            (error.kind(), error.what()),
            (Kind::Unstable, "a file vanished")
        );

        fs::write_durably(&path, &[0; 3], 0o600).unwrap();
        let file = fs::open_source(&path).unwrap();
        let error = of_source(file.read_exact_at(0, &mut [0; 8]).unwrap_err());
        assert_eq!(
            (error.kind(), error.what()),
            (Kind::Unstable, "a file became shorter")
        );

        let link = place.path().join("chaser.chk");
        symlink(&path, &link).unwrap();
        let error = of_source(fs::open_source(&link).unwrap_err());
        assert_eq!(error.kind(), Kind::SourceCorrupt);
        assert_eq!(error.place(), link.to_str());
        assert!(error.hints().concat().contains("does not follow links"));
    }
}
