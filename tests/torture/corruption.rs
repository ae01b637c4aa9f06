//! Damage anywhere in a repository, and in the source.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may end in a panic"
)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use kbackup::error::{Error, Kind};
use kbackup::event::Silent;
use kbackup::manifest::{Label, Manifest, Role, Row};
use kbackup::proof::Depth;
use kbackup::repository::{DirectoryRepository, Repository};
use kbackup::restore;
use kbackup::run::Run;
use kbackup::verify::{Which, verify};
use kbackup_testnode::{Checkpoint, Synthetic};

use super::Chance;
use crate::backup::bench::{Bench, flip, small, workplace};
use crate::restore::handmade::contents;
use crate::restore::start::{Start, start};

/// An undamaged repository, and what each of its backups restores to.
struct Master {
    bench: Bench,
    /// Every file of every backup with its bytes, by its path in the repository.
    files: BTreeMap<String, Vec<u8>>,
    manifests: Vec<Manifest>,
    /// The files that a restore of each backup writes, without the guard file.
    restored: HashMap<Label, BTreeMap<String, Vec<u8>>>,
}

impl Master {
    /// Two fulls, and for each of them one diff that shares inodes with it.
    fn synthetic() -> Self {
        let bench = Bench::new(&Synthetic {
            completed_chunks: 3,
            streams: 6,
            table_entries: 100,
            ..small()
        });
        for (full, bytes) in [(true, 60_000), (false, 0), (true, 20_000), (false, 0)] {
            if full { bench.full() } else { bench.take() }.unwrap();
            if bytes > 0 {
                bench.append(bytes);
            }
        }
        Self::of(bench)
    }

    /// The backups of a real node: scavenged and merged chunks, and tables with filters.
    fn real(name: &str) -> Self {
        let bench = Bench::of(name);
        bench.full().unwrap();
        bench.take().unwrap();
        bench.full().unwrap();
        Self::of(bench)
    }

    fn of(bench: Bench) -> Self {
        let mut manifests = Vec::new();
        let mut restored = HashMap::new();
        for head in bench.manifests() {
            let manifest = bench.repository.manifest(&head.label).unwrap();
            let (outcome, target) =
                restore_into(&bench.repository, &manifest.label, &bench.path("expected"));
            outcome.unwrap();

            let mut found = contents(&target);
            std::fs::remove_dir_all(&target).unwrap();
            found.remove("kbackup-restore.json").unwrap();
            restored.insert(manifest.label.clone(), found);
            manifests.push(manifest);
        }

        let place = PathBuf::from(bench.repository.place());
        let files = contents(&place.join("backups"))
            .into_iter()
            .map(|(name, bytes)| (format!("backups/{name}"), bytes))
            .collect();

        Self {
            bench,
            files,
            manifests,
            restored,
        }
    }

    fn place(&self) -> PathBuf {
        PathBuf::from(self.bench.repository.place())
    }

    fn path_of(&self, label: &Label, path: &str) -> String {
        format!("backups/{label}/{path}")
    }
}

/// Copies a repository with the links inside it, but shares no inode with the original.
fn copy_with_links(from: &Path, to: &Path) {
    let mut copied: HashMap<u64, PathBuf> = HashMap::new();
    for entry in walkdir::WalkDir::new(from) {
        let entry = entry.unwrap();
        let target = to.join(entry.path().strip_prefix(from).unwrap());
        if entry.file_type().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            continue;
        }

        let inode = entry.metadata().unwrap().ino();
        match copied.get(&inode) {
            Some(first) => std::fs::hard_link(first, &target).unwrap(),
            None => {
                std::fs::copy(entry.path(), &target).unwrap();
                copied.insert(inode, target);
            }
        }
    }
}

pub(super) fn restore_into(
    repository: &dyn Repository,
    label: &Label,
    target: &Path,
) -> (Result<(), Error>, PathBuf) {
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

    let outcome = restore::plan(repository, &request, &run).and_then(|plan| {
        let mut report = restore::execute(repository, &plan, &run)?;
        match report.targets.remove(0).outcome {
            restore::TargetOutcome::Failed(error) => Err(error),
            _ => Ok(()),
        }
    });
    (outcome, target.to_owned())
}

