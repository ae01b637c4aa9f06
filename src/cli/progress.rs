use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing::info;

use super::output::size;
use crate::event::{Event, Observer, Step};
use crate::settings::arguments::{General, LogFormat, LogLevel};
use crate::verbs::log;

/// Where there is no terminal, a line of progress comes this often.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// The bar, of a step whose bytes are known, and of one whose bytes are not.
const STEP_WITH_BYTES: &str =
    "{msg:12} {wide_bar} {bytes} of {total_bytes}, {binary_bytes_per_sec}, {eta} left";
const STEP: &str = "{msg}";

/// Starts the log on standard error, and returns what turns events into log lines and progress.
pub(super) fn start(general: &General) -> Progress {
    let level = match general.log {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::new(format!("off,kbackup={level}"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .log_internal_errors(false);
    let started = match general.log_format {
        LogFormat::Text => builder
            .with_ansi(std::io::stderr().is_terminal())
            .try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    drop(started);
    let terminal = std::io::stderr().is_terminal()
        && general.log_format == LogFormat::Text
        && general.log != LogLevel::Error;
    let bar = ProgressBar::with_draw_target(
        Some(0),
        if terminal {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        },
    );
    Progress {
        bar,
        state: Mutex::new(State {
            step: Step::Preflight,
            done: 0,
            expected: 0,
            told: Instant::now(),
        }),
    }
}

/// Turns events into log lines and a progress bar.
pub(super) struct Progress {
    bar: ProgressBar,
    state: Mutex<State>,
}

struct State {
    step: Step,
    done: u64,
    expected: u64,
    told: Instant,
}

impl Observer for Progress {
    fn observe(&self, event: &Event) {
        match event {
            Event::Step(step) => {
                if let Ok(mut state) = self.state.lock() {
                    *state = State {
                        step: *step,
                        done: 0,
                        expected: 0,
                        told: Instant::now(),
                    };
                }
                self.bar.reset();
                self.style(STEP);
                self.bar.set_message(step.name());
                log::tell(event);
            }
            Event::Expected { bytes, .. } => {
                if let Ok(mut state) = self.state.lock() {
                    state.expected = *bytes;
                }
                if *bytes > 0 {
                    self.bar.set_length(*bytes);
                    self.style(STEP_WITH_BYTES);
                }
                log::tell(event);
            }
            Event::Progress { bytes } => self.advance(*bytes),
            event => self.above_bar(|| log::tell(event)),
        }
    }
}

impl Progress {
    fn style(&self, template: &str) {
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
    }

    fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
        let Ok(mut state) = self.state.lock() else {
            return;
        };
        state.done += bytes;
        if self.bar.is_hidden() && state.told.elapsed() >= LINE_EVERY {
            state.told = Instant::now();
            info!(
                "{}: {} of {}",
                state.step.name(),
                size(state.done),
                size(state.expected)
            );
        }
    }

    fn above_bar(&self, write: impl FnOnce()) {
        self.bar.suspend(write);
    }
}
