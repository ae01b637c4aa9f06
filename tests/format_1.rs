//! A repository that kbackup 0.1.0 wrote, in format 1. Every later version reads, proves, restores,
//! extends and expires it. `fixtures/README.md` says how it was made.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may end in a panic"
)]

use std::os::unix::fs::MetadataExt;

use kbackup_testnode::{Mark, Node, Recording, Server};
use serde_json::Value;

use crate::cli::Place;

/// The backups in the repository, and the log position at which each of them ends.
const BACKUPS: [(&str, u64); 3] = [
    ("20261130T212224Z-full", 661_956),
    ("20261130T212225Z-diff", 950_791),
    ("20261130T212226Z-diff", 1_396_869),
];

/// The step of the recording at which a run was interrupted.
const INTERRUPTED_AT: usize = 4200;

/// Unpacks the repository as `repo`.
fn unpack() -> Place {
    let place = Place::new();
    let archive = kbackup_testnode::fixtures().join("repositories/format-1.tar.zst");
    let archive = zstd::Decoder::new(std::fs::File::open(archive).unwrap()).unwrap();

    let mut archive = tar::Archive::new(archive);
    archive.set_preserve_mtime(true);
    archive.set_preserve_permissions(true);
    archive.unpack(place.path("repo")).unwrap();

    place
}

/// The node of the backups, later than at any backup.
fn node_further_on(place: &Place) -> (Node, Server) {
    let recording = Recording::named("26.1-scavenge").unwrap();
    let node = Node::start(recording, place.path("node")).unwrap();
    node.advance_to_mark(Mark::Ready).unwrap();
    let second_scavenge = node.recording().scavenges[1].begin;
    assert!(second_scavenge > INTERRUPTED_AT);
    node.advance_to(second_scavenge).unwrap();

    let server = node.serve().unwrap();
    (node, server)
}

/// Runs `kbackup`, which must succeed, and returns its answer as JSON.
fn answer(place: &Place, line: &str) -> Value {
    let output = place.kbackup(line).arg("--json").output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{line}: {log}");

    serde_json::from_slice(&output.stdout).unwrap()
}

fn labels(list: &Value) -> Vec<&str> {
    list["backups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|backup| backup["label"].as_str().unwrap())
        .collect()
}

/// Asserts that every backup in the repository is sound.
fn assert_verifies(place: &Place, backups: usize) {
    let report = answer(place, "verify --all --deep --repo repo");
    let verified = report["backups"].as_array().unwrap();
    assert_eq!(verified.len(), backups);

    for backup in verified {
        assert_eq!(backup["findings"], Value::Array(Vec::new()), "{backup:#}");
    }
}

/// Asserts that a server would start from a restore of the backup, and that the log ends correctly.
fn assert_restores(place: &Place, label: &str, position: u64) {
    let target = format!("restored-{label}");
    answer(
        place,
        &format!("restore {label} --ready --repo repo --to {target}"),
    );
    answer(place, &format!("check {target} --server-version 26.1.0"));

    let writer = std::fs::read(place.path(&target).join("writer.chk")).unwrap();
    assert_eq!(u64::from_le_bytes(writer.try_into().unwrap()), position);
}

#[test]
fn the_backups_of_format_1_are_listed_and_shown() {
    let place = unpack();

    let list = answer(&place, "list --repo repo");
    assert_eq!(labels(&list), BACKUPS.map(|(label, _)| label));
    assert_eq!(
        list["interrupted"]["files"], 14,
        "the files of a killed run"
    );

    let mut parent = Value::Null;
    for (label, position) in BACKUPS {
        let shown = answer(&place, &format!("show {label} --repo repo"));
        assert_eq!(shown["format"], 1);
        assert_eq!(shown["tool"], "kbackup 0.1.0");
        assert_eq!(shown["log"]["position"], position);
        assert_eq!(shown["source"]["server_version"], "26.1.0");
        assert_eq!(shown["parent"], parent);
        parent = label.into();
    }
}

#[test]
fn the_backups_of_format_1_verify_and_restore() {
    let place = unpack();

    assert_verifies(&place, BACKUPS.len());
    for (label, position) in BACKUPS {
        assert_restores(&place, label, position);
    }
}

#[test]
fn a_flipped_byte_in_a_repository_of_format_1_is_found() {
    let place = unpack();
    let chunk = "db/chunk-000001.000000";
    let stored = |label: &str| place.path("repo/backups").join(label).join(chunk);
    let inode = |label: &str| stored(label).metadata().unwrap().ino();
    let ([(full, _), (diff, _), _], offset) = (BACKUPS, 100_000);
    assert_eq!(inode(full), inode(diff), "they share the file");

    crate::backup::bench::flip(&stored(full), offset);
    let output = place
        .kbackup("verify --all --repo repo --json")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(20));

    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for (backup, is_damaged) in [(0, true), (1, true), (2, false)] {
        let findings = report["backups"][backup]["findings"].as_array().unwrap();
        assert_eq!(!findings.is_empty(), is_damaged, "{report:#}");
    }
}

#[test]
fn a_repository_of_format_1_is_extended_and_its_interrupted_run_is_resumed() {
    let place = unpack();
    let (node, server) = node_further_on(&place);
    let (newest, _) = BACKUPS[2];

    // A test node has a new address each time.
    let url = server.url();
    let line = format!("diff --repo repo --node {url} --new-address");
    let diff = answer(&place, &line);
    assert_eq!(diff["kind"], "diff", "{diff:#}");
    assert_eq!(diff["parent"], newest);
    assert_eq!(diff["branch"], 1);
    assert_eq!(
        diff["files_resumed"], 3,
        "two tables and a chunk did not change since the run was killed: {diff:#}"
    );

    let list = answer(&place, "list --repo repo");
    assert_eq!(list["interrupted"], Value::Null);
    assert_verifies(&place, BACKUPS.len() + 1);

    let label = diff["label"].as_str().unwrap();
    let position = diff["position"].as_u64().unwrap();
    assert_restores(&place, label, position);
    drop((node, server));
}

#[test]
fn the_oldest_backups_of_format_1_expire_and_the_others_stay_whole() {
    let place = unpack();

    let expired = answer(&place, "expire --keep-last 2 --repo repo --confirm");
    let list = answer(&place, "list --repo repo");
    assert_eq!(labels(&list), [BACKUPS[1].0, BACKUPS[2].0], "{expired:#}");

    // The diff shared files with the removed full.
    assert_verifies(&place, 2);
    assert_restores(&place, BACKUPS[1].0, BACKUPS[1].1);
}
