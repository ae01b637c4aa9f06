//! Power loss: unsynced changes are gone, in the worst order that a file system allows.
//!
//! A run records every change that it makes (`KBACKUP_RECORD`). From the recording, the tests make
//! each disk that a power loss could leave. The same assertions hold for each disk. Listed backups
//! restore. No server starts from an incomplete target. No committed backup and no release record is
//! lost. The next run needs no help.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may end in a panic"
)]
#![expect(clippy::print_stdout, reason = "the figures of the long form")]

mod disk;
mod release_records;
mod repositories;
mod restores;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use disk::{Data, Disk, Names, Record};

use super::Chance;

/// A directory whose changes are watched.
struct Watched {
    place: PathBuf,
    recording: PathBuf,
    before: Disk,
}

/// A disk after a loss of power.
struct Cut<'a> {
    /// The directory that holds the disk.
    disk: &'a Path,
    /// The number of changes that the run had made.
    made: usize,
    /// The run had made all changes and had said that it succeeded.
    complete: bool,
    what: &'a str,
}

impl Watched {
    /// Takes everything below `place` as durable now.
    fn new(place: &Path) -> Self {
        std::fs::create_dir_all(place).unwrap();
        let recording = place.with_extension("recording");
        let _ = std::fs::remove_file(&recording);
        Self {
            place: place.to_owned(),
            recording,
            before: Disk::of(place),
        }
    }

    /// Runs a command and records its changes, after those of earlier commands.
    fn watch(&self, command: &mut Command) -> Output {
        command
            .env("KBACKUP_RECORD", &self.recording)
            .env("KBACKUP_STATE_DIR", self.place.join("state"))
            .output()
            .unwrap()
    }

    fn records(&self) -> Vec<Record> {
        Record::read_all(&self.recording)
    }

    /// Loses the power before and after every sync, rename, link and removal, and at some other
    /// moments. Different disks count once. The short form tests `short` of them, the long form all
    /// of them.
    fn lose_power(&self, name: &str, short: usize, mut test: impl FnMut(&Cut<'_>)) {
        let records = self.records();
        let mut chance = Chance::new(super::seed());
        let is_barrier = |number: usize| records.get(number).is_some_and(Record::is_barrier);
        let mut all = Vec::new();
        let (mut disk, mut seen) = (self.before.clone(), HashSet::new());

        for made in 0..=records.len() {
            if made > 0 {
                disk.apply(&records[made - 1]);
            }

            let barrier =
                made == records.len() || made > 0 && is_barrier(made - 1) || is_barrier(made);
            if barrier || chance.below(10) == 0 {
                // After the run has said that it succeeded, the same disk has to hold more.
                if made == records.len() {
                    seen.clear();
                }
                for image in disk.after_power_loss(&mut seen) {
                    all.push((made, image));
                }
            }
        }

        let (of, wanted) = (all.len(), super::amount(short, usize::MAX));
        // After a successful run, the synced changes must be enough. This disk is always tested.
        let done = all.iter().position(|(made, image)| {
            *made == records.len() && image.names == Names::Synced && image.data == Data::None
        });
        let done = done.map(|place| all.remove(place)).unwrap();
        while all.len() >= wanted {
            all.remove(chance.place(all.len()));
        }
        all.push(done);
        println!(
            "{name}: {} changes, {of} disks, {} tested",
            records.len(),
            all.len()
        );

        let place = self.place.with_extension("disk");
        let mut disk = self.before.clone();

        let mut applied = 0;
        for (made, image) in all {
            for record in &records[applied..made] {
                disk.apply(record);
            }
            applied = made;
            disk.write(&image, &place);

            let last = match made {
                0 => String::new(),
                _ => records[made - 1].describe(),
            };
            let what = format!(
                "{name}, seed {}: power lost after {made} of {} changes ({last}), {}",
                super::seed(),
                records.len(),
                image.describe()
            );
            test(&Cut {
                disk: &place,
                made,
                complete: made == records.len(),
                what: &what,
            });
        }
        let _ = std::fs::remove_dir_all(&place);
    }
}

fn kbackup(arguments: &[&str], paths: &[(&str, &Path)]) -> Command {
    let mut command = crate::executable::kbackup();
    command.args(arguments);
    for (option, path) in paths {
        command.arg(option).arg(path);
    }
    command
}

fn assert_success(output: &Output) {
    assert!(
        matches!(output.status.code(), Some(0 | 3)),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