/// One change to a repository.
#[derive(Debug, Clone, PartialEq)]
enum Damage {
    Flip(String, u64),
    ZeroPage(String, u64),
    Cut(String, u64),
    Extend(String, u64),
    Swap(String, String),
    Replace(String, String),
    Delete(String),
    Duplicate(String, String),
    Link(String),
    Pipe(String),
    Directory(String),
    DeleteTree(String),
    FileForTree(String),
    Mode(String, u32),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

fn write_anyway(path: &Path, change: impl FnOnce(&std::fs::File)) {
    let mode = path.metadata().unwrap().permissions();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();

    change(
        &std::fs::File::options()
            .read(true)
            .write(true)
            .open(path)
            .unwrap(),
    );

    std::fs::set_permissions(path, mode).unwrap();
}

impl Damage {
    /// Chooses any damage, anywhere below `backups/`. A place with more files is hit more often.
    /// A small file is hit as often as a large one.
    fn choose(master: &Master, chance: &mut Chance) -> Self {
        let names: Vec<&String> = master
            .files
            .keys()
            .filter(|name| !master.files[*name].is_empty())
            .collect();
        let any = |chance: &mut Chance| (*chance.of(&names)).clone();
        let manifests: Vec<&&String> = names
            .iter()
            .filter(|name| name.ends_with("manifest.json"))
            .collect();

        let name = if chance.below(12) == 0 {
            (**chance.of(&manifests)).clone()
        } else {
            any(chance)
        };

        let size = master.files[&name].len() as u64;
        let at = chance.below(size);
        let directory = |chance: &mut Chance| {
            let label = &chance.of(&master.manifests).label;
            let below = *chance.of(&["", "/db", "/index"]);
            format!("backups/{label}{below}")
        };

        match chance.below(24) {
            0..8 => Self::Flip(name, at * 8 + chance.below(8)),
            8..10 => Self::ZeroPage(name, at / 4096 * 4096),
            10..12 => Self::Cut(name, at),
            12 => Self::Extend(name, 1 + chance.below(5000)),
            13 | 14 => Self::Swap(name, any(chance)),
            15 | 16 => Self::Replace(name, any(chance)),
            17 => Self::Delete(name),
            18 => {
                let copy = match name.rsplit_once('/') {
                    Some((above, "manifest.json")) => format!("{above}/db/manifest.json"),
                    Some((above, _)) => {
                        format!("{above}/chunk-000{:03}.000009", chance.below(1000))
                    }
                    None => unreachable(),
                };
                Self::Duplicate(name, copy)
            }
            19 => match chance.below(3) {
                0 => Self::Link(name),
                1 => Self::Pipe(name),
                _ => Self::Directory(name),
            },
            20 => Self::DeleteTree(directory(chance)),
            21 => Self::FileForTree(directory(chance)),
            22 => Self::Mode(
                name,
                [0, 0o777, 0o200, 0o4755][usize::try_from(chance.below(4)).unwrap()],
            ),
            _ => {
                let (one, other) = (
                    &chance.of(&master.manifests).label,
                    &chance.of(&master.manifests).label,
                );
                Self::Swap(
                    format!("backups/{one}/manifest.json"),
                    format!("backups/{other}/manifest.json"),
                )
            }
        }
    }

