//! Backups of a node without an index: a young node has none, and an unmounted volume looks the same.

use std::path::Path;

use kbackup::manifest::Role;

use super::bench::{Bench, small};
use crate::executable::{argument, kbackup, stderr};
use crate::stores::in_every_store;

in_every_store! {
    a_node_that_has_lost_its_index_is_warned_of,
    a_young_node_without_an_index_is_no_reason_for_a_warning,
}

fn unmount_index(bench: &Bench) {
    std::fs::remove_dir_all(bench.index()).unwrap();
    std::fs::create_dir(bench.index()).unwrap();
}

fn a_node_that_has_lost_its_index_is_warned_of() {
    let bench = Bench::new(&small());
    let first = bench.take().unwrap();
    assert!(first.index);

    unmount_index(&bench);
    for summary in [bench.take().unwrap(), bench.full().unwrap()] {
        let said = bench.said();
        assert!(said.contains("warning:"), "{said}");
        assert!(
            said.contains(&format!(
                "the index in the backup {} reaches to",
                first.label
            )),
            "{said}"
        );

        assert!(!summary.index);
        let manifest = bench.manifest(&summary);
        assert!(!manifest.contents.index);
        assert_eq!(manifest.log.index_commit, None);
    }
    bench.assert_sound();
}

fn a_young_node_without_an_index_is_no_reason_for_a_warning() {
    let bench = Bench::new(&small());
    unmount_index(&bench);
    let summary = bench.take().unwrap();

    assert!(!bench.said().contains("warning"), "{}", bench.said());
    assert!(!summary.index);
    let manifest = bench.manifest(&summary);
    assert!(manifest.files.iter().all(|row| row.role != Role::IndexMap));
    bench.assert_sound();
}

/// Backs the stopped node up with an index directory that the operator names.
fn full(bench: &Bench, index: &Path) -> std::process::Output {
    let mut command = kbackup();
    command
        .args([
            "full",
            "--new-repository",
            "--offline",
            "--db",
            argument(&bench.db),
        ])
        .args(["--index", argument(index)])
        .args(["--repo", argument(&bench.path("shelf"))])
        .args(["--state-dir", argument(&bench.path("state"))]);
    command.output().unwrap()
}

#[test]
fn an_empty_index_directory_that_the_operator_names_is_refused() {
    let bench = Bench::new(&small());
    let empty = bench.path("not-mounted");
    std::fs::create_dir(&empty).unwrap();

    let output = full(&bench, &empty);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("`--index` names is empty"), "{said}");
    assert!(said.contains("hint: "), "{said}");
    assert!(!bench.path("shelf").exists(), "nothing was begun");

    let output = full(&bench, &bench.index());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}
