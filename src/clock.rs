//! Time as kbackup writes it: RFC 3339, UTC, whole seconds.

pub use jiff::Timestamp;

/// Now, cut to whole seconds.
#[must_use]
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}