    fn apply(&self, top: &Path) {
        let at = |name: &String| top.join(name);
        match self {
            Self::Flip(name, bit) => write_anyway(&at(name), |file| {
                let mut byte = [0];
                file.read_exact_at(&mut byte, bit / 8).unwrap();
                file.write_all_at(&[byte[0] ^ (1 << (bit % 8))], bit / 8)
                    .unwrap();
            }),
            Self::ZeroPage(name, offset) => write_anyway(&at(name), |file| {
                let left = file.metadata().unwrap().len() - offset;
                file.write_all_at(&vec![0; usize::try_from(left.min(4096)).unwrap()], *offset)
                    .unwrap();
            }),
            Self::Cut(name, length) => {
                write_anyway(&at(name), |file| file.set_len(*length).unwrap());
            }
            Self::Extend(name, more) => write_anyway(&at(name), |file| {
                file.set_len(file.metadata().unwrap().len() + more).unwrap();
            }),
            Self::Swap(one, other) => {
                let between = top.join("between");
                std::fs::rename(at(one), &between).unwrap();
                if one != other {
                    std::fs::rename(at(other), at(one)).unwrap();
                }
                std::fs::rename(&between, at(other)).unwrap();
            }
            Self::Replace(name, by) => {
                let bytes = std::fs::read(at(by)).unwrap();
                write_anyway(&at(name), |file| {
                    file.set_len(0).unwrap();
                    file.write_all_at(&bytes, 0).unwrap();
                });
            }
            Self::Delete(name) => std::fs::remove_file(at(name)).unwrap(),
            Self::Duplicate(name, copy) => drop(std::fs::copy(at(name), at(copy)).unwrap()),
            Self::Link(name) => {
                std::fs::rename(at(name), top.join("elsewhere")).unwrap();
                symlink(top.join("elsewhere"), at(name)).unwrap();
            }
            Self::Pipe(name) => {
                std::fs::remove_file(at(name)).unwrap();
                assert!(
                    std::process::Command::new("mkfifo")
                        .arg(at(name))
                        .status()
                        .unwrap()
                        .success()
                );
            }
            Self::Directory(name) => {
                std::fs::remove_file(at(name)).unwrap();
                std::fs::create_dir(at(name)).unwrap();
            }
            Self::DeleteTree(name) => std::fs::remove_dir_all(at(name)).unwrap(),
            Self::FileForTree(name) => {
                std::fs::remove_dir_all(at(name)).unwrap();
                std::fs::write(at(name), b"a file").unwrap();
            }
            Self::Mode(name, mode) => {
                std::fs::set_permissions(at(name), PermissionsExt::from_mode(*mode)).unwrap();
            }
        }
    }
}

fn unreachable<T>() -> T {
    panic!("every file of a repository lies in a directory")
}

/// The real damage of one backup, from a comparison with the bytes that were written.
#[derive(Debug, Default)]
struct Truth {
    /// The backup's directory is missing or is not a directory, so the backup is not listed.
    gone: bool,
    manifest: bool,
    /// The paths of rows whose bytes differ, and of files without a row.
    files: BTreeSet<String>,
}

impl Truth {
    fn of(master: &Master, top: &Path, manifest: &Manifest) -> Self {
        let directory = top.join(format!("backups/{}", manifest.label));
        let mut truth = Self {
            gone: !directory.is_dir(),
            ..Self::default()
        };
        let rows: BTreeSet<String> = manifest
            .files
            .iter()
            .map(|row| row.path.to_string())
            .collect();
        let is_intact = |path: &str| {
            let place = directory.join(path);
            let is_file = std::fs::symlink_metadata(&place).is_ok_and(|found| found.is_file());
            let written = &master.files[&master.path_of(&manifest.label, path)];
            is_file && std::fs::read(&place).unwrap() == *written
        };

        truth.manifest = !is_intact("manifest.json");
        for path in &rows {
            if !is_intact(path) {
                truth.files.insert(path.clone());
            }
        }

        for entry in walkdir::WalkDir::new(&directory).into_iter().flatten() {
            if !entry.file_type().is_file() {
                continue;
            }

            let path = entry.path().strip_prefix(&directory).unwrap();
            let path = path.to_str().unwrap();
            if path.contains('/') && !rows.contains(path) {
                truth.files.insert(path.to_owned());
            }
        }

        truth
    }

    fn is_damaged(&self) -> bool {
        self.manifest || !self.files.is_empty()
    }

