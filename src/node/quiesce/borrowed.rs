//! What kbackup keeps from the node for a while: its record, its events, and its time limit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::custody::Custody;
use super::settings::QuiesceSettings;
use crate::clock;
use crate::error::Result;
use crate::event::Event;
use crate::node::held_record::HeldRecord;
use crate::node::release_record::ReleaseRecord;
use crate::node::{AutoScavenge, AutoScavengeStatus, ScavengeParameters};
use crate::run::{Deadline, Interruption, Run};

/// The names that events use.
const AUTO_SCAVENGE: &str = "auto-scavenge";
const SCAVENGE: &str = "scavenge";

/// What this run keeps from one node. It records each thing before it takes it, and reports each
/// change of the record as an event.
pub(super) struct Borrowed<'a> {
    held: HeldRecord,
    run: &'a Run,
    /// While something has to be given back: interrupts the run if that lasts for too long. The
    /// first value says when.
    deadline: Option<(Instant, Deadline)>,
    /// What the guard knows, if there is one.
    custody: Arc<Custody>,
}

impl<'a> Borrowed<'a> {
    pub(super) fn new(held: HeldRecord, run: &'a Run) -> Self {
        Self {
            held,
            run,
            deadline: None,
            custody: Arc::default(),
        }
    }

    /// What a guard needs to give back in place of this run.
    pub(super) fn custody(&self) -> Arc<Custody> {
        Arc::clone(&self.custody)
    }

    pub(super) fn into_held(self) -> HeldRecord {
        self.held
    }

    /// From here on this run gives back. `limit` is the time that it allows the node. Ends the time
    /// limit of the pause.
    pub(super) fn begin_to_give_back(&mut self, limit: Duration) {
        self.deadline = None;
        self.custody.run_gives_back(limit);
        self.forget_what_others_gave_back();
    }

    /// Whether somebody else has given back something that this run holds.
    pub(super) fn others_gave_back(&self) -> bool {
        self.held.left_by_others().is_some()
    }

    /// Forgets what the guard or an operator (`kbackup release --force`) has given back: what is
    /// stopped at the node by now is not this run's.
    pub(super) fn forget_what_others_gave_back(&mut self) {
        if let Some(left) = self.custody.left_by_guard() {
            self.held.others_have_left(left);
        }
        let Some(left) = self.held.left_by_others() else {
            return;
        };

        self.run.note(
            "somebody else has given back to the node what this run stopped, for example with \
             `kbackup release --force`: what is stopped there now is left as it is",
        );
        let (pause, scavenge) = self.held.others_have_left(left);
        for (what, after) in [(AUTO_SCAVENGE, pause), (SCAVENGE, scavenge)] {
            if let Some(after) = after {
                self.run.emit(Event::NothingToGiveBack { what, after });
            }
        }
        self.custody.note(&self.held);
        if self.held.record().is_empty() {
            self.stop_deadline();
        }
    }

    pub(super) fn record(&self) -> &ReleaseRecord {
        self.held.record()
    }

