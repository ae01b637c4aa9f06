//! Separates damage from errors of the storage.

use std::io::ErrorKind;

use crate::error::Result;
use crate::format;
use crate::log::with_place;
use crate::manifest::{FileSet, RelativePath};

/// The result of a parser, with damage as words: damage is a finding. An error of the storage stays
/// an error.
pub(super) fn judge<T>(
    files: &dyn FileSet,
    path: &RelativePath,
    parsed: format::Result<T>,
) -> Result<Result<T, String>> {
    match parsed {
        Ok(value) => Ok(Ok(value)),
        Err(format::Error::Malformed(why)) => Ok(Err(why.to_string())),
        Err(format::Error::Read(error)) if error.kind() == ErrorKind::UnexpectedEof => {
            Ok(Err("the file ends too early".to_owned()))
        }
        Err(error) => with_place(files, path, Err(error)),
    }
}
