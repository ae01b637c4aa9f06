//! Interrupted restores, and the next restore into the same target.

use std::path::Path;
use std::sync::{Arc, Weak};

use kbackup::error::{Kind, Signal};
use kbackup::event::{Event, Observer};
use kbackup::manifest::{RestoreMark, Role};
use kbackup::repository::Repository;
use kbackup::restore::{
    AcceptedRisks, RestoreReport, RestoreRequest, TargetContent, TargetOutcome, execute,
    holds_database,
};
use kbackup::run::Run;
use kbackup::transfer::FILES_AT_ONCE;

use super::handmade::{HandmadeBackup, assert_restored, back_up, contents, request, run};
use super::start::{Start, start};
use crate::backup::bench::workplace;
use crate::executable::kbackup_with_fault;
use crate::stores::in_every_store;

in_every_store! {
    right_files_are_kept_and_the_others_are_written_again,
    a_secondary_index_of_a_refused_server_is_removed_if_the_backups_is_left_out,
    a_foreign_file_stops_a_restore_from_resuming,
    only_the_same_backup_resumes,
    a_target_that_a_server_holds_is_refused,
    a_restore_that_a_signal_ended_is_resumed,
    a_finished_target_that_has_changed_is_refused,
    a_kept_file_must_have_the_servers_hash_too,
    a_finished_target_is_recognised,
}

/// Makes a finished restore look like an interrupted one.
fn interrupt(handmade: &HandmadeBackup) {
    let db = handmade.target("target");
    assert!(handmade.restore(&handmade.request()).failure().is_none());
    std::fs::write(db.join("chaser.chk"), i64::MAX.to_le_bytes()).unwrap();
    std::fs::write(db.join("writer.chk"), (i64::MAX - 1).to_le_bytes()).unwrap();
    std::fs::write(db.join("truncate.chk"), (-1_i64).to_le_bytes()).unwrap();
    RestoreMark::begin(
        handmade.repository.id(),
        handmade.manifest.label.clone(),
        handmade.manifest.finished,
    )
    .write(&db)
    .unwrap();
    assert_eq!(start(&db, &handmade.manifest), Start::Refused);
}

fn end(handmade: &HandmadeBackup) -> i64 {
    handmade.manifest.log.position.position().to_signed()
}

fn overwrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn right_files_are_kept_and_the_others_are_written_again() {
    let handmade = HandmadeBackup::new("20.10-append");
    interrupt(&handmade);

    let db = handmade.target("target");
    overwrite(&db.join("chunk-000000.000000"), |bytes| bytes[5000] ^= 1);
    overwrite(&db.join("chunk-000001.000000"), |bytes| {
        bytes.truncate(5000);
    });
    std::fs::remove_file(db.join("index/indexmap")).unwrap();

    // A server that was started meanwhile leaves these files, and so does kbackup.
    std::fs::create_dir(db.join("index/stream-existence")).unwrap();
    std::fs::write(
        db.join("index/stream-existence/streamExistenceFilter.chk"),
        (-1_i64).to_le_bytes(),
    )
    .unwrap();
    std::fs::write(db.join("kurrent.ddb"), "new").unwrap();
    std::fs::write(db.join(".abc.tmp"), "").unwrap();

    let plan = handmade.plan(&handmade.request()).unwrap();
    let TargetContent::Interrupted(found) = &plan.targets[0].found else {
        panic!("{:?}", plan.targets[0].found)
    };
    assert_eq!(
        (found.since, found.files),
        (Some(handmade.manifest.finished), plan.files - 2)
    );

    let report = execute(&handmade.repository, &plan, &run()).unwrap();
    let TargetOutcome::Restored(placement) = &report.targets[0].outcome else {
        panic!("{:?}", report.failure())
    };
    assert_eq!(
        (placement.files_written, placement.files_kept),
        (3, plan.files - 3)
    );

    std::fs::remove_dir(db.join("index/stream-existence")).unwrap();
    assert_restored(&handmade, &db, end(&handmade));
}

