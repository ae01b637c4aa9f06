//! A running node on which no scavenge runs during the copy.

use std::path::PathBuf;

use super::borrowed::Borrowed;
use super::give_back::{GIVE_BACK_LIMIT, HASTY_LIMIT, give_back};
use super::guard::Guard;
use super::pause::{pause_auto_scavenge, settled_status};
use super::poll::Poll;
use super::scavenges::{RememberedScavenges, current_scavenge, fresh_scavenge_output};
use super::settings::QuiesceSettings;
use super::stop::{stop_scavenges, wait_for_auto_clean_up};
use crate::error::{Error, Kind, Result};
use crate::manifest::{Quiet, Scavenging};
use crate::node::release_record::{NodeFiles, ReleaseRecord};
use crate::node::release_records::ReleaseRecords;
use crate::node::{AutoScavenge, CurrentScavenge, Patience, Session};
use crate::run::Run;

/// Whether the source has stayed quiesced so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuiesceCheck {
    /// No scavenge ran since the source was quiesced.
    Undisturbed,
    /// A scavenge ran or may have run. The text says what happened.
    Disturbed(String),
}

/// A node that scavenges nothing until it is released. Dropping this value also releases the node;
/// a failure is then only a warning.
pub struct QuiescedOnline<'a> {
    session: &'a Session,
    run: &'a Run,
    settings: QuiesceSettings,
    db: Option<PathBuf>,
    /// `None` if nothing is asked of the node (`--no-quiesce`).
    borrowed: Option<Borrowed<'a>>,
    /// Gives back if this run hangs.
    guard: Option<Guard>,
    quiet: Quiet,
    before: RememberedScavenges,
    stopped: Option<String>,
    auto_paused: bool,
    /// The state of auto-scavenge when the node was quiesced for the first time.
    auto_found: Option<AutoScavenge>,
    is_released: bool,
}

/// Pauses auto-scavenge, stops a running scavenge, and waits until none runs. Everything is on
/// record in `records` before it is taken from the node.
///
/// `files` tells this node from others in the records. Servers before 22.10.1 show a scavenge by
/// the files that it writes into the db directory.
///
/// # Errors
/// [`Kind::Refused`] if the node has no admin API (`DisableAdminUi`), [`Kind::Locked`] while
/// another run quiesces this node, [`Kind::Unstable`] if scavenging does not stop within the
/// limits, [`Kind::Scavenging`] if a scavenge runs that may not be stopped. What was taken until
/// then is given back.
pub fn quiesce<'a>(
    session: &'a Session,
    records: &ReleaseRecords,
    files: &NodeFiles,
    settings: QuiesceSettings,
    run: &'a Run,
) -> Result<QuiescedOnline<'a>> {
    let mut quiesced = QuiescedOnline {
        session,
        run,
        db: files.db.clone(),
        borrowed: None,
        guard: None,
        quiet: Quiet::NotAsked,
        before: RememberedScavenges::default(),
        stopped: None,
        auto_paused: false,
        auto_found: None,
        is_released: false,
        settings,
    };
    if !quiesced.settings.quiesce {
        return Ok(quiesced);
    }

    check_admin_api(session, Patience::of(run))?;

    let mut borrowed = Borrowed::new(records.hold(session, files, run)?, run);
    quiesced.guard = Some(Guard::start(borrowed.custody(), session, run)?);
    borrowed.tell_earlier(quiesced.settings.max_pause)?;
    quiesced.borrowed = Some(borrowed);

    quiesced.stop_scavenging()?;
    Ok(quiesced)
}

fn check_admin_api(session: &Session, patience: Patience<'_>) -> Result<()> {
    session.check(patience)?;
    let client = session.client();
    if client.current_scavenge(patience)? != CurrentScavenge::AdminDisabled {
        return Ok(());
    }

    Err(Error::new(
        Kind::Refused,
        "the node has no admin API (`DisableAdminUi`): \
         its scavenges can neither be seen nor stopped",
    )
    .on(client.place())
    .hint(
        "switch it on, or make sure yourself that no scavenge runs during the backup, \
         and pass `--no-quiesce`",
    ))
}

