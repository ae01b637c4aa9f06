//! Another process changes the source between any two operations of kbackup: it renames, replaces,
//! truncates, recreates, extends and swaps files.
//!
//! Each run ends with an exit code that says what happened. Each listed backup is sound. It holds
//! every event that existed before the run and after it, and no event that never existed. kbackup
//! itself changes nothing in the source.

use std::collections::{BTreeMap, HashSet};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kbackup::event::Silent;
use kbackup::manifest::{Directories, Label};
use kbackup::proof::{self, Depth};
use kbackup::repository::{DirectoryRepository, Repository};
use kbackup::restore;
use kbackup::run::Run;
use kbackup::server::ServerLine;
use kbackup::verify::{self, Which};
use kbackup_testnode::log::Log;
use kbackup_testnode::{Checkpoint, Node, Synthetic, Version};
use uuid::Uuid;

use super::Chance;
use super::process::{Process, State, kbackup, stop_at};
use crate::backup::bench::{Bench, copy_tree, flip, small, workplace, writable};

/// Done, done with warnings, denied, unreachable, corrupt or inconsistent, unstable, refused.
const HONEST: [i32; 7] = [0, 3, 12, 13, 21, 22, 23];

/// What another process does to one file of the source.
#[derive(Debug, Clone, Copy)]
enum Change {
    Vanish,
    /// The same bytes in another inode.
    Refresh,
    /// The bytes of another file of its kind.
    Impostor,
    Shorten,
    Empty,
    Grow,
    /// The same name and length, all zeros.
    Recreate,
    Directory,
    Link,
    Pipe,
    Flip,
    /// The node appends events.
    Append,
    /// A truncation is pending.
    Truncation,
    /// The writer checkpoint moves backwards.
    Back,
}

const CHANGES: [Change; 14] = [
    Change::Vanish,
    Change::Refresh,
    Change::Impostor,
    Change::Shorten,
    Change::Empty,
    Change::Grow,
    Change::Recreate,
    Change::Directory,
    Change::Link,
    Change::Pipe,
    Change::Flip,
    Change::Append,
    Change::Truncation,
    Change::Back,
];

/// A node with two backups, from which every case begins.
struct Origin {
    bench: Bench,
    events: HashSet<Uuid>,
}

impl Origin {
    fn new() -> Self {
        let bench = Bench::new(&small());

        // A finished scavenge leaves this: the header of an SQLite database, and pages.
        let mut database = vec![0; 4096];
        database[..16].copy_from_slice(b"SQLite format 3\0");
        database[16..24].copy_from_slice(&[16, 0, 1, 1, 0, 64, 32, 32]);
        database[31] = 1;
        std::fs::create_dir_all(bench.index().join("scavenging")).unwrap();
        std::fs::write(bench.index().join("scavenging/scavenging.db"), database).unwrap();

        bench.full().unwrap();
        bench.append(30_000);
        bench.take().unwrap();
        bench.append(20_000);

        let events = bench.events();
        Self { bench, events }
    }
}

/// One run, and its result.
struct Case<'a> {
    origin: &'a Origin,
    place: tempfile::TempDir,
    what: String,
}

/// Undoes one change.
type Undo = Box<dyn FnOnce() + Send>;

impl<'a> Case<'a> {
    fn new(origin: &'a Origin, what: String) -> Self {
        let place = workplace();
        copy_tree(&origin.bench.db, &place.path().join("db"));
        link_tree(
            &origin.bench.path("repository"),
            &place.path().join("repository"),
        );
        Self {
            origin,
            place,
            what,
        }
    }

    fn db(&self) -> PathBuf {
        self.place.path().join("db")
    }

    fn repository(&self) -> DirectoryRepository {
        DirectoryRepository::open(&self.place.path().join("repository")).unwrap()
    }

    fn labels(&self) -> Vec<Label> {
        self.repository()
            .list()
            .unwrap()
            .into_iter()
            .map(|listed| listed.label)
            .collect()
    }

    /// The number of operations on the source in one undisturbed run.
    fn operations(&self, verb: &str, node: Option<&str>) -> usize {
        let (mut low, mut high) = (0, 4096);
        while low + 1 < high {
            let middle = usize::midpoint(low, high);
            let mut process = self.start(verb, node, Some(middle));
            if process.wait() == State::Stopped {
                low = middle;
            } else {
                high = middle;
            }
        }
        low
    }

