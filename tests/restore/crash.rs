use std::path::{Path, PathBuf};
use std::process::Command;

use kbackup::repository::{DirectoryRepository, Repository};
use kbackup::restore::{execute, plan};

use super::stage::{Stage, Start, assert_restored, contents, position, request, run, start};

#[test]
fn a_restore_that_dies_anywhere_leaves_what_no_server_starts_from() {
    // In memory, where there is any: hundreds of restores are made, and a sync costs nothing there.
    let place = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let stage = Stage::at("20.10-scavenge", place, None, |_| ());
    let end = stage.manifest.log.position.position().to_signed();
    assert_eq!(stage.plan(&stage.request()).unwrap().truncation.value(), Some(position(end)), "the harder way to the end");
    for operation in ["create", "write", "truncate", "sync", "rename", "setmode", "setowner"] {
        let mut count = 1;
        while !restore_that_dies(&stage, operation, count, end) {
            count += 1;
        }
        assert!(count > 1, "no {operation} was seen");
    }
}

/// Lets the `count`-th operation on the target be the last one; true where there was none.
fn restore_that_dies(stage: &Stage, operation: &str, count: u32, end: i64) -> bool {
    let target = stage.target(&format!("{operation}-{count}"));
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["restore::crash::restores_in_a_process_of_its_own", "--exact", "--ignored", "--test-threads=1"])
        .env("KBACKUP_FAULT", format!("{operation}:{}:{count}:abort", target.display()))
        .env("KBACKUP_TEST_REPOSITORY", stage.repository.place())
        .env("KBACKUP_TEST_TARGET", &target)
        .output()
        .unwrap()
        .status;
    let died = !status.success();
    let take_up = || assert!(stage.restore(&request(&[&target])).failure().is_none(), "{operation} {count}");
    match start(&target, &stage.manifest) {
        Start::Refused => {
            assert!(died, "{operation} {count}: not startable");
            take_up();
        }
        Start::Opened { writer, .. } if writer == end => {
            assert_restored(stage, &target, end);
            assert!(stage.refused(&request(&[&target])).contains("restored database"), "{operation} {count}");
        }
        Start::Opened { .. } => {
            let nothing = contents(&target).keys().all(|name| name == "writer.chk" || name.ends_with(".tmp"));
            assert!(nothing, "{operation} {count}: something can be lost");
            take_up();
        }
    }
    assert_restored(stage, &target, end);
    std::fs::remove_dir_all(&target).unwrap();
    !died
}

#[test]
#[ignore = "it is run by another test, which lets it die"]
fn restores_in_a_process_of_its_own() {
    let repository = DirectoryRepository::open(Path::new(&std::env::var_os("KBACKUP_TEST_REPOSITORY").unwrap())).unwrap();
    let target = PathBuf::from(std::env::var_os("KBACKUP_TEST_TARGET").unwrap());
    let plan = plan(&repository, &request(&[&target]), &run()).unwrap();
    let report = execute(&repository, &plan, &run()).unwrap();
    assert!(report.failure().is_none(), "{:?}", report.failure());
}