    /// Two kinds of damage do not harm a restore, and the comparison of the restored files proves
    /// it. A file without a row is harmless because a restore follows the rows. A stored checkpoint
    /// is harmless because a restore writes the checkpoints from the manifest.
    fn harms_a_restore(&self, manifest: &Manifest) -> bool {
        let is_harmed =
            |row: &Row| row.role != Role::Checkpoint && self.files.contains(&row.path.to_string());
        self.manifest || manifest.files.iter().any(is_harmed)
    }
}

/// Tests one sample: every command that an operator may run on a damaged repository.
fn examine(master: &Master, damage: &Damage, chance: &mut Chance) -> Result<Tally, String> {
    let place = workplace();
    let top = place.path().join("repository");
    copy_with_links(&master.place(), &top);
    damage.apply(&top);

    let repository =
        DirectoryRepository::open(&top).map_err(|error| format!("it does not open: {error}"))?;
    let truths: Vec<Truth> = master
        .manifests
        .iter()
        .map(|manifest| Truth::of(master, &top, manifest))
        .collect();
    let mut tally = Tally::default();

    let listed = repository
        .list()
        .map_err(|error| format!("list: {error} {:?}", error.causes()))?;
    let report = verify(&repository, &Which::All, Depth::Normal, &Run::new(Silent))
        .map_err(|error| format!("verify: {error} {:?}", error.causes()))?;
    for (manifest, truth) in master.manifests.iter().zip(&truths) {
        let label = &manifest.label;
        let line = listed.iter().find(|listed| listed.label == *label);

        match line {
            None if truth.gone => continue,
            None => return Err(format!("{label} is not listed")),
            Some(_) if truth.gone => return Err(format!("{label} is gone, and listed")),
            // A list reads only the head of each manifest.
            Some(line)
                if line.head.is_ok() && truth.manifest && repository.manifest(label).is_ok() =>
            {
                return Err(format!(
                    "the manifest of {label} can be read, and the truth is {truth:?}"
                ));
            }
            Some(line) if line.head.is_err() && !truth.manifest => {
                return Err(format!(
                    "{label} is listed as {:?}, and the truth is {truth:?}",
                    line.head
                ));
            }
            Some(_) => {}
        }

        let found = report
            .backups
            .iter()
            .find(|backup| backup.label == *label)
            .ok_or_else(|| format!("verify leaves {label} out"))?;
        if found.findings.is_empty() == truth.is_damaged() {
            return Err(format!(
                "verify says of {label}: {:?}, and the truth is {truth:?}",
                found.findings
            ));
        }

        if truth.is_damaged() {
            tally.damaged += 1;
        }

        if !truth.manifest {
            let named: BTreeSet<String> = found
                .findings
                .iter()
                .filter_map(|finding| Some(finding.path.as_ref()?.to_string()))
                .collect();
            if let Some(missed) = truth.files.difference(&named).next() {
                return Err(format!(
                    "verify does not name {missed} of {label}: {:?}",
                    found.findings
                ));
            }
        }
    }

    restores(
        master,
        &repository,
        &truths,
        place.path(),
        chance,
        &mut tally,
    )?;

    if chance.below(4) == 0 {
        next_diff(master, &repository, place.path(), &mut tally)?;
    }
    Ok(tally)
}

/// Restores one intact backup and compares it, and tries to restore one damaged backup.
fn restores(
    master: &Master,
    repository: &DirectoryRepository,
    truths: &[Truth],
    place: &Path,
    chance: &mut Chance,
    tally: &mut Tally,
) -> Result<(), String> {
    let mut good = Vec::new();
    let mut bad = Vec::new();
    for (manifest, truth) in master.manifests.iter().zip(truths) {
        if truth.gone {
            continue;
        }
        if truth.harms_a_restore(manifest) {
            bad.push((manifest, truth));
        } else {
            good.push((manifest, truth));
        }
    }

    if !good.is_empty() {
        let (manifest, _) = *chance.of(&good);
        let (outcome, target) = restore_into(repository, &manifest.label, &place.join("good"));
        outcome.map_err(|error| {
            format!(
                "{} is intact, and its restore says {error} {:?}",
                manifest.label,
                error.causes()
            )
        })?;

        let mut found = contents(&target);
        found.remove("kbackup-restore.json");
        if found != master.restored[&manifest.label] {
            return Err(format!(
                "{} is intact, and restores to something else",
                manifest.label
            ));
        }

        tally.restored += 1;
    }

    if !bad.is_empty() {
        let (manifest, truth) = *chance.of(&bad);
        let (outcome, target) = restore_into(repository, &manifest.label, &place.join("bad"));
        let Err(error) = outcome else {
            return Err(format!(
                "{} is damaged, and was restored: {truth:?}",
                manifest.label
            ));
        };

        if error.kind() != Kind::StoredCorrupt {
            return Err(format!(
                "{} is damaged, and its restore ends with {:?}: {error} {:?}",
                manifest.label,
                error.kind(),
                error.causes()
            ));
        }

        if target.exists() && start(&target, manifest) != Start::Refused {
            return Err(format!(
                "a server would start from half a restore of {}: {error}",
                manifest.label
            ));
        }

        tally.refused += 1;
    }

    Ok(())
}

/// The next diff succeeds. It does not reuse damaged files that it reads.
fn next_diff(
    master: &Master,
    repository: &DirectoryRepository,
    place: &Path,
    tally: &mut Tally,
) -> Result<(), String> {
    let parent = match repository.list().map_err(|error| error.to_string())?.pop() {
        Some(newest) => newest.label,
        None => return Ok(()),
    };

    let summary = match master.bench.take_to(repository) {
        Ok(summary) => summary,
        Err(error) => {
            return Err(format!(
                "the next diff on {parent}: {:?} {error} {:?}",
                error.kind(),
                error.causes()
            ));
        }
    };

    tally.diffs += 1;

    let report = verify(
        repository,
        &Which::Named(vec![summary.label.clone()]),
        Depth::Normal,
        &Run::new(Silent),
    )
    .map_err(|error| error.to_string())?;
    if !report.is_sound() {
        // The diff reused whole files without reading them. Only verify sees their damage.
        tally.inherited += 1;
        return Ok(());
    }

    let (outcome, target) = restore_into(repository, &summary.label, &place.join("next"));
    outcome.map_err(|error| format!("{} is sound, and its restore says {error}", summary.label))?;
    let mut found = contents(&target);
    found.remove("kbackup-restore.json");

    let newest = &master.restored[&master.manifests.last().unwrap().label];
    for name in newest.keys().chain(found.keys()) {
        if newest.get(name) != found.get(name) {
            return Err(format!(
                "{} verifies as sound, and its {name} is not the node's",
                summary.label
            ));
        }
    }

    Ok(())
}

#[derive(Debug, Default)]
struct Tally {
    damaged: usize,
    restored: usize,
    refused: usize,
    diffs: usize,
    inherited: usize,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.damaged += other.damaged;
        self.restored += other.restored;
        self.refused += other.refused;
        self.diffs += other.diffs;
        self.inherited += other.inherited;
    }
}

