//! The end of the agent: nothing stays stopped at the node, and nothing waits for ever.

use std::time::{Duration, Instant};

use tracing::{error, info};

use super::{EndSignals, EventLoop, SLEEP_BESIDE_RUN};
use crate::agent::hook_delivery;
use crate::agent::report::Report;
use crate::agent::worker::Worker;
use crate::clock::{length, patience};
use crate::error::{Cause, Error, Kind, Result, Signal};

/// How long the agent waits for its last run, which gives back what it stopped at the node. After
/// that, the run hangs. systemd kills the agent after 90 seconds.
const GRACE: Duration = Duration::from_mins(1);
/// How long the agent waits for the journal's last write.
const LAST_JOURNAL_WRITE: Duration = Duration::from_secs(10);

impl EventLoop {
    /// Ends the run that is under way, and waits until it has given back everything to the node.
    /// Then waits a few seconds for the journal and the hooks.
    ///
    /// # Errors
    /// [`Kind::Interrupted`] if the run does not end in time, because a disk does not answer, or
    /// if a second signal comes before it has ended.
    pub(super) async fn end(mut self, signal: Signal, signals: &mut EndSignals) -> Result<()> {
        info!("told to end");
        self.manager.stopping();

        let unended = self.end_run(signal, signals).await;
        if unended.is_ok() {
            self.end_journal_and_hooks().await;
        } else {
            // The next agent should know of the run. The disk of the journal may hang, too.
            self.end_journal().await;
        }
        unended
    }

    /// Waits until the run has ended.
    async fn end_run(&mut self, signal: Signal, signals: &mut EndSignals) -> Result<()> {
        if let Some(worker) = &self.worker {
            worker.interrupt(signal);
        }

        let began = Instant::now();
        while let Some(worker) = &self.worker {
            if began.elapsed() >= patience(GRACE) {
                let worker = worker.clone();
                return Err(self.abandon(&worker, signal, began.elapsed()));
            }

            // The page and the service manager see that the loop lives.
            self.notice_silence();
            let status = self.publish();
            self.manager.alive(&status.verdict.sentence);

            let sleep = SLEEP_BESIDE_RUN.min(self.manager.beat());
            tokio::select! {
                () = tokio::time::sleep(sleep) => {}
                () = self.handle_next_at_end() => {}
                second = signals.next() => {
                    if let Some(worker) = self.worker.clone() {
                        return Err(self.abandon(&worker, second, began.elapsed()));
                    }
                }
            }
        }

        Ok(())
    }

    /// Ends without the run. Its thread ends with the process.
    fn abandon(&mut self, worker: &Worker, signal: Signal, after: Duration) -> Error {
        let after = Duration::from_secs(after.as_secs());
        let what = format!(
            "`{}` has not ended {} after the signal",
            worker.job(),
            length(after)
        );
        let error = Error::new(Kind::Interrupted(Cause::Signal(signal)), what)
            .hint("check that the disks of the repository and of the node answer")
            .hint(
                "the next agent gives back what the run stopped at the node; \
                 `kbackup release` gives it back now",
            );

        self.remember(worker.abandoned(&error));
        error
    }

    async fn end_journal_and_hooks(&mut self) {
        self.end_journal().await;

        let status = self.publish();
        self.announce(&status, true);

        self.hooks.end();
        let limit = hook_delivery::LAST + Duration::from_secs(1);
        let hooks = async {
            while self.hooks.are_busy() {
                self.handle_next_at_end().await;
            }
        };
        // The agent does not wait for a hook that takes longer.
        drop(tokio::time::timeout(limit, hooks).await);
    }

    async fn end_journal(&mut self) {
        let journal = async {
            while self.journal_write_began.is_some() {
                self.handle_next_at_end().await;
            }
        };
        let limit = patience(LAST_JOURNAL_WRITE);
        if tokio::time::timeout(limit, journal).await.is_err() {
            error!("the journal could not be written in time");
        }
    }

    async fn handle_next_at_end(&mut self) {
        match self.reports.recv().await {
            // The question is dropped without an answer, so the run that asked ends.
            Some(Report::SiblingsSeen { .. }) | None => {}
            Some(report) => self.handle(report),
        }
    }
}
