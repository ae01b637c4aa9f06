//! Keeping scavenges away from a copy, and giving them back (design §3; http-api §1, §2; O40–O44).

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::release_record::{
    HeldRecord, ListedRecord, ReleaseRecord, ReleaseRecords, StoppedScavenge,
};
use super::{
    AutoScavenge, AutoScavengeResume, Client, CurrentScavenge, LastScavenge, Patience,
    ScavengeExtent, ScavengeStart, ScavengeStop, Session,
};
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::fs;
use crate::manifest::{Quiet, Scavenging};
use crate::run::{Deadline, Interruption, Run};
use crate::server::{ServerVersion, facts};

/// Pause between two looks at the node.
const POLL: Duration = Duration::from_millis(100);
const LONGEST_POLL: Duration = Duration::from_secs(1);
/// A leader that stops its own scavenge after a pause needs a moment to clean up; only what lasts
/// longer was started by hand.
const AUTO_CLEAN_UP: Duration = Duration::from_secs(3);
/// A DELETE often has no answer (O41), and `current` tells all.
const DELETE_LIMIT: Duration = Duration::from_secs(2);
/// What is taken from a node, in events.
const AUTO_SCAVENGE: &str = "auto-scavenge";
const SCAVENGE: &str = "scavenge";
/// Giving back after a success or a failure may take its time; after a signal somebody waits.
const GIVE_BACK_LIMIT: Duration = Duration::from_secs(30);
const HASTY_LIMIT: Duration = Duration::from_millis(1500);
/// A scavenge that has been told to stop, and goes on for longer, is left to a later run.
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(5);
/// No scavenge takes longer to stop: completing a chunk cannot be interrupted, and a backup waits
/// no longer for it either, unless it is told to.
const LONGEST_STOP: Duration = Duration::from_secs(300);

/// How far quiescing goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuiesceSettings {
    /// False: leave scavenges alone, and say so in the manifest (`--no-quiesce`).
    pub quiesce: bool,
    /// How long auto-scavenge may take to pause; its leader stops a running scavenge first.
    pub pausing: Duration,
    /// How long a scavenge may take to stop; completing a chunk cannot be interrupted.
    pub stopping: Duration,
    /// How long the node may be without its scavenging, from the first thing that is taken. Then
    /// the run is interrupted, and everything is given back.
    pub longest: Duration,
    /// Threads of a scavenge that is given back.
    pub threads: u32,
    /// Throttle of a scavenge that is given back, in percent; only one thread can be throttled.
    pub throttle_percent: u32,
}

impl Default for QuiesceSettings {
    fn default() -> Self {
        Self {
            quiesce: true,
            pausing: Duration::from_secs(600),
            stopping: Duration::from_secs(300),
            longest: Duration::from_secs(7200),
            threads: 1,
            throttle_percent: 100,
        }
    }
}

/// Whether the copy can be believed so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuiesceCheck {
    /// No scavenge ran since the node was made quiet.
    Undisturbed,
    /// One did, or may have; what happened.
    Disturbed(String),
}

/// A node that scavenges nothing until this is released. Dropping it releases it too, as well as it
/// can.
pub struct QuiescedOnline<'a> {
    session: &'a Session,
    run: &'a Run,
    settings: QuiesceSettings,
    db: Option<PathBuf>,
    /// None where nothing is asked of the node.
    held: Option<HeldRecord>,
    /// While something is owed: ends the run before that lasts for too long.
    deadline: Option<Deadline>,
    quiet: Quiet,
    before: Before,
    stopped: Option<String>,
    auto_paused: bool,
    released: bool,
}

/// What the node said of scavenges when it had become quiet.
#[derive(Debug, Default)]
struct Before {
    last: Option<LastScavenge>,
    newest: Option<String>,
}

