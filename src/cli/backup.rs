//! `kbackup full` and `kbackup diff`.

use std::fmt::Write;

use super::Session;
use super::output::{count, size, times};
use crate::backup::{Forecast, Summary};
use crate::error::Result;
use crate::manifest::BackupKind;
use crate::settings::arguments;
use crate::verbs;

pub(super) fn run(kind: BackupKind, options: &arguments::Backup, session: &Session) -> Result<u8> {
    let run = &*session.run;
    if options.dry_run {
        let forecast = verbs::backup::forecast(kind, options, &session.common, run)?;
        session
            .output
            .answer("kbackup.forecast/1", &forecast, &forecast_text(&forecast))?;
        return Ok(session.done());
    }
    let summary = verbs::backup::take(kind, options, None, &session.common, run)?;
    let told = session.output.answer(
        "kbackup.summary/1",
        &session.with_warnings(&summary)?,
        &summary_text(&summary),
    );
    if let Err(error) = told {
        // Who reads a failure would take it again.
        run.warn(format!(
            "{} is committed, and only its summary is lost: {}",
            summary.label,
            error.in_words()
        ));
    }
    Ok(session.done())
}

fn summary_text(summary: &Summary) -> String {
    let mut text = format!(
        "{} ends at log position {}\n",
        summary.label, summary.position
    );
    let parent = summary.parent.as_ref().map_or_else(String::new, |parent| {
        format!(
            " (since {parent}: {} of log)",
            size(summary.log_bytes_added)
        )
    });
    let _ = writeln!(
        text,
        "read {} of the node's files{parent}",
        size(summary.bytes_read)
    );
    let _ = writeln!(
        text,
        "stored {} anew: {} copied, {} taken over; a restore writes {}",
        size(summary.bytes_stored),
        count(summary.files_copied, "file"),
        summary.files_linked,
        size(summary.bytes)
    );
    if summary.files_resumed > 0 {
        let _ = writeln!(
            text,
            "files taken up from an interrupted backup: {} ({})",
            summary.files_resumed,
            size(summary.bytes_resumed)
        );
    }
    let retries = if summary.retries == 0 {
        String::new()
    } else {
        format!(", started over {}", times(summary.retries))
    };
    let _ = writeln!(
        text,
        "proven and durable after {} s{retries}",
        summary.seconds
    );
    text
}

fn forecast_text(forecast: &Forecast) -> String {
    let on = forecast
        .parent
        .as_ref()
        .map_or_else(String::new, |parent| format!(" on {parent}"));
    let estimate = forecast.estimate;
    format!(
        "would take a {}{on}, on branch {}\nwould read about {} in {}, and take over {}\nan estimate: the files are known for sure only while the node holds still\n",
        forecast.kind,
        forecast.branch,
        size(estimate.bytes),
        count(estimate.files, "file"),
        count(estimate.held, "file")
    )
}
