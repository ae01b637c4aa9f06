//! Power loss: what was not synced is gone, in the worst order that a file system allows.
//!
//! A run writes down every change it makes (`KBACKUP_RECORD`). From that each disk is made that a
//! loss of power could leave, and the same questions are asked of each: what is listed restores,
//! nothing half done starts, nothing committed and nothing owed is forgotten, and the next run
//! needs no help.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may end in a panic"
)]
#![expect(clippy::print_stdout, reason = "the figures of the long form")]

mod debts;
mod disk;
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
    /// Where it was materialised.
    disk: &'a Path,
    /// How many changes the run had made.
    made: usize,
    /// All were made: the run had said that it succeeded.
    complete: bool,
    what: &'a str,
}

impl Watched {
    /// Everything below `place` is durable now.
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

    /// The changes of a command are recorded, behind those of an earlier one.
    fn watch(&self, command: &mut Command) -> Output {
        command
            .env("KBACKUP_RECORD", &self.recording)
            .output()
            .unwrap()
    }

    fn records(&self) -> Vec<Record> {
        Record::read_all(&self.recording)
    }

    /// Takes the power away before and after every sync, rename, link and removal, and at some
    /// other moments. Of all the disks that this may leave, each different one counts once; `short`
    /// of them are asked in the short form, all in the long one.
    fn lose_power(&self, name: &str, short: usize, mut ask: impl FnMut(&Cut<'_>)) {
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
                // The same disk is another question once the run has said that it succeeded.
                if made == records.len() {
                    seen.clear();
                }
                all.extend(
                    disk.after_power_loss(&mut seen)
                        .into_iter()
                        .map(|image| (made, image)),
                );
            }
        }
        let (of, wanted) = (all.len(), super::amount(short, usize::MAX));
        // Of what the run had said to be done everything has to be there: this disk is always
        // asked.
        let done = all.iter().position(|(made, image)| {
            *made == records.len() && image.names == Names::Synced && image.data == Data::None
        });
        let done = done.map(|place| all.remove(place)).unwrap();
        while all.len() >= wanted {
            all.remove(chance.place(all.len()));
        }
        all.push(done);
        println!(
            "{name}: {} changes, {of} disks, {} asked",
            records.len(),
            all.len()
        );
        let place = self.place.with_extension("disk");
        let mut disk = self.before.clone();
        let mut applied = 0;
        for (made, image) in all {
            records[applied..made]
                .iter()
                .for_each(|record| disk.apply(record));
            applied = made;
            disk.write(&image, &place);
            let last = made
                .checked_sub(1)
                .map_or_else(String::new, |last| records[last].describe());
            let what = format!(
                "{name}, seed {}: power lost after {made} of {} changes ({last}), {}",
                super::seed(),
                records.len(),
                image.describe()
            );
            ask(&Cut {
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
