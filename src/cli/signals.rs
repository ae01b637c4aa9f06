//! Signals that ask a run to end.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::output::Output;
use crate::error::{Cause, Error, Kind, Result, Signal};
use crate::fs;
use crate::run::Run;

/// How long a run may take to end after a signal. Whatever has to be given back to the node is given
/// back by then, or stays on record.
const LONGEST_END: Duration = Duration::from_secs(30);

type SignalStream = tokio::signal::unix::Signal;

/// Interrupts the run at the first SIGINT, SIGTERM or SIGHUP, which asks for a clean end. The
/// runtime has to live as long as the run.
pub(super) fn listen(run: &Arc<Run>) -> Result<Runtime> {
    listen_for_all(run)
        .map_err(|error| Error::new(Kind::Failed, "cannot listen for signals").because(error))
}

fn listen_for_all(run: &Arc<Run>) -> std::io::Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;

    let entered = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = if ignores_hangup() {
        None
    } else {
        Some(signal(SignalKind::hangup())?)
    };
    drop(entered);

    let run = Arc::clone(run);
    runtime.spawn(async move {
        let received = tokio::select! {
            _ = interrupt.recv() => Signal::Interrupt,
            _ = terminate.recv() => Signal::Terminate,
            () = next_hangup(&mut hangup) => Signal::Terminate,
        };
        run.interrupt(received);
        tokio::time::sleep(LONGEST_END).await;
        end_process(received);
    });
    Ok(runtime)
}

/// Ends a process whose run does not end, because a disk does not answer. A backup that ends at any
/// moment leaves nothing incomplete in the list.
#[expect(
    clippy::exit,
    reason = "the thread of the run is blocked in the kernel"
)]
fn end_process(signal: Signal) {
    let kind = Kind::Interrupted(Cause::Signal(signal));
    let error = Error::new(kind, "interrupted, and the run did not end by itself")
        .hint("check that the disks of the repository and of the node answer")
        .hint("run the same command again: it continues where it stopped");

    std::process::exit(i32::from(Output::new(false).complain(&error)));
}

/// Returns at a SIGHUP, which the end of a terminal sends. Never returns if the process ignores
/// SIGHUP.
async fn next_hangup(hangup: &mut Option<SignalStream>) {
    match hangup {
        Some(hangup) => drop(hangup.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether the process was started so that it outlives its terminal (`nohup`).
fn ignores_hangup() -> bool {
    let status = fs::read_small(Path::new("/proc/self/status"), 64 * 1024).unwrap_or_default();

    for line in String::from_utf8_lossy(&status).lines() {
        let Some(mask) = line.strip_prefix("SigIgn:") else {
            continue;
        };
        // SIGHUP is signal 1, the lowest bit of the mask.
        return u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & 1 == 1);
    }
    false
}
