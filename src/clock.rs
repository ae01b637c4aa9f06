//! Time as kbackup writes it: RFC 3339, UTC, whole seconds.

pub use jiff::Timestamp;

/// Now, cut to whole seconds.
#[must_use]
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second().saturating_add(faults::jump())).unwrap_or(now)
}

/// A clock that jumps, for tests.
#[cfg(feature = "faults")]
mod faults {
    use std::sync::atomic::{AtomicU64, Ordering};

    /// `KBACKUP_CLOCK=seconds@n`: from its n-th reading on the clock is so much ahead, or behind where that is negative.
    pub(super) fn jump() -> i64 {
        static READINGS: AtomicU64 = AtomicU64::new(0);
        let reading = READINGS.fetch_add(1, Ordering::SeqCst) + 1;
        let parse = |text: String| {
            let (seconds, from) = text.split_once('@')?;
            Some((seconds.parse::<i64>().ok()?, from.parse::<u64>().ok()?))
        };
        std::env::var("KBACKUP_CLOCK").ok().and_then(parse).filter(|(_, from)| reading >= *from).map_or(0, |(seconds, _)| seconds)
    }
}

#[cfg(not(feature = "faults"))]
mod faults {
    pub(super) const fn jump() -> i64 {
        0
    }
}
