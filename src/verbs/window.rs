//! The hours in which a verb may run.

use crate::clock::{Window, Zoned};
use crate::run::Interruption;

/// The interruption of a run at a time at which its window is closed. Returns `None` while the
/// window is open.
#[must_use]
pub(crate) fn closed(window: Window, now: &Zoned) -> Option<Interruption> {
    if window.is_open(now) {
        return None;
    }

    let opens = match window.opens(now) {
        Some(opens) => opens.strftime("%Y-%m-%d %H:%M %Z").to_string(),
        None => "its next hour".to_owned(),
    };
    Some(Interruption::WindowClosed {
        window: window.to_string(),
        opens,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_window_says_when_it_opens() {
        let window: Window = "22:00-05:00".parse().unwrap();
        let told = closed(window, &"2026-06-01T05:00[Europe/Berlin]".parse().unwrap());
        let opens = "2026-06-01 22:00 CEST".to_owned();
        assert_eq!(
            told,
            Some(Interruption::WindowClosed {
                window: "22:00-05:00".to_owned(),
                opens
            })
        );
        assert_eq!(
            closed(window, &"2026-06-01T04:59[Europe/Berlin]".parse().unwrap()),
            None
        );
    }
}