/// A server that meets the guard makes a new `kurrent.ddb`. A restore that leaves the backup's own one
/// out does not keep it.
fn a_secondary_index_of_a_refused_server_is_removed_if_the_backups_is_left_out() {
    let handmade = HandmadeBackup::with("26.1-append", |manifest| {
        let beyond = manifest.log.position.position().checked_add(1).unwrap();
        manifest.log.read.writer = kbackup::format::WriterPosition(beyond);
    });
    interrupt(&handmade);
    let secondary_index = handmade.target("target").join("kurrent.ddb");

    std::fs::write(&secondary_index, "new").unwrap();
    assert!(handmade.restore(&handmade.request()).failure().is_none());
    assert!(!secondary_index.exists());
}

fn a_foreign_file_stops_a_restore_from_resuming() {
    for name in [
        "notes.txt",
        "chunk-000099.000000",
        "index/5f9ab8f0-4a1c-4a6e-9f0e-7a6f1f3e2d11",
        "archive.chk",
    ] {
        let handmade = HandmadeBackup::new("20.10-append");
        interrupt(&handmade);
        std::fs::write(handmade.target("target").join(name), "mine").unwrap();
        assert!(
            handmade
                .refused(&handmade.request())
                .contains("not the backup's"),
            "{name}"
        );
    }

    let handmade = HandmadeBackup::new("20.10-append");
    interrupt(&handmade);
    let chunk = handmade.target("target").join("chunk-000000.000000");
    std::fs::remove_file(&chunk).unwrap();
    std::os::unix::fs::symlink("/dev/null", &chunk).unwrap();
    assert!(
        handmade
            .refused(&handmade.request())
            .contains("not the backup's")
    );
}

fn only_the_same_backup_resumes() {
    let handmade = HandmadeBackup::new("20.10-append");
    interrupt(&handmade);

    let other = back_up(&handmade.repository, &handmade.data, 2, None, |_| ());
    assert!(
        handmade
            .refused(&RestoreRequest {
                label: Some(other.head.label),
                ..handmade.request()
            })
            .contains(handmade.manifest.label.as_str())
    );

    handmade
        .plan(&RestoreRequest {
            label: Some(handmade.manifest.label.clone()),
            ..handmade.request()
        })
        .unwrap();

    RestoreMark::begin(
        uuid::Uuid::nil(),
        handmade.manifest.label.clone(),
        handmade.manifest.finished,
    )
    .write(&handmade.target("target"))
    .unwrap();
    assert!(
        handmade
            .refused(&RestoreRequest {
                label: Some(handmade.manifest.label.clone()),
                ..handmade.request()
            })
            .contains("another backup")
    );
}

fn a_target_that_a_server_holds_is_refused() {
    let handmade = HandmadeBackup::new("20.10-append");
    interrupt(&handmade);

    let held = std::fs::File::open(handmade.target("target").join("epoch.chk")).unwrap();
    held.lock_shared().unwrap();
    assert!(
        handmade
            .refused(&handmade.request())
            .contains("a server runs on it")
    );

    let confirmed = AcceptedRisks {
        unsure_whether_in_use: true,
        ..AcceptedRisks::default()
    };
    handmade.refused(&RestoreRequest {
        accept: confirmed,
        ..handmade.request()
    });

    drop(held);
    handmade.plan(&handmade.request()).unwrap();
}

/// Interrupts the run at the first bytes.
struct Impatient(Weak<Run>);

impl Observer for Impatient {
    fn observe(&self, event: &Event) {
        if let (Event::Progress { .. }, Some(run)) = (event, self.0.upgrade()) {
            run.interrupt(Signal::Terminate);
        }
    }
}

