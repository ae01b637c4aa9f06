//! Measures where the time of a run goes, so that an operator can see what limits it.

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
    /// Queue pieces for the MD5, wait for it, and help to compute it.
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
    steps: Mutex<Vec<StepBegin>>,
    /// Nanoseconds, in the order of the activities.
    spent: [AtomicU64; ACTIVITIES.len()],
}

#[derive(Debug, Clone, Copy)]
struct StepBegin {
    step: &'static str,
    at: Instant,
    cpu: Duration,
}

impl StepBegin {
    fn now(step: &'static str) -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let seconds = u64::try_from(cpu.tv_sec).unwrap_or_default();
        let nanoseconds = u32::try_from(cpu.tv_nsec).unwrap_or_default();
        Self {
            step,
            at: Instant::now(),
            cpu: Duration::new(seconds, nanoseconds),
        }
    }

    fn until(self, end: Self) -> SpentTime {
        SpentTime {
            name: self.step,
            seconds: (end.at - self.at).as_secs_f64(),
            cpu_seconds: Some(end.cpu.saturating_sub(self.cpu).as_secs_f64()),
        }
    }
}

/// How long a step or an activity took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SpentTime {
    /// The step, or the activity.
    pub name: &'static str,
    /// For a step the time that passed; for an activity the sum of all threads.
    pub seconds: f64,
    /// Processor time of all threads; `None` for an activity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<f64>,
}

impl Timings {
    /// Begins a step, and ends the one before it.
    pub fn begin(&self, step: &'static str) {
        self.steps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(StepBegin::now(step));
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

    /// The steps so far, in the order in which they began. The last one ends now.
    #[must_use]
    pub fn steps(&self) -> Vec<SpentTime> {
        let mut begun = self
            .steps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        begun.push(StepBegin::now(""));

        let mut steps = Vec::with_capacity(begun.len());
        for pair in begun.windows(2) {
            if let [step, next] = pair {
                steps.push(step.until(*next));
            }
        }
        steps
    }

    /// The time of each activity so far.
    #[must_use]
    pub fn activities(&self) -> Vec<SpentTime> {
        let mut activities = Vec::with_capacity(ACTIVITIES.len());
        for (counter, (_, name)) in self.spent.iter().zip(ACTIVITIES) {
            let spent = Duration::from_nanos(counter.load(Ordering::Relaxed));
            activities.push(SpentTime {
                name,
                seconds: spent.as_secs_f64(),
                cpu_seconds: None,
            });
        }
        activities
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
