//! What the tortures work on: a repository in the hands of the real executable, and the questions
//! that are asked of it afterwards.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may end in a panic"
)]

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

/// Every operation that leaves something behind.
pub(super) const OPERATIONS: [&str; 9] = [
    "create", "write", "truncate", "sync", "rename", "link", "remove", "setmode", "settime",
];

/// Runs `kbackup` to its end, with what shall go wrong.
pub(super) fn kbackup(line: &[&str], fault: Option<&str>) -> Output {
    let mut command = match fault {
        Some(fault) => executable::kbackup_with_fault(fault),
        None => executable::kbackup(),
    };
    command.args(line).output().unwrap()
}

/// It did what it was asked, perhaps with warnings.
pub(super) fn is_well(output: &Output) -> bool {
    matches!(output.status.code(), Some(0 | 3))
}

/// The listed backups, each of which verifies.
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

/// Restores a backup by the executable, and proves what came of it.
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

/// A server would start from it, and would find all of the backup there.
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

/// What a restore that came to a sudden end has left is complete, or nothing that a server starts
/// from (O15) and then taken up again by the same restore.
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

/// Nothing is there, or only the file that is locked and what is not yet in its place.
fn is_bare(target: &Path) -> bool {
    crate::restore::handmade::contents(target)
        .keys()
        .all(|name| name == "writer.chk" || name.ends_with(".tmp"))
}

/// Whatever was taken from the node stands on record, and nobody holds the record.
pub(super) fn assert_on_record(node: &Node, state: &Path, what: &str) {
    let records = if state.exists() {
        ReleaseRecords::open(state).unwrap().records().unwrap()
    } else {
        Vec::new()
    };
    assert!(
        records.iter().all(|record| !record.in_use),
        "{what}: a lock stays"
    );
    let auto_scavenge = matches!(
        node.auto_scavenge(),
        Some(AutoScavengeState::Paused | AutoScavengeState::Pausing)
    );
    assert!(
        !auto_scavenge
            || records
                .iter()
                .any(|record| record.record.auto_scavenge.is_some()),
        "{what}: a pause is forgotten"
    );
    assert!(
        !owes_scavenge(node)
            || records
                .iter()
                .any(|record| record.record.scavenge.is_some()),
        "{what}: a scavenge is forgotten"
    );
}

/// A client has stopped a scavenge that has work left. One of the recording that was told to stop
/// comes to its recorded end all the same, and the log says so.
fn owes_scavenge(node: &Node) -> bool {
    let told = node.last_scavenge().map(|(id, _)| id);
    let succeeds = node
        .recording()
        .scavenges
        .iter()
        .any(|scavenge| Some(scavenge.id) == told && !scavenge.stopped);
    node.owes_scavenge() && !succeeds
}

/// The node has all that is its own, and nothing is left on record.
pub(super) fn assert_nothing_owed(node: &Node, state: &Path, what: &str) {
    assert!(
        !owes_scavenge(node),
        "{what}: a scavenge is owed: {:?}, {:#?}",
        node.last_scavenge(),
        last_requests(node)
    );
    assert!(
        !matches!(
            node.auto_scavenge(),
            Some(AutoScavengeState::Paused | AutoScavengeState::Pausing)
        ),
        "{what}: still paused"
    );
    assert_eq!(
        records(state),
        Vec::<PathBuf>::new(),
        "{what}: still on record"
    );
    // What had done its work is done with; the next one is another matter.
    node.quiet(false);
}

/// What changed something at the node, or told of scavenges, most recently.
fn last_requests(node: &Node) -> Vec<String> {
    let told = node
        .requests()
        .into_iter()
        .filter(|request| request.path.contains("scavenge"));
    let told: Vec<String> = told
        .map(|request| format!("{} {} {:?}", request.method, request.path, request.status))
        .collect();
    told.into_iter().rev().take(40).rev().collect()
}

/// The records of debts in a state directory.
pub(super) fn records(state: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(state) else {
        return Vec::new();
    };
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect()
}

/// No lock is held on any file of these directories.
pub(super) fn assert_unlocked(directories: &[&Path], what: &str) {
    for entry in directories
        .iter()
        .filter_map(|directory| std::fs::read_dir(directory).ok())
        .flatten()
    {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::File::open(&path)
                .unwrap()
                .try_lock()
                .unwrap_or_else(|_| panic!("{what}: {} is locked", path.display()));
        }
    }
}
