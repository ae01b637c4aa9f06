//! `kbackup agent`.

use std::ffi::OsString;
use std::sync::Arc;

use serde::Serialize;

use super::context::VerbContext;
use super::output::table;
use crate::agent::{self, Configuration, Job};
use crate::clock;
use crate::error::Result;
use crate::settings::options::AgentOptions;
use crate::settings::{self, Settings};

#[derive(Serialize)]
struct CheckedConfiguration {
    jobs: Vec<ScheduledJob>,
    on_change: String,
}

#[derive(Serialize)]
struct ScheduledJob {
    job: Job,
    schedule: String,
    /// When the job would run next if it ran now. `None` if it has no schedule.
    next: Option<String>,
}

/// Runs the agent until it is told to end. That is a success, because a service manager expects
/// one.
pub(super) fn run(
    options: &AgentOptions,
    settings: &Settings,
    arguments: Vec<OsString>,
    context: &VerbContext,
) -> Result<u8> {
    if options.check_config {
        return check_configuration(options, settings, context);
    }

    let reread = move || {
        settings::resolve(arguments.clone())
            .map_err(|unresolved| unresolved.into_error("the settings are wrong"))
    };
    agent::run(settings, Arc::new(reread))?;
    Ok(0)
}

fn check_configuration(
    options: &AgentOptions,
    settings: &Settings,
    context: &VerbContext,
) -> Result<u8> {
    let configuration = Configuration::of(settings)?;
    configuration.check_places(&context.run)?;

    let now = options.time_zone.at(clock::now());

    let mut jobs = Vec::new();
    let mut rows = Vec::new();
    for job in Job::ALL {
        let schedule = configuration.schedule(job);
        let next = schedule
            .next(&now)
            .map(|next| next.strftime("%Y-%m-%d %H:%M:%S %Z").to_string());
        rows.push(vec![
            job.to_string(),
            schedule.to_string(),
            next.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
        jobs.push(ScheduledJob {
            job,
            schedule: schedule.to_string(),
            next,
        });
    }

    let mut text = table(&["JOB", "SCHEDULE", "NEXT, IF IT RAN NOW"], rows);
    text += &format!("on change  {}\n", options.on_change);

    let checked = CheckedConfiguration {
        jobs,
        on_change: options.on_change.to_string(),
    };
    context
        .output
        .answer("kbackup.agent-configuration/1", &checked, &text)?;
    Ok(0)
}
