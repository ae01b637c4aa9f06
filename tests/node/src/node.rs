//! The node itself: a recording that is replayed step by step, with a scavenge's state machine on
//! top.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use uuid::Uuid;

use crate::api::Request;
use crate::quirks::{AutoScavenge, AutoScavengeState, Quirks};
use crate::recording::{
    Acknowledged, Action, Checkpoint, Lock, Mark, RecordedScavenge, Recording, Version, number,
};
use crate::replay::Target;
use crate::streams::Event;

/// How fast the recording goes on in the background.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// So many times the speed of the recording: 1.0 is real time.
    Times(f64),
    /// Without any pause.
    Fastest,
}

/// Where the node is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The process runs and is not ready: `/health/live` says 503.
    Starting,
    /// It answers.
    Ready,
    /// No process: no connection is accepted and no lock is held.
    Down,
}

/// How a scavenge ended, as `/admin/scavenge/last` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It runs.
    InProgress,
    /// It came to its end.
    Success,
    /// It was stopped.
    Stopped,
}

impl Outcome {
    /// Its name in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InProgress => "InProgress",
            Self::Success => "Success",
            Self::Stopped => "Stopped",
        }
    }
}

/// What makes a scavenge end.
#[derive(Debug, Clone, Copy)]
enum Ends {
    /// The recording's step `end`.
    Recorded(usize),
    /// The clock.
    At(Instant),
    /// Only a DELETE.
    Never,
    /// A DELETE has stopped it; `current` is empty from this moment on.
    Cleaned(Instant),
}

#[derive(Debug, Clone, Copy)]
struct Scavenge {
    id: Uuid,
    ends: Ends,
}

/// A node that lives through a recording.
///
/// Steps are counted from 0; the node *is at* step `n` when `n` steps have been done. A handle is
/// cheap to clone, and all clones are the same node. All methods may be called from any thread.
///
/// # Locks
/// While the process of the recording runs, its `flock`s are held, so that a probe says busy (O6).
/// `kurrent.ddb` is locked with `fcntl`, which only *other processes* can see, and which goes when
/// any descriptor of that file is closed in this one.
///
/// # Scavenges
/// A scavenge of the recording runs from the moment it was asked for until `current` became empty,
/// while appends go on. While the node is *quiet*, a scavenge of the recording does not begin: the
/// replay waits at that step, and the appends after it wait as well. The node is quiet
/// * after [`quiet(true)`](Node::quiet) until `quiet(false)`;
/// * after a client stopped a scavenge (DELETE) until a client gives it back (`POST
///   /admin/scavenge`);
/// * while auto-scavenge is paused;
/// * within [`Quirks::quiet_interval`] after a client asked for `current`.
///
/// A DELETE brings a running scavenge of the recording to its end: the rest of its steps is done as
/// fast as possible, even if the node is held, the last of them only when `current` becomes empty,
/// [`Quirks::cancel_delay`] after the answer.
#[derive(Clone)]
pub struct Node {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) recording: Arc<Recording>,
    root: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
    quirks: Mutex<Quirks>,
    requests: Mutex<Requests>,
    pub(crate) reachable: Arc<AtomicBool>,
}

#[derive(Default)]
struct Requests {
    /// With the number that its answer refers to.
    received: Vec<(u64, Request)>,
    next: u64,
}

struct State {
    step: usize,
    target: Target,
    phase: Phase,
    instance_id: Uuid,
    started_at: SystemTime,
    starts: u32,
    held: bool,
    hold_at: Option<usize>,
    running: bool,
    failure: Option<String>,
    quiet: bool,
    stopped_by_client: bool,
    asked_for_current: Option<Instant>,
    released: Option<usize>,
    scavenge: Option<Scavenge>,
    last: Option<(Uuid, Outcome)>,
    paused_at: Option<Instant>,
    /// Scavenges that are not in the log, because no recorded step wrote them there.
    unrecorded: Vec<Unrecorded>,
}