    fn start(&self, verb: &str, node: Option<&str>, stop: Option<usize>) -> Process {
        let db = self.db().display().to_string();
        let mut line = vec![
            verb,
            "--repo",
            "repository",
            "--attempts",
            "4",
            "--log",
            "warn",
        ];

        match node {
            Some(url) => line.extend(["--node", url, "--node-patience", "2s", "--wait", "2s"]),
            None => line.extend(["--offline", "--db", &db]),
        }

        let mut command = kbackup(self.place.path(), &line);
        if let Some(number) = stop {
            stop_at(&mut command, "", &self.db().display().to_string(), number);
        }
        Process::start(&mut command, &self.place.path().join("log"))
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = walkdir::WalkDir::new(self.db())
            .into_iter()
            .map(Result::unwrap)
            .filter(|entry| entry.file_type().is_file())
            .map(walkdir::DirEntry::into_path)
            .collect();
        files.sort();
        files
    }

    /// Makes the change. Returns its description and the way to undo it.
    fn change(&self, change: Change, chance: &mut Chance) -> (String, Undo) {
        let mut files = self.files();
        if matches!(change, Change::Flip) {
            // Only damage of a file with a checksum of the server can be detected.
            files.retain(|path| {
                path.metadata().unwrap().permissions().mode() & 0o200 == 0
                    || path.ends_with("indexmap")
            });
        }

        let file = chance.of(&files).clone();

        let told = format!(
            "{change:?} {}",
            file.strip_prefix(self.db()).unwrap().display()
        );

        let (bytes, mode) = (
            std::fs::read(&file).unwrap(),
            file.metadata().unwrap().permissions(),
        );
        let aside = self.place.path().join("aside");

        match change {
            Change::Vanish => std::fs::rename(&file, &aside).unwrap(),
            Change::Refresh => {
                std::fs::copy(&file, &aside).unwrap();
                std::fs::rename(&aside, &file).unwrap();
            }
            Change::Impostor => {
                let mut others = files.clone();
                others
                    .retain(|other| *other != file && suffix_length(other) == suffix_length(&file));
                let other = others.get(chance.place(others.len())).unwrap_or(&file);
                std::fs::copy(other, &aside).unwrap();
                std::fs::rename(&aside, &file).unwrap();
            }
            Change::Shorten => writable(&file, |file| {
                file.set_len(bytes.len() as u64 * 2 / 3).unwrap();
            }),
            Change::Empty => writable(&file, |file| file.set_len(0).unwrap()),
            Change::Grow => writable(&file, |file| {
                file.set_len(bytes.len() as u64 + 4096).unwrap();
            }),
            Change::Recreate => {
                std::fs::remove_file(&file).unwrap();
                std::fs::write(&file, vec![0; bytes.len()]).unwrap();
            }
            Change::Directory => {
                std::fs::remove_file(&file).unwrap();
                std::fs::create_dir(&file).unwrap();
            }
            Change::Link => {
                std::fs::rename(&file, &aside).unwrap();
                std::os::unix::fs::symlink(&aside, &file).unwrap();
            }
            Change::Pipe => {
                std::fs::remove_file(&file).unwrap();
                rustix::fs::mknodat(
                    rustix::fs::CWD,
                    &file,
                    rustix::fs::FileType::Fifo,
                    0o644.into(),
                    0,
                )
                .unwrap();
            }
            Change::Flip => flip(&file, chance.below(bytes.len() as u64)),
            Change::Append => {
                Synthetic::append_seeded(
                    self.place.path(),
                    3_000 + chance.below(70_000),
                    chance.number(),
                )
                .unwrap();
                return (told, Box::new(|| ()));
            }
            Change::Truncation | Change::Back => {
                let (name, value) = match change {
                    Change::Back => (Checkpoint::Writer, 300_000_i64),
                    _ => (Checkpoint::Truncate, 300_000),
                };
                let path = self.db().join(name.file_name());
                let before = std::fs::read(&path).unwrap();
                std::fs::write(&path, value.to_le_bytes()).unwrap();
                return (
                    format!("{change:?}"),
                    Box::new(move || std::fs::write(&path, before).unwrap()),
                );
            }
        }

        let undo = move || {
            // A node replaces a file in one step too.
            let whole = aside.with_extension("whole");
            std::fs::write(&whole, bytes).unwrap();
            std::fs::set_permissions(&whole, mode).unwrap();
            if file.is_dir() {
                std::fs::remove_dir(&file).unwrap();
            }
            std::fs::rename(&whole, &file).unwrap();
        };
        (told, Box::new(undo))
    }

