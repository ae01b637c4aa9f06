use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Window, Zoned};
use crate::error::Result;
use crate::event::{Interruption, Run};

/// How often the clock on the wall is looked at: it may jump, so nobody waits for an hour on it.
const EVERY: Duration = Duration::from_secs(1);

/// Interrupts the run when the window closes.
///
/// # Errors
/// [`crate::error::Kind::Interrupted`] where it is closed already.
pub(super) fn keep(window: Window, run: &Arc<Run>, runtime: &tokio::runtime::Runtime) -> Result<()> {
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

/// What to tell of a window that is closed at a time.
fn closed(window: Window, now: &Zoned) -> Option<Interruption> {
    if window.is_open(now) {
        return None;
    }
    let opens = window.opens(now).map_or_else(|| "its next hour".to_owned(), |opens| opens.strftime("%Y-%m-%d %H:%M %Z").to_string());
    Some(Interruption::WindowClosed { window: window.to_string(), opens })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_a_closed_window() {
        let window: Window = "22:00-05:00".parse().unwrap();
        let told = closed(window, &"2026-06-01T05:00[Europe/Berlin]".parse().unwrap());
        let opens = "2026-06-01 22:00 CEST".to_owned();
        assert_eq!(told, Some(Interruption::WindowClosed { window: "22:00-05:00".to_owned(), opens }));
        assert_eq!(closed(window, &"2026-06-01T04:59[Europe/Berlin]".parse().unwrap()), None);
    }
}
