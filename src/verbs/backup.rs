//! `kbackup full` and `kbackup diff`: finds the node and its directories, and takes a backup.

use std::path::{Path, PathBuf};
use std::time::Duration;

use uuid::Uuid;

use super::{connection, repository, scavenging};
use crate::backup::{
    self, BackupForecast, BackupRequest, BackupSummary, RecheckShare, RunningNode, Source,
    SourceNode,
};
use crate::error::{Error, Kind, Result};
use crate::fs;
use crate::manifest::{BackupKind, Directories};
use crate::node::{
    self, Client, Connection, FitnessLimits, QuiesceSettings, ReleaseRecords, Session,
};
use crate::repository::Repository;
use crate::run::Run;
use crate::settings::options::{BackupOptions, GeneralOptions, RecheckAmount, ScavengeManner};

/// Takes a backup. `known` is the id of the repository, if an earlier version of kbackup remembers
/// that elsewhere.
///
/// # Errors
/// [`Kind::NotFound`] if there is no repository, and none may be made. [`Kind::Refused`] if another
/// repository was seen there before: a disk that is not mounted must not look like an empty
/// repository. [`Kind::Usage`] if the options name neither a node nor the directory of a stopped
/// node. [`Kind::Refused`] if the repository and the node's own directories overlap.
/// [`Kind::Scavenging`] if a scavenge runs that `--scavenge` does not let it stop. All errors of
/// [`backup::take`].
pub(crate) fn take(
    kind: BackupKind,
    options: &BackupOptions,
    known: Option<Uuid>,
    general: &GeneralOptions,
    run: &Run,
) -> Result<BackupSummary> {
    loop {
        let may_stop_scavenges = scavenging::let_end(options, general, run)?;
        let taken = with_source(options, may_stop_scavenges, general, run, |source| {
            let path = &options.repository;

            let repository: Box<dyn Repository> = if options.new_repository {
                repository::open_or_make(path, known, general, run)?
            } else {
                repository::open_the_same(path, known, general, run)?
            };
            backup::take(&request(kind, options), source, &*repository, run)
        });

        match taken {
            // One began after the wait for the last one.
            Err(error)
                if error.kind() == Kind::Scavenging
                    && options.scavenge == Some(ScavengeManner::Wait) =>
            {
                run.note(error.in_words());
            }
            taken => return taken,
        }
    }
}

/// Estimates what a backup would read and reuse. Writes nothing.
///
/// # Errors
/// As [`take`].
pub(crate) fn forecast(
    kind: BackupKind,
    options: &BackupOptions,
    general: &GeneralOptions,
    run: &Run,
) -> Result<BackupForecast> {
    // A forecast stops no scavenge, so it need not wait for one.
    with_source(options, false, general, run, |source| {
        let path = &options.repository;

        let repository = if options.new_repository {
            repository::open_or_nothing_yet(path, general, run)?
        } else {
            Some(repository::open_the_same(path, None, general, run)?)
        };
        backup::forecast(&request(kind, options), source, repository.as_deref(), run)
    })
}

fn request(kind: BackupKind, options: &BackupOptions) -> BackupRequest {
    let filter_max_age = match kind {
        // A full reads everything again.
        BackupKind::Full => Duration::ZERO,
        BackupKind::Diff => options.filter_max_age,
    };
    BackupRequest {
        kind,
        attempts: options.attempts,
        filter_max_age,
        catch_up: options.wait,
        accept_damaged: options.accept_damaged,
        new_branch: options.new_branch,
        new_address: options.new_address,
        recheck: match options.recheck {
            RecheckAmount::Bytes(bytes) => RecheckShare::Bytes(bytes),
            RecheckAmount::Percent(percent) => RecheckShare::Percent(percent),
        },
    }
}