#[test]
fn any_damage_is_named_and_never_restored() {
    let masters = [
        Master::synthetic(),
        Master::real("24.10-scavenge"),
        Master::real("26.1-scavenge"),
        Master::real("21.10-scavenge"),
    ];
    let samples = super::amount(200, 10_000);
    let (mut total, mut failures) = (Tally::default(), Vec::new());

    for sample in 0..samples {
        let mut chance = Chance::new(super::seed().wrapping_add(sample as u64));
        // Four of five samples hit the small repository, because it has the most backups.
        let master = &masters[if chance.below(5) < 4 {
            0
        } else {
            1 + usize::try_from(chance.below(3)).unwrap()
        }];

        let damage = Damage::choose(master, &mut chance);
        match examine(master, &damage, &mut chance) {
            Ok(tally) => total.add(&tally),
            Err(why) => failures.push(format!(
                "seed {} {damage}: {why}",
                super::seed().wrapping_add(sample as u64)
            )),
        }
    }

    println!("{samples} samples: {total:?}");
    assert!(
        failures.is_empty(),
        "{} of {samples}:\n{}",
        failures.len(),
        failures.join("\n")
    );

    assert!(
        total.damaged > samples / 2
            && total.restored > samples / 2
            && total.refused > samples / 2
            && total.diffs > samples / 10
    );
}

