//! What the run that keeps something from a node and its guard both know.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result};
use crate::node::held_record::HeldRecord;
use crate::node::release_record::ReleaseRecord;

/// How long a run has to begin giving back itself.
const MOMENT: Duration = Duration::from_secs(5);
/// When the guard tries again what it could not give back.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// What the run and its guard both know.
#[derive(Debug, Default)]
pub(super) struct Custody {
    state: Mutex<CustodyState>,
    /// Held by whoever gives back, so that never both do.
    turn: Mutex<()>,
}

#[derive(Debug, Default)]
struct CustodyState {
    /// The record as the run last wrote it. `None` if nothing has to be given back.
    record: Option<HeldRecord>,
    /// When the guard gives back.
    due: Option<Instant>,
    /// The guard has begun to give back. The run takes nothing any more.
    guard_acts: bool,
    /// What the guard has left on record, once it has ended.
    left: Option<ReleaseRecord>,
}

impl Custody {
    fn state(&self) -> MutexGuard<'_, CustodyState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The run has changed the record.
    pub(super) fn note(&self, held: &HeldRecord) {
        let record = held.record();
        let copy = (!record.is_empty()).then(|| held.for_guard(record.clone()));
        self.state().record = copy;
    }

    /// The pause ends at `end`. `None`: it has no end.
    pub(super) fn limit(&self, end: Option<Instant>) {
        self.state().due = end.and_then(|end| end.checked_add(MOMENT));
    }

    /// Fails if the guard has begun to give back, because the run hung.
    pub(super) fn check(&self) -> Result<()> {
        if !self.state().guard_acts {
            return Ok(());
        }

        Err(Error::new(
            Kind::Unstable,
            "kbackup has given scavenging back to the node, because this run hung",
        )
        .hint("check that the disks of the repository and of the node answer"))
    }

    /// The run gives back now, and allows the node about the time `limit` for each thing.
    pub(super) fn run_gives_back(&self, limit: Duration) {
        let needed = limit.saturating_mul(3).saturating_add(MOMENT);
        self.state().due = Instant::now().checked_add(needed);
    }

    /// What the guard has left on record, if it has given back since the last call.
    pub(super) fn left_by_guard(&self) -> Option<ReleaseRecord> {
        self.state().left.take()
    }

    /// The turn to give back. Waits for the guard if that is at it.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The run was told to end: it has a moment to give back.
    pub(super) fn told_to_end(&self) {
        let mut state = self.state();
        let soon = Instant::now().checked_add(MOMENT);
        state.due = match (state.due, soon) {
            (Some(due), Some(soon)) => Some(due.min(soon)),
            (due, soon) => due.or(soon),
        };
    }

    /// Keeps the run from giving back, unless it is at it.
    pub(super) fn try_turn(&self) -> Option<MutexGuard<'_, ()>> {
        self.turn.try_lock().ok()
    }

    /// The guard has given back, and `held` says what it could not. It tries that again later.
    pub(super) fn guard_has_given_back(&self, held: HeldRecord) {
        let left = held.record().clone();
        let mut state = self.state();
        if !left.is_empty() {
            state.record = Some(held);
            state.due = Instant::now().checked_add(TRY_AGAIN);
        }
        state.left = Some(left);
    }

    /// Takes what the guard has to give back now.
    pub(super) fn take_if_due(&self) -> Option<HeldRecord> {
        let mut state = self.state();
        if state.due.is_none_or(|due| Instant::now() < due) {
            return None;
        }

        let record = state.record.take()?;
        state.guard_acts = true;
        Some(record)
    }
}