/// Finds the source, checks that the repository lies outside of it, and hands it to `go`.
fn with_source<T>(
    options: &BackupOptions,
    may_stop_scavenges: bool,
    general: &GeneralOptions,
    run: &Run,
    go: impl FnOnce(&Source<'_>) -> Result<T>,
) -> Result<T> {
    let go = |source: &Source<'_>| {
        refuse_inside(&options.repository, &source.directories)?;
        if options.directories.index.is_some() {
            node::refuse_empty_index(&source.directories)?;
        }
        go(source)
    };

    if options.offline {
        return go(&stopped_source(options, run)?);
    }
    match connection::connection(&options.node)? {
        Some(connection) => {
            let quiesce = quiesce_settings(options, may_stop_scavenges);
            with_running_source(&connection, options, quiesce, general, run, go)
        }
        None => Err(Error::new(Kind::Usage, "no node is named")
            .hint("name the running node with `--node URL`")
            .hint("for a stopped node or a mounted snapshot, use `--offline --db DIR`")),
    }
}

fn stopped_source(options: &BackupOptions, run: &Run) -> Result<Source<'static>> {
    let Some(db) = &options.directories.db else {
        return Err(
            Error::new(Kind::Usage, "an offline backup needs the db directory")
                .hint("name it with `--db`")
                .hint("if the index directory is not inside it, name that with `--index`"),
        );
    };

    let named = Directories::new(db.clone(), options.directories.index.clone());
    Ok(Source {
        directories: node::check_directories(&named, run)?,
        server_version: options.server_version.clone(),
        node: SourceNode::Stopped,
    })
}

/// Connects to the node, waits until it is fit, and hands it to `go` as the source.
fn with_running_source<T>(
    connection: &Connection,
    options: &BackupOptions,
    quiesce: QuiesceSettings,
    general: &GeneralOptions,
    run: &Run,
    go: impl FnOnce(&Source<'_>) -> Result<T>,
) -> Result<T> {
    let release_records = ReleaseRecords::open(&general.state_directory()?)?;
    let session = Session::open(Client::new(connection)?, run)?;
    let directories = node::locate(
        &session,
        options.directories.db.as_deref(),
        options.directories.index.as_deref(),
        run,
    )?;

    let limits = FitnessLimits {
        wait: options.wait,
        allow_unfit: options.allow_unfit,
        ..FitnessLimits::default()
    };
    let fitness = node::wait_until_fit(&session, limits, run)?;
    for unfit in &fitness.overridden {
        run.warn(format!("--allow-unfit: {unfit}"));
    }

    // Files and API must belong to one node.
    node::agree(&session, &directories, run)?;

    go(&Source {
        directories,
        server_version: Some(session.version().as_str().to_owned()),
        node: SourceNode::Running(RunningNode {
            session: &session,
            release_records: &release_records,
            quiesce,
            state: fitness.state.name(),
            leader_end: fitness.leader_position,
        }),
    })
}

fn quiesce_settings(options: &BackupOptions, may_stop_scavenges: bool) -> QuiesceSettings {
    QuiesceSettings {
        quiesce: options.quiesce,
        may_stop_scavenges,
        pause_within: options.quiesce_wait,
        stop_within: options.quiesce_wait,
        max_pause: options.max_pause,
        threads: options.scavenge_threads,
        throttle_percent: options.scavenge_throttle,
        ..QuiesceSettings::default()
    }
}

/// A repository inside the node's directories would be lost with them, and would be in the server's
/// way.
fn refuse_inside(repository: &Path, directories: &Directories) -> Result<()> {
    let place = real(repository)?;
    for directory in [&directories.db, &directories.index] {
        if place.starts_with(real(directory)?) {
            return Err(Error::new(
                Kind::Refused,
                "the repository lies inside the node's own directory",
            )
            .at(repository)
            .hint("choose another `--repo`, best on another disk"));
        }
    }
    Ok(())
}

/// The path without symbolic links, although its last parts may not exist yet.
fn real(path: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(path).map_err(|error| {
        Error::new(Kind::Usage, "this path cannot be used")
            .at(path)
            .because(error)
    })?;

    for existing in absolute.ancestors() {
        match fs::canonical(existing) {
            Ok(real) => {
                let missing = absolute.strip_prefix(existing).unwrap_or(Path::new(""));
                return Ok(real.join(missing));
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(absolute)
}