    /// The events that a server would have now. Returns `None` if nothing useful is left.
    fn events(&self) -> Option<HashSet<Uuid>> {
        let events = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut log = Log::read(&self.db()).ok()?;
            let end = log.last_boundary();
            log.records.retain(|record| record.end <= end);
            Some(log.event_ids().collect())
        }));
        events.ok().flatten()
    }

    /// Asserts that a new backup is sound and holds the right events.
    fn prove(&self, label: &Label, after: Option<&HashSet<Uuid>>) {
        let (repository, what) = (self.repository(), &self.what);
        let silent = Run::new(Silent);
        let report = verify::verify(
            &repository,
            &Which::Named(vec![label.clone()]),
            Depth::Deep,
            &silent,
        )
        .unwrap();
        assert!(report.is_sound(), "{what}: {report:?}");

        let target = self.place.path().join("restored");
        let request = restore::RestoreRequest {
            label: Some(label.clone()),
            targets: vec![restore::RestoreTarget {
                db: target.clone(),
                index: None,
            }],
            ready: true,
            ..restore::RestoreRequest::default()
        };
        let plan = restore::plan(&repository, &request, &silent).unwrap();
        let report = restore::execute(&repository, &plan, &silent).unwrap();
        assert!(report.failure().is_none(), "{what}: {report}");

        let log = Log::read(&target).unwrap();
        assert!(log.ends_at_boundary(), "{what}");
        let held: HashSet<Uuid> = log.event_ids().collect();

        let before = &self.origin.events;
        let missing = before
            .iter()
            .filter(|id| after.is_none_or(|after| after.contains(id)) && !held.contains(id))
            .count();
        let foreign = held
            .iter()
            .filter(|id| !before.contains(id) && !after.is_some_and(|after| after.contains(id)))
            .count();

        assert_eq!(
            (missing, foreign),
            (0, 0),
            "{what}: events are missing, or events of another branch are there"
        );

        let options = proof::ExamineOptions {
            version: Some(ServerLine::V26_1),
            depth: Depth::Deep,
            in_use: false,
        };
        let examination =
            proof::examine(&Directories::new(&target, None), &options, &silent).unwrap();

        assert_eq!(
            examination.kind(),
            None,
            "{what}: {:#?}",
            examination.findings
        );

        std::fs::remove_dir_all(target).unwrap();
    }
}

