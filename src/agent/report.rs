//! What threads report to the agent's loop.
//!
//! All work that can block on a disk or a network runs on a thread and ends with a report, even if
//! the work panics. So the loop can rely on every report that it waits for.

use tokio::sync::{mpsc, oneshot};

use super::configuration::Configuration;
use super::look_schedule::Subject;
use super::observation::Look;
use super::run_record::Job;
use super::siblings::Siblings;
use super::worker::OrderResult;
use super::writer_probe::WriterReading;
use crate::error::{Error, Kind, Result};
use crate::settings::hook::Hook;

/// One report.
pub(super) enum Report {
    /// A look has ended. `look` is `None` if its thread panicked.
    Looked {
        subject: Subject,
        look: Option<Box<Look>>,
    },
    /// The writer position of the node. `None` if it cannot be read.
    WriterPosition(Option<WriterReading>),
    /// A run tried to take its turn. `turn_error` says why the members cannot take turns.
    TurnTried { turn_error: Option<String> },
    /// A run has its turn and asks whether it is still wanted.
    SiblingsSeen {
        job: Job,
        siblings: Box<Siblings>,
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

/// Runs `work` on a thread that may block, and sends the report that `report_of` makes of its
/// result. If the work panics, `report_of` gets `None`.
pub(super) fn report_result_of<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
    reporter: &mpsc::UnboundedSender<Report>,
    report_of: impl FnOnce(Option<T>) -> Report + Send + 'static,
) {
    let reporter = reporter.clone();

    tokio::spawn(async move {
        let result = tokio::task::spawn_blocking(work).await.ok();
        // If the loop has ended, no reader is left.
        drop(reporter.send(report_of(result)));
    });
}

/// The result of work that panicked.
pub(super) fn defect() -> Error {
    Error::new(
        Kind::Failed,
        "a thread ended because of a defect of kbackup",
    )
    .hint("please report it, with the log")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_panics_is_reported() {
        let (reporter, mut reports) = mpsc::unbounded_channel();

        let reading = WriterReading {
            position: 7,
            notes: None,
        };
        report_result_of(move || reading, &reporter, Report::WriterPosition);
        let Some(Report::WriterPosition(first)) = reports.recv().await else {
            panic!("another report");
        };
        assert_eq!(first, Some(reading));

        report_result_of(|| panic!("a defect"), &reporter, Report::WriterPosition);
        let second = reports.recv().await;
        assert!(matches!(second, Some(Report::WriterPosition(None))));
    }
}