/// The server has no checksum for an active chunk. The diff hashes the whole new file, so its row
/// would vouch for damage that only the parent's row reveals.
#[test]
fn a_diff_reuses_no_damaged_byte_of_the_active_chunk() {
    let synthetic = Synthetic {
        chunk_size: 1024 * 1024,
        completed_chunks: 1,
        active_bytes: 600_000,
        ..small()
    };
    for offset in [128 + 300_000, 1_000_000] {
        let bench = Bench::new(&synthetic);
        let full = bench.full().unwrap();
        flip(&bench.stored(&full).join("db/chunk-000001.000000"), offset);
        bench.append(50_000);

        let diff = bench.take().unwrap();
        assert!(
            bench.said().contains("a stored file is damaged"),
            "{}",
            bench.said()
        );

        let active = |place: PathBuf| std::fs::read(place.join("chunk-000001.000000")).unwrap();
        assert!(
            active(bench.stored(&diff).join("db")) == active(bench.db.clone()),
            "the damage of byte {offset} is in the diff"
        );

        let report = verify(
            &bench.repository,
            &Which::All,
            Depth::Normal,
            &Run::new(Silent),
        )
        .unwrap();
        let sound: Vec<bool> = report
            .backups
            .iter()
            .map(|backup| backup.findings.is_empty())
            .collect();

        assert_eq!(sound, [false, true], "{report:#?}");

        bench.assert_restores(&diff, &bench.events());
    }
}

/// With a checkpoint that is ahead of its filter, a server takes every stream that was written in
/// between for missing.
#[test]
fn a_diff_reads_a_damaged_checkpoint_of_the_stream_filter_again() {
    let bench = Bench::new(&small());
    let name = "index/stream-existence/streamExistenceFilter.chk";
    let full = bench.full().unwrap();

    // The flip turns -1 into a position far beyond the log.
    flip(&bench.stored(&full).join(name), 7);

    let diff = bench.take().unwrap();
    assert!(
        bench
            .said()
            .contains("kbackup reads it from the node again"),
        "{}",
        bench.said()
    );

    assert_eq!(
        std::fs::read(bench.stored(&diff).join(name)).unwrap(),
        (-1_i64).to_le_bytes()
    );
}

/// The next diff reads the epochs from the stored chunks. It would blame the node for damage there.
#[test]
fn a_diff_reads_damaged_epochs_headers_and_tables_again() {
    type Place = fn(&Bench) -> (String, u64);
    let damages: [Place; 3] = [
        |_| ("db/chunk-000000.000000".to_owned(), 128 + 30),
        |_| ("db/chunk-000002.000000".to_owned(), 20),
        |bench| {
            (
                format!(
                    "index/{}",
                    bench.tables()[0].file_name().unwrap().to_str().unwrap()
                ),
                0,
            )
        },
    ];

    for damage in damages {
        let bench = Bench::new(&small());
        let full = bench.full().unwrap();
        let (file, offset) = damage(&bench);
        flip(&bench.stored(&full).join(&file), offset);

        bench.append(10_000);
        let diff = bench.take().unwrap();
        assert!(
            bench
                .said()
                .contains("kbackup reads it from the node again"),
            "{file}: {}",
            bench.said()
        );

        bench.assert_restores(&diff, &bench.events());
        let report = verify(
            &bench.repository,
            &Which::Newest,
            Depth::Deep,
            &Run::new(Silent),
        )
        .unwrap();
        assert!(report.is_sound(), "{file}: {report:#?}");
    }
}

