//! Refuses a configuration that cannot work. An operator should hear of it at noon, from
//! `--check-config`, and not at night from a job that fails.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{JobSettings, schedule};
use crate::agent::http::tls;
use crate::agent::run_record::Job;
use crate::clock::{self, Span, Zoned};
use crate::error::{Error, Kind, Result};
use crate::fs;
use crate::node::Client;
use crate::settings::hook::Hook;
use crate::settings::options::{AgentOptions, NodeOptions, PruneOptions, Verb};
use crate::settings::{Setting, Settings};
use crate::verbs::connection::connection;

/// The options that say what is backed up, and where to. The agent looks at the same things as its
/// jobs, so a job cannot have others.
const SHARED: [&str; 5] = ["repo", "node", "node_socket", "db", "index"];
/// How far the longest time between two backups is looked for, and in how many steps at most.
const HORIZON: Duration = Duration::from_hours(400 * 24);
const STEPS: usize = 10_000;

/// Checks everything that can be checked without the node and the repository.
///
/// # Errors
/// [`Kind::Usage`] if a node cannot be asked with these options, a file is missing, a job has
/// options that the agent cannot honour or that contradict the agent's own, no job ever runs,
/// `expire` has no rule, or the backups are further apart than `--max-age`.
pub(super) fn check(
    agent: &AgentOptions,
    settings: &Settings,
    jobs: &[JobSettings; 4],
) -> Result<()> {
    check_node(&agent.node)?;
    check_page(agent)?;
    check_hooks(agent)?;

    for (job, of_job) in Job::ALL.into_iter().zip(jobs) {
        check_agreement(job, of_job, settings)?;
        check_verb(job, &of_job.verb)?;
        if let Verb::Full(options) | Verb::Diff(options) = &of_job.verb {
            check_node(&options.node)?;
        }
    }

    check_schedules(agent, jobs)
}

/// A malformed URL, a missing certificate and a missing password show without the node.
fn check_node(options: &NodeOptions) -> Result<()> {
    let Some(connection) = connection(options)? else {
        return Err(Error::new(Kind::Usage, "no node is named")
            .hint("name the node that the agent keeps with `--node URL`"));
    };

    let files = options
        .ca_files
        .iter()
        .chain(&options.certificate_file)
        .chain(&options.key_file);
    for file in files {
        if !is_file(file) {
            return Err(Error::new(Kind::Usage, "there is no such file").at(file));
        }
    }

    Client::new(&connection).map_err(|error| error.with_kind(Kind::Usage))?;
    Ok(())
}

fn check_page(agent: &AgentOptions) -> Result<()> {
    match (&agent.listen_certificate_file, &agent.listen_key_file) {
        (Some(certificate), Some(key)) => tls::check(certificate, key),
        // A half of the pair is refused elsewhere.
        _ => Ok(()),
    }
}

fn check_hooks(agent: &AgentOptions) -> Result<()> {
    let hooks = agent
        .on_success
        .iter()
        .chain(&agent.on_failure)
        .chain(&agent.on_too_old);

    for hook in hooks {
        if let Hook::Command(words) = hook
            && let Some(program) = words.first()
        {
            check_program(program)?;
        }
    }
    Ok(())
}

fn check_program(program: &str) -> Result<()> {
    let places = places_of_program(program);
    if places
        .iter()
        .any(|place| is_file(place) && fs::can_execute(place))
    {
        return Ok(());
    }

    if let Some(place) = places.iter().find(|place| is_file(place)) {
        let what = "the program of a hook is not executable";
        let hint = format!("run `chmod +x {}`", place.display());
        return Err(Error::new(Kind::Usage, what).at(place).hint(hint));
    }
    Err(
        Error::new(Kind::Usage, "there is no such program for a hook")
            .on(program)
            .hint("name it with its whole path, or put it into a directory of `PATH`"),
    )
}

/// Where the system looks for a program.
fn places_of_program(program: &str) -> Vec<PathBuf> {
    if program.contains('/') {
        return vec![PathBuf::from(program)];
    }

    let path = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .collect()
}

fn is_file(path: &Path) -> bool {
    matches!(fs::status_of_target(path), Ok(Some(status)) if status.kind == fs::FileKind::File)
}

/// The table of a job cannot name another node or repository than the agent has.
fn check_agreement(job: Job, of_job: &JobSettings, settings: &Settings) -> Result<()> {
    for option in SHARED {
        let of_agent = settings.values.get(option).map(value);
        let own = of_job.values.get(option).map(value);
        // `expire` and `verify` do not know the node.
        if own.is_none() || own == of_agent {
            continue;
        }

        let name = option.replace('_', "-");
        let what = format!("`{job}` has another `{name}` than the agent");
        return Err(Error::new(Kind::Usage, what).hint(format!(
            "remove `{name}` from the table `[{job}]`, or start an agent of its own for it"
        )));
    }

    Ok(())
}

