//! Bounds on time that hold on a busy machine, too.

#![expect(clippy::panic, reason = "a test may end in a panic")]

use std::time::Duration;

/// How often something is tried before it counts as slow.
const ATTEMPTS: usize = 3;

/// What takes longer than this is not slow but stuck, however busy the machine is.
const STUCK: Duration = Duration::from_secs(30);

/// One attempt of three takes less than `limit`. An attempt makes its own fixture, checks
/// everything else itself, and returns how long the step took that is in question.
///
/// Another process may have the processor at the wrong moment, and then one attempt is late. Code
/// that is slow is late each time.
pub(crate) fn assert_soon(limit: Duration, mut attempt: impl FnMut() -> Duration) {
    let mut all = Vec::new();

    for _ in 0..ATTEMPTS {
        let took = attempt();
        assert!(took < STUCK, "it took {took:?}");
        if took < limit {
            return;
        }
        all.push(took);
    }

    panic!("no attempt took less than {limit:?}: {all:?}");
}
