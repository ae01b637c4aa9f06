//! Where an object repository is, as an operator names it.

use std::path::Path;

use super::ObjectRepository;
use super::store::{ObjectUrl, Store};
use super::url_options::UrlOptions;
use crate::error::{Error, Kind, Result};
use crate::fs;

/// Mode of the directories that kbackup makes for `object+file://`.
const DIRECTORY_MODE: u32 = 0o700;

/// The place of a repository in an object store.
#[derive(Debug, Clone)]
pub(in crate::repository) struct ObjectLocation {
    url: ObjectUrl,
    pub(super) options: UrlOptions,
}

impl ObjectLocation {
    /// Reads a URL, with the settings in its query.
    ///
    /// # Errors
    /// `Usage` if it is none of an object store.
    pub(in crate::repository) fn parse(typed: &str) -> Result<Self> {
        let (url, query) = typed.split_once('?').unwrap_or((typed, ""));
        Ok(Self {
            url: ObjectUrl::parse(url)?,
            options: UrlOptions::parse(query).map_err(|error| error.on(url))?,
        })
    }

    /// The directory, if the objects are kept in one.
    pub(in crate::repository) fn directory(&self) -> Option<&Path> {
        self.url.directory()
    }

    /// Opens the repository. Returns `None` if there is none.
    pub(in crate::repository) fn open_if_there(&self) -> Result<Option<ObjectRepository>> {
        // A directory that is not there holds no repository yet: `create` makes it.
        if let Some(directory) = self.directory()
            && fs::status_of_target(directory)?.is_none()
        {
            return Ok(None);
        }
        let found = ObjectRepository::open_if_there(self.store()?, self.options.compression)?;
        Ok(found.map(|repository| repository.kept_in(self.directory())))
    }

    /// Makes a repository.
    pub(in crate::repository) fn create(&self) -> Result<ObjectRepository> {
        if let Some(directory) = self.directory() {
            fs::create_directories_durably(directory, DIRECTORY_MODE, DIRECTORY_MODE)?;
        }
        let made = ObjectRepository::create(self.store()?, self.options.compression)?;
        Ok(made.kept_in(self.directory()))
    }

    pub(super) fn store(&self) -> Result<Store> {
        Store::connect(&self.url, &self.options.store)
    }

    /// The error that says that there is no repository.
    pub(in crate::repository) fn no_repository(&self) -> Error {
        let look_for = match self.directory() {
            Some(_) => "check the path, and whether its disk is mounted",
            None => "look for a wrong bucket, prefix or endpoint first",
        };
        Error::new(Kind::NotFound, "there is no repository")
            .on(self.url.place())
            .hint(look_for)
            .hint("`kbackup init` makes a repository")
    }
}
