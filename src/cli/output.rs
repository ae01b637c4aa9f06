#![expect(clippy::print_stderr, reason = "the only place that prints")]

use std::io::{IsTerminal, Write};

use serde::Serialize;
use serde_json::json;

use crate::error::Error;

/// Prints answers: text for people or JSON for programs, on standard output.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    json: bool,
}

impl Output {
    pub(super) const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints the answer: `value` as JSON under its schema's name, or `text`.
    pub(super) fn answer(self, schema: &str, value: &impl Serialize, text: &str) {
        if self.json {
            let mut object = json!({ "schema": schema });
            match (object.as_object_mut(), serde_json::to_value(value)) {
                (Some(object), Ok(serde_json::Value::Object(fields))) => object.extend(fields),
                (Some(object), Ok(other)) => {
                    object.insert("value".to_owned(), other);
                }
                _ => {}
            }
            print(&format!("{object:#}\n"));
        } else {
            print(text);
        }
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
            print(&format!("{object:#}\n"));
        }
        self.complain(error)
    }

    /// Prints an error for people only, and returns its exit code.
    pub(super) fn complain(self, error: &Error) -> u8 {
        eprint!("{}", error_text(error));
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

/// Help and version go to standard output, usage errors to standard error.
pub(super) fn print_usage(message: &clap::Error) -> u8 {
    let rendered = message.render();
    let (colour, plain) = (rendered.ansi().to_string(), rendered.to_string());
    if message.use_stderr() {
        eprint!("{}", if std::io::stderr().is_terminal() { colour } else { plain });
        2
    } else {
        print(if std::io::stdout().is_terminal() { &colour } else { &plain });
        0
    }
}

/// A reader that went away (`kbackup list | head`) is no failure.
fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Bytes as people read them.
pub(super) fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}

/// A table with a header, for people.
pub(super) fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(header.to_vec()).add_rows(rows);
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    format!("{}\n", lines.join("\n"))
}
