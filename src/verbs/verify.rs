//! `kbackup verify`: proves stored backups again, and repairs them with `--repair`.

use super::{label, repository};
use crate::error::Result;
use crate::manifest::Label;
use crate::proof::Depth;
use crate::repository::Repository;
use crate::run::Run;
use crate::settings::options::{GeneralOptions, VerifyOptions};
use crate::verify::{self, RepairPlan, Repaired, VerifyPass, VerifyReport, VerifySubject, Which};

/// Proves the named backups.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage) for a wrong label. All errors of [`verify::verify`].
pub(crate) fn verify(
    options: &VerifyOptions,
    general: &GeneralOptions,
    run: &Run,
) -> Result<VerifyReport> {
    let which = which(options)?;
    let repository = repository::open(&options.repository, general, run)?;
    verify::verify(&*repository, &which, depth(options), run)
}

/// As [`verify`]. Notes in the state directory what is proven, and continues where an interrupted
/// verification has stopped.
///
/// # Errors
/// As [`verify`].
pub(crate) fn continue_verification(
    options: &VerifyOptions,
    general: &GeneralOptions,
    run: &Run,
) -> Result<VerifyReport> {
    let (which, depth) = (which(options)?, depth(options));
    let repository = repository::open(&options.repository, general, run)?;

    let pass = resume(&*repository, &which, depth, general, run)?;
    verify::continue_verification(&*repository, &which, depth, pass, run)
}

/// As [`repair`]. Continues where an interrupted verification has stopped, as
/// [`continue_verification`] does.
///
/// # Errors
/// As [`repair`].
pub(crate) fn continue_repair(
    options: &VerifyOptions,
    general: &GeneralOptions,
    run: &Run,
) -> Result<Repaired> {
    let (which, depth) = (which(options)?, depth(options));
    let repository = repository::open_the_same(&options.repository, None, general, run)?;

    let pass = resume(&*repository, &which, depth, general, run)?;
    verify::continue_repair(&*repository, &which, depth, pass, run)
}

/// The notes of an interrupted verification, or new ones.
fn resume(
    repository: &dyn Repository,
    which: &Which,
    depth: Depth,
    general: &GeneralOptions,
    run: &Run,
) -> Result<VerifyPass> {
    let subject = VerifySubject {
        repository: repository.id(),
        which: which.clone(),
        depth,
    };
    let name = format!("verify-{}.jsonl", repository.id());
    let path = general.state_directory()?.join(name);

    Ok(VerifyPass::resume(&path, &subject).unwrap_or_else(|error| {
        let why = error.in_words();
        run.note(format!(
            "an interruption would make this verification begin anew: {why}"
        ));
        VerifyPass::default()
    }))
}

/// Plans a repair. Changes nothing.
///
/// # Errors
/// As [`verify`].
pub(crate) fn plan_repair(
    options: &VerifyOptions,
    general: &GeneralOptions,
    run: &Run,
) -> Result<RepairPlan> {
    let which = which(options)?;
    let repository = repository::open(&options.repository, general, run)?;
    verify::plan_repair(&*repository, &which, depth(options), run)
}

/// Repairs damaged files from other copies in the repository.
///
/// # Errors
/// As [`verify`], and all errors of [`verify::repair`].
pub(crate) fn repair(
    options: &VerifyOptions,
    general: &GeneralOptions,
    run: &Run,
) -> Result<Repaired> {
    let which = which(options)?;
    let repository = repository::open_the_same(&options.repository, None, general, run)?;
    verify::repair(&*repository, &which, depth(options), run)
}

fn which(options: &VerifyOptions) -> Result<Which> {
    let mut labels: Vec<Label> = Vec::new();
    let mut names_latest = false;
    for text in &options.labels {
        match label::parse(text)? {
            Some(label) => labels.push(label),
            None => names_latest = true,
        }
    }

    if options.all {
        Ok(Which::All)
    } else if names_latest || labels.is_empty() {
        Ok(Which::Newest)
    } else {
        Ok(Which::Named(labels))
    }
}

const fn depth(options: &VerifyOptions) -> Depth {
    match (options.quick, options.deep) {
        (true, _) => Depth::Quick,
        (false, true) => Depth::Deep,
        (false, false) => Depth::Normal,
    }
}
