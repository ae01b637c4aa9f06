//! The subject of the tortures: a repository that the real executable works on, and assertions about
//! it.

#![expect(clippy::unwrap_used, reason = "a test may end in a panic")]

use std::path::{Path, PathBuf};
use std::process::Output;

use kbackup::event::Silent;
use kbackup::manifest::{Directories, Label, Manifest};
use kbackup::node::ReleaseRecords;
use kbackup::proof::{self, Depth};
use kbackup::repository::{DirectoryRepository, Repository};
use kbackup::run::Run;
use kbackup::server::ServerLine;
use kbackup::verify::{self, Which};
use kbackup_testnode::log::Log;
use kbackup_testnode::{AutoScavengeState, Node};

use crate::executable;
pub(super) use crate::executable::{argument, stderr as text};
use crate::restore::start::{Start, start};

/// Every operation that changes a disk.
pub(super) const OPERATIONS: [&str; 9] = [
    "create", "write", "truncate", "sync", "rename", "link", "remove", "setmode", "settime",
];

/// Runs `kbackup` to its end, with a fault if one is given.
pub(super) fn kbackup(line: &[&str], fault: Option<&str>) -> Output {
    let mut command = match fault {
        Some(fault) => executable::kbackup_with_fault(fault),
        None => executable::kbackup(),
    };
    command.args(line).output().unwrap()
}

/// True if the run succeeded, perhaps with warnings.
pub(super) fn is_well(output: &Output) -> bool {
    matches!(output.status.code(), Some(0 | 3))
}

/// The labels of all listed backups. Asserts that each of them verifies.
pub(super) fn listed(repository: &Path, depth: Depth, what: &str) -> Vec<Label> {
    let Ok(repository) = DirectoryRepository::open(repository) else {
        return Vec::new();
    };
    let labels: Vec<Label> = repository
        .list()
        .unwrap()
        .into_iter()
        .map(|listed| listed.label)
        .collect();

    if !labels.is_empty() {
        let report = verify::verify(&repository, &Which::All, depth, &Run::new(Silent)).unwrap();
        assert!(report.is_sound(), "{what}: {report:#?}");
    }

    labels
}

pub(super) fn manifest(repository: &Path, label: &Label) -> Manifest {
    DirectoryRepository::open(repository)
        .unwrap()
        .manifest(label)
        .unwrap()
}

/// Restores a backup with the executable, and proves the result.
pub(super) fn assert_restores(
    repository: &Path,
    label: &Label,
    line: ServerLine,
    target: &Path,
    what: &str,
) {
    let output = kbackup(
        &[
            "restore",
            label.as_str(),
            "--repo",
            argument(repository),
            "--to",
            argument(target),
        ],
        None,
    );
    assert!(is_well(&output), "{what}: {}", text(&output));
    assert_complete(repository, label, line, target, what);
    std::fs::remove_dir_all(target).unwrap();
}

/// Asserts that a server starts from the target and finds the whole backup.
pub(super) fn assert_complete(
    repository: &Path,
    label: &Label,
    line: ServerLine,
    target: &Path,
    what: &str,
) {
    let manifest = manifest(repository, label);
    let end = manifest.log.position.position().to_signed();
    assert_eq!(
        start(target, &manifest),
        Start::Opened {
            writer: end,
            chaser: end
        },
        "{what}"
    );
    assert!(Log::read(target).unwrap().ends_at_boundary(), "{what}");

    let options = proof::ExamineOptions {
        version: Some(line),
        depth: Depth::Deep,
        in_use: false,
    };
    let examination =
        proof::examine(&Directories::new(target, None), &options, &Run::new(Silent)).unwrap();

    assert_eq!(
        examination.kind(),
        None,
        "{what}: {:#?}",
        examination.findings
    );
}