/// Pauses auto-scavenge, stops a running scavenge, and waits until the node is at rest. What is
/// taken stands in `records` before it is taken.
///
/// `db` is the db directory, where it can be read: servers before 22.10.1 show a scavenge by the
/// files it writes there.
///
/// # Errors
/// [`Kind::Refused`] where the node has no admin API (`DisableAdminUi`), [`Kind::Locked`] while
/// another run keeps this node quiet, [`Kind::Unstable`] where the node does not come to rest
/// within the limits. What was taken until then is given back.
pub fn quiesce<'a>(
    session: &'a Session,
    records: &ReleaseRecords,
    db: Option<&Path>,
    settings: QuiesceSettings,
    run: &'a Run,
) -> Result<QuiescedOnline<'a>> {
    let mut quiet = QuiescedOnline {
        session,
        run,
        db: db.map(Path::to_owned),
        held: None,
        deadline: None,
        quiet: Quiet::NotAsked,
        before: Before::default(),
        stopped: None,
        auto_paused: false,
        released: false,
        settings,
    };
    if !quiet.settings.quiesce {
        return Ok(quiet);
    }
    let patience = Patience::of(run);
    session.check(patience)?;
    if session.client().current_scavenge(patience)? == CurrentScavenge::AdminDisabled {
        return Err(Error::new(
            Kind::Refused,
            "the node has no admin API (`DisableAdminUi`): its scavenges can neither be seen nor stopped",
        )
        .on(session.client().place())
        .hint("switch it on, or make sure yourself that no scavenge runs during the backup, and pass `--no-quiesce`"));
    }
    let held = records.hold(session)?;
    if !held.record().is_empty() {
        run.note(format!(
            "{}: an earlier run ended without giving back what it took; it is given back with the end of this one",
            held.record().node
        ));
        if let Some(owed) = &held.record().auto_scavenge {
            run.emit(Event::Taken {
                what: AUTO_SCAVENGE,
                since: owed.since,
            });
        }
        if let Some(owed) = &held.record().scavenge {
            run.emit(Event::Taken {
                what: SCAVENGE,
                since: owed.since,
            });
        }
        watch(&mut quiet.deadline, quiet.settings.longest, run)?;
    }
    quiet.held = Some(held);
    quiet.settle_down()?;
    Ok(quiet)
}

