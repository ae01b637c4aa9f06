//! `kbackup full` and `kbackup diff`.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Session;
use super::node;
use super::output::{count, size, times};
use crate::backup::{self, Forecast, Node, Request, Running, Share, Source, Summary};
use crate::error::{Error, Kind, Result};
use crate::fs;
use crate::manifest::{BackupKind, Directories};
use crate::node::{self as server, Client, FitnessLimits, Ledger, QuietSettings};
use crate::repository::{DirectoryRepository, Repository};
use crate::settings::arguments;

pub(super) fn run(kind: BackupKind, options: &arguments::Backup, session: &Session) -> Result<u8> {
    let run = &*session.run;
    let request = Request {
        kind,
        attempts: options.attempts,
        filter_max_age: if kind == BackupKind::Full { Duration::ZERO } else { options.filter_max_age.0 },
        catch_up: options.wait.0,
        accept_damaged: options.accept_damaged,
        new_branch: options.new_branch,
        recheck: match options.recheck {
            arguments::Share::Bytes(bytes) => Share::Bytes(bytes),
            arguments::Share::Percent(percent) => Share::Percent(percent),
        },
    };
    let connection = if options.offline { None } else { node::connection(&options.node, &session.secrets)? };
    let Some(connection) = connection else {
        let (Some(db), true) = (&options.db, options.offline) else {
            return Err(nothing_to_back_up(options.offline));
        };
        let directories = server::plausible(&Directories::new(db.clone(), options.index.clone()), run)?;
        let source = Source { directories, server_version: options.server_version.clone(), node: Node::Stopped };
        return take(&request, &source, options, session);
    };
    let state = node::state_directory(&session.general)?;
    let ledger = Ledger::open(&state)?;
    let conversation = server::Session::open(Client::new(&connection)?, run)?;
    let directories = server::locate(&conversation, options.db.as_deref(), options.index.as_deref(), run)?;
    let limits = FitnessLimits { wait: options.wait.0, allow_unfit: options.allow_unfit, ..FitnessLimits::default() };
    let fitness = server::wait_until_fit(&conversation, limits, run)?;
    for unfit in &fitness.overridden {
        run.warn(format!("--allow-unfit: {unfit}"));
    }
    server::agree(&conversation, &directories, run)?;
    let quiet = QuietSettings {
        quiesce: !options.no_quiesce,
        pausing: options.quiesce_wait.0,
        stopping: options.quiesce_wait.0,
        threads: options.scavenge_threads.unwrap_or(1),
        throttle_percent: options.scavenge_throttle.unwrap_or(100),
    };
    let leader_end = fitness.leader_position;
    let running = Running { session: &conversation, ledger: &ledger, quiet, state: fitness.state.name(), leader_end };
    let source = Source { directories, server_version: Some(conversation.version().as_str().to_owned()), node: Node::Running(running) };
    take(&request, &source, options, session)
}

fn nothing_to_back_up(offline: bool) -> Error {
    if offline {
        return Error::new(Kind::Usage, "an offline backup needs the db directory")
            .hint("name it with `--db`, and the index directory with `--index` if it is not inside");
    }
    Error::new(Kind::Usage, "no node is named")
        .hint("name the running node with `--node URL`")
        .hint("for a stopped node, or a mounted snapshot, say `--offline --db DIR`")
}

fn take(request: &Request, source: &Source<'_>, options: &arguments::Backup, session: &Session) -> Result<u8> {
    let (path, run) = (&options.repository.repo, &*session.run);
    refuse_inside(path, &source.directories)?;
    if options.dry_run {
        let repository = match DirectoryRepository::open(path) {
            Ok(repository) => Some(repository),
            Err(error) if error.kind() == Kind::NotFound => None,
            Err(error) => return Err(error),
        };
        let forecast = backup::forecast(request, source, repository.as_ref().map(|repository| repository as &dyn Repository), run)?;
        session.output.answer("kbackup.forecast/1", &forecast, &forecast_text(&forecast))?;
        return Ok(session.done());
    }
    let repository = DirectoryRepository::open_or_create(path)?;
    let summary = backup::take(request, source, &repository, run)?;
    session.output.answer("kbackup.summary/1", &session.with_warnings(&summary)?, &summary_text(&summary))?;
    Ok(session.done())
}

/// A repository inside of the node's directories would be lost with them, and would be in the server's way.
fn refuse_inside(repository: &Path, directories: &Directories) -> Result<()> {
    let place = real(repository)?;
    for directory in [&directories.db, &directories.index] {
        if place.starts_with(real(directory)?) {
            return Err(Error::new(Kind::Refused, "the repository lies inside of the node's own directory")
                .at(repository)
                .hint("choose another `--repo`, best on another disk"));
        }
    }
    Ok(())
}

/// Where a path leads to, though its last parts may not exist yet.
fn real(path: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(path).map_err(|error| Error::new(Kind::Usage, "no such path").at(path).because(error))?;
    for existing in absolute.ancestors() {
        match fs::canonical(existing) {
            Ok(real) => return Ok(absolute.strip_prefix(existing).map_or_else(|_| real.clone(), |rest| real.join(rest))),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(absolute)
}

fn summary_text(summary: &Summary) -> String {
    let mut text = format!("{} ends at log position {}\n", summary.label, summary.position);
    let parent =
        summary.parent.as_ref().map_or_else(String::new, |parent| format!(" (since {parent}: {} of log)", size(summary.log_bytes_added)));
    let _ = writeln!(text, "read {} of the node's files{parent}", size(summary.bytes_read));
    let _ = writeln!(
        text,
        "stored {} anew: {} copied, {} taken over; a restore writes {}",
        size(summary.bytes_stored),
        count(summary.files_copied, "file"),
        summary.files_linked,
        size(summary.bytes)
    );
    if summary.files_resumed > 0 {
        let _ = writeln!(text, "files taken up from an interrupted backup: {} ({})", summary.files_resumed, size(summary.bytes_resumed));
    }
    let retries = if summary.retries == 0 { String::new() } else { format!(", started over {}", times(summary.retries)) };
    let _ = writeln!(text, "proven and durable after {} s{retries}", summary.seconds);
    text
}

fn forecast_text(forecast: &Forecast) -> String {
    let on = forecast.parent.as_ref().map_or_else(String::new, |parent| format!(" on {parent}"));
    let estimate = forecast.estimate;
    format!(
        "would take a {}{on}, on branch {}\nwould read about {} in {}, and take over {}\nan estimate: the files are known for sure only while the node holds still\n",
        forecast.kind,
        forecast.branch,
        size(estimate.bytes),
        count(estimate.files, "file"),
        count(estimate.held, "file")
    )
}