/// Files beside the backups may be missing, or hold anything.
#[test]
fn damage_beside_the_backups_does_not_block_them() {
    let master = Master::synthetic();
    let run = || Run::new(Silent);

    type Harm = fn(&Path);
    fn garbage(path: &Path) {
        let _ = std::fs::remove_file(path);
        std::fs::write(path, b"\xff\x00{garbage").unwrap();
    }
    fn directory(path: &Path) {
        let _ = std::fs::remove_file(path);
        std::fs::create_dir(path).unwrap();
    }
    fn pipe(path: &Path) {
        let _ = std::fs::remove_file(path);
        assert!(
            std::process::Command::new("mkfifo")
                .arg(path)
                .status()
                .unwrap()
                .success()
        );
    }
    fn link(path: &Path) {
        let _ = std::fs::remove_file(path);
        symlink("/etc/passwd", path).unwrap();
    }

    let newest = &master.manifests.last().unwrap().label;
    let harms: [Harm; 4] = [garbage, directory, pipe, link];
    for value in [
        format!("state/verified-{newest}"),
        "state/lock".to_owned(),
        "state/debt.json".to_owned(),
        "incoming/x".to_owned(),
    ] {
        for harm in harms {
            let place = workplace();
            let top = place.path().join("repository");
            copy_with_links(&master.place(), &top);
            harm(&top.join(&value));

            let repository = DirectoryRepository::open(&top).unwrap();
            assert_eq!(repository.list().unwrap().len(), master.manifests.len());

            let listed = crate::executable::kbackup()
                .args(["list", "--repo"])
                .arg(&top)
                .output()
                .unwrap();
            assert!(
                listed.status.success(),
                "{value}: {}",
                String::from_utf8_lossy(&listed.stderr)
            );
            assert!(
                verify(&repository, &Which::All, Depth::Normal, &run())
                    .unwrap()
                    .is_sound(),
                "{value}"
            );

            let (outcome, _) = restore_into(&repository, newest, &place.path().join("target"));
            outcome.unwrap();

            let harmless = value.starts_with("incoming")
                || value.contains("verified")
                || value.contains("debt");
            match master.bench.take_to(&repository) {
                Ok(_) => {}
                Err(error) if harmless => panic!("{value}: {error} {:?}", error.causes()),
                // A lock that kbackup cannot take protects nothing. The error names it.
                Err(error) => assert!(
                    error
                        .place()
                        .is_some_and(|place| place.ends_with("state/lock")),
                    "{error}"
                ),
            }
        }
    }

    // Without its description, a directory is no repository. With it, everything is back.
    for harm in [garbage, directory, pipe, link] {
        let place = workplace();
        let top = place.path().join("repository");

        copy_with_links(&master.place(), &top);
        let marker = top.join("kbackup.json");
        let good = std::fs::read(&marker).unwrap();
        harm(&marker);

        let error = DirectoryRepository::open(&top).unwrap_err();
        assert_eq!(
            error.kind(),
            Kind::StoredCorrupt,
            "{error} {:?}",
            error.causes()
        );
        assert!(
            error.hints().iter().any(|hint| hint.contains("backups/")),
            "{:?}",
            error.hints()
        );

        if marker.is_dir() {
            std::fs::remove_dir(&marker).unwrap();
        } else {
            std::fs::remove_file(&marker).unwrap();
        }
        std::fs::write(&marker, good).unwrap();

        let repository = DirectoryRepository::open(&top).unwrap();
        assert!(
            verify(&repository, &Which::All, Depth::Normal, &run())
                .unwrap()
                .is_sound()
        );
    }
}

/// One damage of a source, and the words that name it in the error. Without words, the backup
/// succeeds without the index.
type Trouble = (&'static str, fn(&Bench), Option<&'static str>);

fn at_byte(path: &Path, offset: u64, bytes: &[u8]) {
    write_anyway(path, |file| file.write_all_at(bytes, offset).unwrap());
}

