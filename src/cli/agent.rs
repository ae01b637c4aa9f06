//! `kbackup agent`.

use std::ffi::OsString;

use super::Session;
use crate::agent::{self, Configuration, Job};
use crate::error::{Error, Kind, Result};
use crate::settings::{self, Settings, Unresolved, arguments};

/// Runs until it is told to end. A service that was told to end has done what it was asked.
pub(super) fn run(options: &arguments::Agent, settings: &Settings, arguments: Vec<OsString>, session: &Session) -> Result<u8> {
    if options.check_config {
        let configuration = Configuration::of(settings)?;
        let told = Job::ALL.map(|job| format!("{:<8} {}\n", job.name(), configuration.schedule(job)));
        let schedules: serde_json::Map<_, _> =
            Job::ALL.iter().map(|job| (job.name().to_owned(), configuration.schedule(*job).to_string().into())).collect();
        session.output.answer("kbackup.agent-configuration/1", &schedules, &told.concat())?;
        return Ok(0);
    }
    let reread = move || {
        settings::resolve(arguments.clone()).map_err(|unresolved| match unresolved {
            Unresolved::Error(error) => error,
            Unresolved::Usage(usage) => Error::new(Kind::Usage, "the settings make no sense").because(usage),
        })
    };
    agent::run(settings, &(Box::new(reread) as agent::Reread))?;
    Ok(0)
}
