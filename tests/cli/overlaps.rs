//! The repository, the state directory and the node's own directories never overlap, and the clean-up
//! of a repository takes nothing that kbackup did not make.

#![expect(clippy::print_stdout, reason = "a test says what it leaves out")]

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::{NodeSite, Place};
use crate::backup::bench::{copy_tree, files};

const FULL: &str = "full --repo repo --offline";

/// The directory of a stopped node, and a repository with a full of it.
fn site() -> NodeSite {
    let site = NodeSite::new("24.10-append");
    site.node.advance_to_end().unwrap();
    let full = format!("{FULL} --db node/db");
    site.place.kbackup(&full).assert().code(0);
    site
}

fn assert_refused(place: &Place, line: &str) {
    let output = place.kbackup(line).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(23), "{line}: {text}");
}

#[test]
fn a_database_inside_the_repository_is_refused_and_stays() {
    let site = site();
    let place = &site.place;
    let inside = [
        "repo/incoming/db",
        "repo/incoming/0195d4a0-0000-7000-8000-000000000000",
        "repo/state/db",
        "repo/backups/db",
        "repo/db",
    ];
    for name in inside {
        copy_tree(&site.node.db(), &place.path(name));
        let before = files(&place.path(name)).len();
        assert_refused(place, &format!("{FULL} --db {name}"));
        assert_eq!(files(&place.path(name)).len(), before, "{name}");
        std::fs::remove_dir_all(place.path(name)).unwrap();
    }

    // By a link, and with the index alone in the repository.
    copy_tree(&site.node.db(), &place.path("repo/incoming/db"));
    symlink(place.path("repo/incoming/db"), place.path("link")).unwrap();
    assert_refused(place, &format!("{FULL} --db link"));
    let index = "repo/incoming/db/index";
    assert_refused(place, &format!("{FULL} --db node/db --index {index}"));
}

/// A run that names another source does not know what is there.
#[test]
fn the_clean_up_takes_only_what_kbackup_made() {
    let site = site();
    let place = &site.place;
    let foreign = [
        "db",
        "notes",
        // It has an id for a name, but no run makes such files at its top.
        "0195d4a0-0000-7000-8000-000000000000",
    ];
    for name in foreign {
        copy_tree(
            &site.node.db(),
            &place.path(&format!("repo/incoming/{name}")),
        );
    }
    place.write("repo/incoming/readme.txt", "mine");
    let before: Vec<usize> = counts(place, &foreign);

    for line in [
        format!("{FULL} --db node/db"),
        "expire --repo repo --keep-last 1 --confirm".to_owned(),
    ] {
        place.kbackup(&line).assert().code(0);
        assert_eq!(counts(place, &foreign), before, "{line}");
        assert!(place.path("repo/incoming/readme.txt").is_file(), "{line}");
    }
    place.kbackup("list --repo repo").assert().code(0);
}

fn counts(place: &Place, names: &[&str]) -> Vec<usize> {
    let count = |name: &&str| files(&place.path(&format!("repo/incoming/{name}"))).len();
    names.iter().map(count).collect()
}

/// Something that is mounted somewhere. Dropping it unmounts it.
struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    /// Mounts a directory in another place. Returns `None` if this user may not.
    fn bind(from: &Path, to: &'a Path) -> Option<Self> {
        std::fs::create_dir_all(to).unwrap();
        let mut mount = Command::new("mount");
        let mounted = mount.arg("--bind").args([from, to]).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(to));
        }
        println!("SKIPPED: a bind mount needs root");
        None
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn what_is_mounted_in_a_repository_is_not_removed() {
    let site = site();
    let place = &site.place;
    let label = place.listed().pop().unwrap();
    place
        .kbackup(&format!("{FULL} --db node/db"))
        .assert()
        .code(0);
    let before = files(&site.node.db()).len();

    // What an interrupted run, a removal and a backup could hold.
    let run = "repo/incoming/0195d4a0-0000-7000-8000-000000000000/db";
    let expired = format!("repo/incoming/expired-{label}/db");
    for name in [run, &expired] {
        let path = place.path(name);
        let Some(mount) = Mount::bind(&site.node.db(), &path) else {
            return;
        };
        for line in [
            format!("{FULL} --db node/db"),
            "expire --repo repo --keep-last 9 --confirm".to_owned(),
        ] {
            let code = place.kbackup(&line).output().unwrap().status.code();
            assert!(matches!(code, Some(0 | 3)), "{line}: {code:?}");
            assert_eq!(files(&site.node.db()).len(), before, "{name}: {line}");
        }
        drop(mount);
    }

    let inside = place.path(&format!("repo/backups/{label}/db"));
    let Some(mount) = Mount::bind(&site.node.db(), &inside) else {
        return;
    };
    assert_refused(place, "expire --repo repo --keep-last 1 --confirm");
    assert_eq!(files(&site.node.db()).len(), before);
    drop(mount);

    // The database is reached through a second path of the repository.
    let second = place.path("second");
    copy_tree(&site.node.db(), &place.path("repo/incoming/db"));
    let Some(_mount) = Mount::bind(&place.path("repo/incoming"), &second) else {
        return;
    };
    assert_refused(place, &format!("{FULL} --db second/db"));
    assert_eq!(files(&place.path("repo/incoming/db")).len(), before);
}

/// The home of the service's user is often the node's own directory.
#[test]
fn no_state_directory_is_made_in_the_node_s_directories() {
    let site = NodeSite::new("24.10-append");
    let place = &site.place;
    let in_index = "node/db/index/state";

    for state in ["node/db/state", "node/db/.local/state/kbackup", in_index] {
        for line in [
            "full --repo repo --node URL",
            "release",
            "list --repo repo",
            "init --repo other",
        ] {
            let line = site.line(&format!("{line} --state-dir {state}"));
            let output = place.kbackup(&line).output().unwrap();
            assert_ne!(output.status.code(), Some(0), "{line}");
            assert!(!place.path(state).exists(), "{line}");
            assert!(!place.path("node/db/.local").exists(), "{line}");
        }
    }
    assert!(place.listed().is_empty());

    let line = site.line("full --repo repo --node URL --state-dir elsewhere");
    place.kbackup(&line).assert().code(0);
    // Reading works without a state directory.
    let line = "list --repo repo --state-dir node/db/state";
    place.kbackup(line).assert().code(0);
    assert!(!place.path("node/db/state").exists());
}

#[test]
fn no_repository_is_made_in_a_directory_of_a_server() {
    let site = NodeSite::new("24.10-append");
    for path in ["node/db/backups", "node/db/index/deep/backups"] {
        assert_refused(&site.place, &format!("init --repo {path}"));
        assert!(!site.place.path(path).exists(), "{path}");
    }
}
