//! Watches one run: remembers what happens in it, and writes it into the log.
//!
//! The run's threads report here. The agent's loop reads the state when it publishes the status.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::run_record::{Job, Pause, Trigger};
use super::status::RunningJob;
use crate::clock::{self, Timestamp};
use crate::event::{Event, Observer, Step};
use crate::verbs::log;

/// The observer of one run.
pub(super) struct RunRecorder {
    pub job: Job,
    pub trigger: Trigger,
    pub began: Timestamp,
    state: Mutex<RunState>,
    /// Called when the run takes another step, or stops or gives back scavenging.
    on_step: Box<dyn Fn() + Send + Sync>,
}

/// How far the run has come.
#[derive(Debug)]
struct RunState {
    step: Step,
    /// Bytes handled in this step.
    done: u64,
    /// Bytes that this step has to handle. 0 if that is not known.
    expected: u64,
    retries: Vec<String>,
    /// What the run stopped at the node and has given back.
    pauses: Vec<Pause>,
    /// What is stopped at the node now.
    held: BTreeMap<&'static str, Held>,
}

/// Something that is stopped at the node now.
#[derive(Debug, Clone, Copy)]
struct Held {
    since: Timestamp,
    /// A scavenge was interrupted.
    interrupted: bool,
}

impl RunRecorder {
    pub(super) fn new(
        job: Job,
        trigger: Trigger,
        on_step: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let state = RunState {
            step: Step::Preflight,
            done: 0,
            expected: 0,
            retries: Vec::new(),
            pauses: Vec::new(),
            held: BTreeMap::new(),
        };

        Self {
            job,
            trigger,
            began: clock::now(),
            state: Mutex::new(state),
            on_step: Box::new(on_step),
        }
    }

    fn state(&self) -> MutexGuard<'_, RunState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn running(&self) -> RunningJob {
        let state = self.state();

        RunningJob {
            job: self.job,
            began: self.began,
            step: state.step.name().to_owned(),
            done: state.done,
            expected: state.expected,
            holds: state.held.keys().map(|what| (*what).to_owned()).collect(),
            still_since: None,
        }
    }

    /// Why the procedure started over, once per attempt.
    pub(super) fn retries(&self) -> Vec<String> {
        self.state().retries.clone()
    }

    /// What the run stopped at the node, also what it has not given back.
    pub(super) fn pauses(&self) -> Vec<Pause> {
        let state = self.state();

        let mut pauses = state.pauses.clone();
        for (what, held) in &state.held {
            pauses.push(Pause {
                what: (*what).to_owned(),
                began: held.since,
                milliseconds: None,
                interrupted: held.interrupted,
            });
        }

        pauses
    }
}

impl RunState {
    fn gave_back(&mut self, what: &'static str, after: Duration) {
        // The run also gives back what an earlier run stopped. It does not know since when.
        let held = self.held.remove(what).unwrap_or_else(|| Held {
            since: clock::now(),
            interrupted: false,
        });
        let milliseconds = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);

        self.pauses.push(Pause {
            what: what.to_owned(),
            began: held.since,
            milliseconds: Some(milliseconds),
            interrupted: held.interrupted,
        });
    }
}

impl Observer for RunRecorder {
    fn observe(&self, event: &Event) {
        let mut state = self.state();
        match event {
            Event::Step(step) => (state.step, state.done, state.expected) = (*step, 0, 0),
            Event::Expected { bytes, .. } => state.expected = *bytes,
            Event::Progress { bytes } => state.done = state.done.saturating_add(*bytes),
            Event::Retry { reason, .. } => state.retries.push(reason.clone()),
            Event::Taken {
                what,
                since,
                interrupted,
            } => {
                let held = Held {
                    since: *since,
                    interrupted: *interrupted,
                };
                state.held.insert(what, held);
            }
            Event::GivenBack { what, after } => state.gave_back(what, *after),
            Event::NothingToGiveBack { what, .. } => drop(state.held.remove(what)),
            _ => {}
        }
        drop(state);

        // The page shows these at once. Other events may come thousands of times in a run.
        match event {
            Event::Step(_)
            | Event::Taken { .. }
            | Event::GivenBack { .. }
            | Event::NothingToGiveBack { .. } => (self.on_step)(),
            _ => {}
        }
        log::tell(event);
    }
}