impl QuiescedOnline<'_> {
    /// Quiesces the node again after [`QuiesceCheck::Disturbed`].
    ///
    /// # Errors
    /// As [`quiesce`].
    pub fn quiesce_again(&mut self) -> Result<()> {
        self.session.check(Patience::of(self.run))?;
        if self.borrowed.is_none() {
            return Ok(());
        }

        self.stop_scavenging()
    }

    /// Whether a scavenge has run since the node was quiesced (http-api §1.9).
    ///
    /// # Errors
    /// [`Kind::Unreachable`] if the node cannot be asked, [`Kind::Refused`] if another node
    /// answers.
    pub fn check_undisturbed(&self) -> Result<QuiesceCheck> {
        Ok(match self.disturbance()? {
            Some(what) => QuiesceCheck::Disturbed(what),
            None => QuiesceCheck::Undisturbed,
        })
    }

    /// What a manifest says about the node's scavenging.
    #[must_use]
    pub fn scavenging(&self) -> Scavenging {
        Scavenging {
            quiet: self.quiet,
            stopped: self.stopped.clone(),
            auto_paused: self.auto_paused,
            auto_found: self.auto_found.as_ref().map(ToString::to_string),
        }
    }

    /// What has to be given back to the node, for the copy in the repository. Returns `None` if
    /// nothing has to be given back.
    #[must_use]
    pub fn release_record(&self) -> Option<&ReleaseRecord> {
        let record = self.borrowed.as_ref()?.record();
        if record.is_empty() {
            None
        } else {
            Some(record)
        }
    }

    /// Gives back what was taken, even if the run was interrupted. After a signal it waits for the
    /// node for a shorter time, or for the time that the supervisor allows.
    ///
    /// # Errors
    /// [`Kind::Failed`] if something could not be given back; it stays on record.
    pub fn release(mut self) -> Result<()> {
        self.give_back()
    }

    fn give_back(&mut self) -> Result<()> {
        self.is_released = true;
        let Some(borrowed) = &mut self.borrowed else {
            return Ok(());
        };

        let limit = if self.run.is_hurried() {
            self.run.grace().unwrap_or(HASTY_LIMIT)
        } else {
            GIVE_BACK_LIMIT
        };
        let custody = borrowed.custody();
        let _turn = custody.turn();
        borrowed.begin_to_give_back(limit);
        let result = give_back(
            self.session.client(),
            self.session.version(),
            borrowed,
            limit,
        );

        // What is left stays on record for `kbackup release`.
        self.guard = None;
        result
    }

    fn stop_scavenging(&mut self) -> Result<()> {
        let patience = Patience::of(self.run);
        let client = self.session.client();
        let Some(borrowed) = &mut self.borrowed else {
            return Ok(());
        };

        borrowed.forget_what_others_gave_back();

        // Auto-scavenge first: it would start the next scavenge.
        let pause = pause_auto_scavenge(client, borrowed, &self.settings, patience)?;
        self.auto_paused = pause.is_ours;
        if self.auto_found.is_none() {
            self.auto_found = pause.found;
        }
        self.quiet = match client.current_scavenge(patience)? {
            CurrentScavenge::NotSupported => Quiet::Inferred,
            _ => Quiet::Confirmed,
        };

        if pause.was_at_work {
            wait_for_auto_clean_up(client, patience)?;
        }
        let stopped = stop_scavenges(client, borrowed, &self.settings, patience)?;
        if stopped.is_some() {
            self.stopped = stopped;
        }

        if borrowed.record().is_empty() {
            borrowed.stop_deadline();
        }
        self.before = RememberedScavenges::ask(self.session, patience)?;
        Ok(())
    }

    /// What happened since the node was quiesced, if a scavenge ran or may have run.
    fn disturbance(&self) -> Result<Option<String>> {
        let patience = Patience::of(self.run);
        match self.session.check(patience) {
            Err(error) if error.kind() == Kind::Unstable => {
                return Ok(Some(error.what().to_owned()));
            }
            result => result?,
        }
        let Some(borrowed) = &self.borrowed else {
            return Ok(None);
        };
        // A pause that is found now may be an operator's, and scavenging may have run before it.
        if borrowed.others_gave_back() {
            return Ok(Some(
                "somebody else has given scavenging back to the node".to_owned(),
            ));
        }

        let client = self.session.client();
        if let CurrentScavenge::Running(scavenge) = current_scavenge(client, patience)? {
            return Ok(Some(format!("scavenge {scavenge} was started")));
        }

        let now = RememberedScavenges::ask(self.session, patience)?;
        if now.differ_from(&self.before) {
            return Ok(Some("a scavenge ran during the copy".to_owned()));
        }

        // Servers that cannot be asked show a scavenge by its files alone.
        if let (Quiet::Inferred, Some(db)) = (self.quiet, &self.db)
            && let Some(file) = fresh_scavenge_output(db)?
        {
            let file = file.display();
            return Ok(Some(format!("a scavenge seems to run: there is {file}")));
        }

        self.auto_scavenge_began()
    }

    /// What auto-scavenge does that it did not do when the node was quiesced. A cycle that has
    /// begun may scavenge any node of the cluster, so it counts as a scavenge here.
    fn auto_scavenge_began(&self) -> Result<Option<String>> {
        let patience = Patience::of(self.run);
        let client = self.session.client();

        if self.auto_paused {
            let mut poll = Poll::new(self.settings.pause_within, patience);
            let state = settled_status(client, &mut poll)?.state;
            return Ok(match state {
                AutoScavenge::Paused => None,
                _ => Some(format!("auto-scavenge was resumed (it is {state})")),
            });
        }

        match client.auto_scavenge(patience) {
            Ok(state) if state.is_at_work() => {
                Ok(Some(format!("auto-scavenge began a cycle (it is {state})")))
            }
            // Without a leader no cycle begins (http-api §2.5), and a scavenge of this node would
            // have shown itself.
            Err(error) if error.kind() != Kind::Failed => Err(error),
            _ => Ok(None),
        }
    }
}

impl Drop for QuiescedOnline<'_> {
    fn drop(&mut self) {
        if self.is_released {
            return;
        }

        if let Err(error) = self.give_back() {
            let causes = error.causes().join(": ");
            self.run.warn(format!(
                "kbackup could not give back to the node what it stopped: {error}: {causes}; \
                 run `kbackup release`"
            ));
        }
    }
}