fn a_restore_that_a_signal_ended_is_resumed() {
    let handmade = HandmadeBackup::new("26.1-append");
    let (one, two) = (handmade.target("one"), handmade.target("two"));
    let both = request(&[&one, &two]);

    let impatient = Arc::new_cyclic(|run| Run::new(Impatient(run.clone())));
    let report: RestoreReport = execute(
        &handmade.repository,
        &handmade.plan(&both).unwrap(),
        &impatient,
    )
    .unwrap();

    assert_eq!(
        report.failure().unwrap().kind(),
        Kind::Interrupted(kbackup::error::Cause::Signal(Signal::Terminate))
    );
    assert!(matches!(report.targets[1].outcome, TargetOutcome::NotBegun));
    assert_eq!(start(&one, &handmade.manifest), Start::Refused);
    assert!(!two.exists());

    assert!(handmade.restore(&both).failure().is_none());
    assert_restored(&handmade, &one, end(&handmade));
    assert_restored(&handmade, &two, end(&handmade));
}

/// The sizes of rows whose bytes are in the target, and the number of files with other bytes.
fn done(handmade: &HandmadeBackup, target: &Path) -> (Vec<u64>, usize) {
    let (mut right, mut wrong) = (Vec::new(), 0);
    for row in &handmade.manifest.files {
        if row.role == Role::Checkpoint {
            continue;
        }

        let place = kbackup::manifest::Directories::new(target, None).path_of(&row.path);
        match std::fs::read(place) {
            Ok(bytes) if kbackup::manifest::Blake3Hash::of(&bytes) == row.blake3 => {
                right.push(row.size);
            }
            Ok(_) => wrong += 1,
            Err(_) => {}
        }
    }
    (right, wrong)
}

/// Restores in a process that is killed at the n-th such operation. Returns false if the process came
/// to its end, perhaps with warnings.
fn killed(handmade: &HandmadeBackup, targets: &[&Path], fault: &str) -> bool {
    let mut command = kbackup_with_fault(fault);
    command
        .args(["restore", "--repo"])
        .arg(handmade.repository.place());
    for target in targets {
        command.arg("--to").arg(target);
    }
    command.output().unwrap().status.code().is_none()
}

#[test]
fn files_that_were_written_before_a_kill_are_not_written_again() {
    let handmade = HandmadeBackup::at("26.1-append", workplace(), None, |_| ());
    let mut rows = handmade.manifest.files.clone();
    rows.retain(|row| row.role != Role::Checkpoint);
    let sizes: Vec<u64> = rows.iter().map(|row| row.size).collect();

    let mut most = 0;
    for (operation, step) in [("write", 4), ("sync", 3), ("truncate", 2), ("create", 3)] {
        let mut count = 1;
        loop {
            let target = handmade.target(&format!("{operation}-{count}"));
            if !killed(
                &handmade,
                &[&target],
                &format!("{operation}:{}:{count}:abort", target.display()),
            ) {
                break;
            }

            let (right, wrong) = done(&handmade, &target);
            assert!(
                wrong <= FILES_AT_ONCE,
                "{operation} {count}: {wrong} files were in flight"
            );

            if start(&target, &handmade.manifest) == Start::Refused || right.len() < sizes.len() {
                let report = handmade.restore(&request(&[&target]));
                let TargetOutcome::Restored(placement) = &report.targets[0].outcome else {
                    panic!("{:?}", report.failure())
                };
                let written = sizes.iter().sum::<u64>() - right.iter().sum::<u64>();
                assert_eq!(
                    (placement.files_kept, placement.bytes_written),
                    (right.len() as u64, written),
                    "{operation} {count}"
                );
                most = most.max(right.len());
            }

            assert_restored(&handmade, &target, end(&handmade));
            std::fs::remove_dir_all(&target).unwrap();
            count += step;
        }
        assert!(count > 1, "no {operation} was seen");
    }
    assert_eq!(most, sizes.len(), "all files were there once");
}

