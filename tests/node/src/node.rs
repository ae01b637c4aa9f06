//! The node itself: it replays a recording step by step, and starts and stops scavenges at a client's
//! request.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::Request;
use crate::quirks::{AutoScavenge, AutoScavengeState, Quirks};
use crate::recording::{
    Acknowledged, Action, Checkpoint, Lock, Mark, RecordedScavenge, Recording, Version, number,
};
use crate::replay::Target;
use crate::streams::Event;
use crate::synthetic::Synthetic;

/// The speed of the replay in the background.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// This many times the speed of the recording. 1.0 is real time.
    Times(f64),
    /// Without any pause.
    Fastest,
}

/// The phase of the node's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The process runs but is not ready: `/health/live` says 503.
    Starting,
    /// The node answers.
    Ready,
    /// There is no process: no connection is accepted and no lock is held.
    Down,
}

/// The result of a scavenge, as `/admin/scavenge/last` gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The scavenge runs.
    InProgress,
    /// The scavenge came to its end.
    Success,
    /// The scavenge was stopped.
    Stopped,
}

impl Outcome {
    /// The name in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InProgress => "InProgress",
            Self::Success => "Success",
            Self::Stopped => "Stopped",
        }
    }
}

/// The event that ends a scavenge.
#[derive(Debug, Clone, Copy)]
enum Ends {
    /// The step `end` of the recording.
    Recorded(usize),
    /// A moment of the clock.
    At(Instant),
    /// A DELETE only.
    Never,
    /// A DELETE has stopped it. From this moment on, `current` is empty.
    Cleaned(Instant),
}

#[derive(Debug, Clone, Copy)]
struct Scavenge {
    id: Uuid,
    ends: Ends,
}

/// A node that lives through a recording.
///
/// Steps are counted from 0. The node *is at* step `n` when `n` steps have been done. All clones of
/// a handle are the same node. All methods may be called from any thread.
///
/// # Locks
/// While the process of the recording runs, its `flock`s are held, so that a probe says busy (O6).
/// `kurrent.ddb` is locked with `fcntl`. Only *other processes* can see that lock, and it ends when
/// this process closes any descriptor of the file.
///
/// # Scavenges
/// A scavenge of the recording runs from its request until `current` became empty. Appends go on
/// meanwhile. While the node is *quiet*, a scavenge of the recording does not begin: the replay waits
/// at that step, and the appends after it wait too. The node is quiet
/// * after [`quiet(true)`](Node::quiet), until `quiet(false)`;
/// * after a client stopped a scavenge (DELETE), until a client gives it back
///   (`POST /admin/scavenge`);
/// * while auto-scavenge is paused;
/// * within [`Quirks::quiet_interval`] after a client asked for `current`.
///
/// A DELETE brings a running scavenge of the recording to its end. The node does the rest of its
/// steps as fast as possible, even if it is held. It does the last of them only when `current`
/// becomes empty, [`Quirks::cancel_delay`] after the answer.
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
    /// Each request with the number that its answer refers to.
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
    /// Number of events about auto-scavenge in the log.
    notes: i64,
    /// Scavenges that the log does not hold, because no recorded step wrote them there.
    unrecorded: Vec<Unrecorded>,
}

struct Unrecorded {
    id: Uuid,
    parameters: Parameters,
    started: SystemTime,
    ended: Option<(SystemTime, Outcome)>,
}

/// How a scavenge was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    /// Number of threads.
    pub threads: u32,
    /// The first chunk that it scavenges.
    pub start_from_chunk: u32,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            threads: 1,
            start_from_chunk: 0,
        }
    }
}

