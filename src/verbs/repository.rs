//! Opens the repository that the operator named, for every verb, and makes a new one where that was
//! asked for. Each verb remembers which repository it saw (`seen_repositories`).

use std::path::Path;

use uuid::Uuid;

use super::seen_repositories::{SeenRepositories, SeenRepository};
use crate::error::{Error, Kind, Result};
use crate::node::database_around;
use crate::repository::{Location, Repository};
use crate::run::Run;
use crate::settings::options::GeneralOptions;

const CHECK_THE_URL: &str = "check the bucket, the prefix and the settings in the URL, and the \
                             variables that name an endpoint or a region";

/// Opens a repository to read it. A verb that only reads works with every repository, and warns of
/// one that was not seen at this path before.
///
/// # Errors
/// As [`Location::open`].
pub(crate) fn open(
    path: &Path,
    general: &GeneralOptions,
    run: &Run,
) -> Result<Box<dyn Repository>> {
    let location = Location::parse(path)?;
    let seen = SeenRepositories::at(path, general);

    let Some(repository) = location.open_if_there()? else {
        let seen = seen.map(|seen| seen.all().to_vec()).unwrap_or_default();
        return Err(missing(path, &location, &seen));
    };

    // The operator may need this backup now, so nothing below is an error.
    let mut seen = match seen {
        Ok(seen) => seen,
        Err(error) => {
            run.note(error.in_words());
            return Ok(repository);
        }
    };
    if seen.is_another(repository.id()) {
        run.warn(another_repository(path).in_words());
    } else {
        // Whoever only reads may have no state directory. The next verb that writes remembers it.
        let _ = seen.remember(repository.id());
    }
    Ok(repository)
}

/// Opens a repository to change it, or to say whether a node is safe. `known` is its id, if an
/// earlier version of kbackup remembers that elsewhere.
///
/// # Errors
/// As [`Location::open`]. [`Kind::Refused`] if another repository was seen at this path before.
pub(crate) fn open_the_same(
    path: &Path,
    known: Option<Uuid>,
    general: &GeneralOptions,
    run: &Run,
) -> Result<Box<dyn Repository>> {
    let location = Location::parse(path)?;
    let mut seen = SeenRepositories::at(path, general)?.or_known(known);

    let Some(repository) = location.open_if_there()? else {
        return Err(missing(path, &location, seen.all()));
    };
    accept(repository, &mut seen, path, run)
}

/// As [`open_the_same`], and makes a repository if none was ever seen at this path.
///
/// # Errors
/// As [`open_the_same`]. [`Kind::Refused`] if there is no repository, and one was seen there
/// before: most likely a disk is not mounted.
pub(crate) fn open_or_make(
    path: &Path,
    known: Option<Uuid>,
    general: &GeneralOptions,
    run: &Run,
) -> Result<Box<dyn Repository>> {
    let location = Location::parse(path)?;
    let mut seen = SeenRepositories::at(path, general)?.or_known(known);

    let repository = match location.open_if_there()? {
        Some(repository) => repository,
        None if seen.all().is_empty() => {
            let repository = create(&location, path)?;
            run.note(format!("made a new repository in `{}`", path.display()));
            repository
        }
        None => return Err(vanished(path, seen.all())),
    };
    accept(repository, &mut seen, path, run)
}

/// As [`open_or_make`], and makes nothing: for a dry run. Returns `None` if a repository would be
/// made.
///
/// # Errors
/// As [`open_or_make`].
pub(crate) fn open_or_nothing_yet(
    path: &Path,
    general: &GeneralOptions,
    run: &Run,
) -> Result<Option<Box<dyn Repository>>> {
    let mut seen = SeenRepositories::at(path, general)?;

    match Location::parse(path)?.open_if_there()? {
        Some(repository) => accept(repository, &mut seen, path, run).map(Some),
        None if seen.all().is_empty() => Ok(None),
        None => Err(vanished(path, seen.all())),
    }
}

/// Checks whether a backup could use this repository, or make it. Makes and remembers nothing.
///
/// # Errors
/// As [`open_or_make`] if the repository may be made, and as [`open_the_same`] if not.
pub(super) fn check(path: &Path, may_be_made: bool, general: &GeneralOptions) -> Result<()> {
    let location = Location::parse(path)?;
    let seen = SeenRepositories::at(path, general)?;

    match location.open_if_there()? {
        Some(repository) if seen.is_another(repository.id()) => Err(another_repository(path)),
        Some(_) => Ok(()),
        None if !may_be_made => Err(missing(path, &location, seen.all())),
        None if seen.all().is_empty() => refuse_server_directory(path),
        None => Err(vanished(path, seen.all())),
    }
}

