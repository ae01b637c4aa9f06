//! `full` and `diff`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Common, node};
use crate::backup::{self, Forecast, Node, Request, Running, Share, Source, Summary};
use crate::error::{Error, Kind, Result};
use crate::fs;
use crate::manifest::{BackupKind, Directories};
use crate::node::{self as server, Client, FitnessLimits, QuiesceSettings, ReleaseRecords};
use crate::repository::Location;
use crate::run::Run;
use crate::settings::arguments;
use uuid::Uuid;

/// Takes a backup, into the repository with the id `expected`; where none is expected, a new one is
/// made where there is none.
///
/// # Errors
/// [`Kind::NotFound`] and [`Kind::Refused`] where the expected repository is not there: a disk that
/// is not mounted must not look like an empty one. As [`backup::take`], [`Kind::Usage`] where the
/// settings name neither a node nor a stopped one's directory, and [`Kind::Refused`] for a
/// repository that lies inside of the node's own directories.
pub fn take(
    kind: BackupKind,
    options: &arguments::Backup,
    expected: Option<Uuid>,
    common: &Common,
    run: &Run,
) -> Result<Summary> {
    with_source(options, common, run, |source| {
        let path = &options.repository.repo;
        let location = Location::parse(path)?;
        let repository = match expected {
            Some(_) => location.open()?,
            None => location.open_or_create()?,
        };
        if expected.is_some_and(|expected| expected != repository.id()) {
            return Err(another_repository(path));
        }
        backup::take(&request(kind, options), source, &*repository, run)
    })
}

/// What is to be said of a repository that is not the one of before.
#[must_use]
pub fn another_repository(path: &Path) -> Error {
    Error::new(Kind::Refused, "this is another repository than before")
        .at(path)
        .hint("is the right disk mounted?")
}

/// Tells what a backup would be.
///
/// # Errors
/// As [`take`]; nothing is written.
pub fn forecast(
    kind: BackupKind,
    options: &arguments::Backup,
    common: &Common,
    run: &Run,
) -> Result<Forecast> {
    with_source(options, common, run, |source| {
        let repository = match Location::parse(&options.repository.repo)?.open() {
            Ok(repository) => Some(repository),
            Err(error) if error.kind() == Kind::NotFound => None,
            Err(error) => return Err(error),
        };
        backup::forecast(&request(kind, options), source, repository.as_deref(), run)
    })
}

fn request(kind: BackupKind, options: &arguments::Backup) -> Request {
    Request {
        kind,
        attempts: options.attempts,
        filter_max_age: if kind == BackupKind::Full {
            Duration::ZERO
        } else {
            options.filter_max_age.0
        },
        catch_up: options.wait.0,
        accept_damaged: options.accept_damaged,
        new_branch: options.new_branch,
        new_address: options.new_address,
        recheck: match options.recheck {
            arguments::Share::Bytes(bytes) => Share::Bytes(bytes),
            arguments::Share::Percent(percent) => Share::Percent(percent),
        },
    }
}

/// Finds the node and its directories, and hands them on.
fn with_source<T>(
    options: &arguments::Backup,
    common: &Common,
    run: &Run,
    go: impl FnOnce(&Source<'_>) -> Result<T>,
) -> Result<T> {
    let go = |source: &Source<'_>| {
        refuse_inside(&options.repository.repo, &source.directories)?;
        go(source)
    };
    let connection = if options.offline {
        None
    } else {
        node::connection(&options.node, common.secrets)?
    };
    let Some(connection) = connection else {
        let (Some(db), true) = (&options.places.db, options.offline) else {
            return Err(nothing_to_back_up(options.offline));
        };
        let directories = server::plausible(
            &Directories::new(db.clone(), options.places.index.clone()),
            run,
        )?;
        return go(&Source {
            directories,
            server_version: options.server_version.clone(),
            node: Node::Stopped,
        });
    };
    let release_records = ReleaseRecords::open(&node::state_directory(&common.general)?)?;
    let conversation = server::Session::open(Client::new(&connection)?, run)?;
    let directories = server::locate(
        &conversation,
        options.places.db.as_deref(),
        options.places.index.as_deref(),
        run,
    )?;
    let limits = FitnessLimits {
        wait: options.wait.0,
        allow_unfit: options.allow_unfit,
        ..FitnessLimits::default()
    };
    let fitness = server::wait_until_fit(&conversation, limits, run)?;
    for unfit in &fitness.overridden {
        run.warn(format!("--allow-unfit: {unfit}"));
    }
    server::agree(&conversation, &directories, run)?;
    let quiet = QuiesceSettings {
        quiesce: !options.no_quiesce,
        pausing: options.quiesce_wait.0,
        stopping: options.quiesce_wait.0,
        longest: options.max_pause.0,
        threads: options.scavenge_threads.unwrap_or(1),
        throttle_percent: options.scavenge_throttle.unwrap_or(100),
    };
    let leader_end = fitness.leader_position;
    let running = Running {
        session: &conversation,
        release_records: &release_records,
        quiet,
        state: fitness.state.name(),
        leader_end,
    };
    let server_version = Some(conversation.version().as_str().to_owned());
    go(&Source {
        directories,
        server_version,
        node: Node::Running(running),
    })
}

fn nothing_to_back_up(offline: bool) -> Error {
    if offline {
        return Error::new(Kind::Usage, "an offline backup needs the db directory").hint(
            "name it with `--db`, and the index directory with `--index` if it is not inside",
        );
    }
    Error::new(Kind::Usage, "no node is named")
        .hint("name the running node with `--node URL`")
        .hint("for a stopped node, or a mounted snapshot, say `--offline --db DIR`")
}

/// A repository inside of the node's directories would be lost with them, and would be in the
/// server's way.
fn refuse_inside(repository: &Path, directories: &Directories) -> Result<()> {
    let place = real(repository)?;
    for directory in [&directories.db, &directories.index] {
        if place.starts_with(real(directory)?) {
            return Err(Error::new(
                Kind::Refused,
                "the repository lies inside of the node's own directory",
            )
            .at(repository)
            .hint("choose another `--repo`, best on another disk"));
        }
    }
    Ok(())
}

/// Where a path leads to, though its last parts may not exist yet.
fn real(path: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(path).map_err(|error| {
        Error::new(Kind::Usage, "no such path")
            .at(path)
            .because(error)
    })?;
    for existing in absolute.ancestors() {
        match fs::canonical(existing) {
            Ok(real) => {
                return Ok(absolute
                    .strip_prefix(existing)
                    .map_or_else(|_| real.clone(), |rest| real.join(rest)));
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(absolute)
}
