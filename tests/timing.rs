//! Bounds on time that hold even on a busy machine.

#![expect(clippy::panic, reason = "a test may end in a panic")]

use std::time::Duration;

/// The number of attempts before a step counts as slow.
const ATTEMPTS: usize = 3;

/// A step that takes longer is not slow but stuck, however busy the machine is.
const STUCK: Duration = Duration::from_secs(30);

/// Asserts that one attempt of three takes less than `limit`. An attempt makes its own fixture, checks
/// everything else itself, and returns the duration of the tested step.
///
/// Another process may have the processor at the wrong moment, and then one attempt is late. Code
/// that is slow is late each time.
pub(crate) fn assert_soon(limit: Duration, mut attempt: impl FnMut() -> Duration) {
    let mut all = Vec::new();

    for _ in 0..ATTEMPTS {
        let took = attempt();
        assert!(took < STUCK, "the step took {took:?}");
        if took < limit {
            return;
        }
        all.push(took);
    }

    panic!("no attempt took less than {limit:?}: {all:?}");
}
