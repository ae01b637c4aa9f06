//! Sends a request again until it is answered.
//!
//! Every request may be sent twice. To create an object twice finds it there, to write or delete it
//! twice changes nothing, and to replace it twice finds another version. So kbackup repeats all of
//! them alike, and the library repeats none: each attempt then has a fresh signature and fresh
//! credentials.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::failure::Failure;
use super::http;
use super::options::Limits;
use super::requests::{Counter, RequestKind};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long one request may be repeated.
pub(super) struct Patience<'a> {
    limits: Limits,
    counter: &'a Counter,
    began: Instant,
    pause: Duration,
}

impl<'a> Patience<'a> {
    pub(super) fn new(limits: Limits, counter: &'a Counter) -> Self {
        Self {
            limits,
            counter,
            began: Instant::now(),
            pause: FIRST_PAUSE,
        }
    }

    /// How long to wait before the next attempt; `None` if the time is over.
    fn next_pause(&mut self, wanted: Option<Duration>) -> Option<Duration> {
        let patience = if self.counter.has_answered() {
            self.limits.patience
        } else {
            self.limits.first_patience
        };

        let pause = wanted.unwrap_or_default().max(jitter(self.pause));
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        (self.began.elapsed() + pause < patience).then_some(pause)
    }
}

/// Between the half and the whole, so that many clients do not come back at the same time.
fn jitter(pause: Duration) -> Duration {
    let chance = u32::from(
        Uuid::new_v4()
            .as_bytes()
            .first()
            .copied()
            .unwrap_or_default(),
    );
    pause / 2 + (pause / 2) * chance / u32::from(u8::MAX)
}

/// Sends a request until it is answered, or until it is not worth another attempt.
pub(super) async fn until_answered<T>(
    kind: RequestKind,
    mut patience: Patience<'_>,
    mut attempt: impl AsyncFnMut() -> object_store::Result<T>,
) -> Result<T, Failure> {
    loop {
        patience.counter.attempted(kind);
        let (result, exchange) = http::observed(kind, attempt()).await;
        let failure = match result {
            Ok(answer) => return Ok(answer),
            Err(error) => Failure::of(&error, kind, exchange),
        };

        if !failure.is_worth_another_attempt() {
            return Err(failure);
        }
        let Some(pause) = patience.next_pause(failure.retry_after()) else {
            return Err(failure);
        };
        tracing::info!(
            "the object store did not answer as it should, and is asked again in {pause:?}: {failure}"
        );
        tokio::time::sleep(pause).await;
        patience.counter.repeats();
    }
}
