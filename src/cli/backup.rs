//! `kbackup full` and `kbackup diff`.

use std::fmt::Write;

use super::context::VerbContext;
use super::output::{count, size, times};
use crate::backup::{BackupForecast, BackupSummary};
use crate::error::Result;
use crate::manifest::BackupKind;
use crate::settings::options::BackupOptions;
use crate::verbs::backup;

pub(super) fn run(kind: BackupKind, options: &BackupOptions, context: &VerbContext) -> Result<u8> {
    let run = &*context.run;

    if options.dry_run {
        let forecast = backup::forecast(kind, options, &context.general, run)?;
        let text = forecast_text(&forecast);
        context
            .output
            .answer("kbackup.forecast/1", &forecast, &text)?;
        return Ok(context.done());
    }

    let summary = backup::take(kind, options, None, &context.general, run)?;
    let printed = context.output.answer(
        "kbackup.summary/1",
        &context.with_warnings(&summary)?,
        &summary_text(&summary),
    );
    if let Err(error) = printed {
        // A supervisor that saw a failure here would take the backup again.
        run.warn(format!(
            "{} is committed, but its summary could not be printed: {}",
            summary.label,
            error.in_words()
        ));
    }
    Ok(context.done())
}

fn summary_text(summary: &BackupSummary) -> String {
    let mut text = format!(
        "{} ends at log position {}\n",
        summary.label, summary.position
    );

    let _ = write!(
        text,
        "read {} of the node's files",
        size(summary.bytes_read)
    );
    if let Some(parent) = &summary.parent {
        let added = size(summary.log_bytes_added);
        let _ = write!(text, " (the log has grown by {added} since {parent})");
    }

    let _ = writeln!(
        text,
        "\nstored {} of new data: {} copied, {} reused; a restore writes {}",
        size(summary.bytes_stored),
        count(summary.files_copied, "file"),
        summary.files_linked,
        size(summary.bytes)
    );

    if let Some(requests) = &summary.requests {
        let _ = writeln!(text, "requests to the object store: {requests}");
    }
    if summary.bytes_resumed > 0 {
        let _ = writeln!(
            text,
            "resumed from an interrupted backup: {} ({})",
            count(summary.files_resumed, "file"),
            size(summary.bytes_resumed)
        );
    }

    let _ = write!(text, "proven and durable after {} s", summary.seconds);
    if summary.retries > 0 {
        let _ = write!(text, ", started over {}", times(summary.retries));
    }
    text.push('\n');
    text
}

fn forecast_text(forecast: &BackupForecast) -> String {
    let estimate = forecast.estimate;

    let mut text = format!("would take a {}", forecast.kind);
    if let Some(parent) = &forecast.parent {
        let _ = write!(text, " with the parent {parent}");
    }
    let _ = writeln!(text, ", on branch {}", forecast.branch);

    let _ = writeln!(
        text,
        "would read about {} in {}, and reuse {}",
        size(estimate.bytes),
        count(estimate.files, "file"),
        count(estimate.held, "file")
    );
    text.push_str(
        "this is an estimate: the exact files are known only when the node's scavenging is \
         stopped\n",
    );
    text
}
