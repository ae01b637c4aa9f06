//! What kbackup takes from the node for a while: the record of it, the events about it, and how
//! long that may last.

use std::time::Duration;

use super::settings::QuiesceSettings;
use crate::clock;
use crate::error::Result;
use crate::event::Event;
use crate::node::release_record::{HeldRecord, ReleaseRecord};
use crate::run::{Deadline, Interruption, Run};

/// What is taken from a node, in events.
const AUTO_SCAVENGE: &str = "auto-scavenge";
const SCAVENGE: &str = "scavenge";

/// What is taken from one node. It stands on record before it is taken, and each change of the
/// record is told to the run.
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

    /// Tells what an earlier run took and did not give back. Its time counts from now.
    pub(super) fn tell_earlier(&mut self, max_pause: Duration) -> Result<()> {
        let record = self.held.record();
        if record.is_empty() {
            return Ok(());
        }

        self.run.note(format!(
            "{}: an earlier run ended without giving back what it took; \
             it is given back with the end of this one",
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

    /// Puts a pause of auto-scavenge on record, which is asked for next.
    pub(super) fn take_auto_scavenge(&mut self, max_pause: Duration) -> Result<()> {
        self.start_deadline(max_pause)?;
        self.held.record_pause()?;
        self.tell_taken(AUTO_SCAVENGE, clock::now());
        Ok(())
    }

    /// Puts a scavenge on record, which is told to stop next.
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

    /// The scavenge on record has been told to stop.
    pub(super) fn scavenge_was_told(&mut self) -> Result<()> {
        self.held.record_stop_request()
    }

    /// The scavenge on record runs again.
    pub(super) fn gave_back_scavenge(&mut self) -> Result<()> {
        let after = self.held.clear_scavenge()?;
        self.run.emit(Event::GivenBack {
            what: SCAVENGE,
            after,
        });
        Ok(())
    }

    /// The scavenge on record came to its own end, or never was stopped.
    pub(super) fn scavenge_needs_nothing(&mut self) -> Result<()> {
        let after = self.held.clear_scavenge()?;
        self.run.emit(Event::NothingToGiveBack {
            what: SCAVENGE,
            after,
        });
        Ok(())
    }

    /// Auto-scavenge is no longer paused.
    pub(super) fn gave_back_auto_scavenge(&mut self) -> Result<()> {
        let after = self.held.clear_pause()?;
        self.run.emit(Event::GivenBack {
            what: AUTO_SCAVENGE,
            after,
        });
        Ok(())
    }

    /// From here on the node may be without its scavenging for as long as it needs to be.
    pub(super) fn stop_deadline(&mut self) {
        self.deadline = None;
    }

    /// The time runs from the first thing that is taken.
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