/// Waits until a node that has ended gives its locks back. It does so when its last thread ends.
fn wait_for_unlocked(db: &Path) {
    for _ in 0..500 {
        let is_locked = Checkpoint::ALL.iter().any(|checkpoint| {
            std::fs::File::open(db.join(checkpoint.file_name()))
                .is_ok_and(|file| file.try_lock().is_err())
        });
        if !is_locked {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The length of the file name's extension, which tells the kind of a file.
fn suffix_length(path: &Path) -> Option<usize> {
    path.extension().map(std::ffi::OsStr::len)
}

/// The names, inodes, lengths and times below a directory.
fn look(directory: &Path) -> BTreeMap<PathBuf, (u64, u64, u32, i64, i64)> {
    walkdir::WalkDir::new(directory)
        .into_iter()
        .map(|entry| {
            let entry = entry.unwrap();
            let found = entry.metadata().unwrap();
            (
                entry.into_path(),
                (
                    found.ino(),
                    found.len(),
                    found.mode(),
                    found.mtime(),
                    found.mtime_nsec(),
                ),
            )
        })
        .collect()
}

/// Makes a copy that shares all files, because kbackup never writes to a stored file again. Only the
/// files in `state` are copied.
fn link_tree(from: &Path, to: &Path) {
    for entry in walkdir::WalkDir::new(from) {
        let entry = entry.unwrap();
        let target = to.join(entry.path().strip_prefix(from).unwrap());
        if entry.file_type().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
        } else if entry.path().starts_with(from.join("state")) {
            std::fs::copy(entry.path(), &target).unwrap();
        } else {
            std::fs::hard_link(entry.path(), &target).unwrap();
        }
    }
}

fn torture(
    origin: &Origin,
    running: bool,
    samples: &[(usize, Change)],
    operations: usize,
    chance: &mut Chance,
) {
    let (mut good, mut undone) = (0, 0);

    for (count, (number, change)) in samples.iter().enumerate() {
        let verb = if chance.below(4) == 0 { "full" } else { "diff" };
        let mut case = Case::new(
            origin,
            format!(
                "seed {}, {change:?} at {number} of {operations}",
                super::seed()
            ),
        );

        let live = running.then(|| {
            Node::still(Version::new(26, 1), case.place.path())
                .unwrap()
                .serve()
                .unwrap()
        });
        let url = live.as_ref().map(kbackup_testnode::Server::url);

        let before = case.labels();
        let mut process = case.start(verb, url.as_deref(), Some(*number));
        let mut state = process.wait();

        let (mut undo, mut settled): (Undo, _) = (Box::new(|| ()), None);
        if state == State::Stopped {
            // The test's node would wait at the pipe forever.
            let change = if running && matches!(change, Change::Pipe) {
                Change::Link
            } else {
                *change
            };
            let (told, back) = case.change(change, chance);
            case.what = format!(
                "{}, {verb}, {told}, {}",
                case.what,
                if running { "running" } else { "stopped" }
            );

            process.go_on();
            if chance.below(2) == 0 {
                undone += 1;
                case.what.push_str(", undone");
                std::thread::sleep(Duration::from_millis(chance.below(60)));
                back();
            } else {
                undo = back;
                settled = Some(look(&case.db()));
            }
            state = process.wait();
        }

        let State::Ended(code) = state else {
            panic!("{}: the run stopped twice", case.what)
        };

        assert!(
            HONEST.contains(&code),
            "{}: code {code}\n{}",
            case.what,
            process.said()
        );

        if let Some(settled) = settled {
            assert_eq!(
                look(&case.db()),
                settled,
                "{}: the source was touched",
                case.what
            );
        }

        let mut after = case.labels();
        let new = after.split_off(before.len());
        assert_eq!(before, after, "{}", case.what);

        // A failed run leaves whole files for the next run. A successful one clears them away.
        let left: Vec<_> = walkdir::WalkDir::new(case.place.path().join("repository/incoming"))
            .min_depth(1)
            .into_iter()
            .flatten()
            .collect();
        assert!(
            left.is_empty() || !matches!(code, 0 | 3),
            "{}: {left:?}",
            case.what
        );
        assert!(
            !left
                .iter()
                .any(|entry| entry.file_name().to_string_lossy().ends_with(".part")),
            "{}: {left:?}",
            case.what
        );
        assert_eq!(
            new.len(),
            usize::from(matches!(code, 0 | 3)),
            "{}: code {code}",
            case.what
        );

        for label in &new {
            good += 1;
            case.prove(label, case.events().as_ref());
        }

        if count % 3 == 0 && !matches!(change, Change::Append) {
            // The leftovers of this run do not harm the next one.
            undo();
            drop(live);
            wait_for_unlocked(&case.db());
            case.what.push_str(", the run after it");

            let mut next = case.start("diff", None, None);
            let state = next.wait();
            assert!(
                matches!(state, State::Ended(0 | 3)),
                "{}: {state:?} {}",
                case.what,
                next.said()
            );
            case.prove(case.labels().last().unwrap(), Some(&origin.events));
        }
    }

    assert!(
        good * 5 > samples.len() && undone > 0,
        "{good} of {} runs took a backup",
        samples.len()
    );
    eprintln!(
        "{} runs, {good} backups, {undone} changes undone, {operations} operations",
        samples.len()
    );
}

/// Samples of moments and changes. In the long form, every change at every moment.
fn samples(operations: usize, chance: &mut Chance) -> Vec<(usize, Change)> {
    let all = operations * CHANGES.len();
    let wanted = super::amount(14, all);
    if wanted == all {
        return (1..=operations)
            .flat_map(|number| CHANGES.map(|change| (number, change)))
            .collect();
    }
    (0..wanted)
        .map(|count| (1 + chance.place(operations), CHANGES[count % CHANGES.len()]))
        .collect()
}

#[test]
fn a_stopped_nodes_files_may_change_between_any_two_operations() {
    let (origin, mut chance) = (Origin::new(), Chance::new(super::seed()));
    let operations = Case::new(&origin, String::new()).operations("diff", None);
    assert!(operations > 100, "{operations}");
    torture(
        &origin,
        false,
        &samples(operations, &mut chance),
        operations,
        &mut chance,
    );
}

#[test]
fn a_running_nodes_files_may_change_between_any_two_operations() {
    let (origin, mut chance) = (Origin::new(), Chance::new(super::seed()));
    let case = Case::new(&origin, String::new());
    let live = Node::still(Version::new(26, 1), case.place.path())
        .unwrap()
        .serve()
        .unwrap();
    let operations = case.operations("diff", Some(&live.url()));
    assert!(operations > 100, "{operations}");
    torture(
        &origin,
        true,
        &samples(operations, &mut chance),
        operations,
        &mut chance,
    );
}
