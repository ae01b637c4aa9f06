//! `kbackup export`. Standard output is the archive, so everything else goes to standard error.

use std::io::{BufWriter, IsTerminal};

use super::context::VerbContext;
use super::output::{count, size};
use crate::error::{Error, Kind, Result};
use crate::settings::options::ExportOptions;
use crate::verbs::export;

pub(super) fn run(options: &ExportOptions, context: &VerbContext) -> Result<u8> {
    if context.general.json {
        let what = "an export has no answer in JSON, because standard output is the archive";
        return Err(Error::new(Kind::Usage, what).hint("leave `--json` out"));
    }
    let stdout = std::io::stdout();
    if stdout.is_terminal() {
        let what = "an archive is not for a terminal";
        return Err(Error::new(Kind::Usage, what)
            .hint("write it into a file or a pipe: `kbackup export … > backup.tar`"));
    }

    let run = &*context.run;
    let mut into = BufWriter::new(stdout.lock());
    let report = export::export(options, &context.general, &mut into, run)?;
    run.note(format!(
        "exported {}: {} of {}, an archive of {}",
        report.label,
        count(report.files, "file"),
        size(report.bytes),
        size(report.archive_bytes)
    ));
    Ok(context.done())
}
