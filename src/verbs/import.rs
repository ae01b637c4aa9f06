//! `kbackup import`: reads an archive into a repository.

use std::io::Read;

use super::{given_numbers, repository};
use crate::archive::{ImportReport, IncomingArchive};
use crate::copy::CopyRules;
use crate::error::Result;
use crate::run::Run;
use crate::settings::options::{GeneralOptions, ImportOptions};

/// Reads an archive from `input`, and commits the backup in it.
///
/// # Errors
/// All errors of [`IncomingArchive`], and of opening the repository.
pub(crate) fn import(
    options: &ImportOptions,
    general: &GeneralOptions,
    input: impl Read + Send,
    run: &Run,
) -> Result<ImportReport> {
    // The manifest first: something that is no archive must not make a repository.
    let archive = IncomingArchive::open(input, run)?;
    let repository = if options.new_repository {
        repository::open_or_make(&options.repository, None, general, run)?
    } else {
        repository::open_the_same(&options.repository, None, general, run)?
    };

    let rules = CopyRules {
        new_branch: options.new_branch,
        new_address: options.new_address,
    };
    given_numbers::bring_back(&*repository, general, run)?;

    let report = archive.import(&*repository, rules)?;
    given_numbers::remember(&*repository, general, run);
    Ok(report)
}