fn value(setting: &Setting) -> &str {
    &setting.value
}

/// Options that make no sense for a job, and that must not be ignored.
fn check_verb(job: Job, verb: &Verb) -> Result<()> {
    let refused = match verb {
        Verb::Full(options) | Verb::Diff(options) if options.offline => "offline",
        Verb::Full(options) | Verb::Diff(options) if options.dry_run => "dry-run",
        Verb::Verify(options) if options.dry_run => "dry-run",
        Verb::Expire(options) if options.dry_run => "dry-run",
        _ => return Ok(()),
    };

    let hint = if refused == "offline" {
        "remove it: the agent keeps a running node"
    } else {
        "remove it, or set the schedule of the job to `off` and run the command by hand"
    };
    let what = format!("the agent cannot run `{job}` with `{refused}`");
    Err(Error::new(Kind::Usage, what).hint(hint))
}

/// What follows each expiry must be the prune of the agent's own repository.
///
/// # Errors
/// [`Kind::Usage`] if it is not.
pub(super) fn check_prune(agent: &AgentOptions, prune: &PruneOptions) -> Result<()> {
    if prune.dry_run {
        return Err(
            Error::new(Kind::Usage, "the agent cannot run `prune` with `dry-run`")
                .hint("remove it: `prune` follows each `expire` in an object store"),
        );
    }
    if prune.repository != agent.repository {
        return Err(
            Error::new(Kind::Usage, "`prune` has another `repo` than the agent")
                .hint("remove `repo` from the table `[prune]`"),
        );
    }
    Ok(())
}

fn check_schedules(agent: &AgentOptions, jobs: &[JobSettings; 4]) -> Result<()> {
    let has_schedule = Job::ALL
        .into_iter()
        .any(|job| !schedule(agent, job).is_off());
    if !has_schedule && agent.on_change.is_off() {
        return Err(Error::new(
            Kind::Usage,
            "every schedule is off, so the agent does nothing",
        )
        .hint("set `--diff-schedule`, or `--on-change`"));
    }

    check_retention(agent, jobs)?;
    check_max_age(agent, jobs)
}

/// Without a rule, each run of `expire` would fail.
fn check_retention(agent: &AgentOptions, jobs: &[JobSettings; 4]) -> Result<()> {
    if agent.expire_schedule.is_off() {
        return Ok(());
    }

    for job in jobs {
        if let Verb::Expire(options) = &job.verb
            && !options.retention.has_rule()
        {
            return Err(Error::new(
                Kind::Usage,
                "`expire` has a schedule, but no rule says what to keep",
            )
            .hint("set `keep-last`, `keep-daily` or another rule in the table `[expire]`"));
        }
    }
    Ok(())
}

/// Backups that are further apart than `--max-age` would leave the node unsafe again and again.
fn check_max_age(agent: &AgentOptions, jobs: &[JobSettings; 4]) -> Result<()> {
    let from = agent.time_zone.at(clock::now());
    let by_schedule = longest_gap(agent, jobs, &from).map(|gap| gap + agent.jitter);
    let by_change = agent.on_change.age();

    let bounds = by_schedule.into_iter().chain(by_change);
    let Some(longest) = bounds.min() else {
        return Ok(());
    };
    if longest <= agent.max_age {
        return Ok(());
    }

    let (longest, limit) = (Span(longest), Span(agent.max_age));
    let what = format!(
        "two backups may be {longest} apart, and `max-age` is {limit}: the node would not be safe \
         in between"
    );
    Err(Error::new(Kind::Usage, what).hint("take backups more often, or raise `--max-age`"))
}

/// The longest time between two scheduled backups. `None` if no backup has a schedule.
fn longest_gap(agent: &AgentOptions, jobs: &[JobSettings; 4], from: &Zoned) -> Option<Duration> {
    let end = from.checked_add(HORIZON).ok()?;
    let mut longest: Option<Duration> = None;

    let mut last = from.clone();
    for _ in 0..STEPS {
        if last > end {
            break;
        }

        let next = next_backup(agent, jobs, &last)?;
        let gap = clock::between(last.timestamp(), next.timestamp());
        longest = longest.max(Some(gap));
        last = next;
    }

    longest
}

/// When the next backup begins after one at `last`. A full counts as a diff, too.
fn next_backup(agent: &AgentOptions, jobs: &[JobSettings; 4], last: &Zoned) -> Option<Zoned> {
    let mut next: Option<Zoned> = None;

    for (job, of_job) in Job::ALL.into_iter().zip(jobs) {
        if !job.is_backup() {
            continue;
        }
        let Some(mut due) = schedule(agent, job).next(last) else {
            continue;
        };
        if let Some(window) = of_job.window()
            && !window.is_open(&due)
        {
            due = window.opens(&due)?;
        }

        next = match next {
            Some(other) if other <= due => Some(other),
            _ => Some(due),
        };
    }

    next
}
