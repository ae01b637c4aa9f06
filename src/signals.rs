//! Which thread of the process takes the signals that ask for its end.
//!
//! The kernel gives a signal of a process to one thread that does not block it, and it prefers the
//! main thread. A thread that waits in the kernel for a disk takes no signal, and then nobody
//! learns of it. So all threads block these signals, except for one that never touches a disk. The
//! handlers themselves are tokio's.

use std::error::Error as StdError;

use nix::sys::signal::{SigSet, Signal};

use crate::error::{Error, Kind, Result};

/// The name of the thread that takes the signals.
const NAME: &str = "signals";

/// Blocks the signals in this thread, and starts the one that takes them. Threads inherit what is
/// blocked, so this has to come before all other threads.
///
/// # Errors
/// [`Kind::Failed`] if the system gives no thread for it. Then nothing is blocked.
pub(crate) fn take_in_one_thread() -> Result<()> {
    block().map_err(cannot)?;

    let started = std::thread::Builder::new()
        .name(NAME.to_owned())
        .spawn(take_signals);
    if let Err(error) = started {
        unblock().map_err(cannot)?;
        return Err(cannot(error));
    }

    Ok(())
}

fn cannot(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
    Error::new(Kind::Failed, "cannot listen for signals").because(error)
}

/// Takes signals until the process ends. Their handlers run in this thread.
fn take_signals() {
    // Only a wrong argument makes this fail.
    if unblock().is_err() {
        return;
    }
    loop {
        std::thread::park();
    }
}

/// Starts a program while this thread blocks none of these signals: a program inherits what the
/// thread blocks that starts it, and would not hear that it is to end.
pub(crate) fn start_program<T>(start: impl FnOnce() -> T) -> T {
    // The C library itself blocks all signals while this thread waits in the kernel until the
    // program has begun. Only a wrong argument makes a call fail.
    let _ = unblock();
    let started = start();
    let _ = block();

    started
}

fn block() -> nix::Result<()> {
    signals().thread_block()
}

fn unblock() -> nix::Result<()> {
    signals().thread_unblock()
}

fn signals() -> SigSet {
    SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP])
}
