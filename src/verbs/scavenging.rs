//! What a backup does if a scavenge runs: `--scavenge`, `--scavenge-rest` and `--max-age`.
//!
//! The agent decides the same between its runs (`agent/planner.rs`), and tells each run the result.

use std::time::Duration;

use jiff::SignedDuration;

use super::connection::connection;
use crate::clock::{self, Span, Timestamp};
use crate::error::{Kind, Result};
use crate::node::{self, Client, Patience, ReleaseRecords, Session};
use crate::repository::{Location, is_good, remembered};
use crate::run::Run;
use crate::settings::options::{BackupOptions, GeneralOptions, ScavengeManner};

/// How often a backup that waits asks the node.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// The agent's defaults.
const DEFAULT_REST: Duration = Duration::from_hours(24);
const DEFAULT_MAX_AGE: Duration = Duration::from_hours(26);

/// Lets a scavenge end, as far as `--scavenge` says so. Returns whether the backup may stop one.
///
/// # Errors
/// [`Kind::Scavenging`] if one runs and no backup is to be taken, [`Kind::Interrupted`] if the run
/// is told to end while it waits. All errors of the node and of the repository.
pub(super) fn let_end(
    options: &BackupOptions,
    general: &GeneralOptions,
    run: &Run,
) -> Result<bool> {
    let manner = options.scavenge.unwrap_or(ScavengeManner::Stop);
    if manner == ScavengeManner::Stop || options.offline {
        return Ok(true);
    }
    let Some(connection) = connection(&options.node)? else {
        return Ok(true);
    };

    let client = Client::new(&connection)?;
    let mut spared: Option<Spared> = None;
    loop {
        let Some(scavenging) = at_work(&client, run)? else {
            return Ok(false);
        };
        if manner == ScavengeManner::Skip {
            return Err(node::still_scavenging(&client, scavenging));
        }

        if spared.as_ref().is_none_or(Spared::is_over) {
            spared = spare(&client, options, general, run)?;
            let Some(spared) = &spared else {
                run.note(format!("{scavenging}, and this backup stops it"));
                return Ok(true);
            };
            let why = &spared.why;
            run.note(format!(
                "{scavenging}, and {why}: waiting until it has ended"
            ));
        }

        run.pause(ASK_AGAIN)?;
    }
}

fn at_work(client: &Client, run: &Run) -> Result<Option<String>> {
    let scavenging = node::look_at_scavenging(client, Patience::of(run))?;
    Ok(scavenging.at_work())
}

/// Why a running scavenge must not be stopped yet, and until when.
struct Spared {
    until: Timestamp,
    why: String,
}

impl Spared {
    /// Something that happened at `since` spares a scavenge for the time `length`. Returns `None`
    /// if that time is over. A time in the future comes from a wrong clock, and spares nothing.
    fn since(since: Timestamp, length: Duration, why: String) -> Option<Self> {
        let now = clock::now();
        let until = since
            .checked_add(SignedDuration::try_from(length).ok()?)
            .ok()?;
        if since > now || until <= now {
            return None;
        }

        Some(Self { until, why })
    }

    fn is_over(&self) -> bool {
        self.until <= clock::now()
    }
}

/// Looks for a reason to spare a running scavenge. Returns `None` if it may be stopped.
fn spare(
    client: &Client,
    options: &BackupOptions,
    general: &GeneralOptions,
    run: &Run,
) -> Result<Option<Spared>> {
    let max_age = options.max_age.unwrap_or(DEFAULT_MAX_AGE);
    if let Some(newest) = newest_good_backup(options)? {
        let why = format!("the newest backup is younger than {}", Span(max_age));
        let spared = Spared::since(newest, max_age, why);
        if spared.is_some() {
            return Ok(spared);
        }
    }

    let rest = options.scavenge_rest.unwrap_or(DEFAULT_REST);
    let records = ReleaseRecords::open(&general.state_directory()?)?;
    let session = Session::open(client.clone(), run)?;
    let Some(stopped) = records.last_stop(&session) else {
        return Ok(None);
    };
    let why = format!("one was stopped within the last {}", Span(rest));
    Ok(Spared::since(stopped, rest, why))
}

/// When the newest good backup began. Returns `None` if there is none, or no repository.
fn newest_good_backup(options: &BackupOptions) -> Result<Option<Timestamp>> {
    let repository = match Location::parse(&options.repository)?.open() {
        Ok(repository) => repository,
        Err(error) if error.kind() == Kind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };

    for listed in repository.list()?.into_iter().rev() {
        let Ok(head) = listed.head else { continue };
        if is_good(&head, remembered(&*repository, &listed.label)?) {
            return Ok(Some(head.started));
        }
    }
    Ok(None)
}
