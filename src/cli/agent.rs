//! `kbackup agent`.

use std::ffi::OsString;

use serde::Serialize;

use super::Session;
use super::output::table;
use crate::agent::{self, Configuration, Job};
use crate::clock;
use crate::error::Result;
use crate::settings::{self, Settings, arguments};

#[derive(Serialize)]
struct Checked<'a> {
    jobs: &'a [Planned],
    on_change: String,
}

#[derive(Serialize)]
struct Planned {
    job: Job,
    schedule: String,
    /// When it would run next if it ran now; none: never by itself.
    next: Option<String>,
}

/// Runs until it is told to end. A service that was told to end has done what it was asked.
pub(super) fn run(
    options: &arguments::Agent,
    settings: &Settings,
    arguments: Vec<OsString>,
    session: &Session,
) -> Result<u8> {
    if options.check_config {
        let configuration = Configuration::of(settings)?;
        let now = options.time_zone.at(clock::now());
        let jobs = Job::ALL.map(|job| Planned {
            job,
            schedule: configuration.schedule(job).to_string(),
            next: configuration
                .schedule(job)
                .next(&now)
                .map(|next| next.strftime("%Y-%m-%d %H:%M:%S %Z").to_string()),
        });
        let rows = jobs.iter().map(|planned| {
            vec![
                planned.job.to_string(),
                planned.schedule.clone(),
                planned.next.clone().unwrap_or_else(|| "-".to_owned()),
            ]
        });
        let text = table(&["JOB", "SCHEDULE", "NEXT, IF IT RAN NOW"], rows.collect())
            + &format!("on change  {}\n", options.on_change);
        session.output.answer(
            "kbackup.agent-configuration/1",
            &Checked {
                jobs: &jobs,
                on_change: options.on_change.to_string(),
            },
            &text,
        )?;
        return Ok(0);
    }
    let reread = move || {
        settings::resolve(arguments.clone())
            .map_err(|unresolved| unresolved.into_error("the settings make no sense"))
    };
    agent::run(settings, &(Box::new(reread) as agent::Reread))?;
    Ok(0)
}
