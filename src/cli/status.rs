//! `kbackup status`: prints what the agent knows or, without an agent, what the repository shows.
//!
//! The agent's room computes a status, and verbs must not use the agent's room. So this file, and
//! not a verb, chooses between agent and repository.

use std::fmt::Write;
use std::path::Path;

use super::context::{VerbContext, WITH_WARNINGS};
use super::output::{Output, count, size, table};
use crate::agent::{
    Concern, JobStatus, Level, RepositoryLook, RunOutcome, Status, StatusInput, look_at_repository,
    roughly,
};
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::settings::options::{GeneralOptions, StatusOptions};
use crate::verbs::release::still_to_be_given_back;
use crate::verbs::status::ask_agent;

/// Exit codes of a monitoring plugin.
const OK: u8 = 0;
const WARNING: u8 = 1;
const CRITICAL: u8 = 2;
const UNKNOWN: u8 = 3;

/// The exit code if there is no status to show. A plugin has its own code for that.
pub(super) const fn unknown(is_plugin: bool, code: u8) -> u8 {
    if is_plugin { UNKNOWN } else { code }
}

pub(super) fn run(options: &StatusOptions, context: &VerbContext) -> Result<u8> {
    if options.monitoring_plugin {
        return run_as_plugin(options, context);
    }

    let status = look(options, context)?;
    context
        .output
        .answer("kbackup.status/1", &status, &text(&status))?;
    Ok(match status.verdict.level {
        Level::Safe => 0,
        Level::Attention => WITH_WARNINGS,
        Level::Danger => Kind::Failed.exit_code(),
    })
}

/// Prints one line on standard output, whatever happens, as a monitoring system expects.
fn run_as_plugin(options: &StatusOptions, context: &VerbContext) -> Result<u8> {
    let (line, code) = match look(options, context) {
        Ok(status) => plugin_line(&status),
        Err(error) => (
            format!("KBACKUP UNKNOWN - {}", one_line(&error.in_words())),
            UNKNOWN,
        ),
    };

    // A monitoring system does not read JSON here.
    Output::new(false).answer("", &(), &format!("{line}\n"))?;
    Ok(code)
}

/// Asks the agent. If none is named or it does not answer, looks at the repository.
fn look(options: &StatusOptions, context: &VerbContext) -> Result<Status> {
    let repository = options.repository.as_deref();

    let Some(agent) = &options.agent else {
        return match repository {
            Some(path) => Ok(of_repository(path, options, &context.general)),
            None => Err(
                Error::new(Kind::Usage, "neither an agent nor a repository is named")
                    .hint("name one with `--agent` or `--repo`"),
            ),
        };
    };

    match (ask_agent(agent, options, &context.run), repository) {
        (Ok(status), _) => Ok(status),
        (Err(error), None) => {
            Err(error.hint("check that the agent runs, or name `--repo` to look at the repository"))
        }
        (Err(error), Some(path)) => {
            let mut status = of_repository(path, options, &context.general);
            status.verdict.add(no_answer(&error));
            Ok(status)
        }
    }
}

/// Why there is no answer of the agent.
fn no_answer(error: &Error) -> Concern {
    let (problem, hints) = if error.kind() == Kind::Usage {
        ("cannot be asked", error.hints().to_vec())
    } else {
        let hint = "check that the agent runs, and read its log";
        ("does not answer", vec![hint.to_owned()])
    };

    Concern {
        level: Level::Attention,
        what: format!("the agent {problem}: {}", error.in_words()),
        hints,
    }
}

/// The agent gives back what interrupted runs stopped. Without an agent, the operator has to.
fn to_be_given_back(path: &Path, general: &GeneralOptions) -> Option<Concern> {
    let what = match still_to_be_given_back(path, general) {
        Ok(stopped) if stopped.is_empty() => return None,
        Ok(stopped) => format!(
            "an interrupted run stopped something at the node, and it is not given back yet: {}",
            stopped.join("; ")
        ),
        Err(error) => format!(
            "kbackup does not know whether something is to be given back to the node: {}",
            error.in_words()
        ),
    };

    Some(Concern {
        level: Level::Attention,
        what,
        hints: vec!["run `kbackup release` to give it back now".to_owned()],
    })
}

fn of_repository(path: &Path, options: &StatusOptions, general: &GeneralOptions) -> Status {
    let mut status = Status::of(StatusInput {
        now: clock::now(),
        max_age: options.max_age,
        repository: look_at_repository(RepositoryLook {
            path,
            known: None,
            node: None,
            accept_same_disk: options.accept_same_disk,
            general,
        }),
        node: None,
        cluster: None,
        exposure: None,
        position_is_unknown: false,
        last_known: None,
        agent: None,
        journal: None,
        plans: Vec::new(),
        late: Vec::new(),
        running: None,
    });
    if let Some(concern) = to_be_given_back(path, general) {
        status.verdict.add(concern);
    }
    status
}

