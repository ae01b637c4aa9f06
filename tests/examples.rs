//! The programs in `examples/`, compiled into this test and run on a fixture.

#[path = "../examples/list_and_verify.rs"]
#[expect(dead_code, reason = "the test calls what `main` calls")]
mod list_and_verify;
#[path = "../examples/offline_backup.rs"]
#[expect(dead_code, reason = "the test calls what `main` calls")]
mod offline_backup;

use kbackup_testnode::Synthetic;

use self::list_and_verify::list_and_verify;
use self::offline_backup::offline_backup;

#[test]
fn a_stopped_node_is_backed_up_twice_then_listed_and_verified() {
    let directory = tempfile::tempdir().unwrap();
    let made = Synthetic {
        filter_bytes: 10_000,
        table_entries: 200,
        ..Synthetic::of_size(1 << 20, 256 << 10)
    }
    .make(directory.path().join("node"))
    .unwrap();
    let repository = directory.path().join("repository");

    let mut backups = Vec::new();
    offline_backup(&made.db, &repository, &mut backups).unwrap();
    offline_backup(&made.db, &repository, &mut backups).unwrap();
    let backups = String::from_utf8(backups).unwrap();
    let lines: Vec<&str> = backups.lines().collect();
    assert_eq!(lines.len(), 2, "{backups}");
    assert!(lines[0].contains(", 0 reused"), "{backups}");
    assert!(!lines[1].contains(", 0 reused"), "{backups}");

    let mut listing = Vec::new();
    list_and_verify(&repository, &mut listing).unwrap();
    let listing = String::from_utf8(listing).unwrap();
    let lines: Vec<&str> = listing.lines().collect();
    assert_eq!(lines.len(), 3, "{listing}");
    assert!(lines[0].contains("-full: finished "), "{listing}");
    assert!(lines[1].contains("-diff: finished "), "{listing}");
    assert!(lines[2].ends_with(": intact"), "{listing}");
}

#[test]
fn a_missing_repository_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");

    let error = list_and_verify(&missing, &mut Vec::new()).unwrap_err();
    assert!(format!("{error:#}").contains("repository"), "{error:#}");
}
