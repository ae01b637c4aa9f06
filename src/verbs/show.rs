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

/// The backup that `latest` means for a restore, too: the newest that was not damaged at the source.
/// If its manifest cannot be read, the error says so, because an older backup is not the newest.
pub(super) fn newest(repository: &dyn Repository) -> Result<Manifest> {
    let listed = repository.list()?;
    for listed in listed.iter().rev() {
        match &listed.head {
            Ok(head) if !head.is_sound() => {}
            _ => return repository.manifest(&listed.label),
        }
    }

    let Some(damaged) = listed.last() else {
        return Err(
            Error::new(Kind::NotFound, "the repository has no backup").on(repository.place())
        );
    };
    Err(
        Error::new(Kind::NotFound, "the repository has no good backup")
            .on(repository.place())
            .hint(format!(
                "`kbackup show {}` shows one that is marked as damaged",
                damaged.label
            )),
    )
}
