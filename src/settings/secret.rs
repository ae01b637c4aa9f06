//! Secrets: they come from a file or from the environment, never from an argument.

use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::Origin;
use crate::error::{Error, Kind, Result};
use crate::fs;

const MAX_SECRET: u64 = 64 * 1024;

/// The place of one secret. The secret is read when it is needed, not when the settings are
/// resolved.
#[derive(Debug, Clone)]
pub struct SecretSource {
    file: Option<PathBuf>,
    variable: &'static str,
    /// True if the variable wins, because only the configuration file names the secret's file.
    variable_wins: bool,
}

impl SecretSource {
    /// A secret in the file that an option of this origin names, or in a variable.
    pub(super) fn new(file: Option<PathBuf>, origin: Origin, variable: &'static str) -> Self {
        Self {
            file,
            variable,
            variable_wins: origin == Origin::File,
        }
    }

    /// The first line of the file, or the variable. Returns `None` if neither is set.
    ///
    /// # Errors
    /// [`Kind::Usage`] if the file cannot be read, or the secret is empty.
    pub fn read(&self) -> Result<Option<SecretString>> {
        let variable = std::env::var(self.variable).unwrap_or_default();

        let (text, place) = match &self.file {
            Some(path) if variable.is_empty() || !self.variable_wins => {
                (read_file(path)?, path.display().to_string())
            }
            _ if variable.is_empty() => return Ok(None),
            _ => (variable, self.variable.to_owned()),
        };

        let line = text.lines().next().unwrap_or_default();
        if line.is_empty() {
            return Err(Error::new(Kind::Usage, "the secret is empty").on(place));
        }
        Ok(Some(line.to_owned().into()))
    }
}

fn read_file(path: &Path) -> Result<String> {
    // A mounted secret is a symbolic link.
    let target = fs::canonical(path).unwrap_or_else(|_| path.to_owned());
    let bytes = fs::read_small(&target, MAX_SECRET).map_err(|error| {
        Error::from(error)
            .with_kind(Kind::Usage)
            .with_what("cannot read the file with the secret")
    })?;

    String::from_utf8(bytes)
        .map_err(|_| Error::new(Kind::Usage, "the file is not UTF-8 text").at(path))
}