impl QuiescedOnline<'_> {
    /// Makes the node quiet again after [`QuiesceCheck::Disturbed`].
    ///
    /// # Errors
    /// As [`quiesce`].
    pub fn settle_again(&mut self) -> Result<()> {
        if self.held.is_none() {
            return self.session.check(Patience::of(self.run));
        }
        self.session.check(Patience::of(self.run))?;
        self.settle_down()
    }

    /// Whether no scavenge has run since the node became quiet (http-api §1.9).
    ///
    /// # Errors
    /// Where the node cannot be asked, and [`Kind::Refused`] where another node answers.
    pub fn check_undisturbed(&self) -> Result<QuiesceCheck> {
        let patience = Patience::of(self.run);
        match self.session.check(patience) {
            Err(error) if error.kind() == Kind::Unstable => {
                return Ok(QuiesceCheck::Disturbed(error.what().to_owned()));
            }
            result => result?,
        }
        if self.held.is_none() {
            return Ok(QuiesceCheck::Undisturbed);
        }
        if let CurrentScavenge::Running(scavenge) = current(self.session.client(), patience)? {
            return Ok(QuiesceCheck::Disturbed(format!(
                "somebody started scavenge {scavenge}"
            )));
        }
        let now = self.look(patience)?;
        // The newest one of this node can fall off the first page of the log's list; only another
        // one says something.
        if now.last != self.before.last
            || (now.newest.is_some() && now.newest != self.before.newest)
        {
            return Ok(QuiesceCheck::Disturbed(
                "a scavenge ran meanwhile".to_owned(),
            ));
        }
        if let Some(file) = self.scavenge_output()? {
            return Ok(QuiesceCheck::Disturbed(format!(
                "a scavenge seems to run: there is {}",
                file.display()
            )));
        }
        if self.auto_paused {
            let state = self.session.client().auto_scavenge(patience)?;
            if state != AutoScavenge::Paused {
                return Ok(QuiesceCheck::Disturbed(format!(
                    "somebody resumed auto-scavenge (it is {state})"
                )));
            }
        }
        Ok(QuiesceCheck::Undisturbed)
    }

    /// What a manifest says about it.
    #[must_use]
    pub fn scavenging(&self) -> Scavenging {
        Scavenging {
            quiet: self.quiet,
            stopped: self.stopped.clone(),
            auto_paused: self.auto_paused,
        }
    }

    /// What the node is owed, for a copy of the record in the repository.
    #[must_use]
    pub fn release_record(&self) -> Option<&ReleaseRecord> {
        self.held
            .as_ref()
            .map(HeldRecord::record)
            .filter(|record| !record.is_empty())
    }

    /// Gives back what was taken, also when the run was interrupted; then it only takes less time
    /// about it.
    ///
    /// # Errors
    /// Where something is still owed; it stays on record.
    pub fn release(mut self) -> Result<()> {
        self.give_back()
    }

    fn give_back(&mut self) -> Result<()> {
        self.released = true;
        self.deadline = None;
        let Some(held) = &mut self.held else {
            return Ok(());
        };
        let limit = if self.run.is_hurried() {
            HASTY_LIMIT
        } else {
            GIVE_BACK_LIMIT
        };
        give_back(
            self.session.client(),
            self.session.version(),
            held,
            limit,
            self.run,
        )
    }

    fn settle_down(&mut self) -> Result<()> {
        let patience = Patience::of(self.run);
        let auto_was_at_work = self.pause_auto_scavenge(patience)?;
        self.quiet =
            if self.session.client().current_scavenge(patience)? == CurrentScavenge::NotSupported {
                Quiet::Inferred
            } else {
                Quiet::Confirmed
            };
        self.stop_scavenges(patience, auto_was_at_work)?;
        if self.release_record().is_none() {
            self.deadline = None;
        }
        self.before = self.look(patience)?;
        Ok(())
    }

    /// True where auto-scavenge may have had a scavenge on this node.
    fn pause_auto_scavenge(&mut self, patience: Patience<'_>) -> Result<bool> {
        let Some(held) = &mut self.held else {
            return Ok(false);
        };
        let client = self.session.client();
        let end = Instant::now() + self.settings.pausing;
        // A cluster between two leaders answers by errors for a while (http-api §2.3).
        let mut state = loop {
            match client.auto_scavenge(patience) {
                Err(error)
                    if error.kind() == Kind::Failed && Instant::now() + LONGEST_POLL < end =>
                {
                    patience.pause(LONGEST_POLL)?
                }
                result => break result?,
            }
        };
        let owed = held.record().auto_scavenge.is_some();
        self.auto_paused = owed && state == AutoScavenge::Paused;
        if matches!(
            state,
            AutoScavenge::Absent | AutoScavenge::NotConfigured | AutoScavenge::Paused
        ) {
            return Ok(false);
        }
        let at_work = state != AutoScavenge::Waiting;
        // Never resume what another pauses.
        let ours = owed || state != AutoScavenge::Pausing;
        if ours && !owed {
            watch(&mut self.deadline, self.settings.longest, self.run)?;
            held.record_pause()?;
            self.run.emit(Event::Taken {
                what: AUTO_SCAVENGE,
                since: clock::now(),
            });
        }
        self.run.note(format!(
            "auto-scavenge is {state}; waiting until it is paused"
        ));
        let mut poll = POLL;
        loop {
            let step = if ours && state != AutoScavenge::Pausing {
                client.pause_auto_scavenge(patience)
            } else {
                Ok(())
            };
            let seen = step.and_then(|()| client.auto_scavenge(patience));
            match seen {
                Ok(AutoScavenge::Paused) => break,
                Err(error) if error.kind() != Kind::Failed || Instant::now() > end => {
                    return Err(error);
                }
                Ok(_) if Instant::now() > end => {
                    return Err(Error::new(Kind::Unstable, "auto-scavenge does not pause in time")
                        .on(client.place())
                        .because(format!("it is {state} after {} s", self.settings.pausing.as_secs()))
                        .hint("a running scavenge has to stop first; allow it more time, or run the backup at another hour"));
                }
                Ok(now) => state = now,
                Err(_) => {}
            }
            patience.pause(poll)?;
            poll = (poll * 2).min(LONGEST_POLL);
        }
        if ours {
            self.auto_paused = true;
            self.run.emit(Event::AutoScavengePaused);
        }
        Ok(at_work)
    }

    fn stop_scavenges(&mut self, patience: Patience<'_>, auto_was_at_work: bool) -> Result<()> {
        let Some(held) = &mut self.held else {
            return Ok(());
        };
        let client = self.session.client();
        let clean = Instant::now()
            + if auto_was_at_work {
                AUTO_CLEAN_UP
            } else {
                Duration::ZERO
            };
        let mut end = clean + self.settings.stopping;
        let mut poll = POLL;
        let mut stopping: Option<String> = None;
        loop {
            let CurrentScavenge::Running(scavenge) = current(client, patience)? else {
                break;
            };
            if stopping.as_ref() != Some(&scavenge) && (clean..=end).contains(&Instant::now()) {
                watch(&mut self.deadline, self.settings.longest, self.run)?;
                // A run before this one may have taken the same one already.
                let is_taken = held
                    .record()
                    .scavenge
                    .as_ref()
                    .is_some_and(|owed| owed.id == scavenge);
                if let Some(after) = held.record_scavenge(
                    &scavenge,
                    self.settings.threads,
                    self.settings.throttle_percent,
                )? {
                    self.run.emit(Event::NothingToGiveBack {
                        what: SCAVENGE,
                        after,
                    });
                }
                if !is_taken {
                    self.run.emit(Event::Taken {
                        what: SCAVENGE,
                        since: clock::now(),
                    });
                }
                self.run.note(format!("stopping scavenge {scavenge}"));
                // Whatever it answers, `current` says when it has ended (http-api §1.6).
                let _: ScavengeStop =
                    client.stop_scavenge(&scavenge, patience.within(DELETE_LIMIT))?;
                held.record_stop_request()?;
                // The limit is for all of them together: somebody may start one after the other.
                if stopping.replace(scavenge).is_none() {
                    end = Instant::now() + self.settings.stopping;
                }
                poll = POLL;
                continue;
            }
            if Instant::now() > end {
                return Err(Error::new(Kind::Unstable, format!("scavenge {scavenge} does not stop in time"))
                    .on(client.place())
                    .hint("completing a large chunk takes a while; allow it more time, or run the backup at another hour"));
            }
            patience.pause(poll)?;
            poll = (poll * 2).min(LONGEST_POLL);
        }
        if let Some(scavenge) = stopping {
            if has_succeeded(client, &scavenge, patience)? {
                // It had done its work before it was asked to stop.
                let after = held.clear_scavenge()?;
                self.run.emit(Event::NothingToGiveBack {
                    what: SCAVENGE,
                    after,
                });
            } else {
                self.run.emit(Event::ScavengeStopped {
                    scavenge: scavenge.clone(),
                });
                self.stopped = Some(scavenge);
            }
        }
        Ok(())
    }

    /// What the node says of scavenges that have ended.
    fn look(&self, patience: Patience<'_>) -> Result<Before> {
        let client = self.session.client();
        let last = client.last_scavenge(patience)?;
        let newest = if last.is_some() {
            None
        } else {
            // Best effort: these servers tell it only by their log, and a leaderless cluster writes
            // none.
            let here = self.session.whereabouts().endpoint.as_deref();
            let events = match client.scavenge_events(patience) {
                Err(error) if matches!(error.kind(), Kind::Failed | Kind::Denied) => Vec::new(),
                result => result?,
            };
            events
                .into_iter()
                .find(|event| {
                    event.result.is_none() && here.is_none_or(|here| event.endpoint == here)
                })
                .map(|event| event.scavenge)
        };
        Ok(Before { last, newest })
    }

    /// A file that only a running scavenge writes (http-api §1.6), on servers that cannot be asked.
    fn scavenge_output(&self) -> Result<Option<PathBuf>> {
        let (Quiet::Inferred, Some(db)) = (self.quiet, &self.db) else {
            return Ok(None);
        };
        // The clock may have been set back since the file was written.
        let recent = |status: &fs::FileStatus| {
            status
                .modified
                .elapsed()
                .unwrap_or_else(|ahead| ahead.duration())
                < Duration::from_secs(60)
        };
        let found = fs::list(db)?.into_iter().find(|entry| {
            entry.name.to_string_lossy().ends_with(".scavenge.tmp") && recent(&entry.status)
        });
        Ok(found.map(|entry| db.join(entry.name)))
    }
}

