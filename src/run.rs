//! The context of every long operation: the observer of its events, its interruption, its pace, its
//! timings, and its warnings so far.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::error::{Cause, Error, Kind, Result, Signal};
use crate::event::{Event, Observer};
use crate::pace::{Pace, Rate};
use crate::pulse::Pulse;
use crate::timings::{Activity, Timings};

/// The context of one run. All its threads share it.
pub struct Run {
    reporter: Reporter,
    end: RunEnd,
    pace: Pace,
    timings: Timings,
    grace: Option<Duration>,
    pulse: Pulse,
}

/// Reports the events of a run. A thread that may outlast a step of the run has one of its own.
#[derive(Clone)]
pub struct Reporter {
    observer: Arc<dyn Observer>,
    warnings: Arc<Mutex<Vec<String>>>,
}

impl Reporter {
    /// Reports an event to the observer. Keeps warnings, too.
    pub fn emit(&self, event: Event) {
        self.observer.observe(&event);

        if let Event::Warning(text) = event
            && let Ok(mut warnings) = self.warnings.lock()
        {
            warnings.push(text);
        }
    }
}

impl Run {
    /// A run that reports to `observer`.
    pub fn new(observer: impl Observer + 'static) -> Self {
        let end = RunEnd::default();
        let pulse = Pulse::default();
        let pace = Pace::new(None, end.cancel.clone()).beating(pulse.clone());
        Self {
            reporter: Reporter {
                observer: Arc::new(observer),
                warnings: Arc::default(),
            },
            end,
            pace,
            timings: Timings::default(),
            grace: None,
            pulse,
        }
    }

    /// The same run, which may use this time after a signal to give back to the node what it
    /// stopped. Its supervisor waits that long.
    #[must_use]
    pub const fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// How long giving back may take after a signal, if the supervisor allows a certain time.
    #[must_use]
    pub const fn grace(&self) -> Option<Duration> {
        self.grace
    }

    /// Reports events from a thread that may outlast a step of the run.
    #[must_use]
    pub fn reporter(&self) -> Reporter {
        self.reporter.clone()
    }

    /// The same run with a budget: all its threads together read, copy and hash no more bytes in a
    /// second than this.
    #[must_use]
    pub fn limited_to(mut self, rate: Option<Rate>) -> Self {
        self.pace = Pace::new(rate, self.end.cancel.clone()).beating(self.pulse.clone());
        self
    }

    /// The same run at low priority: it uses the disk with one thread at a time, and leaves it to
    /// others after each piece.
    #[must_use]
    pub fn at_low_priority(mut self) -> Self {
        self.pace = self.pace.at_low_priority();
        self
    }

    /// The budget of bytes.
    #[must_use]
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Where the time of the run goes.
    #[must_use]
    pub fn timings(&self) -> &Timings {
        &self.timings
    }

    /// Does work that uses the disk, and counts its time. At low priority it first waits for its
    /// turn.
    pub fn in_turn<T>(&self, activity: Activity, work: impl FnOnce() -> T) -> T {
        self.pace.in_turn(|| self.timings.time(activity, work))
    }

