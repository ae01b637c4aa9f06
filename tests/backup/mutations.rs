//! A backup that was taken can be restored, and the restored directory passes `check`: whatever is
//! wrong with the source.
//!
//! Each sample is a small data directory with a few changes anywhere. kbackup may refuse it. If it
//! takes a backup, `verify --deep` finds nothing wrong with it, and neither does `check --deep` with
//! what a restore of it writes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use kbackup::backup::{self, BackupRequest, RecheckShare, Source, SourceNode};
use kbackup::event::Silent;
use kbackup::manifest::{BackupKind, Directories, Label};
use kbackup::proof::{self, Depth};
use kbackup::repository::{MemoryRepository, Repository};
use kbackup::restore;
use kbackup::run::Run;
use kbackup::server::ServerLine;
use kbackup::verify::{self, Which};
use kbackup_testnode::Synthetic;

use super::bench::{Bench, scavenge_state, secondary_index, workplace, writable};
use crate::restore::handmade::contents;
use crate::torture::{Chance, amount, seed};

/// A source to change, with its files by their paths.
struct Original {
    bench: Bench,
    files: BTreeMap<String, Vec<u8>>,
    line: ServerLine,
}

impl Original {
    /// Small chunks, two tables with filters, a secondary index, and the state of a scavenge.
    fn synthetic() -> Self {
        let bench = Bench::new(&Synthetic {
            filled_filters: false,
            chunk_size: 16 * 1024,
            completed_chunks: 2,
            active_bytes: 9_000,
            event_bytes: 300,
            most_events_in_append: 3,
            streams: 8,
            table_entries: 30,
            filter_bytes: 10_000,
            merged_chunks: 0,
            seed: 3,
        });
        std::fs::write(bench.db.join("kurrent.ddb"), secondary_index()).unwrap();
        let scavenging = bench.index().join("scavenging");
        std::fs::create_dir(&scavenging).unwrap();
        std::fs::write(scavenging.join("scavenging.db"), scavenge_state(&[])).unwrap();
        Self::of(bench)
    }

    fn real(name: &str) -> Self {
        Self::of(Bench::of(name))
    }

    fn of(bench: Bench) -> Self {
        Self {
            files: contents(&bench.db),
            line: bench.line,
            bench,
        }
    }
}

/// One change to a source.
#[derive(Debug, Clone)]
enum Change {
    Flip(String, u64),
    Zero(String, u64, u64),
    Random(String, u64, u64),
    Cut(String, u64),
    Extend(String, u64),
    Swap(String, String),
    Replace(String, String),
    Delete(String),
    Link(String),
    Directory(String),
    /// Eight bytes become a number.
    Number(String, u64),
    /// The scavenger's state knows of a scavenge there.
    ScavengePoint(u64),
}

impl Change {
    /// Any change. Small files are hit as often as large ones.
    fn choose(original: &Original, chance: &mut Chance) -> Self {
        let names: Vec<&String> = original.files.keys().collect();
        let name = (*chance.of(&names)).clone();
        let other = (*chance.of(&names)).clone();
        let size = original.files[&name].len() as u64;
        let at = chance.below(size);
        let length = [1, 64, 98 * 64, 4096][chance.place(4)];

        match chance.below(20) {
            0..5 => Self::Flip(name, at * 8 + chance.below(8)),
            5..8 => Self::Zero(name, at / 64 * 64, length),
            8 | 9 => Self::Random(name, at, length),
            10 | 11 => Self::Cut(name, at),
            12 => Self::Extend(name, 1 + chance.below(5000)),
            13 => Self::Swap(name, other),
            14 => Self::Replace(name, other),
            15 => Self::Delete(name),
            16 => Self::Link(name),
            17 => Self::Directory(name),
            18 => {
                let mut checkpoints = names;
                checkpoints.retain(|name| name.ends_with(".chk"));
                let number = [0, 1, 20_000, u64::MAX, 1 << 40, chance.number()][chance.place(6)];
                Self::Number((*chance.of(&checkpoints)).clone(), number)
            }
            _ => Self::ScavengePoint([0, 5_000, 20_000, 41_769, 1 << 30][chance.place(5)]),
        }
    }

