//! What happens, told to whoever listens: progress bar, log, JSON lines, metrics. And how a run is told to stop.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio_util::sync::CancellationToken;

use crate::error::{Error, Kind, Result, Signal};

/// One thing that happened, in the words of the domain.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A step of the procedure begins.
    Step(Step),
    /// What the step will have to do, as far as it is known: files and bytes.
    Expected {
        /// Files still to be handled in this step.
        files: u64,
        /// Bytes still to be handled in this step.
        bytes: u64,
    },
    /// Bytes handled in this step since the last such event.
    Progress {
        /// Bytes.
        bytes: u64,
    },
    /// A file was copied from the source.
    Copied {
        /// Where it lies in the backup.
        path: String,
        /// Bytes read from the source.
        bytes: u64,
    },
    /// A file was taken over from an earlier backup.
    Adopted {
        /// Where it lies in the backup.
        path: String,
    },
    /// The source changed underfoot; the procedure goes back.
    Retry {
        /// Which attempt failed, from 1.
        attempt: u32,
        /// How many are allowed.
        of: u32,
        /// What changed.
        reason: String,
    },
    /// The node's auto-scavenge was paused by us.
    AutoScavengePaused,
    /// A running scavenge was stopped by us.
    ScavengeStopped {
        /// The server's id of it.
        scavenge: String,
    },
    /// Something was given back to the node.
    GivenBack {
        /// "auto-scavenge", "scavenge".
        what: &'static str,
    },
    /// A backup became visible in the repository.
    Committed {
        /// Its label.
        label: String,
        /// The log position that a restore ends at, in bytes.
        position: u64,
    },
    /// The result is usable, but the operator should know this (exit code 3).
    Warning(String),
    /// Worth a line in the log.
    Note(String),
}

/// The steps of the verbs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Is the node fit, are the directories right, is the repository ready?
    Preflight,
    /// Stop scavenging.
    Quiesce,
    /// Copy the index.
    Index,
    /// Copy the checkpoints.
    Checkpoints,
    /// Copy the chunks.
    Chunks,
    /// Prove what was copied.
    Prove,
    /// Make it durable and visible.
    Commit,
    /// Give scavenging back.
    Release,
    /// Write a restored directory.
    Place,
    /// Read stored files again.
    Verify,
}

impl Step {
    /// The step in a word, for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Preflight => "preflight",
            Self::Quiesce => "quiesce",
            Self::Index => "index",
            Self::Checkpoints => "checkpoints",
            Self::Chunks => "chunks",
            Self::Prove => "prove",
            Self::Commit => "commit",
            Self::Release => "release",
            Self::Place => "place",
            Self::Verify => "verify",
        }
    }
}

/// Whoever wants to know what happens.
pub trait Observer: Send + Sync {
    /// Takes notice of one event; must not block for long.
    fn observe(&self, event: &Event);
}

/// Nobody listens.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Observer for Silent {
    fn observe(&self, _: &Event) {}
}

/// What every long operation carries: whom it tells, whether it should stop, and the warnings so far.
pub struct Run {
    observer: Box<dyn Observer>,
    cancel: CancellationToken,
    signal: AtomicU8,
    warnings: Mutex<Vec<String>>,
}

impl Run {
    /// A run that reports to `observer`.
    pub fn new(observer: impl Observer + 'static) -> Self {
        Self { observer: Box::new(observer), cancel: CancellationToken::new(), signal: AtomicU8::new(0), warnings: Mutex::default() }
    }

    /// Tells what happened. Warnings are kept as well.
    pub fn emit(&self, event: Event) {
        self.observer.observe(&event);
        if let Event::Warning(text) = event
            && let Ok(mut warnings) = self.warnings.lock()
        {
            warnings.push(text);
        }
    }

    /// Tells the operator something that does not spoil the result.
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
        self.warnings.lock().map(|warnings| warnings.clone()).unwrap_or_default()
    }

    /// Asks the run to end soon and cleanly.
    pub fn interrupt(&self, signal: Signal) {
        self.signal.store(if signal == Signal::Terminate { 1 } else { 0 }, Ordering::SeqCst);
        self.cancel.cancel();
    }

    /// For asynchronous waits.
    #[must_use]
    pub fn cancelled(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Called between any two pieces of work.
    ///
    /// # Errors
    /// [`Kind::Interrupted`] once the run was asked to end.
    pub fn check(&self) -> Result<()> {
        if !self.cancel.is_cancelled() {
            return Ok(());
        }
        let signal = if self.signal.load(Ordering::SeqCst) == 1 { Signal::Terminate } else { Signal::Interrupt };
        Err(Error::new(Kind::Interrupted(signal), "interrupted").hint("nothing half done is listed; run the same command again"))
    }

    /// Sleeps, but not beyond an interruption.
    ///
    /// # Errors
    /// [`Kind::Interrupted`] once the run was asked to end.
    pub fn pause(&self, duration: std::time::Duration) -> Result<()> {
        let end = std::time::Instant::now() + duration;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(std::time::Duration::from_millis(50)));
        }
    }
}