    /// Whether the work goes on: the run did something since this was asked last, or waited on
    /// purpose.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.pulse.has_beaten()
    }

    /// Reports an event to the observer. Keeps warnings, too.
    pub fn emit(&self, event: Event) {
        self.pulse.beat();
        if let Event::Step(step) = event {
            self.timings.begin(step.name());
        }

        self.reporter.emit(event);
    }

    /// Warns the operator of something that leaves the result usable.
    pub fn warn(&self, text: impl Into<String>) {
        self.emit(Event::Warning(text.into()));
    }

    /// Writes a line into the log.
    pub fn note(&self, text: impl Into<String>) {
        self.emit(Event::Note(text.into()));
    }

    /// The warnings so far.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        match self.reporter.warnings.lock() {
            Ok(warnings) => warnings.clone(),
            Err(_) => Vec::new(),
        }
    }

    /// Asks the run to end soon and cleanly. The first reason counts. The end of a window or of a
    /// time limit is ignored once the run is [almost done](Self::almost_done).
    pub fn interrupt(&self, interruption: impl Into<Interruption>) {
        self.end.interrupt(interruption.into());
    }

    /// Interrupts the run after `limit`, by the monotonic clock, unless the returned value is
    /// dropped before.
    ///
    /// # Errors
    /// [`Kind::Failed`] if the system gives no thread for it.
    pub fn deadline(&self, limit: Duration, interruption: Interruption) -> Result<Deadline> {
        let (disarm, disarmed) = mpsc::channel();
        let end = self.end.clone();
        std::thread::Builder::new()
            .name("deadline".to_owned())
            .spawn(move || {
                if disarmed.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                    end.interrupt(interruption);
                }
            })
            .map_err(|error| Error::new(Kind::Failed, "cannot watch the time").because(error))?;

        Ok(Deadline { _disarm: disarm })
    }

    /// Whether a signal came. Then an operator or a supervisor waits for the run to end.
    #[must_use]
    pub fn is_hurried(&self) -> bool {
        self.end.state().signal_came
    }

    /// Tells the run that so little is left to do that the end of a window or of a time limit must
    /// not waste it. Signals still end the run.
    ///
    /// # Errors
    /// [`Kind::Interrupted`] if the run was already asked to end.
    pub fn almost_done(&self) -> Result<()> {
        let mut state = self.end.state();
        state.is_almost_done = true;
        match &state.interruption {
            Some(interruption) => Err(interruption.into()),
            None => Ok(()),
        }
    }

    /// Is cancelled once the run was asked to end, for asynchronous waits.
    #[must_use]
    pub fn cancelled(&self) -> &CancellationToken {
        &self.end.cancel
    }

    /// What ends the run, for work that cannot borrow the run itself.
    #[must_use]
    pub fn end(&self) -> RunEnd {
        self.end.clone()
    }

    /// Fails once the run was asked to end. Called between any two pieces of work, so it also says
    /// that the work goes on.
    ///
    /// # Errors
    /// [`Kind::Interrupted`], with the first reason.
    pub fn check(&self) -> Result<()> {
        self.pulse.beat();
        self.end.check()
    }

    /// Sleeps, but not beyond an interruption.
    ///
    /// # Errors
    /// [`Kind::Interrupted`] once the run was asked to end.
    pub fn pause(&self, duration: Duration) -> Result<()> {
        const NOTICED: Duration = Duration::from_millis(50);

        let end = Instant::now() + duration;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(NOTICED));
        }
    }
}

/// Why a run is told to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interruption {
    /// A signal came.
    Signal(Signal),
    /// The hours in which the run is allowed are over.
    WindowClosed {
        /// The hours, as they were written: `22:00-05:00`.
        window: String,
        /// When they begin next, for people.
        opens: String,
    },
    /// The node was without its scavenging for longer than is allowed.
    PausedTooLong {
        /// The longest time that is allowed.
        limit: Duration,
    },
    /// A backup is due, and goes before a verification.
    BackupDue,
}

impl Interruption {
    /// Whether it is ignored once the run is almost done.
    const fn may_come_too_late(&self) -> bool {
        matches!(self, Self::WindowClosed { .. } | Self::PausedTooLong { .. })
    }
}

impl From<Signal> for Interruption {
    fn from(signal: Signal) -> Self {
        Self::Signal(signal)
    }
}

impl From<&Interruption> for Error {
    fn from(interruption: &Interruption) -> Self {
        match interruption {
            Interruption::Signal(signal) => {
                Self::new(Kind::Interrupted(Cause::Signal(*signal)), "interrupted").hint(
                    "run the same command again: it continues where it stopped; \
                     nothing incomplete is listed",
                )
            }

            Interruption::WindowClosed { window, opens } => Self::new(
                Kind::Interrupted(Cause::WindowClosed),
                format!("the window {window} is closed"),
            )
            .hint(format!(
                "it opens at {opens}: run the same command then, \
                 and it continues where this run stopped"
            )),

            Interruption::BackupDue => Self::new(
                Kind::Interrupted(Cause::BackupDue),
                "a backup is due and goes first; the verification continues after it",
            ),

            Interruption::PausedTooLong { limit } => Self::new(
                Kind::Interrupted(Cause::PausedTooLong),
                format!(
                    "scavenging was kept from the node for {}, the longest time that is allowed",
                    clock::length(*limit)
                ),
            )
            .hint("run the same command again: it continues where this run stopped")
            .hint(
                "if the time is never enough, raise the rate with `--limit-rate`, \
                 or the time with `--max-pause`",
            ),
        }
    }
}

/// Interrupts a run after its time limit, unless it is dropped before.
#[derive(Debug)]
pub struct Deadline {
    _disarm: mpsc::Sender<()>,
}

/// Ends a run. Signals, windows and time limits share it.
#[derive(Debug, Clone, Default)]
pub struct RunEnd {
    cancel: CancellationToken,
    state: Arc<Mutex<RunEndState>>,
}

/// Why a run was interrupted, and what may still interrupt it.
#[derive(Debug, Default)]
struct RunEndState {
    /// The first interruption.
    interruption: Option<Interruption>,
    /// So little is left to do that only signals end the run.
    is_almost_done: bool,
    /// A signal came, first or later.
    signal_came: bool,
}