    fn apply(&self, db: &Path) {
        let at = |name: &String| db.join(name);

        match self {
            // Bytes of a file.
            Self::Flip(name, bit) => flip(&at(name), *bit),
            Self::Zero(name, offset, length) => {
                overwrite(&at(name), *offset, *length, |_| 0);
            }
            Self::Random(name, offset, length) => {
                let mut chance = Chance::new(*offset);
                overwrite(&at(name), *offset, *length, |_| chance.byte());
            }

            // The length of a file.
            Self::Cut(name, length) => change(&at(name), |file, _| file.set_len(*length).unwrap()),
            Self::Extend(name, more) => {
                change(&at(name), |file, size| file.set_len(size + more).unwrap());
            }

            // A whole file.
            Self::Swap(one, other) => swap(db, one, other),
            Self::Replace(name, by) => replace(&at(name), &at(by)),
            Self::Delete(name) => remove(&at(name)),
            Self::Link(name) => {
                remove(&at(name));
                symlink("elsewhere", at(name)).unwrap();
            }
            Self::Directory(name) => {
                remove(&at(name));
                std::fs::create_dir(at(name)).unwrap();
            }

            // What a file means.
            Self::Number(name, number) => change(&at(name), |file, _| {
                file.write_all_at(&number.to_le_bytes(), 0).unwrap();
            }),
            Self::ScavengePoint(position) => set_scavenge_point(db, *position),
        }
    }
}

fn flip(path: &Path, bit: u64) {
    change(path, |file, size| {
        if bit / 8 >= size {
            return;
        }

        let mut byte = [0];
        file.read_exact_at(&mut byte, bit / 8).unwrap();
        byte[0] ^= 1 << (bit % 8);
        file.write_all_at(&byte, bit / 8).unwrap();
    });
}

/// Overwrites a part of a file, but nothing behind its end.
fn overwrite(path: &Path, offset: u64, length: u64, byte: impl FnMut(usize) -> u8) {
    change(path, |file, size| {
        let length = usize::try_from(length.min(size.saturating_sub(offset))).unwrap();
        let bytes: Vec<u8> = (0..length).map(byte).collect();
        file.write_all_at(&bytes, offset).unwrap();
    });
}

fn swap(db: &Path, one: &str, other: &str) {
    let (one, other, between) = (db.join(one), db.join(other), db.join("between"));
    if one.exists() && other.exists() && one != other {
        std::fs::rename(&one, &between).unwrap();
        std::fs::rename(&other, &one).unwrap();
        std::fs::rename(&between, &other).unwrap();
    }
}

/// Gives a file the bytes of another one.
fn replace(path: &Path, by: &Path) {
    let Ok(bytes) = std::fs::read(by) else {
        return;
    };
    change(path, |file, _| {
        file.set_len(0).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
    });
}

fn set_scavenge_point(db: &Path, position: u64) {
    let state = db.join("index/scavenging/scavenging.db");
    if state.parent().is_some_and(Path::is_dir) && !state.is_dir() {
        remove(&state);
        std::fs::write(state, scavenge_state(&[position])).unwrap();
    }
}

/// Changes a plain file. An earlier change may have taken it away.
fn change(path: &Path, change: impl FnOnce(&std::fs::File, u64)) {
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.is_file()) {
        writable(path, |file| change(file, file.metadata().unwrap().len()));
    }
}

fn remove(path: &Path) {
    let _ = std::fs::remove_file(path).or_else(|_| std::fs::remove_dir(path));
}

/// What became of the samples.
#[derive(Debug, Default)]
struct Outcomes {
    taken: usize,
    refused: usize,
}

