//! `kbackup status`: what the agent knows or, without one, what the repository tells.

use std::fmt::Write;
use std::time::Duration;

use super::Session;
use super::output::{Output, count, size, table};
use crate::agent::{
    Concern, JobStatus, Level, Outcome, Seeing, Status, look_at_repository, roughly,
};
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::node::{Client, Connection, Credentials, Patience, TimeLimits};
use crate::run::Run;
use crate::settings::{Origin, arguments};
use crate::verbs::node;

/// An agent answers at once, or something is wrong with it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Exit codes of a monitoring plugin.
const OK: u8 = 0;
const WARNING: u8 = 1;
const CRITICAL: u8 = 2;
const UNKNOWN: u8 = 3;

/// The exit code of a status that could not be told: a plugin has its own for that.
pub(super) const fn unknown(is_plugin: bool, code: u8) -> u8 {
    if is_plugin { UNKNOWN } else { code }
}

pub(super) fn run(options: &arguments::Status, session: &Session) -> Result<u8> {
    if !options.monitoring_plugin {
        let status = look(options, &session.run)?;
        session
            .output
            .answer("kbackup.status/1", &status, &text(&status))?;
        return Ok(exit_code(status.verdict.level));
    }
    // Whatever happens, a plugin says one line on standard output.
    let (line, code) = match look(options, &session.run) {
        Ok(status) => plugin(&status),
        Err(error) => (
            format!("KBACKUP UNKNOWN - {}", one_line(&error.in_words())),
            UNKNOWN,
        ),
    };
    // Monitoring systems know no JSON here.
    Output::new(false).answer("", &(), &format!("{line}\n"))?;
    Ok(code)
}

/// Asks the agent; where none is named, or it does not answer, looks at the repository.
fn look(options: &arguments::Status, run: &Run) -> Result<Status> {
    let (asked, repository) = (
        options
            .agent
            .as_ref()
            .map(|agent| ask(&agent.0, options, run)),
        options.repo.as_deref(),
    );
    match (asked, repository) {
        (Some(Ok(status)), _) => Ok(status),
        (Some(Err(error)), None) => {
            Err(error.hint("is the agent running? `--repo` tells without it"))
        }
        (Some(Err(error)), Some(path)) => {
            let mut status = of_repository(path, options.max_age.0);
            status.verdict.add(Concern {
                level: Level::Attention,
                what: format!("the agent does not answer: {}", error.in_words()),
                hints: vec!["is it running? its log tells more".to_owned()],
            });
            Ok(status)
        }
        (None, Some(path)) => Ok(of_repository(path, options.max_age.0)),
        (None, None) => Err(
            Error::new(Kind::Usage, "nothing is named that could be looked at")
                .hint("name `--agent` or `--repo`"),
        ),
    }
}

fn ask(address: &str, options: &arguments::Status, run: &Run) -> Result<Status> {
    let password = node::secret(
        options.agent_password_file.as_deref(),
        Origin::Flag,
        "KBACKUP_AGENT_PASSWORD",
    )?;
    let credentials = options
        .agent_user
        .clone()
        .zip(password)
        .map(|(user, password)| Credentials::Basic { user, password });
    let connection = Connection {
        ca_files: options.agent_ca_file.clone(),
        credentials,
        limits: TimeLimits {
            answer: PATIENCE,
            patience: PATIENCE,
            ..TimeLimits::default()
        },
        ..Connection::new(address)
    };
    Client::new(&connection)?.read("/status.json", Patience::of(run))
}

fn of_repository(path: &std::path::Path, max_age: Duration) -> Status {
    Status::of(Seeing {
        now: clock::now(),
        max_age,
        repository: look_at_repository(path),
        node: None,
        cluster: None,
        exposure: None,
        agent: None,
        journal: None,
        plans: Vec::new(),
        running: None,
    })
}

const fn exit_code(level: Level) -> u8 {
    match level {
        Level::Safe => 0,
        Level::Attention => super::WITH_WARNINGS,
        Level::Danger => Kind::Failed.exit_code(),
    }
}

