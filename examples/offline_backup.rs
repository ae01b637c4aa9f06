//! Backs up the directory of a stopped node.
//!
//! ```text
//! cargo run --example offline_backup -- DB_DIRECTORY REPOSITORY
//! ```

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use kbackup::backup::{self, BackupRequest, RecheckShare, Source, SourceNode};
use kbackup::event::{Event, Observer};
use kbackup::manifest::{BackupKind, Directories};
use kbackup::repository::Location;
use kbackup::run::Run;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let db = arguments.next().context("name a db directory")?;
    let repository = arguments.next().context("name a repository")?;

    let (db, repository) = (Path::new(&db), Path::new(&repository));
    offline_backup(db, repository, &mut std::io::stdout())
}

/// Takes a diff, which is a full if the repository has no backup yet, and writes what it did. Makes
/// the repository if there is none.
pub(crate) fn offline_backup(db: &Path, repository: &Path, out: &mut impl Write) -> Result<()> {
    // Without an index directory, the index is in the directory `index` of the db directory.
    let source = Source {
        directories: Directories::new(db.to_owned(), None),
        server_version: None,
        node: SourceNode::Stopped,
    };
    let request = BackupRequest {
        kind: BackupKind::Diff,
        attempts: 3,
        filter_max_age: Duration::from_hours(24),
        catch_up: Duration::ZERO,
        accept_damaged: false,
        new_branch: false,
        new_address: false,
        recheck: RecheckShare::Percent(5),
    };

    let location = Location::parse(repository)?;
    let repository = match location.open_if_there()? {
        Some(repository) => repository,
        None => location.create()?,
    };
    let run = Run::new(Steps);
    let summary = backup::take(&request, &source, &*repository, &run)?;

    writeln!(
        out,
        "{}: {} files copied, {} reused, ends at position {}",
        summary.label, summary.files_copied, summary.files_linked, summary.position
    )?;
    Ok(())
}

/// An observer that logs the steps of the procedure.
struct Steps;

impl Observer for Steps {
    fn observe(&self, event: &Event) {
        if let Event::Step(step) = event {
            tracing::info!("{}", step.name());
        }
    }
}
