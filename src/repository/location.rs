//! Opens the repository that the operator named. This is the only way to a repository: only this
//! file chooses which kind of store is behind the [`Repository`] trait.

use std::path::{Path, PathBuf};

use super::object::ObjectLocation;
use super::{DirectoryRepository, Repository};
use crate::error::{Error, Kind, Result};

/// The place of a repository.
#[derive(Debug, Clone)]
pub struct Location(Place);

#[derive(Debug, Clone)]
enum Place {
    Directory(PathBuf),
    Objects(Box<ObjectLocation>),
}

impl Location {
    /// Reads what an operator typed for `--repo`: the path of a directory, or the URL of a place in
    /// an object store.
    ///
    /// # Errors
    /// `Usage` if it is a URL of a store that kbackup does not know, or a wrong one.
    pub fn parse(typed: &Path) -> Result<Self> {
        let Some(url) = url_of(typed) else {
            refuse_cut_url(typed)?;
            return Ok(Self(Place::Directory(typed.to_owned())));
        };
        let objects = ObjectLocation::parse(url).map_err(|error| {
            error.hint("for a directory whose name looks like a URL, put `./` before it")
        })?;
        Ok(Self(Place::Objects(Box::new(objects))))
    }

    /// Whether an operator typed a URL, and not a path.
    #[must_use]
    pub fn is_url(typed: &Path) -> bool {
        url_of(typed).is_some()
    }

    /// Whether an operator typed the URL of a store that is reached over a network.
    #[must_use]
    pub fn is_remote(typed: &Path) -> bool {
        match Self::parse(typed) {
            Ok(location) => location.directory().is_none(),
            Err(_) => false,
        }
    }

    /// The directory that holds the repository; `None` if it is kept elsewhere.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        match &self.0 {
            Place::Directory(directory) => Some(directory),
            Place::Objects(objects) => objects.directory(),
        }
    }

    /// Opens the repository.
    ///
    /// # Errors
    /// `NotFound` if there is none, `Refused` if a newer kbackup made it, `StoredCorrupt` if its
    /// description is damaged.
    pub fn open(&self) -> Result<Box<dyn Repository>> {
        match self.open_if_there()? {
            Some(repository) => Ok(repository),
            None => Err(self.no_repository()),
        }
    }

    /// Opens the repository. Returns `None` if there is none.
    ///
    /// # Errors
    /// As for [`Self::open`]; `NotFound` if the place cannot hold a repository.
    pub fn open_if_there(&self) -> Result<Option<Box<dyn Repository>>> {
        match &self.0 {
            Place::Directory(directory) => {
                let found = DirectoryRepository::open_if_there(directory)?;
                Ok(found.map(|repository| Box::new(repository) as Box<dyn Repository>))
            }
            Place::Objects(objects) => {
                let found = objects.open_if_there()?;
                Ok(found.map(|repository| Box::new(repository) as Box<dyn Repository>))
            }
        }
    }

    /// Makes a repository. The place must be new or empty.
    ///
    /// # Errors
    /// `Refused` if something else is there, or a repository already.
    pub fn create(&self) -> Result<Box<dyn Repository>> {
        match &self.0 {
            Place::Directory(directory) => Ok(Box::new(DirectoryRepository::create(directory)?)),
            Place::Objects(objects) => Ok(Box::new(objects.create()?)),
        }
    }

    /// The error that says that there is no repository, with hints on what may be wrong.
    #[must_use]
    pub fn no_repository(&self) -> Error {
        match &self.0 {
            Place::Directory(directory) => DirectoryRepository::none_at(directory),
            Place::Objects(objects) => objects.no_repository(),
        }
    }
}

/// What an operator typed for `--repo`, so that it does not depend on the working directory: a URL
/// stays as it is.
#[must_use]
pub fn absolute_place(typed: &Path) -> PathBuf {
    if url_of(typed).is_some() {
        return typed.to_owned();
    }
    std::path::absolute(typed).unwrap_or_else(|_| typed.to_owned())
}

/// With one slash missing, a URL would be a directory on this machine's own disk.
///
/// # Errors
/// `Usage` if the path begins like the URL of an object store.
fn refuse_cut_url(typed: &Path) -> Result<()> {
    let typed = typed.to_str().unwrap_or_default();
    for scheme in ["s3:", "az:", "gs:", "object+file:"] {
        if typed.starts_with(scheme) {
            return Err(
                Error::new(Kind::Usage, "this URL of an object store is cut short")
                    .on(typed)
                    .hint(format!("write `{scheme}//`"))
                    .hint("for a directory of that name, put `./` before it"),
            );
        }
    }
    Ok(())
}

/// What was typed, if it is a URL: letters, digits, `+`, `-` and `.` before `://`.
fn url_of(typed: &Path) -> Option<&str> {
    let typed = typed.to_str()?;
    let (scheme, _) = typed.split_once("://")?;

    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    is_scheme.then_some(typed)
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
    fn a_url_is_a_place_in_an_object_store() {
        for typed in ["s3://bucket/prefix", "az://container", "gs://bucket"] {
            let location = Location::parse(Path::new(typed)).unwrap();
            assert_eq!(location.directory(), None, "{typed}");
        }
        let location = Location::parse(Path::new("object+file:///var/objects")).unwrap();
        assert_eq!(location.directory(), Some(Path::new("/var/objects")));
    }

    #[test]
    fn only_a_store_of_a_provider_is_reached_over_a_network() {
        for typed in ["s3://b/p", "az://c/p", "gs://b", "s3://b?region=eu"] {
            assert!(Location::is_remote(Path::new(typed)), "{typed}");
        }
        for typed in ["/backups", "object+file:///backups", "s4://b"] {
            assert!(!Location::is_remote(Path::new(typed)), "{typed}");
        }
    }

    #[test]
    fn a_url_without_a_slash_is_no_directory() {
        for typed in ["s3:/bucket/node1", "s3:bucket", "object+file:/backups"] {
            let error = Location::parse(Path::new(typed)).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage, "{typed}");
        }
        assert!(Location::parse(Path::new("./s3:/bucket")).is_ok());
    }

    #[test]
    fn another_url_is_refused_and_the_hint_says_what_works() {
        for typed in ["file:///x", "ftp://x/y", "s3://", "s3://user:secret@bucket"] {
            let error = Location::parse(Path::new(typed)).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage, "{typed}");
            assert!(!error.hints().is_empty(), "{typed}");
            assert!(!error.to_string().contains("secret"), "{typed}");
        }
    }
}