#[test]
fn a_kill_at_the_second_target_leaves_the_first_alone() {
    let handmade = HandmadeBackup::new("26.1-append");
    let (one, two) = (handmade.target("one"), handmade.target("two"));
    assert!(killed(
        &handmade,
        &[&one, &two],
        &format!("write:{}/chunk-000002:1:abort", two.display())
    ));
    assert_restored(&handmade, &one, end(&handmade));
    let before = contents(&one);

    assert_eq!(start(&two, &handmade.manifest), Start::Refused);
    let error = handmade.plan(&request(&[&one])).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(
        error.hints().concat().contains("leave this target out"),
        "{:?}",
        error.hints()
    );

    let (right, wrong) = done(&handmade, &two);
    assert!(wrong <= FILES_AT_ONCE && !right.is_empty());
    let plan = handmade.plan(&request(&[&one, &two])).unwrap();
    assert_eq!(
        (&plan.targets[0].found, plan.targets[0].bytes_needed),
        (&TargetContent::Finished, 0)
    );

    let report = execute(&handmade.repository, &plan, &run()).unwrap();
    assert!(
        matches!(report.targets[0].outcome, TargetOutcome::AlreadyRestored),
        "{:?}",
        report.failure()
    );
    assert!(report.to_string().contains("already restored"), "{report}");

    let TargetOutcome::Restored(placement) = &report.targets[1].outcome else {
        panic!("{:?}", report.failure())
    };
    assert_eq!(placement.files_kept, right.len() as u64);
    assert_restored(&handmade, &two, end(&handmade));
    assert_eq!(contents(&one), before);
}

/// A server changes a finished target at its start, and another process may change it too.
fn a_finished_target_that_has_changed_is_refused() {
    let handmade = HandmadeBackup::new("26.1-append");
    let (one, two) = (handmade.target("one"), handmade.target("two"));
    let both = request(&[&one, &two]);
    assert!(handmade.restore(&request(&[&one])).failure().is_none());
    let (writer, truncate) = (end(&handmade).to_le_bytes(), (-1_i64).to_le_bytes());
    let later = (end(&handmade) + 100).to_le_bytes();
    let ready = RestoreRequest {
        ready: true,
        ..both.clone()
    };
    assert!(
        handmade
            .refused(&ready)
            .contains("holds a restored database already"),
        "the target would not be a ready one"
    );

    let other = back_up(&handmade.repository, &handmade.data, 2, None, |_| ());
    let same = RestoreRequest {
        label: Some(handmade.manifest.label.clone()),
        ..both
    };
    assert!(
        handmade
            .refused(&RestoreRequest {
                label: Some(other.head.label),
                ..same.clone()
            })
            .contains("holds a restored database already")
    );

    for (name, changed) in [
        ("writer.chk", &later),
        ("epoch.chk", &later),
        ("proposal.chk", &later),
        ("truncate.chk", &truncate),
        ("chaser.chk", &truncate),
        ("kurrent.ddb", &truncate),
        ("index/scavenging/scavenging.db", &truncate),
        ("chunk-000000.000000", &writer),
    ] {
        let path = one.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let before = std::fs::read(&path).ok();
        std::fs::remove_file(&path).ok();
        std::fs::write(&path, changed).unwrap();
        assert!(
            handmade
                .refused(&same)
                .contains("holds a restored database already"),
            "{name}"
        );
        assert!(!two.exists(), "{name}");
        match before {
            Some(before) => overwrite(&path, |bytes| *bytes = before),
            None => std::fs::remove_file(&path).unwrap(),
        }
    }

    assert!(
        handmade
            .refused(&same)
            .contains("holds a restored database already"),
        "a server made an empty directory"
    );

    std::fs::remove_dir(one.join("index/scavenging")).unwrap();
    let held = std::fs::File::open(one.join("writer.chk")).unwrap();
    held.lock_shared().unwrap();
    assert!(handmade.refused(&same).contains("a server runs on it"));
    drop(held);

    // The target changes between the plan and its turn.
    let plan = handmade.plan(&same).unwrap();
    std::fs::write(one.join("writer.chk"), later).unwrap();
    let report = execute(&handmade.repository, &plan, &run()).unwrap();
    assert_eq!(report.failure().unwrap().kind(), Kind::Refused);
    assert!(matches!(
        report.targets[1].outcome,
        TargetOutcome::Restored(_)
    ));
    assert_eq!(std::fs::read(one.join("writer.chk")).unwrap(), later);
}