impl Drop for QuiescedOnline<'_> {
    fn drop(&mut self) {
        if self.released {
            return;
        }
        if let Err(error) = self.give_back() {
            let causes = error.causes().join(": ");
            self.run.warn(format!("the node was not given back what was taken: {error}: {causes}; run `kbackup release`"));
        }
    }
}

/// From the first thing on that is taken, the time runs.
fn watch(deadline: &mut Option<Deadline>, limit: Duration, run: &Run) -> Result<()> {
    if deadline.is_none() {
        *deadline = Some(run.deadline(limit, Interruption::PausedTooLong { limit })?);
    }
    Ok(())
}

/// What scavenges on a node now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeScavenging {
    /// What runs on this node; [`CurrentScavenge::AdminDisabled`] where it cannot be asked. Never
    /// [`CurrentScavenge::NotSupported`].
    pub current: CurrentScavenge,
    /// The cluster's auto-scavenge; none while there is no leader that could tell.
    pub auto: Option<AutoScavenge>,
}

/// Looks at a node's scavenging, on a server of any age. Changes nothing, neither there nor in a
/// records.
///
/// # Errors
/// Where the node cannot be asked.
pub fn look_at_scavenging(client: &Client, patience: Patience<'_>) -> Result<NodeScavenging> {
    let auto = match client.auto_scavenge(patience) {
        // Between two leaders (http-api §2.3).
        Err(error) if error.kind() == Kind::Failed => None,
        result => Some(result?),
    };
    Ok(NodeScavenging {
        current: current(client, patience)?,
        auto,
    })
}

