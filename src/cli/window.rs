use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Window, Zoned};
use crate::error::Result;
use crate::run::Run;
use crate::verbs::window::closed;

/// How often the clock on the wall is looked at: it may jump, so nobody waits for an hour on it.
const EVERY: Duration = Duration::from_secs(1);

/// Interrupts the run when the window closes.
///
/// # Errors
/// [`crate::error::Kind::Interrupted`] where it is closed already.
pub(super) fn keep(
    window: Window,
    run: &Arc<Run>,
    runtime: &tokio::runtime::Runtime,
) -> Result<()> {
    if let Some(closed) = closed(window, &Zoned::now()) {
        run.interrupt(closed);
        return run.check();
    }
    let run = Arc::clone(run);
    runtime.spawn(async move {
        loop {
            tokio::time::sleep(EVERY).await;
            if let Some(closed) = closed(window, &Zoned::now()) {
                run.interrupt(closed);
                return;
            }
        }
    });
    Ok(())
}
