//! `kbackup export`: writes one backup as an archive.

use std::io::Write;

use super::{label, repository, show};
use crate::archive::{self, ArchiveForm, ExportReport};
use crate::error::Result;
use crate::run::Run;
use crate::settings::options::{ExportOptions, GeneralOptions};

/// Writes the named backup, or the newest one, into `into`.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage) for a wrong label. All errors of
/// [`archive::export`].
pub(crate) fn export(
    options: &ExportOptions,
    general: &GeneralOptions,
    into: &mut dyn Write,
    run: &Run,
) -> Result<ExportReport> {
    let named = label::parse(&options.label)?;
    let repository = repository::open(&options.repository, general, run)?;
    let label = match named {
        Some(label) => label,
        None => show::newest(&*repository)?.head.label,
    };

    let form = if options.zstd {
        ArchiveForm::Zstd
    } else {
        ArchiveForm::Plain
    };
    archive::export(&*repository, &label, form, into, run)
}