struct Unrecorded {
    id: Uuid,
    started: SystemTime,
    ended: Option<(SystemTime, Outcome)>,
}

/// The last steps of a stopped scavenge happen only after the DELETE was answered: files may still
/// change then (http-api §1.6).
const STEPS_AFTER_DELETE: usize = 40;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    /// A node at step 0 of a recording. Its data directory is `DIRECTORY/db`; the directory is
    /// made, and must be empty.
    pub fn start(
        recording: impl Into<Arc<Recording>>,
        directory: impl AsRef<Path>,
    ) -> Result<Self> {
        let root = directory.as_ref();
        std::fs::create_dir_all(root).with_context(|| format!("cannot make {}", root.display()))?;
        let root = root.canonicalize()?;
        ensure!(
            root.read_dir()?.next().is_none(),
            "{} is not empty",
            root.display()
        );
        std::fs::create_dir(root.join("db"))?;
        Ok(Self::new(recording.into(), root, Phase::Starting))
    }

    /// A running, ready node over a data directory that is there already and does not change:
    /// `DIRECTORY/db`.
    pub fn still(version: Version, directory: impl AsRef<Path>) -> Result<Self> {
        let root = directory
            .as_ref()
            .canonicalize()
            .with_context(|| format!("cannot find {}", directory.as_ref().display()))?;
        ensure!(
            root.join("db").is_dir(),
            "there is no db in {}",
            root.display()
        );
        let node = Self::new(Arc::new(Recording::empty(version)), root, Phase::Ready);
        node.state().target.lock_as_running()?;
        Ok(node)
    }

    fn new(recording: Arc<Recording>, root: PathBuf, phase: Phase) -> Self {
        let quirks = Quirks {
            gossip_never_answers: recording.version < Version::new(21, 0),
            ..Quirks::default()
        };
        let state = State {
            step: 0,
            target: Target::new(root.clone()),
            phase,
            instance_id: Uuid::new_v4(),
            started_at: SystemTime::now(),
            starts: 0,
            held: false,
            hold_at: None,
            running: false,
            failure: None,
            quiet: false,
            stopped_by_client: false,
            asked_for_current: None,
            released: None,
            scavenge: None,
            last: None,
            paused_at: None,
            unrecorded: Vec::new(),
        };
        Self {
            shared: Arc::new(Shared {
                recording,
                root,
                state: Mutex::new(state),
                changed: Condvar::new(),
                quirks: Mutex::new(quirks),
                requests: Mutex::new(Requests::default()),
                reachable: Arc::new(AtomicBool::new(true)),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.shared.state)
    }

    /// The recording.
    #[must_use]
    pub fn recording(&self) -> &Recording {
        &self.shared.recording
    }

    /// The data directory, absolute.
    #[must_use]
    pub fn db(&self) -> PathBuf {
        self.shared.root.join("db")
    }

    /// The index directory, absolute.
    #[must_use]
    pub fn index(&self) -> PathBuf {
        self.shared.root.join("db").join("index")
    }

    /// The number of steps done.
    #[must_use]
    pub fn step(&self) -> usize {
        self.state().step
    }

    /// The number of steps in the recording.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.recording.steps.len()
    }

    /// Without any step, as a node made by [`Node::still`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the node is in its life.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.state().phase
    }

    /// The InstanceId: a new one at every start.
    #[must_use]
    pub fn instance_id(&self) -> Uuid {
        self.state().instance_id
    }

    /// When the process started.
    #[must_use]
    pub fn started_at(&self) -> SystemTime {
        self.state().started_at
    }

    /// The events acknowledged so far.
    #[must_use]
    pub fn acked(&self) -> Vec<Acknowledged> {
        self.shared.recording.acknowledged_before(self.step())
    }

    /// The value of a checkpoint file now; None if it is not there.
    #[must_use]
    pub fn checkpoint(&self, checkpoint: Checkpoint) -> Option<i64> {
        let bytes = std::fs::read(self.db().join(checkpoint.file_name())).ok()?;
        (bytes.len() == 8).then(|| number(&bytes))
    }

    /// Files that somebody else had locked when the node wanted them. A client that leaves the node
    /// alone causes none.
    #[must_use]
    pub fn lock_conflicts(&self) -> Vec<String> {
        self.state().target.conflicts.clone()
    }

    /// Does the steps up to `step`, without any pause and also while the node is held. Fails where
    /// a scavenge must not begin because the node is quiet, and if the node is beyond `step`.
    pub fn advance_to(&self, step: usize) -> Result<()> {
        ensure!(
            step <= self.len(),
            "the recording has {} steps, not {step}",
            self.len()
        );
        let mut state = self.state();
        ensure!(
            state.step <= step,
            "the node is at step {}, beyond {step}",
            state.step
        );
        while state.step < step {
            if self.must_wait(&state) {
                bail!(
                    "a scavenge would begin at step {}, and the node is held quiet",
                    state.step
                );
            }
            self.next(&mut state)?;
        }
        Ok(())
    }

    /// Does the steps up to and including the next mark of this kind. Returns the number of steps
    /// done.
    pub fn advance_to_mark(&self, mark: Mark) -> Result<usize> {
        let found = self
            .shared
            .recording
            .find_mark(mark, self.step())
            .with_context(|| format!("no mark {mark:?} follows"))?;
        self.advance_to(found + 1)?;
        Ok(found + 1)
    }

    /// Does all steps that are left.
    pub fn advance_to_end(&self) -> Result<()> {
        self.advance_to(self.len())
    }

    /// Lets the recording go on in a background thread, until its end or the last handle is
    /// dropped.
    pub fn run(&self, speed: Speed) {
        let mut state = self.state();
        state.held = false;
        if state.running {
            return;
        }
        state.running = true;
        drop(state);
        let shared = Arc::downgrade(&self.shared);
        std::thread::spawn(move || {
            let mut clock: Option<(Instant, f64)> = None;
            while let Some(shared) = shared.upgrade() {
                let node = Self { shared };
                if !node.run_once(speed, &mut clock) {
                    break;
                }
            }
        });
    }

    /// One turn of the background thread. False when there is nothing left to do.
    fn run_once(&self, speed: Speed, clock: &mut Option<(Instant, f64)>) -> bool {
        let mut state = self.state();
        if state.step >= self.len() || state.failure.is_some() {
            state.running = false;
            self.shared.changed.notify_all();
            return false;
        }
        if state.held || state.hold_at.is_some_and(|at| state.step >= at) || self.must_wait(&state)
        {
            *clock = None;
            self.shared.changed.notify_all();
            let _unused = self
                .shared
                .changed
                .wait_timeout(state, Duration::from_millis(5));
            return true;
        }
        if let (Speed::Times(factor), Some(step)) =
            (speed, self.shared.recording.steps.get(state.step))
        {
            let (begun, from) = *clock.get_or_insert((Instant::now(), step.time));
            let due = begun + Duration::from_secs_f64(((step.time - from) / factor).max(0.0));
            let now = Instant::now();
            if due > now {
                // Short sleeps, so that a dropped handle or a hold is noticed.
                drop(state);
                std::thread::sleep((due - now).min(Duration::from_millis(20)));
                return true;
            }
        }
        if let Err(error) = self.next(&mut state) {
            state.failure = Some(format!("{error:#}"));
        }
        drop(state);
        if speed == Speed::Fastest {
            // Mutexes are not fair, and requests must get their turn.
            std::thread::yield_now();
        }
        true
    }

    /// Stops the background thread between two steps. When this returns, no step is being done.
    pub fn hold(&self) {
        self.state().held = true;
    }

    /// The background thread goes on until `step` and no further.
    pub fn hold_at(&self, step: usize) {
        self.state().hold_at = Some(step);
    }

    /// Undoes [`Node::hold`] and [`Node::hold_at`].
    pub fn resume(&self) {
        let mut state = self.state();
        state.held = false;
        state.hold_at = None;
        self.shared.changed.notify_all();
    }

    /// Waits until the node is at `step` or beyond, and fails after `patience`.
    pub fn wait_for_step(&self, step: usize, patience: Duration) -> Result<()> {
        let begun = Instant::now();
        let mut state = self.state();
        loop {
            if let Some(failure) = &state.failure {
                bail!("{failure}");
            }
            if state.step >= step {
                return Ok(());
            }
            ensure!(
                begun.elapsed() < patience,
                "the node is at step {} after {patience:?}, not at {step}",
                state.step
            );
            state = self
                .shared
                .changed
                .wait_timeout(state, Duration::from_millis(2))
                .map_or_else(|error| error.into_inner().0, |(state, _)| state);
        }
    }

    /// Waits until the recording is at its end.
    pub fn wait_for_end(&self, patience: Duration) -> Result<()> {
        self.wait_for_step(self.len(), patience)
    }

    /// What stopped the background thread, if it could not do a step.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.state().failure.clone()
    }

    /// While true, no scavenge of the recording begins (see [`Node`]).
    pub fn quiet(&self, quiet: bool) {
        let mut state = self.state();
        state.quiet = quiet;
        if !quiet {
            state.stopped_by_client = false;
        }
        self.shared.changed.notify_all();
    }

    /// A client has stopped a scavenge and has not given it back.
    #[must_use]
    pub fn owes_scavenge(&self) -> bool {
        self.state().stopped_by_client
    }

    /// The id of the scavenge that `/admin/scavenge/current` names.
    #[must_use]
    pub fn current_scavenge(&self) -> Option<Uuid> {
        let mut state = self.state();
        settle(&mut state);
        state.scavenge.map(|scavenge| scavenge.id)
    }

    /// What `/admin/scavenge/last` says; None before the first.
    #[must_use]
    pub fn last_scavenge(&self) -> Option<(Uuid, Outcome)> {
        let mut state = self.state();
        settle(&mut state);
        state.last
    }

    /// Somebody else starts a scavenge now. It changes no file, and lasts so long, or until a
    /// DELETE. Fails while another runs.
    pub fn start_scavenge(&self, lasts: Option<Duration>) -> Result<Uuid> {
        let mut state = self.state();
        settle(&mut state);
        ensure!(state.scavenge.is_none(), "a scavenge runs already");
        Ok(begin_scavenge(&mut state, lasts))
    }

    /// The process of a node that stands still is another one from now on.
    pub fn restart(&self) {
        let mut state = self.state();
        state.instance_id = Uuid::new_v4();
        state.starts += 1;
        state.started_at = SystemTime::now().max(state.started_at + Duration::from_millis(1));
        state.scavenge = None;
        state.last = None;
    }

    /// What the quirks are now.
    #[must_use]
    pub fn quirks(&self) -> Quirks {
        locked(&self.shared.quirks).clone()
    }

    /// Changes the quirks, also while the node runs.
    pub fn change_quirks(&self, change: impl FnOnce(&mut Quirks)) {
        // Not under the lock, so that `change` may ask the node.
        let mut quirks = self.quirks();
        change(&mut quirks);
        *locked(&self.shared.quirks) = quirks;
        self.shared.changed.notify_all();
    }

    /// The state of a licensed auto-scavenge now.
    #[must_use]
    pub fn auto_scavenge(&self) -> Option<AutoScavengeState> {
        let mut state = self.state();
        let mut quirks = locked(&self.shared.quirks);
        settle_pausing(&mut state, &mut quirks);
        match quirks.auto_scavenge {
            AutoScavenge::Licensed(licensed) => Some(licensed),
            _ => None,
        }
    }

    /// The requests received so far, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        locked(&self.shared.requests)
            .received
            .iter()
            .map(|(_, request)| request.clone())
            .collect()
    }

    /// Empties the list of received requests.
    pub fn forget_requests(&self) {
        locked(&self.shared.requests).received.clear();
    }

    pub(crate) fn note_request(&self, request: Request) -> u64 {
        let mut requests = locked(&self.shared.requests);
        let number = requests.next;
        requests.next += 1;
        requests.received.push((number, request));
        number
    }

    pub(crate) fn note_answer(&self, number: u64, status: u16) {
        for (other, request) in &mut locked(&self.shared.requests).received {
            if *other == number {
                request.status = Some(status);
            }
        }
    }

    /// The events about the scavenges that the log does not hold.
    pub(crate) fn scavenge_events(&self) -> Vec<Event> {
        let mut state = self.state();
        settle(&mut state);
        let mut events = Vec::new();
        for scavenge in &state.unrecorded {
            let stream = format!("$scavenges-{}", scavenge.id);
            events.push(Event {
                stream: stream.clone(),
                number: 0,
                id: Uuid::new_v4(),
                kind: "$scavengeStarted".to_owned(),
                data: json!({ "scavengeId": scavenge.id, "nodeEndpoint": "" }).to_string(),
                time: scavenge.started,
            });
            if let Some((time, outcome)) = scavenge.ended {
                events.push(Event {
                    stream,
                    number: 1,
                    id: Uuid::new_v4(),
                    kind: "$scavengeCompleted".to_owned(),
                    data: json!({
                        "scavengeId": scavenge.id, "nodeEndpoint": "", "result": outcome.name(),
                        "error": null, "timeTaken": "00:00:00.2000000", "spaceSaved": 0,
                    })
                    .to_string(),
                    time,
                });
            }
        }
        events
    }

    /// Runs `read` while no step is being done, so that what it reads belongs together.
    pub(crate) fn at_rest<T>(&self, read: impl FnOnce() -> T) -> T {
        let _state = self.state();
        read()
    }

    fn is_quiet(&self, state: &State) -> bool {
        let quirks = locked(&self.shared.quirks);
        state.quiet
            || state.stopped_by_client
            || matches!(
                quirks.auto_scavenge,
                AutoScavenge::Licensed(AutoScavengeState::Paused | AutoScavengeState::Pausing)
            )
            || state
                .asked_for_current
                .is_some_and(|asked| asked.elapsed() < quirks.quiet_interval)
    }

    fn must_wait(&self, state: &State) -> bool {
        self.scavenge_at(state.step).is_some()
            && state.released != Some(state.step)
            && self.is_quiet(state)
    }

    fn scavenge_at(&self, step: usize) -> Option<&RecordedScavenge> {
        self.shared
            .recording
            .scavenges
            .iter()
            .find(|scavenge| scavenge.begin == step)
    }

    /// Does one step.
    fn next(&self, state: &mut State) -> Result<()> {
        let recording = Arc::clone(&self.shared.recording);
        let step = recording
            .steps
            .get(state.step)
            .context("the recording is at its end")?;
        settle(state);
        if let Some(scavenge) = self.scavenge_at(state.step) {
            state.scavenge = Some(Scavenge {
                id: scavenge.id,
                ends: Ends::Recorded(scavenge.end),
            });
            state.last = Some((scavenge.id, Outcome::InProgress));
        }
        self.before(state, &step.action);
        state.target.apply(&recording, &step.action)?;
        state.step += 1;
        if let Action::Mark { what } = step.action {
            match what {
                Mark::Ready => state.phase = Phase::Ready,
                Mark::Stopped | Mark::Killed | Mark::Exited => {
                    state.phase = Phase::Down;
                    state.target.release_locks();
                    self.shared.reachable.store(false, Ordering::SeqCst);
                }
                Mark::ScavengeFinished => {}
            }
        }
        if let Some(Scavenge {
            id,
            ends: Ends::Recorded(end),
        }) = state.scavenge
            && state.step >= end
        {
            let stopped = recording
                .scavenges
                .iter()
                .any(|scavenge| scavenge.id == id && scavenge.stopped);
            state.scavenge = None;
            state.last = Some((
                id,
                if stopped {
                    Outcome::Stopped
                } else {
                    Outcome::Success
                },
            ));
        }
        self.shared.changed.notify_all();
        Ok(())
    }

    /// A new process shows itself by its first step, at the latest by the lock it takes on
    /// `writer.chk`.
    fn before(&self, state: &mut State, action: &Action) {
        let locks_again = state.target.holds_locks()
            && matches!(action, Action::Flock { path, how: Lock::Shared } if path == "db/writer.chk");
        let begins = state.phase == Phase::Down
            && action.path().is_some()
            && !matches!(action, Action::Operator { .. });
        if !begins && !locks_again {
            return;
        }
        state.target.release_locks();
        state.phase = Phase::Starting;
        state.instance_id = Uuid::new_v4();
        state.starts += 1;
        state.started_at = SystemTime::now().max(state.started_at + Duration::from_millis(1));
        state.scavenge = None;
        state.last = None;
        self.shared.reachable.store(true, Ordering::SeqCst);
    }

    pub(crate) fn asked_for_current(&self) {
        self.state().asked_for_current = Some(Instant::now());
    }

    /// A client's `POST /admin/scavenge`: the id of what runs now, or the id of what runs already.
    pub(crate) fn post_scavenge(&self) -> Result<Uuid, Uuid> {
        let lasts = self.quirks().scavenge_duration;
        let mut state = self.state();
        settle(&mut state);
        if let Some(running) = state.scavenge {
            return Err(running.id);
        }
        let waits = self.scavenge_at(state.step).is_some() && self.is_quiet(&state);
        state.stopped_by_client = false;
        if waits && let Some(recorded) = self.scavenge_at(state.step) {
            state.released = Some(state.step);
            self.shared.changed.notify_all();
            return Ok(recorded.id);
        }
        let id = begin_scavenge(&mut state, Some(lasts));
        self.shared.changed.notify_all();
        Ok(id)
    }

    /// A client's `DELETE /admin/scavenge/ID`, None for `current`. The error is the id of the one
    /// that runs instead, if any.
    pub(crate) fn delete_scavenge(&self, wanted: Option<Uuid>) -> Result<Uuid, Option<Uuid>> {
        let delay = self.quirks().cancel_delay;
        let mut state = self.state();
        settle(&mut state);
        let Some(running) = state.scavenge else {
            return Err(None);
        };
        if wanted.is_some_and(|wanted| wanted != running.id) {
            return Err(Some(running.id));
        }
        state.stopped_by_client = true;
        if matches!(running.ends, Ends::Cleaned(_)) {
            return Ok(running.id);
        }
        state.scavenge = Some(Scavenge {
            id: running.id,
            ends: Ends::Cleaned(Instant::now() + delay),
        });
        end_scavenge(&mut state, running.id, Outcome::Stopped);
        if let Ends::Recorded(end) = running.ends {
            // `current` stays until the rest has been done, however long that takes.
            state.scavenge = Some(Scavenge {
                id: running.id,
                ends: Ends::Never,
            });
            self.fast_forward(&mut state, end.saturating_sub(STEPS_AFTER_DELETE));
            drop(state);
            let shared = Arc::downgrade(&self.shared);
            std::thread::spawn(move || {
                std::thread::sleep(delay);
                if let Some(shared) = shared.upgrade() {
                    let node = Self { shared };
                    let mut state = node.state();
                    node.fast_forward(&mut state, end);
                    state.scavenge = None;
                    node.shared.changed.notify_all();
                }
            });
        }
        Ok(running.id)
    }

    fn fast_forward(&self, state: &mut State, end: usize) {
        while state.step < end && state.failure.is_none() {
            if let Err(error) = self.next(state) {
                state.failure = Some(format!("{error:#}"));
            }
        }
    }

    /// A client's `POST /auto-scavenge/pause` on a licensed node, which stops a running scavenge.
    /// The state afterwards.
    pub(crate) fn pause_auto_scavenge(&self) -> Option<AutoScavengeState> {
        let mut state = self.state();
        let mut quirks = locked(&self.shared.quirks);
        settle_pausing(&mut state, &mut quirks);
        let AutoScavenge::Licensed(before) = quirks.auto_scavenge else {
            return None;
        };
        let after = match before {
            AutoScavengeState::InProgress => {
                state.paused_at = Some(Instant::now() + quirks.pausing_for);
                AutoScavengeState::Pausing
            }
            AutoScavengeState::Pausing => AutoScavengeState::Pausing,
            AutoScavengeState::NotConfigured
            | AutoScavengeState::Waiting
            | AutoScavengeState::Paused => AutoScavengeState::Paused,
        };
        quirks.auto_scavenge = AutoScavenge::Licensed(after);
        drop(quirks);
        drop(state);
        if before == AutoScavengeState::InProgress {
            // The leader stops the scavenge that it had started (http-api §2.5); nobody owes it.
            let _none_runs = self.delete_scavenge(None);
            self.state().stopped_by_client = false;
        }
        Some(after)
    }

    /// A client's `POST /auto-scavenge/resume` on a licensed node. False while it is pausing.
    pub(crate) fn resume_auto_scavenge(&self) -> bool {
        let mut state = self.state();
        let mut quirks = locked(&self.shared.quirks);
        settle_pausing(&mut state, &mut quirks);
        match quirks.auto_scavenge {
            AutoScavenge::Licensed(AutoScavengeState::Pausing) => return false,
            AutoScavenge::Licensed(AutoScavengeState::Paused) => {
                quirks.auto_scavenge = AutoScavenge::Licensed(AutoScavengeState::Waiting);
            }
            _ => {}
        }
        self.shared.changed.notify_all();
        true
    }
}