/// The scavenge that runs, on a server of any age.
fn current(client: &Client, patience: Patience<'_>) -> Result<CurrentScavenge> {
    match client.current_scavenge(patience)? {
        CurrentScavenge::NotSupported => client.current_scavenge_of_old_server(patience),
        current => Ok(current),
    }
}

/// Whether a scavenge came to its own end, as far as the node tells.
fn has_succeeded(client: &Client, scavenge: &str, patience: Patience<'_>) -> Result<bool> {
    if let Some(last) = client.last_scavenge(patience)? {
        return Ok(last.scavenge_id == scavenge && last.scavenge_result == "Success");
    }
    let events = client.scavenge_events(patience).unwrap_or_default();
    Ok(events
        .iter()
        .any(|event| event.scavenge == scavenge && event.result.as_deref() == Some("Success")))
}

/// Gives back all that stands on record, and settles it. Doing it twice is harmless: what already
/// runs is not started, and what is not paused is not resumed.
///
/// A stopped scavenge goes on first: a resumed auto-scavenge could be taken for it.
fn give_back(
    client: &Client,
    version: &ServerVersion,
    held: &mut HeldRecord,
    limit: Duration,
    run: &Run,
) -> Result<()> {
    if held.record().is_empty() {
        return Ok(());
    }
    let end = Instant::now() + limit;
    is_same_node(client, held.record(), rest(end))?;
    let scavenge = give_back_scavenge(client, version, held, limit, run);
    let auto = give_back_auto_scavenge(client, held, end, run);
    scavenge.and(auto)
}

fn rest<'a>(end: Instant) -> Patience<'a> {
    Patience::regardless(end.saturating_duration_since(Instant::now()).max(POLL))
}

/// The node may have been restarted meanwhile, but it must be that node and not its neighbour.
fn is_same_node(client: &Client, debt: &ReleaseRecord, patience: Patience<'_>) -> Result<()> {
    let Some(endpoint) = &debt.node.endpoint else {
        return Ok(());
    };
    match client.gossip(patience)? {
        Some(gossip) if gossip.endpoint() != *endpoint => Err(Error::new(
            Kind::Refused,
            format!(
                "another node answers: {} is owed, {} answers",
                endpoint,
                gossip.endpoint()
            ),
        )
        .on(client.place())
        .hint("give that node's own address")),
        _ => Ok(()),
    }
}