#[test]
fn a_restore_that_a_full_disk_ended_is_resumed() {
    const NO_SPACE: i32 = 28;
    let handmade = HandmadeBackup::new("26.1-append");
    let target = handmade.target("target");
    for part in [
        "chunk-000003",
        "index/indexmap",
        "proposal.chk",
        "kbackup-restore.json",
        "writer.chk",
    ] {
        let fault = format!("write:{}/{part}:1:{NO_SPACE}", target.display());
        let output = kbackup_with_fault(fault)
            .args(["restore", "--repo"])
            .arg(handmade.repository.place())
            .arg("--to")
            .arg(&target)
            .output()
            .unwrap();

        let told = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && told.contains("cannot write"),
            "{part}: {told}"
        );

        let found = contents(&target);
        let nothing = found
            .keys()
            .all(|name| name == "writer.chk" || name == "chaser.chk");
        assert!(
            nothing || start(&target, &handmade.manifest) == Start::Refused,
            "{part}"
        );

        assert!(
            handmade.restore(&handmade.request()).failure().is_none(),
            "{part}"
        );

        assert_restored(&handmade, &target, end(&handmade));
        std::fs::remove_dir_all(&target).unwrap();
    }
}

/// After a failed sync nobody knows what the disk holds, and the next sync succeeds.
#[test]
fn a_file_whose_sync_failed_is_removed() {
    let handmade = HandmadeBackup::new("20.10-append");
    let target = handmade.target("target");
    let chunk = target.join("chunk-000000.000000");
    let fail = |what: &str| {
        let fault = format!("sync:{}:1:5!", chunk.display());
        let mut command = kbackup_with_fault(fault);
        command.args(["restore", "--repo"]);
        command.arg(handmade.repository.place()).arg("--to");
        let output = command.arg(&target).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{what}");
        assert!(!chunk.exists(), "{what}");
    };

    fail("a file that was written");
    interrupt(&handmade);
    assert!(chunk.exists());
    fail("a file that was kept");

    let report = handmade.restore(&handmade.request());
    let TargetOutcome::Restored(placement) = &report.targets[0].outcome else {
        panic!("{:?}", report.failure())
    };
    assert_eq!(placement.files_written, 1);
    assert_restored(&handmade, &target, end(&handmade));
}

fn a_kept_file_must_have_the_servers_hash_too() {
    // The manifest's hash fits, but the server's does not. The file must neither be kept nor written.
    let handmade = HandmadeBackup::with("20.10-append", |manifest| {
        let row = manifest
            .files
            .iter_mut()
            .find(|row| row.role == Role::Table)
            .unwrap();
        row.table_md5 = Some(kbackup::format::Md5Hash([7; 16]));
    });
    for _ in 0..2 {
        let report = handmade.restore(&handmade.request());
        assert_eq!(report.failure().unwrap().kind(), Kind::StoredCorrupt);
        assert_eq!(
            start(&handmade.target("target"), &handmade.manifest),
            Start::Refused
        );
    }
}

/// An init container restores at each of its starts.
fn a_finished_target_is_recognised() {
    let handmade = HandmadeBackup::new("26.1-append");
    let one = handmade.target("one");
    assert!(!holds_database(&one).unwrap(), "the target is empty");

    let plan = handmade.plan(&request(&[&one])).unwrap();
    let interrupted = run();
    interrupted.interrupt(Signal::Terminate);
    execute(&handmade.repository, &plan, &interrupted).ok();
    assert!(
        !holds_database(&one).unwrap(),
        "an interrupted restore has to be resumed"
    );

    assert!(handmade.restore(&request(&[&one])).failure().is_none());
    assert!(holds_database(&one).unwrap());
    for (name, value) in [("chaser.chk", i64::MAX), ("writer.chk", 0)] {
        let path = one.join(name);
        let before = std::fs::read(&path).unwrap();
        overwrite(&path, |bytes| *bytes = value.to_le_bytes().to_vec());
        assert!(!holds_database(&one).unwrap(), "{name}");
        overwrite(&path, |bytes| *bytes = before);
    }
    assert!(holds_database(&one).unwrap());
}
