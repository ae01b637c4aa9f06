//! Restores of real nodes' directories, from backups that were made by hand.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may end in a panic"
)]

mod again;
pub(crate) mod handmade;
mod index;
mod plans;
mod refusals;
pub(crate) mod start;

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use kbackup::error::Kind;
use kbackup::manifest::*;
use kbackup::restore::{RestoreRequest, TargetOutcome, execute};

use crate::fixtures::DataDirectory;
use crate::stores::in_every_store;
use handmade::{HandmadeBackup, assert_restored, contents, request, run};
use start::{Start, start};

in_every_store! {
    every_directory_of_a_real_node_is_restored,
    damage_in_the_repository_is_never_restored,
    several_targets_are_independent,
    a_log_that_ends_with_a_chunk_is_restored_without_the_next_chunk,
    no_restore_truncates_into_a_scavenged_chunk,
    a_secondary_index_that_may_be_ahead_is_left_out,
}

fn every_directory_of_a_real_node_is_restored() {
    let names = DataDirectory::all().unwrap().map(|data| data.unwrap().name);
    // The writer position of a killed node is not known to be a boundary.
    let stopped = names.filter(|name| !name.ends_with("killed") && !name.ends_with("bad-index"));
    for name in stopped {
        let handmade = HandmadeBackup::new(&name);
        let report = handmade.restore(&handmade.request());
        assert!(report.failure().is_none(), "{name}: {:?}", report.failure());
        assert_restored(
            &handmade,
            &handmade.target("target"),
            handmade.data.checkpoint("writer").unwrap(),
        );

        let ready = RestoreRequest {
            ready: true,
            ..request(&[&handmade.target("ready")])
        };
        assert!(handmade.restore(&ready).failure().is_none(), "{name}");
        assert_restored(&handmade, &handmade.target("ready"), -1);
    }
}

#[test]
fn files_get_the_owner_and_the_modes_that_a_server_needs() {
    let handmade = HandmadeBackup::new("24.10-append");
    handmade.restore(&handmade.request());

    let root = rustix::process::geteuid().is_root();
    for entry in walkdir::WalkDir::new(handmade.target("target")) {
        let entry = entry.unwrap();
        let status = entry.metadata().unwrap();
        if root {
            assert_eq!(
                (status.uid(), status.gid()),
                (1001, 1002),
                "{}",
                entry.path().display()
            );
        }

        let name = entry.file_name().to_str().unwrap();
        let expected = match name {
            _ if entry.file_type().is_dir() => 0o750,
            "chunk-000004.000000" => 0o644,
            name if name.starts_with("chunk-") || uuid::Uuid::parse_str(name).is_ok() => 0o444,
            name if name.ends_with(".chk") && !name.starts_with("stream") => 0o644,
            _ => status.permissions().mode() & 0o777 | 0o600,
        };
        assert_eq!(status.permissions().mode() & 0o7777, expected, "{name}");
        assert_eq!(
            status.nlink() > 1,
            entry.file_type().is_dir() && status.nlink() > 1,
            "{name} is a hard link"
        );
    }
}

#[test]
fn holes_stay_holes() {
    let handmade = HandmadeBackup::new("26.1-append");
    handmade.restore(&handmade.request());
    let active = handmade
        .target("target")
        .join("chunk-000004.000000")
        .metadata()
        .unwrap();

    let log = &handmade.manifest.log;
    let data = 128 + log.chunk_size.local(log.position.position());
    assert!(
        active.blocks() * 512 <= data.next_multiple_of(64 * 1024),
        "{} blocks for {data} bytes",
        active.blocks()
    );
}

fn damage_in_the_repository_is_never_restored() {
    for role in [Role::Chunk, Role::Table, Role::TableFilter, Role::IndexMap] {
        let handmade = HandmadeBackup::new("26.1-append");
        handmade.damage(handmade.row(role));

        let report = handmade.restore(&handmade.request());
        let failure = report.failure().expect("the damage was not seen");
        assert_eq!(failure.kind(), Kind::StoredCorrupt, "{failure}");
        assert!(
            failure
                .hints()
                .iter()
                .any(|hint| hint.contains("no server starts")),
            "{:?}",
            failure.hints()
        );

        assert_eq!(
            start(&handmade.target("target"), &handmade.manifest),
            Start::Refused
        );
    }
}