/// Takes a backup of a changed source, and examines what it restores to. Returns what is wrong.
fn sample(original: &Original, changes: &[Change], outcomes: &mut Outcomes) -> Result<(), String> {
    let place = workplace();
    let db = place.path().join("db");
    super::bench::copy_tree(&original.bench.db, &db);
    for change in changes {
        change.apply(&db);
    }

    let repository = MemoryRepository::create();
    let Ok(label) = take(&db, &repository) else {
        outcomes.refused += 1;
        return Ok(());
    };
    outcomes.taken += 1;

    let run = Run::new(Silent);
    let report = verify::verify(&repository, &Which::All, Depth::Deep, &run)
        .map_err(|error| format!("verify: {error} {:?}", error.causes()))?;
    if !report.is_sound() {
        return Err(format!("verify: {:#?}", report.backups));
    }

    let target = place.path().join("restored");
    restore(&repository, &label, &target)?;
    let options = proof::ExamineOptions {
        version: Some(original.line),
        depth: Depth::Deep,
        in_use: false,
    };
    let examination = proof::examine(&Directories::new(&target, None), &options, &run)
        .map_err(|error| format!("check: {error} {:?}", error.causes()))?;
    match examination.kind() {
        Some(_) => Err(format!("check: {:#?}", examination.findings)),
        None => Ok(()),
    }
}

fn take(db: &Path, repository: &MemoryRepository) -> kbackup::error::Result<Label> {
    let request = BackupRequest {
        kind: BackupKind::Full,
        attempts: 1,
        filter_max_age: std::time::Duration::ZERO,
        catch_up: std::time::Duration::ZERO,
        accept_damaged: false,
        new_branch: false,
        new_address: false,
        recheck: RecheckShare::Bytes(0),
    };
    let source = Source {
        directories: Directories::new(db, None),
        server_version: None,
        node: SourceNode::Stopped,
    };
    let summary = backup::take(&request, &source, repository, &Run::new(Silent))?;
    Ok(summary.label)
}

fn restore(repository: &dyn Repository, label: &Label, target: &Path) -> Result<(), String> {
    let run = Run::new(Silent);
    let request = restore::RestoreRequest {
        label: Some(label.clone()),
        targets: vec![restore::RestoreTarget {
            db: target.to_owned(),
            index: None,
        }],
        ready: true,
        ..restore::RestoreRequest::default()
    };
    let restored = restore::plan(repository, &request, &run)
        .and_then(|plan| restore::execute(repository, &plan, &run));
    match restored {
        Ok(report) => match report.failure() {
            Some(failure) => Err(format!("restore: {failure:?}")),
            None => Ok(()),
        },
        Err(error) => Err(format!("restore: {error} {:?}", error.causes())),
    }
}

/// Runs so many samples, on several threads. Each has a seed of its own.
fn run(original: &Original, samples: usize) {
    const THREADS: usize = 8;
    let first = seed();

    let parts: Vec<(Outcomes, String)> = std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for thread in 0..THREADS {
            threads.push(scope.spawn(move || {
                let (mut outcomes, mut failures) = (Outcomes::default(), String::new());
                for number in (thread..samples).step_by(THREADS) {
                    let mut chance = Chance::new(first + number as u64);
                    let changes: Vec<Change> = (0..1 + chance.below(3))
                        .map(|_| Change::choose(original, &mut chance))
                        .collect();
                    if let Err(wrong) = sample(original, &changes, &mut outcomes) {
                        writeln!(
                            failures,
                            "sample {number} of seed {first}, {changes:?}: {wrong}"
                        )
                        .unwrap();
                    }
                }
                (outcomes, failures)
            }));
        }
        let results = threads.into_iter().map(|thread| thread.join().unwrap());
        results.collect()
    });

    let mut all = Outcomes::default();
    for (outcomes, failures) in parts {
        assert!(failures.is_empty(), "{failures}");
        all.taken += outcomes.taken;
        all.refused += outcomes.refused;
    }

    // The test says something only if many of both kinds were met.
    assert_eq!(all.taken + all.refused, samples);
    assert!(
        all.taken > samples / 5 && all.refused > samples / 10,
        "{all:?}"
    );
}

#[test]
fn what_was_taken_of_a_changed_source_passes_the_check() {
    run(&Original::synthetic(), amount(2000, 100_000));
}

#[test]
fn what_was_taken_of_a_changed_real_node_passes_the_check() {
    for name in ["22.10-scavenge", "26.1-scavenge"] {
        run(&Original::real(name), amount(60, 5_000));
    }
}
