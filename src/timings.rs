//! Where the time of a run goes: for whoever wants to know what the limit is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// What the threads of a run do with the bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Read, or have the kernel copy.
    Read,
    /// Compute the BLAKE3.
    Blake3,
    /// Hand over to the MD5, wait for it, and help with it.
    Md5,
    /// Write.
    Write,
    /// Look at the records of the log.
    Records,
    /// Wait for the disk.
    Sync,
}

const ACTIVITIES: [(Activity, &str); 6] = [
    (Activity::Read, "read"),
    (Activity::Blake3, "blake3"),
    (Activity::Md5, "md5"),
    (Activity::Write, "write"),
    (Activity::Records, "records"),
    (Activity::Sync, "sync"),
];

/// Where the time of one run went so far.
#[derive(Debug, Default)]
pub struct Timings {
    steps: Mutex<Vec<Begun>>,
    /// Nanoseconds, in the order of the activities.
    spent: [AtomicU64; ACTIVITIES.len()],
}

#[derive(Debug, Clone, Copy)]
struct Begun {
    step: &'static str,
    at: Instant,
    cpu: Duration,
}

impl Begun {
    fn now(step: &'static str) -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let nanoseconds = u32::try_from(cpu.tv_nsec).unwrap_or_default();
        Self {
            step,
            at: Instant::now(),
            cpu: Duration::new(u64::try_from(cpu.tv_sec).unwrap_or_default(), nanoseconds),
        }
    }
}

/// How long something took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spent {
    /// The step, or the activity.
    pub name: &'static str,
    /// Of a step by the clock; of an activity of all threads together.
    pub seconds: f64,
    /// Processor time of all threads; none of an activity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<f64>,
}

impl Timings {
    /// A step begins, and the one before it ends.
    pub fn begin(&self, step: &'static str) {
        self.steps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Begun::now(step));
    }

    /// Does some work, and counts its time.
    pub fn time<T>(&self, activity: Activity, work: impl FnOnce() -> T) -> T {
        let begin = Instant::now();
        let result = work();
        let nanoseconds = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        for (counter, (counted, _)) in self.spent.iter().zip(ACTIVITIES) {
            if counted == activity {
                counter.fetch_add(nanoseconds, Ordering::Relaxed);
            }
        }
        result
    }

    /// Each step so far, in the order in which they began; the last one ends now.
    #[must_use]
    pub fn steps(&self) -> Vec<Spent> {
        let begun = self
            .steps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let ends = begun.iter().copied().skip(1).chain([Begun::now("")]);
        let spent = |(begun, end): (&Begun, Begun)| Spent {
            name: begun.step,
            seconds: (end.at - begun.at).as_secs_f64(),
            cpu_seconds: Some(end.cpu.saturating_sub(begun.cpu).as_secs_f64()),
        };
        begun.iter().zip(ends).map(spent).collect()
    }

    /// Each activity.
    #[must_use]
    pub fn activities(&self) -> Vec<Spent> {
        let seconds = |counter: &AtomicU64| {
            Duration::from_nanos(counter.load(Ordering::Relaxed)).as_secs_f64()
        };
        let spent = |(counter, (_, name)): (&AtomicU64, (Activity, &'static str))| Spent {
            name,
            seconds: seconds(counter),
            cpu_seconds: None,
        };
        self.spent.iter().zip(ACTIVITIES).map(spent).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_lasts_until_the_next_one() {
        let timings = Timings::default();
        timings.begin("one");
        std::thread::sleep(Duration::from_millis(30));
        timings.begin("two");
        let work: u64 = timings.time(Activity::Write, || {
            (0..3_000_000).fold(0, |sum: u64, next| std::hint::black_box(sum ^ next))
        });
        std::hint::black_box(work);
        let [one, two] = timings.steps()[..] else {
            panic!("{:?}", timings.steps())
        };
        assert_eq!((one.name, two.name), ("one", "two"));
        assert!(one.seconds >= 0.03);
        assert!(two.cpu_seconds > Some(0.0));
        for spent in timings.activities() {
            assert_eq!(spent.seconds > 0.0, spent.name == "write", "{spent:?}");
        }
    }
}