/// Asserts what a restore that ended suddenly has left: a complete target, or one that no server
/// starts from (O15) and that the same restore resumes.
pub(super) fn assert_guarded_or_complete(
    repository: &Path,
    label: &Label,
    line: ServerLine,
    target: &Path,
    what: &str,
) {
    let manifest = manifest(repository, label);
    let end = manifest.log.position.position().to_signed();

    let again = || {
        kbackup(
            &[
                "restore",
                label.as_str(),
                "--repo",
                argument(repository),
                "--to",
                argument(target),
            ],
            None,
        )
    };

    match start(target, &manifest) {
        Start::Opened { writer, .. } if writer == end => {
            assert_eq!(
                again().status.code(),
                Some(23),
                "{what}: a finished restore is no target"
            );
        }
        begun => {
            assert!(
                begun == Start::Refused || is_bare(target),
                "{what}: a server would start from half a restore"
            );
            let output = again();
            assert!(is_well(&output), "{what}: {}", text(&output));
        }
    }

    assert_complete(repository, label, line, target, what);
    std::fs::remove_dir_all(target).unwrap();
}

/// True if the target is empty, or holds only the locked file and temporary files.
fn is_bare(target: &Path) -> bool {
    crate::restore::handmade::contents(target)
        .keys()
        .all(|name| name == "writer.chk" || name.ends_with(".tmp"))
}

/// Asserts that everything that was stopped at the node is on record, and that no record is locked.
pub(super) fn assert_on_record(node: &Node, state: &Path, what: &str) {
    let records = if state.exists() {
        ReleaseRecords::open(state)
            .unwrap()
            .list()
            .unwrap()
            .readable
    } else {
        Vec::new()
    };

    let mut names_scavenge = false;
    let mut names_auto_scavenge = false;
    for record in &records {
        assert!(!record.in_use, "{what}: a record is locked");
        names_scavenge |= record.record.scavenge.is_some();
        names_auto_scavenge |= record.record.auto_scavenge.is_some();
    }

    let is_paused = matches!(
        node.auto_scavenge(),
        Some(AutoScavengeState::Paused | AutoScavengeState::Pausing)
    );
    assert!(
        !is_paused || names_auto_scavenge,
        "{what}: no record names the pause of auto-scavenge"
    );
    assert!(
        !has_stopped_scavenge(node) || names_scavenge,
        "{what}: no record names the stopped scavenge"
    );
}

/// True if a client has stopped a scavenge that has work left. A recorded scavenge that was told to
/// stop comes to its recorded end nevertheless, and the log says so.
fn has_stopped_scavenge(node: &Node) -> bool {
    let told = node.last_scavenge().map(|(id, _)| id);
    let mut recorded = node.recording().scavenges.iter();
    let succeeds = recorded.any(|scavenge| Some(scavenge.id) == told && !scavenge.stopped);
    node.owes_scavenge() && !succeeds
}

/// Asserts that everything was given back to the node, and that no record is left.
pub(super) fn assert_everything_released(node: &Node, state: &Path, what: &str) {
    assert!(
        !has_stopped_scavenge(node),
        "{what}: a scavenge was not given back: {:?}, {:#?}",
        node.last_scavenge(),
        last_requests(node)
    );

    assert!(
        !matches!(
            node.auto_scavenge(),
            Some(AutoScavengeState::Paused | AutoScavengeState::Pausing)
        ),
        "{what}: auto-scavenge is paused"
    );

    assert_eq!(
        records(state),
        Vec::<PathBuf>::new(),
        "{what}: a release record is left"
    );

    // The next scavenge of this node starts without this one's past.
    node.quiet(false);
}

/// The most recent requests about scavenges.
fn last_requests(node: &Node) -> Vec<String> {
    let mut told = Vec::new();
    for request in node.requests() {
        if request.path.contains("scavenge") {
            told.push(format!(
                "{} {} {:?}",
                request.method, request.path, request.status
            ));
        }
    }

    let first = told.len().saturating_sub(40);
    told.split_off(first)
}

/// The release records in a state directory.
pub(super) fn records(state: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(state) else {
        return Vec::new();
    };
    let mut records: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    records.retain(|path| path.extension() == Some("json".as_ref()));
    records
}

/// Asserts that no file of these directories is locked.
pub(super) fn assert_unlocked(directories: &[&Path], what: &str) {
    for directory in directories {
        let Ok(entries) = std::fs::read_dir(directory) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if !path.is_file() {
                continue;
            }

            let lock = std::fs::File::open(&path).unwrap().try_lock();
            assert!(lock.is_ok(), "{what}: {} is locked", path.display());
        }
    }
}