    pub(super) fn run(&self) -> &'a Run {
        self.run
    }

    /// Reports what an earlier run took and did not give back. The time limit starts now.
    pub(super) fn tell_earlier(&mut self, max_pause: Duration) -> Result<()> {
        let record = self.held.record();
        if record.is_empty() {
            return Ok(());
        }

        self.run.note(format!(
            "{}: an earlier run ended before it gave back what it stopped; \
             this run gives that back at its end",
            record.node
        ));
        // The earlier run has told of a cycle that it interrupted.
        if let Some(paused) = &record.auto_scavenge {
            self.tell_taken(AUTO_SCAVENGE, paused.since, false);
        }
        if let Some(stopped) = &record.scavenge {
            self.tell_taken(SCAVENGE, stopped.since, true);
        }

        self.custody.note(&self.held);
        self.start_deadline(Duration::ZERO, max_pause)
    }

    /// Puts a pause of auto-scavenge on record. The caller asks the node for the pause next.
    pub(super) fn take_auto_scavenge(
        &mut self,
        status: &AutoScavengeStatus,
        max_pause: Duration,
    ) -> Result<()> {
        let is_at_work = status.state != AutoScavenge::Waiting;
        // Until its next cycle would begin, a pause takes nothing from the node.
        let idle = match status.until_next_cycle {
            Some(until) if !is_at_work => until,
            _ => Duration::ZERO,
        };

        self.custody.check()?;
        self.start_deadline(idle, max_pause)?;
        if is_at_work {
            self.held.note_stop()?;
        }
        self.held.record_pause()?;
        self.custody.note(&self.held);
        self.tell_taken(AUTO_SCAVENGE, clock::now(), is_at_work);
        Ok(())
    }

    /// Puts a scavenge on record. The caller tells it to stop next. `told`: how it was started, as
    /// far as the node tells.
    pub(super) fn take_scavenge(
        &mut self,
        id: &str,
        told: ScavengeParameters,
        settings: &QuiesceSettings,
    ) -> Result<()> {
        self.custody.check()?;
        self.start_deadline(Duration::ZERO, settings.max_pause)?;
        self.held.note_stop()?;

        let earlier = &self.held.record().scavenge;
        // An earlier run may have stopped the same scavenge.
        let is_on_record = matches!(earlier, Some(stopped) if stopped.id == id);
        let (threads, throttle_percent) = settings.restart_with(told.threads);
        let replaced =
            self.held
                .record_scavenge(id, threads, throttle_percent, told.start_from_chunk)?;
        self.custody.note(&self.held);

        if let Some(after) = replaced {
            self.run.emit(Event::NothingToGiveBack {
                what: SCAVENGE,
                after,
            });
        }
        if !is_on_record {
            self.tell_taken(SCAVENGE, clock::now(), true);
        }
        Ok(())
    }

    /// Notes that the scavenge on record has been told to stop.
    pub(super) fn scavenge_was_told(&mut self) -> Result<()> {
        self.held.record_stop_request()?;
        self.custody.note(&self.held);
        Ok(())
    }

    /// Notes that the scavenge on record runs again.
    pub(super) fn gave_back_scavenge(&mut self) -> Result<()> {
        let after = self.held.clear_scavenge()?;
        self.custody.note(&self.held);
        self.run.emit(Event::GivenBack {
            what: SCAVENGE,
            after,
        });
        Ok(())
    }

    /// Notes that the scavenge on record had finished, or was never stopped.
    pub(super) fn scavenge_needs_nothing(&mut self) -> Result<()> {
        let after = self.held.clear_scavenge()?;
        self.custody.note(&self.held);
        self.run.emit(Event::NothingToGiveBack {
            what: SCAVENGE,
            after,
        });
        Ok(())
    }

    /// Notes that auto-scavenge is no longer paused.
    pub(super) fn gave_back_auto_scavenge(&mut self) -> Result<()> {
        let after = self.held.clear_pause()?;
        self.custody.note(&self.held);
        self.run.emit(Event::GivenBack {
            what: AUTO_SCAVENGE,
            after,
        });
        Ok(())
    }

    /// Ends the time limit, because nothing has to be given back.
    pub(super) fn stop_deadline(&mut self) {
        self.deadline = None;
        self.custody.limit(None);
    }

    /// Starts the time limit with the first thing that is taken. What is taken later can only end
    /// it earlier. The time `limit` begins after the time `idle`.
    fn start_deadline(&mut self, idle: Duration, limit: Duration) -> Result<()> {
        let total = idle.saturating_add(limit);
        let end = Instant::now().checked_add(total);
        if let Some((earlier, _)) = &self.deadline
            && end.is_none_or(|end| *earlier <= end)
        {
            return Ok(());
        }

        let too_long = Interruption::PausedTooLong { limit };
        let deadline = self.run.deadline(total, too_long)?;
        // A time that no clock reaches is never over.
        self.deadline = end.map(|end| (end, deadline));
        self.custody.limit(end);
        Ok(())
    }

    fn tell_taken(&self, what: &'static str, since: clock::Timestamp, interrupted: bool) {
        self.run.emit(Event::Taken {
            what,
            since,
            interrupted,
        });
    }
}