impl RunEnd {
    /// Fails once the run was asked to end, as [`Run::check`] does.
    ///
    /// # Errors
    /// [`Kind::Interrupted`], with the first reason.
    pub fn check(&self) -> Result<()> {
        if !self.cancel.is_cancelled() {
            return Ok(());
        }

        match &self.state().interruption {
            Some(interruption) => Err(interruption.into()),
            None => Err((&Interruption::Signal(Signal::Interrupt)).into()),
        }
    }

    /// Is cancelled once the run was asked to end, for asynchronous waits.
    #[must_use]
    pub fn cancelled(&self) -> &CancellationToken {
        &self.cancel
    }

    fn state(&self) -> MutexGuard<'_, RunEndState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn interrupt(&self, interruption: Interruption) {
        let mut state = self.state();
        if state.is_almost_done && interruption.may_come_too_late() {
            return;
        }

        state.signal_came |= matches!(interruption, Interruption::Signal(_));
        state.interruption.get_or_insert(interruption);
        self.cancel.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Silent;

    fn closed() -> Interruption {
        Interruption::WindowClosed {
            window: "22:00-05:00".to_owned(),
            opens: "2026-03-01 22:00".to_owned(),
        }
    }

    #[test]
    fn the_first_reason_stands() {
        let run = Run::new(Silent);
        assert!(run.check().is_ok());
        run.interrupt(closed());
        run.interrupt(Signal::Interrupt);
        let error = run.check().unwrap_err();
        assert_eq!(
            (error.kind(), error.kind().exit_code()),
            (Kind::Interrupted(Cause::WindowClosed), 143)
        );
        assert_eq!(error.to_string(), "the window 22:00-05:00 is closed");
        assert!(
            error.hints().concat().contains("2026-03-01 22:00"),
            "{:?}",
            error.hints()
        );
    }

    #[test]
    fn a_window_that_closes_leaves_a_run_alone_that_is_almost_done() {
        let run = Run::new(Silent);
        run.almost_done().unwrap();
        run.interrupt(closed());
        run.check().unwrap();
        run.interrupt(Signal::Terminate);
        assert_eq!(
            run.check().unwrap_err().kind(),
            Kind::Interrupted(Cause::Signal(Signal::Terminate))
        );
    }

    const LIMIT: Duration = Duration::from_millis(30);

    fn too_long() -> Interruption {
        Interruption::PausedTooLong { limit: LIMIT }
    }

    #[test]
    fn a_deadline_ends_the_run_and_its_waits() {
        let run = Run::new(Silent);
        let deadline = run.deadline(LIMIT, too_long()).unwrap();

        let error = run.pause(Duration::from_secs(60)).unwrap_err();
        assert_eq!(
            (error.kind().name(), error.kind().exit_code()),
            ("paused-too-long", 22)
        );
        assert!(
            error.hints().concat().contains("--max-pause"),
            "{:?}",
            error.hints()
        );
        drop(deadline);

        assert!(!run.is_hurried());
        run.interrupt(Signal::Terminate);
        assert!(run.is_hurried());
        assert_eq!(
            run.check().unwrap_err().kind(),
            Kind::Interrupted(Cause::PausedTooLong)
        );
    }

    #[test]
    fn a_deadline_comes_too_late_once_it_is_dropped_or_the_run_is_almost_done() {
        let run = Run::new(Silent);
        // So long that a busy machine comes to the drop before it has passed.
        let limit = Duration::from_millis(500);
        drop(run.deadline(limit, too_long()).unwrap());
        run.pause(limit + LIMIT).unwrap();
        run.almost_done().unwrap();
        let deadline = run.deadline(LIMIT, too_long()).unwrap();
        run.pause(LIMIT * 4).unwrap();
        drop(deadline);
    }

    #[test]
    fn a_deadline_may_be_farther_than_any_clock_reaches() {
        let run = Run::new(Silent);
        let deadline = run.deadline(Duration::MAX, too_long()).unwrap();
        run.pause(LIMIT).unwrap();
        drop(deadline);
    }

    #[test]
    fn a_run_that_works_or_waits_on_purpose_goes_on() {
        let run = Run::new(Silent).limited_to(Rate::new(Rate::LOWEST));
        assert!(!run.goes_on());

        run.check().unwrap();
        assert!(run.goes_on() && !run.goes_on());
        run.emit(Event::Progress { bytes: 1 });
        assert!(run.goes_on());

        for wait in [
            |run: &Run| run.pause(LIMIT).unwrap(),
            |run: &Run| run.pace().spend(Rate::LOWEST),
        ] {
            wait(&run);
            assert!(run.goes_on() && !run.goes_on());
        }
    }

    #[test]
    fn a_window_that_closed_before_ends_the_run() {
        let run = Run::new(Silent);
        run.interrupt(closed());
        assert_eq!(
            run.almost_done().unwrap_err().kind(),
            Kind::Interrupted(Cause::WindowClosed)
        );
    }
}