fn give_back_scavenge(
    client: &Client,
    version: &ServerVersion,
    held: &mut HeldRecord,
    limit: Duration,
    run: &Run,
) -> Result<()> {
    let Some(owed) = held.record().scavenge.clone() else {
        return Ok(());
    };
    let (end, stopped_by) = (
        Instant::now() + limit,
        Instant::now() + limit.min(CLEAN_UP_LIMIT),
    );
    let mut poll = POLL;
    loop {
        let old_server = client.current_scavenge(rest(end))? == CurrentScavenge::NotSupported;
        match current(client, rest(end))? {
            // It has been told to stop, and cleans up (O40); or it never was.
            CurrentScavenge::Running(scavenge) if scavenge == owed.id => {
                if Instant::now() + POLL < stopped_by {
                    std::thread::sleep(POLL);
                    continue;
                }
                if owed.told || !is_long_ago(&owed) {
                    return Err(still_runs(&owed).on(client.place()));
                }
                run.note(format!("scavenge {} still runs: the run that wanted to stop it died before, and nothing of it is owed", owed.id));
                return end_of_scavenge(held, run);
            }
            CurrentScavenge::Running(_) => break,
            _ if has_succeeded(client, &owed.id, rest(end))? => return end_of_scavenge(held, run),
            _ => {}
        }
        // A server that ignores `syncOnly` starts over whatever it is told; a full scavenge is what
        // it was running (O43, http-api §1.4).
        let extent =
            if version.has(facts::RESUMES_SCAVENGES) && !(old_server && version.is_development()) {
                ScavengeExtent::Unfinished
            } else {
                ScavengeExtent::Whole
            };
        let why = match client.start_scavenge(
            extent,
            owed.threads,
            owed.throttle_percent,
            rest(end),
        )? {
            ScavengeStart::Started(id) => {
                run.note(match extent {
                    ScavengeExtent::Unfinished => format!("scavenge {} goes on as {id}", owed.id),
                    ScavengeExtent::Whole => format!("scavenge {} starts over as {id}: this server cannot go on where it was stopped", owed.id),
                });
                break;
            }
            ScavengeStart::AlreadyRunning(_) => break,
            ScavengeStart::Refused(why) => why,
            // It may run: look again before asking again.
            ScavengeStart::NoAnswer => "the node does not answer".to_owned(),
        };
        if Instant::now() + poll >= end {
            return Err(Error::new(
                Kind::Failed,
                format!("scavenge {} could not be given back", owed.id),
            )
            .on(client.place())
            .because(why)
            .hint("it stays on record: run `kbackup release` later"));
        }
        std::thread::sleep(poll);
        poll = (poll * 2).min(LONGEST_POLL);
    }
    let after = held.clear_scavenge()?;
    run.emit(Event::GivenBack {
        what: SCAVENGE,
        after,
    });
    Ok(())
}

/// Nothing has to be given back of a scavenge that came to its own end, or never was stopped.
fn end_of_scavenge(held: &mut HeldRecord, run: &Run) -> Result<()> {
    let after = held.clear_scavenge()?;
    run.emit(Event::NothingToGiveBack {
        what: SCAVENGE,
        after,
    });
    Ok(())
}

/// Whether a scavenge would have stopped by now, if it had been told to. A clock that went back
/// says no.
fn is_long_ago(owed: &StoppedScavenge) -> bool {
    Duration::try_from(clock::now().duration_since(owed.since))
        .is_ok_and(|passed| passed >= LONGEST_STOP)
}

fn still_runs(owed: &StoppedScavenge) -> Error {
    if owed.told {
        return Error::new(
            Kind::Failed,
            format!("scavenge {} was told to stop and still runs", owed.id),
        )
        .hint("it stays on record: run `kbackup release` later");
    }
    Error::new(Kind::Failed, format!("scavenge {} still runs, and it is not known whether it was told to stop", owed.id))
        .because("the run that wanted to stop it died at that moment")
        .hint(format!(
            "it stays on record: run `kbackup release` again {} minutes after {}; what still runs then was not told. The next backup settles it, too",
            LONGEST_STOP.as_secs() / 60,
            owed.since.strftime("%Y-%m-%d %H:%M:%S UTC"),
        ))
}

