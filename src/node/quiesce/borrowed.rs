//! What kbackup keeps from the node for a while: its record, its events, and its time limit.

use std::time::Duration;

use super::settings::QuiesceSettings;
use crate::clock;
use crate::error::Result;
use crate::event::Event;
use crate::node::release_record::{HeldRecord, ReleaseRecord};
use crate::run::{Deadline, Interruption, Run};

/// The names that events use.
const AUTO_SCAVENGE: &str = "auto-scavenge";
const SCAVENGE: &str = "scavenge";

/// What this run keeps from one node. It records each thing before it takes it, and reports each
/// change of the record as an event.
pub(super) struct Borrowed<'a> {
    held: HeldRecord,
    run: &'a Run,
    /// While something has to be given back: interrupts the run if that lasts for too long.
    deadline: Option<Deadline>,
}

impl<'a> Borrowed<'a> {
    pub(super) fn new(held: HeldRecord, run: &'a Run) -> Self {
        Self {
            held,
            run,
            deadline: None,
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
        if let Some(paused) = &record.auto_scavenge {
            self.tell_taken(AUTO_SCAVENGE, paused.since);
        }
        if let Some(stopped) = &record.scavenge {
            self.tell_taken(SCAVENGE, stopped.since);
        }

        self.start_deadline(max_pause)
    }

    /// Puts a pause of auto-scavenge on record. The caller asks the node for the pause next.
    pub(super) fn take_auto_scavenge(&mut self, max_pause: Duration) -> Result<()> {
        self.start_deadline(max_pause)?;
        self.held.record_pause()?;
        self.tell_taken(AUTO_SCAVENGE, clock::now());
        Ok(())
    }

    /// Puts a scavenge on record. The caller tells it to stop next.
    pub(super) fn take_scavenge(&mut self, id: &str, settings: &QuiesceSettings) -> Result<()> {
        self.start_deadline(settings.max_pause)?;

        let earlier = &self.held.record().scavenge;
        // An earlier run may have stopped the same scavenge.
        let is_on_record = matches!(earlier, Some(stopped) if stopped.id == id);
        let replaced =
            self.held
                .record_scavenge(id, settings.threads, settings.throttle_percent)?;

        if let Some(after) = replaced {
            self.run.emit(Event::NothingToGiveBack {
                what: SCAVENGE,
                after,
            });
        }
        if !is_on_record {
            self.tell_taken(SCAVENGE, clock::now());
        }
        Ok(())
    }

    /// Notes that the scavenge on record has been told to stop.
    pub(super) fn scavenge_was_told(&mut self) -> Result<()> {
        self.held.record_stop_request()
    }

    /// Notes that the scavenge on record runs again.
    pub(super) fn gave_back_scavenge(&mut self) -> Result<()> {
        let after = self.held.clear_scavenge()?;
        self.run.emit(Event::GivenBack {
            what: SCAVENGE,
            after,
        });
        Ok(())
    }

    /// Notes that the scavenge on record had finished, or was never stopped.
    pub(super) fn scavenge_needs_nothing(&mut self) -> Result<()> {
        let after = self.held.clear_scavenge()?;
        self.run.emit(Event::NothingToGiveBack {
            what: SCAVENGE,
            after,
        });
        Ok(())
    }

    /// Notes that auto-scavenge is no longer paused.
    pub(super) fn gave_back_auto_scavenge(&mut self) -> Result<()> {
        let after = self.held.clear_pause()?;
        self.run.emit(Event::GivenBack {
            what: AUTO_SCAVENGE,
            after,
        });
        Ok(())
    }

    /// Ends the time limit: from here on kbackup gives everything back anyway.
    pub(super) fn stop_deadline(&mut self) {
        self.deadline = None;
    }

    /// Starts the time limit with the first thing that is taken.
    fn start_deadline(&mut self, limit: Duration) -> Result<()> {
        if self.deadline.is_none() {
            let too_long = Interruption::PausedTooLong { limit };
            self.deadline = Some(self.run.deadline(limit, too_long)?);
        }
        Ok(())
    }

    fn tell_taken(&self, what: &'static str, since: clock::Timestamp) {
        self.run.emit(Event::Taken { what, since });
    }
}
