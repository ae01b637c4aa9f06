//! How much of the machine a verb takes from other programs.

use std::str::FromStr;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};

use crate::clock::Window;
use crate::pace::Rate;

const HEADING: &str = "Load";

/// The load of a verb that runs in the background: it runs at low priority, and may be limited to
/// some hours.
#[derive(Debug, Args)]
pub(super) struct BackgroundLoadArguments {
    /// Priority of the run against other programs
    #[arg(
        long,
        env = "KBACKUP_PRIORITY",
        value_enum,
        default_value_t = Priority::Low,
        value_name = "LEVEL",
        help_heading = HEADING
    )]
    priority: Priority,
    #[command(flatten)]
    speed: SpeedArguments,
    /// Run only in these hours of the day in local time, such as 22:00-05:00; when they are over,
    /// the run ends cleanly
    #[arg(long, env = "KBACKUP_WINDOW", value_name = "FROM-TO", help_heading = HEADING)]
    window: Option<Window>,
}

/// The load of a verb whose result the operator waits for.
#[derive(Debug, Args)]
pub(super) struct ForegroundLoadArguments {
    /// Priority of the run against other programs
    #[arg(
        long,
        env = "KBACKUP_PRIORITY",
        value_enum,
        default_value_t = Priority::Normal,
        value_name = "LEVEL",
        help_heading = HEADING
    )]
    priority: Priority,
    #[command(flatten)]
    speed: SpeedArguments,
}

#[derive(Debug, Args)]
struct SpeedArguments {
    /// Read and copy at most this many bytes per second, all threads together, such as 50MiB or
    /// 200MB [default: no limit]
    #[arg(
        long,
        env = "KBACKUP_LIMIT_RATE",
        value_name = "BYTES",
        value_parser = rate,
        help_heading = HEADING
    )]
    limit_rate: Option<Rate>,
    /// Show at the end how long each step took
    #[arg(long, env = "KBACKUP_TIMINGS", help_heading = HEADING)]
    timings: bool,
}

/// How much of the machine a run may take.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoadOptions {
    /// `--priority`.
    pub priority: Priority,
    /// `--limit-rate`: the highest rate, for all threads together.
    pub rate: Option<Rate>,
    /// `--window`: the hours in which the run is allowed.
    pub window: Option<Window>,
    /// `--timings`: show how long each step took.
    pub timings: bool,
}

impl From<BackgroundLoadArguments> for LoadOptions {
    fn from(arguments: BackgroundLoadArguments) -> Self {
        Self {
            priority: arguments.priority,
            rate: arguments.speed.limit_rate,
            window: arguments.window,
            timings: arguments.speed.timings,
        }
    }
}

impl From<ForegroundLoadArguments> for LoadOptions {
    fn from(arguments: ForegroundLoadArguments) -> Self {
        Self {
            priority: arguments.priority,
            rate: arguments.speed.limit_rate,
            window: None,
            timings: arguments.speed.timings,
        }
    }
}

/// How a run yields to the other programs of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Priority {
    /// Like any other program
    #[default]
    Normal,
    /// Nice 10, from which the kernel derives a low level of the best-effort I/O class
    Low,
    /// Only when no other program wants the processor: nice 19 and the idle scheduling policy, from
    /// which the kernel derives the idle I/O class
    Idle,
}

fn rate(text: &str) -> Result<Rate, String> {
    let Ok(bytes) = ByteSize::from_str(text) else {
        return Err(format!(
            "{text:?} is not a number of bytes such as 50MiB or 200MB"
        ));
    };
    let Some(rate) = Rate::new(bytes.as_u64()) else {
        return Err(format!(
            "the rate must be at least {} bytes per second",
            Rate::LOWEST
        ));
    };
    Ok(rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_of_bytes_with_or_without_a_unit() {
        assert_eq!(rate("50MiB"), Ok(Rate::new(50 << 20).unwrap()));
        assert_eq!(rate("200MB"), Ok(Rate::new(200_000_000).unwrap()));
        assert_eq!(rate("300000"), Ok(Rate::new(300_000).unwrap()));
        for text in ["", "fast", "-1MiB", "0", "10KiB", "50MiB/s"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }
}