fn give_back_auto_scavenge(
    client: &Client,
    held: &mut HeldRecord,
    end: Instant,
    run: &Run,
) -> Result<()> {
    if held.record().auto_scavenge.is_none() {
        return Ok(());
    }
    let mut poll = POLL;
    loop {
        let mut state = client.auto_scavenge(rest(end))?;
        let mut problem = None;
        if state == AutoScavenge::Paused {
            match client.resume_auto_scavenge(rest(end)) {
                Ok(AutoScavengeResume::Accepted) => state = client.auto_scavenge(rest(end))?,
                Ok(AutoScavengeResume::StillPausing) => state = AutoScavenge::Pausing,
                // Between two leaders (http-api §2.3).
                Err(error) if error.kind() == Kind::Failed => problem = Some(error),
                Err(error) => return Err(error),
            }
        }
        if !matches!(
            state,
            AutoScavenge::Paused | AutoScavenge::Pausing | AutoScavenge::Absent
        ) {
            break;
        }
        if state == AutoScavenge::Absent || Instant::now() + poll >= end {
            let error = Error::new(
                Kind::Failed,
                format!("auto-scavenge could not be resumed (it is {state})"),
            )
            .on(client.place())
            .hint(
                "it stays on record: run `kbackup release` later, or `POST /auto-scavenge/resume`",
            );
            return Err(match problem {
                Some(problem) => error.because(problem),
                None => error,
            });
        }
        std::thread::sleep(poll);
        poll = (poll * 2).min(LONGEST_POLL);
    }
    let after = held.clear_pause()?;
    run.emit(Event::GivenBack {
        what: AUTO_SCAVENGE,
        after,
    });
    Ok(())
}

/// What `kbackup release` is going to do.
#[derive(Debug, Clone)]
pub struct ReleasePlan {
    records: Vec<ListedRecord>,
}

/// One node in a [`ReleasePlan`], for people and for JSON.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PlannedRelease {
    /// The node's URL or socket.
    pub node: String,
    /// The advertised `host:port`.
    pub endpoint: Option<String>,
    /// Id of the scavenge that is to go on.
    pub scavenge: Option<String>,
    /// Auto-scavenge is to be resumed.
    pub auto_scavenge: bool,
    /// A run is at work and gives back by itself; left alone.
    pub in_use: bool,
}

impl PlannedRelease {
    /// What is owed, in words.
    #[must_use]
    pub fn what(&self) -> String {
        let scavenge = self
            .scavenge
            .as_ref()
            .map(|scavenge| format!("scavenge {scavenge}"));
        let auto_scavenge = self.auto_scavenge.then(|| "auto-scavenge".to_owned());
        scavenge
            .into_iter()
            .chain(auto_scavenge)
            .collect::<Vec<_>>()
            .join(" and ")
    }
}

/// What is owed to all nodes, or to the one that `node` names (URL, socket or advertised endpoint).
///
/// # Errors
/// What the state directory reports; [`Kind::NotFound`] never: nothing owed is an empty plan.
pub fn plan_release(records: &ReleaseRecords, node: Option<&str>) -> Result<ReleasePlan> {
    let mut records = records.records()?;
    records.retain(|record| node.is_none_or(|node| record.record.is_of(node)));
    Ok(ReleasePlan { records })
}

impl ReleasePlan {
    /// The nodes, in the order in which they are served.
    #[must_use]
    pub fn nodes(&self) -> Vec<PlannedRelease> {
        let planned = |record: &ListedRecord| PlannedRelease {
            node: record.record.node.to_string(),
            endpoint: record.record.node.endpoint.clone(),
            scavenge: record.record.scavenge.as_ref().map(|owed| owed.id.clone()),
            auto_scavenge: record.record.auto_scavenge.is_some(),
            in_use: record.in_use,
        };
        self.records.iter().map(planned).collect()
    }

    /// Gives back to each node that is not in use. `connect` finds a node again; the record holds
    /// no credentials.
    ///
    /// # Errors
    /// The first error; the other nodes are served nevertheless, and what could not be given back
    /// stays on record.
    pub fn execute(
        &self,
        records: &ReleaseRecords,
        connect: impl Fn(&ReleaseRecord) -> Result<Client>,
        run: &Run,
    ) -> Result<()> {
        let mut first = Ok(());
        for record in self.records.iter().filter(|record| !record.in_use) {
            run.check()?;
            let served = records.hold_listed(record).and_then(|held| {
                let Some(mut held) = held else {
                    return Ok(());
                };
                let client = connect(held.record())?;
                let session = Session::open(client, run)?;
                give_back(
                    session.client(),
                    session.version(),
                    &mut held,
                    GIVE_BACK_LIMIT,
                    run,
                )
            });
            if let Err(error) = served {
                if first.is_ok() {
                    first = Err(error);
                } else {
                    run.warn(error.to_string());
                }
            }
        }
        first
    }
}
