//! The log on standard error, and a progress bar above it on a terminal.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing::info;

use super::output::size;
use crate::event::{Event, Observer, Step};
use crate::settings::options::{GeneralOptions, LogFormat, LogLevel};
use crate::verbs::log;

/// Without a terminal, a line of progress is logged this often.
const LINE_INTERVAL: Duration = Duration::from_secs(30);

/// The bar of a step whose bytes are known.
const STEP_WITH_BYTES: &str =
    "{msg:12} {wide_bar} {bytes} of {total_bytes}, {binary_bytes_per_sec}, {eta} left";
/// The bar of any other step.
const STEP: &str = "{msg}";

/// Starts the log, and returns the observer that turns events into log lines and progress.
pub(super) fn start(general: &GeneralOptions) -> Progress {
    start_log(general);

    let has_bar = std::io::stderr().is_terminal()
        && general.log_format == LogFormat::Text
        && general.log != LogLevel::Error;
    let target = if has_bar {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };

    Progress {
        bar: ProgressBar::with_draw_target(Some(0), target),
        state: Mutex::new(StepProgress::new(Step::Preflight)),
    }
}

fn start_log(general: &GeneralOptions) {
    let level = match general.log {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(format!(
            "off,kbackup={level}"
        )))
        .with_writer(std::io::stderr)
        .with_target(false)
        .log_internal_errors(false);

    let started = match general.log_format {
        LogFormat::Text => builder
            .with_ansi(std::io::stderr().is_terminal())
            .try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    // In a test, another run of this process may have started the log already.
    drop(started);
}

/// Turns events into log lines and a progress bar.
pub(super) struct Progress {
    bar: ProgressBar,
    state: Mutex<StepProgress>,
}

struct StepProgress {
    step: Step,
    done: u64,
    expected: u64,
    /// When the last line of progress was logged.
    last_line: Instant,
}

impl StepProgress {
    fn new(step: Step) -> Self {
        Self {
            step,
            done: 0,
            expected: 0,
            last_line: Instant::now(),
        }
    }
}

impl Observer for Progress {
    fn observe(&self, event: &Event) {
        match event {
            Event::Step(step) => {
                self.begin(*step);
                log::tell(event);
            }
            Event::Expected { bytes, .. } => {
                self.expect(*bytes);
                log::tell(event);
            }
            Event::Progress { bytes } => self.advance(*bytes),
            // Otherwise the line would be written into the bar.
            event => self.bar.suspend(|| log::tell(event)),
        }
    }
}

impl Progress {
    fn begin(&self, step: Step) {
        if let Ok(mut state) = self.state.lock() {
            *state = StepProgress::new(step);
        }

        self.bar.reset();
        self.style(STEP);
        self.bar.set_message(step.name());
    }

    fn expect(&self, bytes: u64) {
        if let Ok(mut state) = self.state.lock() {
            state.expected = bytes;
        }

        if bytes > 0 {
            self.bar.set_length(bytes);
            self.style(STEP_WITH_BYTES);
        }
    }

    fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);

        let Ok(mut state) = self.state.lock() else {
            return;
        };
        state.done += bytes;
        if !self.bar.is_hidden() || state.last_line.elapsed() < LINE_INTERVAL {
            return;
        }

        state.last_line = Instant::now();
        info!(
            "{}: {} of {}",
            state.step.name(),
            size(state.done),
            size(state.expected)
        );
    }

    fn style(&self, template: &str) {
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
    }
}