fn begin_scavenge(state: &mut State, lasts: Option<Duration>) -> Uuid {
    let id = Uuid::new_v4();
    state.scavenge = Some(Scavenge {
        id,
        ends: lasts.map_or(Ends::Never, |lasts| Ends::At(Instant::now() + lasts)),
    });
    state.last = Some((id, Outcome::InProgress));
    state.unrecorded.push(Unrecorded {
        id,
        started: SystemTime::now(),
        ended: None,
    });
    id
}

/// The scavenge has ended, but `current` may still name it.
fn end_scavenge(state: &mut State, id: Uuid, outcome: Outcome) {
    state.last = Some((id, outcome));
    for scavenge in &mut state.unrecorded {
        if scavenge.id == id && scavenge.ended.is_none() {
            scavenge.ended = Some((SystemTime::now(), outcome));
        }
    }
}

/// Lets a scavenge end whose time has come.
fn settle(state: &mut State) {
    if let Some(scavenge) = state.scavenge {
        match scavenge.ends {
            Ends::At(moment) if Instant::now() >= moment => {
                end_scavenge(state, scavenge.id, Outcome::Success);
                state.scavenge = None;
            }
            Ends::Cleaned(moment) if Instant::now() >= moment => state.scavenge = None,
            Ends::At(_) | Ends::Cleaned(_) | Ends::Recorded(_) | Ends::Never => {}
        }
    }
}

/// `Pausing` becomes `Paused` when its time has come; a `Pausing` that a test has set gets its time
/// now.
fn settle_pausing(state: &mut State, quirks: &mut Quirks) {
    if quirks.auto_scavenge == AutoScavenge::Licensed(AutoScavengeState::Pausing) {
        let due = *state
            .paused_at
            .get_or_insert_with(|| Instant::now() + quirks.pausing_for);
        if Instant::now() >= due {
            quirks.auto_scavenge = AutoScavenge::Licensed(AutoScavengeState::Paused);
            state.paused_at = None;
        }
    }
}
