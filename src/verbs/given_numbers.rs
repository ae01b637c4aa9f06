//! Remembers in the state directory which numbers the backups of a repository got: one small file
//! for each repository. If the repository loses its own note of them, and its newest backup too, no
//! number and no label is given twice all the same.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::fs;
use crate::manifest::Label;
use crate::node::create_state_directory;
use crate::repository::{self, GivenNumbers, Repository};
use crate::run::Run;
use crate::settings::options::GeneralOptions;

/// The version of the file that this program writes.
const FORMAT: u32 = 1;
const MAX_BYTES: u64 = 64 * 1024;
const FILE_MODE: u32 = 0o600;

/// The content of the file.
#[derive(Serialize, Deserialize)]
struct NumbersFile {
    format: u32,
    /// Where the repository was, for an operator who reads the file.
    place: String,
    sequence: u64,
    branch: u32,
    newest: Label,
}

/// Gives the repository back what it has lost of its numbers. What is remembered is only one more
/// guard, so the run goes on if it cannot be read.
///
/// # Errors
/// As for [`repository::keep_given`].
pub(super) fn bring_back(
    repository: &dyn Repository,
    general: &GeneralOptions,
    run: &Run,
) -> Result<()> {
    let Some(file) = file_of(repository, general) else {
        return Ok(());
    };

    match read(&file) {
        Ok(Some(given)) => repository::keep_given(repository, &given, run),
        Ok(None) => Ok(()),
        Err(error) => {
            run.note(error.in_words());
            Ok(())
        }
    }
}

/// Remembers the numbers after a backup. If that fails, the backup is good nevertheless.
pub(super) fn remember(repository: &dyn Repository, general: &GeneralOptions, run: &Run) {
    let Some(file) = file_of(repository, general) else {
        return;
    };

    if let Err(error) = write(&file, repository) {
        run.note(format!(
            "kbackup cannot remember the numbers of this repository: {}",
            error.in_words()
        ));
    }
}

/// The file; `None` if there is no state directory. Its name does not end with `.json`, because
/// those of release records do.
fn file_of(repository: &dyn Repository, general: &GeneralOptions) -> Option<PathBuf> {
    let directory = general.state_directory().ok()?;
    Some(directory.join(format!("numbers-{}.seen", repository.id())))
}

fn read(file: &Path) -> Result<Option<GivenNumbers>> {
    const WHAT: &str = "cannot read which numbers the backups of this repository got";

    let bytes = match fs::read_small(file, MAX_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(Error::from(error).with_what(WHAT)),
    };

    let parsed: NumbersFile = serde_json::from_slice(&bytes)
        .map_err(|error| Error::new(Kind::Failed, WHAT).at(file).because(error))?;
    Ok(Some(GivenNumbers {
        sequence: parsed.sequence,
        branch: parsed.branch,
        newest: Some(parsed.newest),
    }))
}

fn write(file: &Path, repository: &dyn Repository) -> Result<()> {
    let given = repository::given_numbers(repository, &[])?;
    let Some(newest) = given.newest else {
        return Ok(());
    };

    let content = NumbersFile {
        format: FORMAT,
        place: repository.place(),
        sequence: given.sequence,
        branch: given.branch,
        newest,
    };
    let text = serde_json::to_string_pretty(&content)
        .map_err(|error| Error::new(Kind::Failed, "cannot write the numbers").because(error))?;

    create_state_directory(fs::parent(file))?;
    Ok(fs::write_durably(
        file,
        (text + "\n").as_bytes(),
        FILE_MODE,
    )?)
}