/// The last steps of a stopped scavenge happen after the answer to the DELETE. Files may change until
/// then (http-api §1.6).
const STEPS_AFTER_DELETE: usize = 40;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    /// A node at step 0 of a recording. Its data directory is `DIRECTORY/db`. The directory is made,
    /// and must be empty.
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

    /// A running, ready node over an existing data directory that does not change: `DIRECTORY/db`.
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
            notes: 0,
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

    /// True if there is no step, as in a node made by [`Node::still`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The phase of the node's life.
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

    /// The present value of a checkpoint file. Returns `None` if there is no such file.
    #[must_use]
    pub fn checkpoint(&self, checkpoint: Checkpoint) -> Option<i64> {
        let bytes = std::fs::read(self.db().join(checkpoint.file_name())).ok()?;
        (bytes.len() == 8).then(|| number(&bytes))
    }

    /// Files that another process had locked when the node wanted them. A client that leaves the
    /// node alone causes none.
    #[must_use]
    pub fn lock_conflicts(&self) -> Vec<String> {
        self.state().target.conflicts.clone()
    }

    /// Does the steps up to `step` without any pause, even while the node is held.
    ///
    /// # Errors
    /// The node is beyond `step`, or it is quiet and a scavenge would begin.
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
                    "a scavenge would begin at step {}, but the node is quiet",
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

    /// Does all remaining steps.
    pub fn advance_to_end(&self) -> Result<()> {
        self.advance_to(self.len())
    }

    /// Replays the recording in a background thread, until its end or until the last handle is
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

    /// One turn of the background thread. Returns false if nothing is left to do.
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
                // The sleeps are short, so that the thread notices a dropped handle or a hold.
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
            // Mutexes are not fair, but requests must get their turn.
            std::thread::yield_now();
        }
        true
    }

    /// Stops the background thread between two steps. No step is in progress when this returns.
    pub fn hold(&self) {
        self.state().held = true;
    }

    /// Lets the background thread continue until `step` and no further.
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

    /// Waits until the node is at `step` or beyond. Fails after `patience`.
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

            let waited = self
                .shared
                .changed
                .wait_timeout(state, Duration::from_millis(2));
            state = match waited {
                Ok((state, _)) => state,
                Err(error) => error.into_inner().0,
            };
        }
    }

    /// Waits until the recording is at its end.
    pub fn wait_for_end(&self, patience: Duration) -> Result<()> {
        self.wait_for_step(self.len(), patience)
    }

    /// The error that stopped the background thread, if a step failed.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.state().failure.clone()
    }

    /// While this is set, no scavenge of the recording begins (see [`Node`]).
    pub fn quiet(&self, quiet: bool) {
        let mut state = self.state();
        state.quiet = quiet;
        if !quiet {
            state.stopped_by_client = false;
        }
        self.shared.changed.notify_all();
    }

    /// True if a client has stopped a scavenge and has not given it back.
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

    /// The answer of `/admin/scavenge/last`. Returns `None` before the first scavenge.
    #[must_use]
    pub fn last_scavenge(&self) -> Option<(Uuid, Outcome)> {
        let mut state = self.state();
        settle(&mut state);
        state.last
    }

    /// Starts a scavenge that changes no file, as another client does. It lasts for this time, or
    /// until a DELETE. Fails while another scavenge runs.
    pub fn start_scavenge(&self, lasts: Option<Duration>) -> Result<Uuid> {
        self.start_scavenge_with(lasts, Parameters::default())
    }

    /// As [`Node::start_scavenge`], with these parameters.
    pub fn start_scavenge_with(
        &self,
        lasts: Option<Duration>,
        parameters: Parameters,
    ) -> Result<Uuid> {
        let mut state = self.state();
        settle(&mut state);
        ensure!(state.scavenge.is_none(), "a scavenge runs already");
        Ok(begin_scavenge(&mut state, lasts, parameters))
    }

    /// Brings a scavenge that changes no file to its end.
    pub fn end_scavenge(&self) {
        let mut state = self.state();
        settle(&mut state);
        if let Some(scavenge) = state.scavenge.take() {
            end_scavenge(&mut state, scavenge.id, Outcome::Success);
        }
    }

    /// Replaces the process of a node from [`Node::still`] by a new one.
    pub fn restart(&self) {
        let mut state = self.state();
        state.instance_id = Uuid::new_v4();
        state.starts += 1;
        state.started_at = SystemTime::now().max(state.started_at + Duration::from_millis(1));
        state.scavenge = None;
        state.last = None;
    }

    /// The present quirks.
    #[must_use]
    pub fn quirks(&self) -> Quirks {
        locked(&self.shared.quirks).clone()
    }

    /// Changes the quirks. This works while the node runs.
    pub fn change_quirks(&self, change: impl FnOnce(&mut Quirks)) {
        // The lock is not held here, so that `change` may ask the node.
        let mut quirks = self.quirks();
        change(&mut quirks);
        *locked(&self.shared.quirks) = quirks;
        self.shared.changed.notify_all();
    }

    /// The present state of a licensed auto-scavenge.
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

    /// The received requests, oldest first.
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
                data: self.start_of(scavenge).to_string(),
                time: scavenge.started,
            });
            if let Some((time, outcome)) = scavenge.ended {
                events.push(Event {
                    stream,
                    number: 1,
                    id: Uuid::new_v4(),
                    kind: "$scavengeCompleted".to_owned(),
                    data: json!({
                        "scavengeId": scavenge.id,
                        "nodeEndpoint": "",
                        "result": outcome.name(),
                        "error": null,
                        "timeTaken": "00:00:00.2000000",
                        "spaceSaved": 0,
                    })
                    .to_string(),
                    time,
                });
            }
        }
        events
    }

    /// The data of the event that tells of a start. 21.10 alone tells the parameters
    /// (fixtures/http).
    fn start_of(&self, scavenge: &Unrecorded) -> Value {
        let version = self.shared.recording.version;
        if version < Version::new(21, 0) || version >= Version::new(22, 0) {
            return json!({ "scavengeId": scavenge.id, "nodeEndpoint": "" });
        }

        json!({
            "scavengeId": scavenge.id,
            "nodeEndpoint": "",
            "alwaysKeepScavenged": false,
            "mergeChunks": true,
            "startFromChunk": scavenge.parameters.start_from_chunk,
            "threads": scavenge.parameters.threads,
        })
    }

    /// Runs `read` while no step is in progress, so that the values belong together.
    pub(crate) fn at_rest<T>(&self, read: impl FnOnce() -> T) -> T {
        let _state = self.state();
        read()
    }

    fn is_quiet(&self, state: &State) -> bool {
        let quirks = locked(&self.shared.quirks);
        let is_paused = matches!(
            quirks.auto_scavenge,
            AutoScavenge::Licensed(AutoScavengeState::Paused | AutoScavengeState::Pausing)
        );
        let asked_recently = state
            .asked_for_current
            .is_some_and(|asked| asked.elapsed() < quirks.quiet_interval);
        state.quiet || state.stopped_by_client || is_paused || asked_recently
    }

    fn must_wait(&self, state: &State) -> bool {
        self.scavenge_at(state.step).is_some()
            && state.released != Some(state.step)
            && self.is_quiet(state)
    }

    fn scavenge_at(&self, step: usize) -> Option<&RecordedScavenge> {
        let mut scavenges = self.shared.recording.scavenges.iter();
        scavenges.find(|scavenge| scavenge.begin == step)
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
            let mut scavenges = recording.scavenges.iter();
            let was_stopped = scavenges.any(|scavenge| scavenge.id == id && scavenge.stopped);
            let outcome = if was_stopped {
                Outcome::Stopped
            } else {
                Outcome::Success
            };
            state.scavenge = None;
            state.last = Some((id, outcome));
        }

        self.shared.changed.notify_all();
        Ok(())
    }

    /// Notices a new process. It shows itself by its first step, at the latest by its lock on
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

    /// A client's `POST /admin/scavenge`. Returns the id of the new scavenge. The error is the id of
    /// one that runs already.
    pub(crate) fn post_scavenge(&self, parameters: Parameters) -> Result<Uuid, Uuid> {
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

        let id = begin_scavenge(&mut state, Some(lasts), parameters);
        self.shared.changed.notify_all();
        Ok(id)
    }

    /// A client's `DELETE /admin/scavenge/ID`, or of `current` if `wanted` is `None`. The error is
    /// the id of another scavenge that runs, if there is one.
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
            // `current` stays until the remaining steps are done, however long that takes.
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
    /// Returns the state afterwards.
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

        if before != after {
            self.note_auto_scavenge(&mut state, &quirks);
        }
        quirks.auto_scavenge = AutoScavenge::Licensed(after);
        drop(quirks);
        drop(state);

        if before == AutoScavengeState::InProgress {
            // The leader stops its own scavenge (http-api §2.5), so no client gives it back.
            let _none_runs = self.delete_scavenge(None);
            self.state().stopped_by_client = false;
        }
        Some(after)
    }

    /// Writes the change of auto-scavenge into the log.
    fn note_auto_scavenge(&self, state: &mut State, quirks: &Quirks) {
        if !quirks.notes_auto_scavenge {
            return;
        }

        let note = Synthetic::note(&self.shared.root, "$auto-scavenges", state.notes);
        if let Err(error) = note {
            state.failure = Some(format!("{error:#}"));
        }
        state.notes += 1;
    }

    /// A client's `POST /auto-scavenge/resume` on a licensed node. Returns false while it is pausing.
    pub(crate) fn resume_auto_scavenge(&self) -> bool {
        let mut state = self.state();
        let mut quirks = locked(&self.shared.quirks);
        settle_pausing(&mut state, &mut quirks);
        match quirks.auto_scavenge {
            AutoScavenge::Licensed(AutoScavengeState::Pausing) => return false,
            AutoScavenge::Licensed(AutoScavengeState::Paused) => {
                self.note_auto_scavenge(&mut state, &quirks);
                quirks.auto_scavenge = AutoScavenge::Licensed(AutoScavengeState::Waiting);
            }
            _ => {}
        }

        self.shared.changed.notify_all();
        true
    }
}

fn begin_scavenge(state: &mut State, lasts: Option<Duration>, parameters: Parameters) -> Uuid {
    let id = Uuid::new_v4();
    state.scavenge = Some(Scavenge {
        id,
        ends: lasts.map_or(Ends::Never, |lasts| Ends::At(Instant::now() + lasts)),
    });
    state.last = Some((id, Outcome::InProgress));
    state.unrecorded.push(Unrecorded {
        id,
        parameters,
        started: SystemTime::now(),
        ended: None,
    });
    id
}

/// Ends the scavenge, although `current` may name it for a while.
fn end_scavenge(state: &mut State, id: Uuid, outcome: Outcome) {
    state.last = Some((id, outcome));
    for scavenge in &mut state.unrecorded {
        if scavenge.id == id && scavenge.ended.is_none() {
            scavenge.ended = Some((SystemTime::now(), outcome));
        }
    }
}

/// Ends a scavenge that is due.
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

/// Turns `Pausing` into `Paused` when it is due. If a test has set `Pausing`, its time begins now.
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
