//! The command line: one file per verb, and the only place that prints.

mod agent;
mod backup;
mod check;
mod completions;
mod expire;
mod list;
mod manual;
mod output;
mod progress;
mod release;
mod restore;
mod show;
mod status;
mod verify;
mod window;

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use self::output::Output;
use crate::error::{Error, Kind, Result, Signal};
use crate::fs;
use crate::manifest::BackupKind;
use crate::run::Run;
use crate::settings::arguments::Verb;
use crate::settings::{self, Settings, Unresolved};
use crate::verbs::{Common, priority};

/// The exit code of a run that did what it was asked, with warnings.
const WITH_WARNINGS: u8 = 3;

/// What a verb needs beside its own settings.
struct Session {
    run: Arc<Run>,
    output: Output,
    common: Common,
    /// Whether to tell where the time went.
    timings: bool,
}

impl Session {
    /// The exit code of a run that did what it was asked.
    fn done(&self) -> u8 {
        if self.run.warnings().is_empty() {
            0
        } else {
            WITH_WARNINGS
        }
    }

    /// An answer, and the warnings that go with it.
    fn with_warnings(&self, answer: &impl Serialize) -> Result<serde_json::Value> {
        let mut value = serde_json::to_value(answer)
            .map_err(|error| Error::new(Kind::Failed, "cannot write the answer").because(error))?;
        if let Some(fields) = value.as_object_mut() {
            fields.insert("warnings".to_owned(), self.run.warnings().into());
            if self.timings {
                let timings = self.run.timings();
                fields.insert(
                    "timings".to_owned(),
                    json!({ "steps": timings.steps(), "activities": timings.activities() }),
                );
            }
        }
        Ok(value)
    }
}

/// Runs the command line and returns the process's exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let output = Output::new(settings::wants_json(&arguments));
    let wants_plugin = settings::wants_plugin(&arguments);
    let settings = match settings::resolve(arguments.clone()) {
        Ok(settings) => settings,
        Err(Unresolved::Usage(message)) => {
            return status::unknown(wants_plugin, output.usage(&message));
        }
        Err(Unresolved::Error(error)) => {
            return status::unknown(wants_plugin, output.error(&error));
        }
    };
    let common = Common::of(&settings);
    let output = Output::new(common.general.json);
    let load = settings.arguments.verb.load();
    // Threads inherit it: before the first one starts.
    let lowered = priority::lower(load.priority);
    let observer = progress::start(&common.general);
    for (option, setting) in &settings.said {
        tracing::debug!("setting {option} = {} ({})", setting.value, setting.origin);
    }
    let session = Session {
        run: Arc::new(priority::run(observer, load)),
        output,
        common,
        timings: load.timings,
    };
    if let Err(error) = lowered {
        session
            .run
            .note(format!("the priority cannot be lowered as wanted: {error}"));
    }
    let code = dispatch(&settings, arguments, &session)
        .unwrap_or_else(|error| session.output.error(&error));
    if session.timings {
        session.output.timings(session.run.timings());
    }
    code
}

/// The exit code of a verb that did what it was asked: 0, 3 with warnings, or what an examination
/// found.
fn dispatch(settings: &Settings, arguments: Vec<OsString>, session: &Session) -> Result<u8> {
    let verb = &settings.arguments.verb;
    // The agent listens by itself: signals tell it more.
    let runtime = if matches!(verb, Verb::Agent(_)) {
        None
    } else {
        Some(listen_for_signals(&session.run)?)
    };
    if let (Some(window), Some(runtime)) = (verb.load().window, &runtime) {
        window::keep(window, &session.run, runtime)?;
    }
    match verb {
        Verb::Full(options) => backup::run(BackupKind::Full, options, session),
        Verb::Diff(options) => backup::run(BackupKind::Diff, options, session),
        Verb::Restore(options) => restore::run(options, session),
        Verb::Expire(options) => expire::run(options, session),
        Verb::List(options) => list::run(options, session),
        Verb::Show(options) => show::run(options, session),
        Verb::Status(options) => status::run(options, session),
        Verb::Release(options) => release::run(options, session),
        Verb::Verify(options) => verify::run(options, session),
        Verb::Check(options) => check::run(options, session),
        Verb::Agent(options) => agent::run(options, settings, arguments, session),
        Verb::Completions(options) => completions::run(options, session),
        Verb::Manual(options) => manual::run(options, session),
    }
}

/// Whether whoever started this wants it to outlive the terminal (`nohup`).
fn ignores_hangup() -> bool {
    let status = fs::read_small(Path::new("/proc/self/status"), 64 * 1024).unwrap_or_default();
    let mask = String::from_utf8_lossy(&status)
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    // The mask counts signals from 1, and SIGHUP is the first.
    mask.is_some_and(|mask| mask & 1 == 1)
}

/// The terminal is gone.
async fn lost(hangup: &mut Option<tokio::signal::unix::Signal>) {
    match hangup {
        Some(hangup) => drop(hangup.recv().await),
        None => std::future::pending().await,
    }
}

/// The first SIGINT, SIGTERM or SIGHUP asks for a clean end. The runtime has to live as long as the
/// run.
fn listen_for_signals(run: &Arc<Run>) -> Result<tokio::runtime::Runtime> {
    let failed = |error: std::io::Error| {
        Error::new(Kind::Failed, "cannot listen for signals").because(error)
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(failed)?;
    let context = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut hangup = if ignores_hangup() {
        None
    } else {
        Some(signal(SignalKind::hangup()).map_err(failed)?)
    };
    drop(context);
    let run = Arc::clone(run);
    runtime.spawn(async move {
        let received = tokio::select! {
            _ = interrupt.recv() => Signal::Interrupt,
            _ = terminate.recv() => Signal::Terminate,
            () = lost(&mut hangup) => Signal::Terminate,
        };
        run.interrupt(received);
    });
    Ok(runtime)
}
