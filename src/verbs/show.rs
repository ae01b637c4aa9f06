//! `kbackup show`: one backup.

use super::{label, repository};
use crate::error::{Error, Kind, Result};
use crate::manifest::Manifest;
use crate::repository::Repository;
use crate::run::Run;
use crate::settings::options::{GeneralOptions, ShowOptions};

/// The manifest of the named backup, or of the newest one.
///
/// # Errors
/// [`Kind::Usage`] for a wrong label, [`Kind::NotFound`] if there is no such backup, and
/// [`Kind::StoredCorrupt`] if its manifest is damaged.
pub(crate) fn show(options: &ShowOptions, general: &GeneralOptions, run: &Run) -> Result<Manifest> {
    let label = label::parse(&options.label)?;
    let repository = repository::open(&options.repository, general, run)?;

    match label {
        Some(label) => repository.manifest(&label),
        None => newest(&*repository),
    }
}

fn newest(repository: &dyn Repository) -> Result<Manifest> {
    let Some(newest) = repository.list()?.pop() else {
        return Err(
            Error::new(Kind::NotFound, "the repository has no backup").on(repository.place())
        );
    };
    repository.manifest(&newest.label)
}
