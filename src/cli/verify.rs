//! `kbackup verify`.

use std::fmt::Write;

use super::output::size;
use super::{Session, label};
use crate::error::{Kind, Result};
use crate::proof::Depth;
use crate::repository::DirectoryRepository;
use crate::settings::arguments;
use crate::verify::{self, Report, Which};

pub(super) fn run(options: &arguments::Verify, session: &Session) -> Result<u8> {
    let named = options.labels.iter().map(|text| label(text)).collect::<Result<Option<Vec<_>>>>()?;
    let repository = DirectoryRepository::open(&options.repository.repo)?;
    let which = match named {
        _ if options.all => Which::All,
        Some(labels) if !labels.is_empty() => Which::Named(labels),
        _ => Which::Newest,
    };
    let depth = match (options.quick, options.deep) {
        (true, _) => Depth::Quick,
        (false, true) => Depth::Deep,
        (false, false) => Depth::Normal,
    };
    let report = verify::verify(&repository, &which, depth, &session.run)?;
    session.output.answer("kbackup.verify/1", &session.with_warnings(&report)?, &text(&report))?;
    Ok(if report.is_sound() { session.done() } else { Kind::StoredCorrupt.exit_code() })
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for backup in &report.backups {
        if backup.findings.is_empty() {
            let _ = writeln!(text, "{}: intact, {} files", backup.label, backup.files);
        } else {
            let _ = writeln!(text, "{}: DAMAGED", backup.label);
        }
        for finding in &backup.findings {
            let _ = match &finding.path {
                Some(path) => writeln!(text, "  {path}: {}", finding.what),
                None => writeln!(text, "  {}", finding.what),
            };
        }
    }
    let _ = match report.depth {
        Depth::Quick => writeln!(text, "only structure and sizes were looked at"),
        Depth::Normal | Depth::Deep => writeln!(text, "{} hashed; what several backups share, once", size(report.bytes_hashed)),
    };
    text
}