fn several_targets_are_independent() {
    let handmade = HandmadeBackup::new("26.1-append");
    let (one, two, three) = (
        handmade.target("one"),
        handmade.target("two"),
        handmade.target("three"),
    );
    let request = request(&[&one, &two, &three]);

    let plan = handmade.plan(&request).unwrap();
    std::fs::create_dir(&two).unwrap();
    std::fs::write(two.join("precious"), "x").unwrap();

    let report = execute(&handmade.repository, &plan, &run()).unwrap();
    assert_eq!(report.failure().unwrap().kind(), Kind::Refused);
    assert!(matches!(
        report.targets[0].outcome,
        TargetOutcome::Restored(_)
    ));
    assert!(matches!(
        report.targets[1].outcome,
        TargetOutcome::Failed(_)
    ));
    assert!(matches!(
        report.targets[2].outcome,
        TargetOutcome::Restored(_)
    ));

    let end = handmade.manifest.log.position.position().to_signed();
    assert_restored(&handmade, &one, end);
    assert_restored(&handmade, &three, end);
    assert_eq!(contents(&two).len(), 1, "nothing was added");

    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["targets"][1]["outcome"]["failed"]["exit_code"], 23);
}

fn a_log_that_ends_with_a_chunk_is_restored_without_the_next_chunk() {
    for name in ["20.10-append", "23.10-append", "26.1-append"] {
        let end = 4 * 262_144;
        let handmade = HandmadeBackup::at(name, tempfile::tempdir().unwrap(), Some(end), |_| ());
        assert!(
            !handmade
                .manifest
                .files
                .iter()
                .any(|row| row.path.file_name() == "chunk-000004.000000")
        );

        let report = handmade.restore(&handmade.request());
        assert!(report.failure().is_none(), "{name}: {:?}", report.failure());
        assert_restored(&handmade, &handmade.target("target"), end);

        let last = handmade
            .target("target")
            .join("chunk-000003.000000")
            .metadata()
            .unwrap();
        assert_eq!(
            last.permissions().mode() & 0o777,
            0o444,
            "the last chunk is completed"
        );
    }
}

fn no_restore_truncates_into_a_scavenged_chunk() {
    let handmade = HandmadeBackup::with("26.1-append", |manifest| {
        let end = manifest.log.position.position();
        let chunk_size = manifest.log.chunk_size;
        let mut chunks = manifest
            .files
            .iter_mut()
            .filter_map(|row| row.chunk.as_mut());
        let active = chunks.next_back().unwrap();
        assert!(chunk_size.start_of(active.start) < end);
        active.scavenged = true;
    });

    let plan = handmade.plan(&handmade.request()).unwrap();
    assert_eq!(plan.truncation.value(), None);
    assert!(
        plan.warnings.iter().any(|warning| warning.contains("O33")),
        "{:?}",
        plan.warnings
    );
    assert!(
        execute(&handmade.repository, &plan, &run())
            .unwrap()
            .failure()
            .is_none()
    );
    assert_restored(&handmade, &handmade.target("target"), -1);
}

fn a_secondary_index_that_may_be_ahead_is_left_out() {
    let handmade = HandmadeBackup::with("26.1-append", |manifest| {
        let beyond = manifest.log.position.position().checked_add(1).unwrap();
        manifest.log.read.writer = kbackup::format::WriterPosition(beyond);
    });

    let run = run();
    let report = execute(
        &handmade.repository,
        &handmade.plan(&handmade.request()).unwrap(),
        &run,
    )
    .unwrap();
    assert!(report.failure().is_none());

    assert!(!handmade.target("target").join("kurrent.ddb").exists());
    assert!(
        report
            .closing
            .not_inside
            .iter()
            .any(|note| note.topic == "secondary-index")
    );

    assert!(
        run.warnings()
            .iter()
            .any(|warning| warning.contains("kurrent.ddb")),
        "{:?}",
        run.warnings()
    );
}