const TROUBLES: [Trouble; 11] = [
    (
        "a torn page below the writer checkpoint",
        |bench| at_byte(&bench.chunk(5, 0), 8192, &[0; 4096]),
        Some("chunk-000005"),
    ),
    (
        "zeros before the writer checkpoint",
        |bench| {
            let writer = u64::try_from(bench.get(Checkpoint::Writer)).unwrap();
            at_byte(
                &bench.chunk(5, 0),
                128 + writer % (64 * 1024) - 512,
                &[0; 512],
            );
        },
        Some("chunk-000005"),
    ),
    (
        "a flipped bit of a completed chunk",
        |bench| flip(&bench.chunk(2, 0), 5000),
        Some("chunk-000002"),
    ),
    (
        "a chunk that was cut",
        |bench| write_anyway(&bench.chunk(2, 0), |file| file.set_len(30_000).unwrap()),
        Some("chunk-000002"),
    ),
    (
        "two chunks that changed places",
        |bench| {
            let (one, other, between) =
                (bench.chunk(1, 0), bench.chunk(2, 0), bench.path("between"));
            std::fs::rename(&one, &between).unwrap();
            std::fs::rename(&other, &one).unwrap();
            std::fs::rename(&between, &other).unwrap();
        },
        Some("chunk-00000"),
    ),
    (
        "the footer of another chunk",
        |bench| {
            let footer = std::fs::read(bench.chunk(1, 0)).unwrap();
            let length = bench.chunk(2, 0).metadata().unwrap().len();
            at_byte(
                &bench.chunk(2, 0),
                length - 128,
                &footer[footer.len() - 128..],
            );
        },
        Some("chunk-000002"),
    ),
    (
        "a writer checkpoint beyond the log",
        |bench| {
            bench.set(
                Checkpoint::Writer,
                u64::try_from(bench.get(Checkpoint::Writer)).unwrap() + 4096,
            );
        },
        Some("chunk-000005"),
    ),
    (
        "a writer checkpoint before the chaser",
        |bench| {
            bench.set(
                Checkpoint::Writer,
                u64::try_from(bench.get(Checkpoint::Writer)).unwrap() - 4096,
            );
        },
        Some("chk"),
    ),
    (
        "an epoch checkpoint that points at no epoch",
        |bench| bench.set(Checkpoint::Epoch, 66_000),
        Some(""),
    ),
    ("a bad table", |bench| flip(&bench.tables()[0], 3000), None),
    (
        "a bad index map",
        |bench| flip(&bench.index().join("indexmap"), 40),
        None,
    ),
];

#[test]
fn a_damaged_source_is_reported_or_left_out_and_never_listed_as_whole() {
    for (what, damage, words) in TROUBLES {
        for running in [false, true] {
            for held in [false, true] {
                let bench = Bench::new(&small());
                if held {
                    bench.full().unwrap();
                    bench.append(3000);
                }

                let events = bench.events();

                let outcome = if running {
                    let live = bench.serve();
                    damage(&bench);
                    bench.live(&live, |_| ())
                } else {
                    damage(&bench);
                    bench.take()
                };

                let scene = format!("{what}, running: {running}, on a full: {held}");

                match (outcome, words) {
                    (Ok(summary), None) => {
                        assert!(!summary.index || held, "{scene}");
                        bench.assert_restores(&summary, &events);
                    }
                    // The full holds the right bytes of a chunk with the same identity. So kbackup
                    // neither reads nor copies the damaged one.
                    (Ok(summary), Some(_)) if held => bench.assert_restores(&summary, &events),
                    (Ok(_), Some(_)) => panic!("{scene}: a backup is listed"),
                    (Err(error), words) => {
                        let text = format!("{error} {:?} {:?}", error.causes(), error.hints());

                        let code = error.kind().exit_code();
                        assert!(
                            words.is_some() && (code == 21 || code == 22),
                            "{scene}: {code} {text}"
                        );
                        assert!(text.contains(words.unwrap()), "{scene}: {text}");
                        assert_eq!(bench.manifests().len(), usize::from(held), "{scene}");
                    }
                }

                bench.assert_sound();
            }
        }
    }
}
