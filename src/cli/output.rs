//! Prints answers, errors and questions. Answers go to standard output, everything else to standard
//! error.

use std::fmt::Display;
use std::io::{BufWriter, ErrorKind, IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use super::log_writer::LogWriter;
use crate::error::{Error, Kind, Result};
use crate::run::Run;
use crate::settings::UsageMessage;
use crate::timings::{SpentTime, Timings};

/// Prints text for people, or JSON for programs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    json: bool,
}

impl Output {
    pub(super) const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints the answer: `value`, an object, as JSON under the name of its schema, or `text`. Only
    /// one of the two is made.
    ///
    /// # Errors
    /// [`Kind::Failed`] if standard output cannot be written. It is no error if the reader is gone.
    pub(super) fn answer(
        self,
        schema: &str,
        value: &impl Serialize,
        text: &(impl Display + ?Sized),
    ) -> Result<()> {
        self.print(schema, value, || printable(&text.to_string()))
    }

    /// Prints a text of kbackup's own, such as a script, byte by byte.
    ///
    /// # Errors
    /// As for an answer.
    pub(super) fn document(self, schema: &str, value: &impl Serialize, text: &str) -> Result<()> {
        self.print(schema, value, || text.to_owned())
    }

    fn print(
        self,
        schema: &str,
        value: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<()> {
        #[derive(Serialize)]
        struct WithSchema<'a, T> {
            schema: &'a str,
            #[serde(flatten)]
            value: &'a T,
        }

        let printed = print(|stdout| {
            if !self.json {
                return stdout.write_all(text().as_bytes());
            }
            // Piece by piece: a backup has a row for each file.
            serde_json::to_writer_pretty(&mut *stdout, &WithSchema { schema, value })?;
            stdout.write_all(b"\n")
        });
        printed.map_err(|error| Error::new(Kind::Failed, "cannot write the answer").because(error))
    }

    /// Prints an error and returns its exit code.
    pub(super) fn error(self, error: &Error) -> u8 {
        if self.json {
            let object = json!({
                "schema": "kbackup.error/1",
                "error": error.kind().name(),
                "exit_code": error.kind().exit_code(),
                "message": error.what(),
                "on": error.place(),
                "causes": error.causes(),
                "hints": error.hints(),
            });
            // The error is on standard error, too.
            let _ = print(|stdout| writeln!(stdout, "{object:#}"));
        }
        self.complain(error)
    }

    /// Prints an error for people only, and returns its exit code.
    pub(super) fn complain(self, error: &Error) -> u8 {
        complain(&printable(&error_text(error)));
        error.kind().exit_code()
    }

    /// Whether there is an operator at a terminal to ask.
    pub(super) fn can_ask(self) -> bool {
        !self.json && std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
    }

    /// Asks a question. Only `y` and `yes` mean yes.
    ///
    /// # Errors
    /// [`Kind::Interrupted`] if the run is interrupted before an answer comes.
    pub(super) fn ask(self, question: &str, run: &Run) -> Result<bool> {
        complain(&printable(&format!("{question} [y/N] ")));

        let (sender, answers) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            // An error leaves the line empty, which means no.
            let _ = std::io::stdin().read_line(&mut line);
            let _ = sender.send(line);
        });

        loop {
            run.check()?;
            match answers.recv_timeout(Duration::from_millis(100)) {
                Ok(line) => return Ok(["y", "yes"].contains(&line.trim().to_lowercase().as_str())),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(false),
            }
        }
    }

    /// Prints help or version on standard output, or a usage error on standard error, and returns
    /// the exit code.
    pub(super) fn usage(self, message: &UsageMessage) -> u8 {
        if !message.is_error() {
            let text = if std::io::stdout().is_terminal() {
                message.coloured()
            } else {
                message.plain()
            };
            let _ = print(|stdout| stdout.write_all(text.as_bytes()));
            return 0;
        }

        if self.json {
            let error = Error::new(Kind::Usage, message.in_one_line())
                .hint("run `kbackup --help` to see verbs and options");
            return self.error(&error);
        }
        complain(&if std::io::stderr().is_terminal() {
            message.coloured()
        } else {
            message.plain()
        });
        Kind::Usage.exit_code()
    }

    /// Prints how long each step and each activity took, on standard error.
    pub(super) fn timings(self, timings: &Timings) {
        let mut steps = Vec::new();
        for SpentTime {
            name,
            seconds,
            cpu_seconds,
        } in timings.steps()
        {
            let cpu = cpu_seconds.map_or_else(String::new, |seconds| format!("{seconds:.2}"));
            steps.push(vec![name.to_owned(), format!("{seconds:.2}"), cpu]);
        }

        let mut activities = Vec::new();
        for spent in timings.activities() {
            if spent.seconds > 0.0 {
                activities.push(vec![spent.name.to_owned(), format!("{:.2}", spent.seconds)]);
            }
        }

        let steps = table(&["step", "seconds", "of processor time"], steps);
        let activities = table(&["all threads together", "seconds"], activities);
        complain(&format!("{steps}{activities}"));
    }
}

fn error_text(error: &Error) -> String {
    let mut text = format!("error: {error}\n");
    for cause in error.causes() {
        text.push_str(&format!("  because: {cause}\n"));
    }

    if !error.hints().is_empty() {
        text.push('\n');
    }
    for hint in error.hints() {
        text.push_str(&format!("hint: {hint}\n"));
    }
    text
}

/// The text without control characters. Messages quote manifests and nodes, and what those say must
/// not command the terminal.
fn printable(text: &str) -> String {
    let is_kept = |character: char| !character.is_control() || character == '\n';
    text.replace(|character| !is_kept(character), "\u{fffd}")
}

/// Writes to standard output. It is no error if the reader is gone (`kbackup list | head`).
fn print(write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> std::io::Result<()> {
    let mut stdout = BufWriter::new(std::io::stdout().lock());

    match write(&mut stdout).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Writes to standard error, after the lines of the log. If its reader is gone, the exit code still
/// tells the result.
fn complain(text: &str) {
    let Some(log) = LOG.get() else {
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
        return;
    };

    log.say(text);
    log.finish();
}

/// The log of this process, once it is started.
static LOG: OnceLock<LogWriter> = OnceLock::new();

/// Starts the thread that writes the log. Returns `None` if the system gives none.
pub(super) fn start_log_writer(tell_dropped: fn(u64) -> String) -> Option<LogWriter> {
    let writer = LogWriter::start(std::io::stderr(), tell_dropped).ok()?;
    Some(LOG.get_or_init(|| writer).clone())
}

/// Waits a moment until the last lines of the log are written.
pub(super) fn finish_log() {
    if let Some(log) = LOG.get() {
        log.finish();
    }
}

/// "1 file", "2 files".
pub(super) fn count(number: impl Into<u64>, what: &str) -> String {
    let number = number.into();
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// "once", "3 times".
pub(super) fn times(count: u32) -> String {
    if count == 1 {
        return "once".to_owned();
    }
    format!("{count} times")
}

/// A number of bytes, for people.
pub(super) fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}

/// A table with a header, for people.
pub(super) fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table
        .load_style(comfy_table::presets::NOTHING)
        .set_header(header.to_vec())
        .add_rows(rows);

    let mut text = String::new();
    for line in table.lines() {
        // The style puts a space before each cell.
        let line = line.strip_prefix(' ').unwrap_or(&line);
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        assert_eq!(
            [
                count(0_u64, "file"),
                count(1_u64, "file"),
                count(2_u64, "file")
            ],
            ["0 files", "1 file", "2 files"]
        );
        assert_eq!([times(1), times(2)], ["once", "2 times"]);
    }
}
