//! What threads report to the agent's loop. Whatever can block on a disk or a network runs on a
//! thread and ends with a report.

use tokio::sync::oneshot;

use super::configuration::Configuration;
use super::observation::Observation;
use super::run_record::Job;
use super::siblings::Siblings;
use super::worker::OrderResult;
use crate::error::Result;
use crate::settings::hook::Hook;

/// One report.
pub(super) enum Report {
    /// A look has ended. `None` if its thread panicked.
    Looked(Option<Box<Observation>>),
    /// The writer position of the node. `None` if it cannot be read.
    WriterPosition(Option<u64>),
    /// A run tried to take its turn. `turn_error` says why the members cannot take turns at all.
    TurnTried { turn_error: Option<String> },
    /// A run has its turn and asks whether it is still wanted.
    SiblingsSeen {
        job: Job,
        siblings: Siblings,
        reply: oneshot::Sender<bool>,
    },
    /// A run has ended, or has to wait.
    OrderEnded(OrderResult),
    /// The journal was written, or could not be.
    JournalWritten(Result<()>),
    /// The settings were read again.
    ConfigurationRead(Box<Result<Configuration>>),
    /// A hook got its message, or could not be told.
    HookTold {
        hook: Hook,
        result: std::result::Result<(), String>,
    },
}
