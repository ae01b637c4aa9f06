//! Lists the backups of a repository, and proves the newest one again.
//!
//! ```text
//! cargo run --example list_and_verify -- REPOSITORY
//! ```

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use kbackup::event::Silent;
use kbackup::proof::Depth;
use kbackup::repository::Location;
use kbackup::run::Run;
use kbackup::verify::{self, Which};

fn main() -> Result<()> {
    let repository = std::env::args().nth(1).context("name a repository")?;
    list_and_verify(Path::new(&repository), &mut std::io::stdout())
}

/// Writes one line for each backup, then what the verification of the newest backup found.
pub(crate) fn list_and_verify(path: &Path, out: &mut impl Write) -> Result<()> {
    let repository = Location::parse(path)?.open()?;

    for listed in repository.list()? {
        match listed.head {
            Ok(head) => writeln!(
                out,
                "{}: finished {}, ends at position {}, {} bytes",
                listed.label, head.finished, head.log.position, head.totals.bytes
            )?,
            Err(error) => writeln!(out, "{}: damaged, {error}", listed.label)?,
        }
    }

    // A run carries the observer, the rate limit and the way to interrupt a long operation.
    let run = Run::new(Silent);
    let report = verify::verify(&*repository, &Which::Newest, Depth::Normal, &run)?;

    for backup in &report.backups {
        for finding in &backup.findings {
            writeln!(out, "{}: {finding}", backup.label)?;
        }
    }
    if !report.is_sound() {
        bail!("the newest backup is damaged");
    }
    writeln!(out, "hashed {} bytes: intact", report.bytes_hashed)?;
    Ok(())
}
