//! What a restore says of the index: whether the server uses it, or builds another one.

use kbackup::manifest::Role;

use super::handmade::{HandmadeBackup, back_up, request, run};
use crate::fixtures::{DataDirectory, write_old_table};
use crate::stores::TestRepository;

/// Plans a restore to a server of this version.
fn planned(
    repository: &TestRepository,
    target: &std::path::Path,
    server: &str,
) -> kbackup::restore::RestorePlan {
    let request = kbackup::restore::RestoreRequest {
        server_version: Some(server.to_owned()),
        ..request(&[target])
    };
    kbackup::restore::plan(repository, &request, &run()).unwrap()
}

#[test]
fn an_index_that_the_server_refuses_is_rebuilt_and_its_copy_counted() {
    let data = DataDirectory::unpack("22.10-append").unwrap();
    for table in data.tables().unwrap() {
        write_old_table(&table, 1, |_| ()).unwrap();
    }
    let place = tempfile::tempdir().unwrap();
    let repository = TestRepository::create(&place.path().join("repository"));
    let manifest = back_up(&repository, &data, 1, None, |_| ());
    let index: u64 = manifest
        .files
        .iter()
        .filter(|row| row.path.to_string().starts_with("index/"))
        .map(|row| row.size.next_multiple_of(4096))
        .sum();

    let target = place.path().join("target");
    let old = planned(&repository, &target, "23.10.0");
    assert!(old.closing.index_carried);
    assert!(old.to_string().contains("index: carried along"), "{old}");

    let new = planned(&repository, &target, "24.10.0");
    assert!(!new.closing.index_carried);
    let said = new.to_string();
    assert!(said.contains("index: rebuilt by the server"), "{said}");
    assert!(said.contains("`index-backup-…`"), "{said}");
    assert_eq!(
        new.targets[0].bytes_needed,
        old.targets[0].bytes_needed + index
    );
}

#[test]
fn a_backup_that_holds_no_index_does_not_say_that_it_carries_one() {
    // kbackup 0.1.0 wrote `index: true` into the manifest of a node without an index.
    let handmade = HandmadeBackup::at(
        "26.1-append",
        tempfile::tempdir().unwrap(),
        Some(4 * 0x40000),
        |manifest| manifest.contents.index = true,
    );
    let rows = &handmade.manifest.files;
    assert!(rows.iter().all(|row| row.role != Role::IndexMap));

    let plan = handmade.plan(&handmade.request()).unwrap();
    assert!(!plan.closing.index_carried);
    let said = plan.to_string();
    assert!(said.contains("index: rebuilt by the server"), "{said}");
    assert!(said.contains("no stream-existence filter"), "{said}");
}