/// The line that a monitoring system shows, with its measurements behind the bar, and the exit
/// code.
fn plugin_line(status: &Status) -> (String, u8) {
    let (word, code) = match status.verdict.level {
        Level::Safe => ("OK", OK),
        Level::Attention => ("WARNING", WARNING),
        Level::Danger => ("CRITICAL", CRITICAL),
    };
    let mut measurements = String::new();

    if let Some(age) = status.age() {
        let _ = write!(
            measurements,
            " age={}s;;{}",
            age.as_secs(),
            status.max_age_seconds
        );
    }
    if let Some(exposure) = status.exposure {
        let _ = write!(measurements, " exposed={}B", exposure.bytes);
    }
    if let Some(facts) = &status.repository.facts {
        let _ = write!(measurements, " backups={}", facts.points.len());
        if let Some(free) = facts.free_bytes {
            let _ = write!(measurements, " free={free}B");
        }
    }

    let mut line = format!("KBACKUP {word} - {}", one_line(&status.verdict.sentence));
    if !measurements.is_empty() {
        let _ = write!(line, " |{measurements}");
    }
    (line, code)
}

/// The text without line breaks and bars: a second line would be lost, and a bar begins the
/// measurements.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ").replace('|', "/")
}

fn text(status: &Status) -> String {
    let mut text = verdict_text(status);

    text.push('\n');
    for (name, value) in facts(status) {
        let _ = writeln!(text, "{name:<22} {value}");
    }

    if !status.jobs.is_empty() {
        let rows = status.jobs.iter().map(|job| row(status, job)).collect();
        text.push('\n');
        text.push_str(&table(&["JOB", "SCHEDULE", "LAST", "RESULT", "NEXT"], rows));
    }
    text
}

fn verdict_text(status: &Status) -> String {
    let mut text = format!("{}\n", status.verdict.sentence);

    for (place, Concern { what, hints, .. }) in status.verdict.concerns.iter().enumerate() {
        // The sentence says the first concern.
        if place > 0 {
            let _ = writeln!(text, "also: {what}");
        }
        for hint in hints {
            let _ = writeln!(text, "  hint: {hint}");
        }
    }
    text
}

/// The facts that are known, each with its name.
fn facts(status: &Status) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();

    if let Some((point, made)) = status.newest_good() {
        let age = match clock::ahead(made.finished, status.at) {
            Some(ahead) => format!("dated {} in the future", roughly(ahead)),
            None => format!("{} old", ago(status, made.finished)),
        };
        lines.push(("newest good backup", format!("{}, {age}", point.label)));
    } else if let Some(known) = &status.last_known {
        let age = ago(status, known.started);
        let line = format!("{}, {age} old", known.newest);
        lines.push(("newest known backup", line));
    }

    if let Some(facts) = &status.repository.facts {
        let backups = count(facts.points.len() as u64, "backup");
        let mut line = format!("{}: {backups}", facts.place);
        if let Some(free) = facts.free_bytes {
            let _ = write!(line, ", {} free", size(free));
        }
        lines.push(("repository", line));
    }

    if let Some(exposure) = status.exposure {
        let mut line = size(exposure.bytes);
        if let Some(since) = exposure.since {
            let _ = write!(line, ", since {}", ago(status, since));
        }
        lines.push(("in no backup", line));
    }

    if let Some(node) = status.node.as_ref().and_then(|node| node.facts.as_ref()) {
        let line = format!("{}, {}, {}", node.place, node.version, node.state);
        lines.push(("node", line));
    }

    if let Some(running) = &status.running {
        let since = ago(status, running.began);
        let line = format!("`{}` since {since}: {}", running.job, running.step);
        lines.push(("now", line));
    }
    lines
}

fn row(status: &Status, job: &JobStatus) -> Vec<String> {
    let last = match &job.last {
        Some(last) => format!("{} ago", ago(status, last.ended)),
        None => "never".to_owned(),
    };

    let result = match job.last.as_ref().map(|last| &last.outcome) {
        None => "-",
        Some(RunOutcome::Done { .. }) => "done",
        Some(RunOutcome::UpToDate) => "up to date",
        Some(RunOutcome::Skipped { .. }) => "not needed",
        Some(RunOutcome::Interrupted { .. }) => "interrupted",
        Some(RunOutcome::Failed { .. }) => "FAILED",
    };

    let next = match (&job.plan.hold, job.plan.due) {
        (Some(hold), _) => hold.clone(),
        (None, Some(due)) if due <= status.at => "now".to_owned(),
        (None, Some(due)) => format!("in {}", roughly(clock::between(status.at, due))),
        (None, None) => "-".to_owned(),
    };

    vec![
        job.plan.job.to_string(),
        job.schedule.clone(),
        last,
        result.to_owned(),
        next,
    ]
}

/// How long ago, in words.
fn ago(status: &Status, then: clock::Timestamp) -> String {
    roughly(clock::between(then, status.at))
}
