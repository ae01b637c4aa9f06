//! Interrupts a run at the end of its window (`--window`).

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::clock::{Window, Zoned};
use crate::error::Result;
use crate::run::Run;
use crate::verbs::window::closed;

/// How often the local clock is read. It may jump, so no long wait is computed from it.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Interrupts the run when the window closes.
///
/// # Errors
/// [`Interrupted`](crate::error::Kind::Interrupted) if the window is closed already.
pub(super) fn keep(window: Window, run: &Arc<Run>, runtime: &Runtime) -> Result<()> {
    if let Some(closed) = closed(window, &Zoned::now()) {
        run.interrupt(closed);
        return run.check();
    }

    let run = Arc::clone(run);
    runtime.spawn(async move {
        loop {
            tokio::time::sleep(CHECK_INTERVAL).await;
            if let Some(closed) = closed(window, &Zoned::now()) {
                run.interrupt(closed);
                return;
            }
        }
    });
    Ok(())
}
