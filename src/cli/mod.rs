//! The command line: one file for each verb, and the only room that prints.

mod agent;
mod backup;
mod check;
mod completions;
mod context;
mod copy;
mod expire;
mod export;
mod import;
mod init;
mod list;
mod log_writer;
mod manual;
mod output;
mod progress;
mod prune;
mod release;
mod restore;
mod show;
mod signals;
mod status;
mod verify;
mod window;

use std::ffi::OsString;
use std::sync::Arc;

use self::context::VerbContext;
use self::output::Output;
use crate::error::Result;
use crate::manifest::BackupKind;
use crate::settings::options::Verb;
use crate::settings::{self, Settings, Unresolved};
use crate::verbs::priority;

/// Runs the command line and returns the exit code of the process.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments: Vec<OsString> = arguments.into_iter().collect();

    let settings = match settings::resolve(arguments.clone()) {
        Ok(settings) => settings,
        Err(unresolved) => {
            let output = Output::new(settings::wants_json(&arguments));
            let code = match unresolved {
                Unresolved::Usage(message) => output.usage(&message),
                Unresolved::Error(error) => output.error(&error),
            };
            return status::unknown(settings::wants_plugin(&arguments), code);
        }
    };

    // Threads inherit the priority and what is blocked, so both come before the first one starts.
    let load = settings.verb.load();
    let lowered = priority::lower(load.priority);
    if let Err(error) = crate::signals::take_in_one_thread() {
        return Output::new(settings.general.json).error(&error);
    }

    let observer = progress::start(&settings.general);
    for (option, setting) in &settings.values {
        tracing::debug!("setting {option} = {} ({})", setting.value, setting.origin);
    }

    let context = VerbContext {
        run: Arc::new(priority::run(observer, load)),
        output: Output::new(settings.general.json),
        general: settings.general.clone(),
        timings: load.timings,
    };
    if let Err(error) = lowered {
        let note = format!("the priority could not be lowered as wanted: {error}");
        context.run.note(note);
    }

    let code = dispatch(&settings, arguments, &context)
        .unwrap_or_else(|error| context.output.error(&error));
    if context.timings {
        context.output.timings(context.run.timings());
    }
    output::finish_log();
    code
}

/// Runs the verb and returns its exit code: 0, 3 with warnings, or the code of what an examination
/// found.
fn dispatch(settings: &Settings, arguments: Vec<OsString>, context: &VerbContext) -> Result<u8> {
    let verb = &settings.verb;

    // The agent listens for signals itself, because they tell it more. The runtime has to live as
    // long as the run.
    let runtime = match verb {
        Verb::Agent(_) => None,
        _ => Some(signals::listen(&context.run)?),
    };
    if let (Some(window), Some(runtime)) = (verb.load().window, &runtime) {
        window::keep(window, &context.run, runtime)?;
    }

    match verb {
        Verb::Init(options) => init::run(options, context),
        Verb::Full(options) => backup::run(BackupKind::Full, options, context),
        Verb::Diff(options) => backup::run(BackupKind::Diff, options, context),
        Verb::Restore(options) => restore::run(options, context),
        Verb::Copy(options) => copy::run(options, context),
        Verb::Export(options) => export::run(options, context),
        Verb::Import(options) => import::run(options, context),
        Verb::Expire(options) => expire::run(options, context),
        Verb::Prune(options) => prune::run(options, context),
        Verb::List(options) => list::run(options, context),
        Verb::Show(options) => show::run(options, context),
        Verb::Status(options) => status::run(options, context),
        Verb::Release(options) => release::run(options, context),
        Verb::Verify(options) => verify::run(options, context),
        Verb::Check(options) => check::run(options, context),
        Verb::Agent(options) => agent::run(options, settings, arguments, context),
        Verb::Completions(options) => completions::run(options, context),
        Verb::Manual(options) => manual::run(options, context),
    }
}
