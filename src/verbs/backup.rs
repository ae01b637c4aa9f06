//! `kbackup full` and `kbackup diff`: finds the node and its directories, and takes a backup.

use std::time::Duration;

use uuid::Uuid;

use super::{connection, given_numbers, overlap, repository, scavenging};
use crate::backup::{
    self, BackupForecast, BackupRequest, BackupSummary, RecheckShare, RunningNode, Source,
    SourceNode,
};
use crate::error::{Error, Kind, Result};
use crate::manifest::{BackupKind, Directories};
use crate::node::{
    self, Client, Connection, FitnessLimits, QuiesceSettings, ReleaseRecords, Session,
};
use crate::repository::{Location, Repository};
use crate::run::Run;
use crate::settings::options::{BackupOptions, GeneralOptions, RecheckAmount, ScavengeManner};

/// How much a diff hashes again of a repository that costs nothing to read.
const USUAL_RECHECK: u64 = 1 << 30;

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
            warn_of_same_disk(options, source, &*repository, run)?;
            given_numbers::bring_back(&*repository, general, run)?;

            let summary = backup::take(&request(kind, options), source, &*repository, run)?;
            given_numbers::remember(&*repository, general, run);
            Ok(summary)
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

fn warn_of_same_disk(
    options: &BackupOptions,
    source: &Source<'_>,
    repository: &dyn Repository,
    run: &Run,
) -> Result<()> {
    const WARNING: &str = "the repository is on the node's own disk, and would be lost with it: \
                           move it to another disk or machine, or set --accept-same-disk";

    let is_told = run.warnings().iter().any(|warning| warning == WARNING);
    if options.accept_same_disk || is_told {
        return Ok(());
    }
    if repository.shares_device_with(&source.directories.db)? {
        run.warn(WARNING);
    }
    Ok(())
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
        recheck: recheck_share(options),
    }
}

fn recheck_share(options: &BackupOptions) -> RecheckShare {
    match options.recheck {
        Some(RecheckAmount::Bytes(bytes)) => RecheckShare::Bytes(bytes),
        Some(RecheckAmount::Percent(percent)) => RecheckShare::Percent(percent),
        // A provider keeps its disks sound itself, and takes money for each gibibyte that is read.
        None if Location::is_remote(&options.repository) => RecheckShare::Bytes(0),
        None => RecheckShare::Bytes(USUAL_RECHECK),
    }
}

/// Finds the source, checks that nothing of kbackup overlaps with it, and hands it to `go`.
fn with_source<T>(
    options: &BackupOptions,
    may_stop_scavenges: bool,
    general: &GeneralOptions,
    run: &Run,
    go: impl FnOnce(&Source<'_>) -> Result<T>,
) -> Result<T> {
    let go = |source: &Source<'_>| {
        if options.directories.index.is_some() {
            node::refuse_empty_index(&source.directories)?;
        }
        go(source)
    };

    if options.offline {
        return go(&stopped_source(options, general, run)?);
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

fn stopped_source(
    options: &BackupOptions,
    general: &GeneralOptions,
    run: &Run,
) -> Result<Source<'static>> {
    let Some(db) = &options.directories.db else {
        return Err(
            Error::new(Kind::Usage, "an offline backup needs the db directory")
                .hint("name it with `--db`")
                .hint("if the index directory is not inside it, name that with `--index`"),
        );
    };

    let named = Directories::new(db.clone(), options.directories.index.clone());
    let directories = node::check_directories(&named, run)?;
    refuse_overlaps(options, general, &directories)?;
    Ok(Source {
        directories,
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
    let state_directory = general.state_directory()?;
    let session = Session::open(Client::new(connection)?, run)?;
    let directories = node::locate(
        &session,
        options.directories.db.as_deref(),
        options.directories.index.as_deref(),
        run,
    )?;
    refuse_overlaps(options, general, &directories)?;
    let release_records = ReleaseRecords::open(&state_directory)?;

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

/// Refuses a repository that overlaps with the node's directories, and a new state directory inside
/// them.
fn refuse_overlaps(
    options: &BackupOptions,
    general: &GeneralOptions,
    directories: &Directories,
) -> Result<()> {
    let of_node = [directories.db.as_path(), &directories.index];
    overlap::refuse_repository(&options.repository, &of_node)?;
    match general.state_directory() {
        Ok(state) => overlap::refuse_new_state(&state, &of_node),
        // Only a running node needs one, and that run has asked already.
        Err(_) => Ok(()),
    }
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