/// Passes on an open repository, and remembers it, unless another one was seen at this path.
fn accept(
    repository: Box<dyn Repository>,
    seen: &mut SeenRepositories,
    path: &Path,
    run: &Run,
) -> Result<Box<dyn Repository>> {
    if seen.is_another(repository.id()) {
        return Err(another_repository(path));
    }

    remember(seen, &*repository, run);
    Ok(repository)
}

/// Makes a repository, but never in the directory of a server.
fn create(location: &Location, path: &Path) -> Result<Box<dyn Repository>> {
    refuse_server_directory(path)?;
    location.create()
}

fn refuse_server_directory(path: &Path) -> Result<()> {
    let Some(database) = database_around(path)? else {
        return Ok(());
    };
    Err(Error::new(
        Kind::Refused,
        "the repository would lie inside the directory of a server",
    )
    .at(path)
    .because(format!("`{}` belongs to a server", database.display()))
    .hint("choose another `--repo`, best on another disk"))
}

/// Remembers a repository. If that fails, the run goes on: only the next one knows less.
fn remember(seen: &mut SeenRepositories, repository: &dyn Repository, run: &Run) {
    if let Err(error) = seen.remember(repository.id()) {
        run.note(format!(
            "kbackup cannot remember which repository is there: {}",
            error.in_words()
        ));
    }
}

/// Makes a repository, or accepts the one that is there, and remembers it. With `another`, also
/// where other repositories were seen before. Returns it, and whether it is new.
///
/// # Errors
/// As [`open_or_make`].
pub(super) fn make(
    path: &Path,
    another: bool,
    general: &GeneralOptions,
) -> Result<(Box<dyn Repository>, bool)> {
    let location = Location::parse(path)?;
    let mut seen = SeenRepositories::at(path, general)?;

    let (repository, is_new) = match location.open_if_there()? {
        Some(repository) => (repository, false),
        None if seen.all().is_empty() || another => (create(&location, path)?, true),
        None => return Err(vanished(path, seen.all())),
    };
    if seen.is_another(repository.id()) && !another {
        return Err(another_repository(path));
    }

    seen.remember(repository.id())?;
    Ok((repository, is_new))
}

/// The error for a place without a repository. If one was seen there before, the hints say what to
/// look for.
fn missing(path: &Path, location: &Location, seen: &[SeenRepository]) -> Error {
    let error = location.no_repository();
    if seen.is_empty() {
        return error;
    }
    look_for(seen, error.without_hints(), path)
}

/// The error where a new repository was asked for, and one was seen before.
fn vanished(path: &Path, seen: &[SeenRepository]) -> Error {
    let error = Error::new(
        Kind::Refused,
        "kbackup makes no new repository where it saw one before",
    )
    .at(path);
    look_for(seen, error, path)
}

/// Says what to look for.
fn look_for(seen: &[SeenRepository], error: Error, path: &Path) -> Error {
    let location = Location::parse(path).ok();
    let directory = location.as_ref().and_then(Location::directory);
    let (why, place) = match directory {
        Some(directory) => (
            "its disk is most likely not mounted",
            format!(
                "`findmnt --target {}` shows which file system is there now",
                directory.display()
            ),
        ),
        None => (
            "somebody has most likely removed it from the object store",
            CHECK_THE_URL.to_owned(),
        ),
    };

    let mut error = error;
    for SeenRepository { id, since } in seen {
        let when = match since {
            Some(since) => format!("first on {}", since.strftime("%Y-%m-%d")),
            None => "in earlier runs".to_owned(),
        };
        error = error.hint(format!(
            "look for the repository {id}, which kbackup saw here {when}: {why}"
        ));
    }
    error
        .hint(place)
        .hint("if that repository is gone for good, run `kbackup init --another`")
}

/// The error for a repository that has another id than before.
fn another_repository(path: &Path) -> Error {
    Error::new(
        Kind::Refused,
        "this repository has another id than the repository of earlier runs",
    )
    .at(path)
    .hint(if Location::is_remote(path) {
        CHECK_THE_URL
    } else {
        "check that the right disk is mounted"
    })
    .hint("if the repository was replaced on purpose, run `kbackup init --another`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_that_vanished_from_an_object_store_is_on_no_disk() {
        let seen = [SeenRepository {
            id: Uuid::nil(),
            since: None,
        }];

        for (typed, mounted) in [
            ("/backup", true),
            ("object+file:///backup", true),
            ("s3://b/p", false),
        ] {
            let hints = vanished(Path::new(typed), &seen).hints().join("\n");
            assert_eq!(
                hints.contains("`findmnt --target /backup`"),
                mounted,
                "{hints}"
            );
            assert_eq!(hints.contains("not mounted"), mounted, "{hints}");
            assert_eq!(hints.contains("the bucket"), !mounted, "{hints}");
        }
    }
}
