//! The log on standard error, and a progress bar above it on a terminal.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing::info;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use super::output::{self, size};
use crate::clock;
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
    let has_bar = std::io::stderr().is_terminal()
        && general.log_format == LogFormat::Text
        && general.log != LogLevel::Error;
    start_log(general, has_bar);

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

fn start_log(general: &GeneralOptions, has_bar: bool) {
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
        .with_writer(log_sink(general.log_format, has_bar))
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

/// Where the lines go. Beside a progress bar they are written at once, because the bar makes place
/// for each.
fn log_sink(format: LogFormat, has_bar: bool) -> BoxMakeWriter {
    let tell_dropped = match format {
        LogFormat::Text => dropped_as_text,
        LogFormat::Json => dropped_as_json,
    };

    if has_bar {
        return BoxMakeWriter::new(std::io::stderr);
    }
    match output::start_log_writer(tell_dropped) {
        Some(writer) => BoxMakeWriter::new(writer),
        None => BoxMakeWriter::new(std::io::stderr),
    }
}

fn dropped_as_text(lines: u64) -> String {
    format!(
        "{} of the log are missing here: nobody read standard error in time\n",
        output::count(lines, "line")
    )
}

fn dropped_as_json(lines: u64) -> String {
    let text = dropped_as_text(lines);
    let line = serde_json::json!({
        "timestamp": clock::now().to_string(),
        "level": "WARN",
        "message": text.trim_end(),
        "lines": lines,
    });
    format!("{line}\n")
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
