use std::fmt::Display;
use std::io::{BufWriter, ErrorKind, IsTerminal, Write};

use serde::Serialize;
use serde_json::json;

use crate::error::{Error, Kind, Result};
use crate::run::Run;
use crate::settings::in_one_line;
use crate::timings::{Spent, Timings};

/// Prints answers: text for people or JSON for programs, on standard output.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    json: bool,
}

impl Output {
    pub(super) const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints the answer: `value`, an object, as JSON under its schema's name, or `text`. Only one
    /// of the two is made.
    ///
    /// # Errors
    /// Where standard output takes no more; a reader that went away is no failure.
    pub(super) fn answer(
        self,
        schema: &str,
        value: &impl Serialize,
        text: &(impl Display + ?Sized),
    ) -> Result<()> {
        self.print(schema, value, || printable(&text.to_string()))
    }

    /// The same for a text that is kbackup's own, such as a script, and meant byte by byte.
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
        struct Answer<'a, T> {
            schema: &'a str,
            #[serde(flatten)]
            value: &'a T,
        }
        let printed = print(|stdout| {
            if !self.json {
                return stdout.write_all(text().as_bytes());
            }
            // Piece by piece: a backup has a row for each file.
            serde_json::to_writer_pretty(&mut *stdout, &Answer { schema, value })?;
            stdout.write_all(b"\n")
        });
        printed.map_err(|error| Error::new(Kind::Failed, "cannot write the answer").because(error))
    }

    /// Prints an error and returns its exit code.
    pub(super) fn error(self, error: &Error) -> u8 {
        let code = error.kind().exit_code();
        if self.json {
            let object = json!({
                "schema": "kbackup.error/1",
                "error": error.kind().name(),
                "exit_code": code,
                "message": error.what(),
                "on": error.place(),
                "causes": error.causes(),
                "hints": error.hints(),
            });
            // The error is told on standard error as well.
            let _ = print(|stdout| writeln!(stdout, "{object:#}"));
        }
        self.complain(error)
    }

    /// Whether there is somebody to be asked.
    pub(super) fn can_ask(self) -> bool {
        !self.json && std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
    }

    /// Asks what has to be answered by y or yes.
    ///
    /// # Errors
    /// The run's interruption, which no answer has to wait for.
    pub(super) fn ask(self, question: &str, run: &Run) -> Result<bool> {
        complain(&printable(&format!("{question} [y/N] ")));
        let (sender, answers) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            // Where nothing can be read, nothing was said.
            let _ = std::io::stdin().read_line(&mut line);
            let _ = sender.send(line);
        });
        loop {
            run.check()?;
            match answers.recv_timeout(std::time::Duration::from_millis(100)) {
                Ok(line) => return Ok(["y", "yes"].contains(&line.trim().to_lowercase().as_str())),
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return Ok(false),
            }
        }
    }

    /// Help and version go to standard output, usage errors to standard error.
    pub(super) fn usage(self, message: &clap::Error) -> u8 {
        let rendered = message.render();
        let (colour, plain) = (rendered.ansi().to_string(), rendered.to_string());
        if !message.use_stderr() {
            let text = if std::io::stdout().is_terminal() {
                &colour
            } else {
                &plain
            };
            let _ = print(|stdout| stdout.write_all(text.as_bytes()));
            return 0;
        }
        if self.json {
            return self.error(
                &Error::new(Kind::Usage, in_one_line(message))
                    .hint("`kbackup --help` shows verbs and options"),
            );
        }
        complain(if std::io::stderr().is_terminal() {
            &colour
        } else {
            &plain
        });
        Kind::Usage.exit_code()
    }

    /// Tells people where the time went.
    pub(super) fn timings(self, timings: &Timings) {
        let seconds = |seconds: f64| format!("{seconds:.2}");
        let row = |spent: Spent| {
            vec![
                spent.name.to_owned(),
                seconds(spent.seconds),
                spent.cpu_seconds.map_or_else(String::new, seconds),
            ]
        };
        let steps = table(
            &["step", "seconds", "of processor time"],
            timings.steps().into_iter().map(row).collect(),
        );
        let spent = timings
            .activities()
            .into_iter()
            .filter(|spent| spent.seconds > 0.0);
        let activities = table(
            &["all threads together", "seconds"],
            spent
                .map(|spent| vec![spent.name.to_owned(), seconds(spent.seconds)])
                .collect(),
        );
        complain(&format!("{steps}{activities}"));
    }

    /// Prints an error for people only, and returns its exit code.
    pub(super) fn complain(self, error: &Error) -> u8 {
        complain(&printable(&error_text(error)));
        error.kind().exit_code()
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

/// Manifests and nodes are quoted; what they say must not command the terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|character| {
            if character.is_control() && character != '\n' {
                '\u{fffd}'
            } else {
                character
            }
        })
        .collect()
}

/// A reader that went away (`kbackup list | head`) is no failure.
fn print(write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> std::io::Result<()> {
    let mut stdout = BufWriter::new(std::io::stdout().lock());
    match write(&mut stdout).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Where nobody listens any more, the exit code still says it.
fn complain(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// "1 file", "2 files".
pub(super) fn count(number: impl Into<u64>, what: &str) -> String {
    let number = number.into();
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// "once", "3 times".
pub(super) fn times(count: u32) -> String {
    if count == 1 {
        "once".to_owned()
    } else {
        format!("{count} times")
    }
}

/// Bytes as people read them.
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
    let lines: Vec<String> = table
        .lines()
        .map(|line| {
            line.strip_prefix(' ')
                .unwrap_or(&line)
                .trim_end()
                .to_owned()
        })
        .collect();
    format!("{}\n", lines.join("\n"))
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
