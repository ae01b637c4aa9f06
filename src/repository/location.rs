//! Opens the repository that the operator named. This is the only way to a repository: only this
//! file chooses which kind of store is behind the [`Repository`] trait.

use std::path::{Path, PathBuf};

use super::{DirectoryRepository, Repository};
use crate::error::{Error, Kind, Result};

/// The place of a repository: today always a directory of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    directory: PathBuf,
}

impl Location {
    /// Reads what an operator typed for `--repo`.
    ///
    /// # Errors
    /// `Usage` if it is a URL: no kind of store has URLs yet.
    pub fn parse(typed: &Path) -> Result<Self> {
        let Some(scheme) = scheme_of(typed) else {
            return Ok(Self {
                directory: typed.to_owned(),
            });
        };

        Err(Error::new(
            Kind::Usage,
            format!("kbackup cannot keep backups in `{scheme}://`"),
        )
        .at(typed)
        .hint("name a directory, such as `/var/backups/kurrentdb`")
        .hint("for a directory whose name looks like a URL, put `./` before it"))
    }

    /// The directory that holds the repository; `None` if it is kept elsewhere.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        Some(&self.directory)
    }

    /// Opens the repository.
    ///
    /// # Errors
    /// `NotFound` if there is none, `Refused` if a newer kbackup made it, `StoredCorrupt` if its
    /// description is damaged.
    pub fn open(&self) -> Result<Box<dyn Repository>> {
        Ok(Box::new(DirectoryRepository::open(&self.directory)?))
    }

    /// Opens the repository. Returns `None` if there is none.
    ///
    /// # Errors
    /// As for [`Self::open`]; `NotFound` if the place cannot hold a repository.
    pub fn open_if_there(&self) -> Result<Option<Box<dyn Repository>>> {
        match DirectoryRepository::open_if_there(&self.directory)? {
            Some(repository) => Ok(Some(Box::new(repository))),
            None => Ok(None),
        }
    }

    /// Makes a repository. The place must be new or empty.
    ///
    /// # Errors
    /// `Refused` if something else is there, or a repository already.
    pub fn create(&self) -> Result<Box<dyn Repository>> {
        Ok(Box::new(DirectoryRepository::create(&self.directory)?))
    }

    /// The error that says that there is no repository, with hints on what may be wrong.
    #[must_use]
    pub fn no_repository(&self) -> Error {
        DirectoryRepository::none_at(&self.directory)
    }
}

/// The scheme of a URL: letters, digits, `+`, `-` and `.` before `://`.
fn scheme_of(typed: &Path) -> Option<&str> {
    let (scheme, _) = typed.to_str()?.split_once("://")?;

    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    is_scheme.then_some(scheme)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_directory() {
        for typed in [
            "/backups",
            "backups",
            "./s3://bucket",
            "/a://b",
            "C:/x",
            "://",
        ] {
            let location = Location::parse(Path::new(typed)).unwrap();
            assert_eq!(location.directory(), Some(Path::new(typed)));
        }
    }

    #[test]
    fn a_url_is_refused_and_the_hint_says_what_works() {
        for typed in [
            "s3://bucket/prefix",
            "az://x",
            "object+file:///x",
            "file:///x",
        ] {
            let error = Location::parse(Path::new(typed)).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage, "{typed}");
            assert!(error.hints()[0].contains("a directory"), "{typed}");
        }
    }
}