/// The one line that a monitoring system shows, with its measurements behind the bar, and the exit
/// code.
fn plugin(status: &Status) -> (String, u8) {
    let (word, code) = match status.verdict.level {
        Level::Safe => ("OK", OK),
        Level::Attention => ("WARNING", WARNING),
        Level::Danger => ("CRITICAL", CRITICAL),
    };
    let mut line = format!("KBACKUP {word} - {} |", one_line(&status.verdict.sentence));
    if let Some(age) = status.age() {
        let _ = write!(line, " age={}s;;{}", age.as_secs(), status.max_age_seconds);
    }
    if let Some(exposure) = status.exposure {
        let _ = write!(line, " exposed={}B", exposure.bytes);
    }
    if let Some(facts) = &status.repository.facts {
        let _ = write!(line, " backups={}", facts.points.len());
        if let Some(free) = facts.free_bytes {
            let _ = write!(line, " free={free}B");
        }
    }
    (line, code)
}

/// A bar begins the measurements, and a second line would be lost.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ").replace('|', "/")
}

fn text(status: &Status) -> String {
    let mut text = format!("{}\n", status.verdict.sentence);
    for (place, Concern { what, hints, .. }) in status.verdict.concerns.iter().enumerate() {
        // The first is in the sentence.
        if place > 0 {
            let _ = writeln!(text, "also: {what}");
        }
        for hint in hints {
            let _ = writeln!(text, "  hint: {hint}");
        }
    }
    let _ = writeln!(text);
    let mut lines = Vec::new();
    if let Some((point, made)) = status.newest_good() {
        lines.push((
            "newest good backup",
            format!("{}, {} old", point.label, ago(status, made.finished)),
        ));
    }
    if let Some(facts) = &status.repository.facts {
        let free = facts
            .free_bytes
            .map_or_else(String::new, |free| format!(", {} free", size(free)));
        lines.push((
            "repository",
            format!(
                "{}: {}{free}",
                facts.place,
                count(facts.points.len() as u64, "backup")
            ),
        ));
    }
    if let Some(exposure) = status.exposure {
        let since = exposure.since.map_or_else(String::new, |since| {
            format!(", since {}", ago(status, since))
        });
        lines.push(("in no backup", format!("{}{since}", size(exposure.bytes))));
    }
    if let Some(node) = status.node.as_ref().and_then(|node| node.facts.as_ref()) {
        lines.push((
            "node",
            format!("{}, {}, {}", node.place, node.version, node.state),
        ));
    }
    if let Some(running) = &status.running {
        lines.push((
            "now",
            format!(
                "`{}` since {}: {}",
                running.job,
                ago(status, running.began),
                running.step
            ),
        ));
    }
    for (name, value) in lines {
        let _ = writeln!(text, "{name:<22} {value}");
    }
    if !status.jobs.is_empty() {
        let rows = status.jobs.iter().map(|job| row(status, job)).collect();
        text.push('\n');
        text.push_str(&table(&["JOB", "SCHEDULE", "LAST", "RESULT", "NEXT"], rows));
    }
    text
}

fn row(status: &Status, job: &JobStatus) -> Vec<String> {
    let last = job.last.as_ref();
    let result = last.map_or("-", |last| match last.outcome {
        Outcome::Done { .. } => "done",
        Outcome::UpToDate => "up to date",
        Outcome::Skipped { .. } => "not needed",
        Outcome::Interrupted { .. } => "interrupted",
        Outcome::Failed { .. } => "FAILED",
    });
    let next = match (&job.plan.hold, job.plan.due) {
        (Some(hold), _) => hold.clone(),
        (None, Some(due)) if due <= status.at => "now".to_owned(),
        (None, Some(due)) => format!("in {}", roughly(clock::between(status.at, due))),
        (None, None) => "-".to_owned(),
    };
    vec![
        job.plan.job.to_string(),
        job.schedule.clone(),
        last.map_or_else(
            || "never".to_owned(),
            |last| format!("{} ago", ago(status, last.ended)),
        ),
        result.to_owned(),
        next,
    ]
}

fn ago(status: &Status, then: clock::Timestamp) -> String {
    roughly(clock::between(then, status.at))
}
