//! Which repository is at a path: only two commands make one, and every verb remembers which one it
//! saw.

use super::{NodeSite, Place};

const DIFF: &str = "diff --repo repo --offline --db node/db";
const FULL: &str = "full --repo repo --offline --db node/db";

/// The directory of a stopped node.
fn stopped_node() -> NodeSite {
    let site = NodeSite::new("24.10-append");
    site.node.advance_to_end().unwrap();
    site
}

/// Runs a command whose environment does not ask for a new repository. Returns the exit code, and
/// everything that it printed.
fn run(place: &Place, line: &str) -> (i32, String) {
    let mut command = place.kbackup(line);
    let output = command
        .env_remove("KBACKUP_NEW_REPOSITORY")
        .output()
        .unwrap();
    let text = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    (output.status.code().unwrap(), text.concat())
}

fn assert_exit(place: &Place, line: &str, code: i32) -> String {
    let (ended, text) = run(place, line);
    assert_eq!(ended, code, "{line}: {text}");
    text
}

/// Moves the repository away and leaves an empty directory, as an unmounted disk does.
fn unmount(place: &Place, into: &str) {
    std::fs::rename(place.path("repo"), place.path(into)).unwrap();
    std::fs::create_dir(place.path("repo")).unwrap();
}

fn mount(place: &Place, from: &str) {
    std::fs::remove_dir_all(place.path("repo")).unwrap();
    std::fs::rename(place.path(from), place.path("repo")).unwrap();
}

fn is_empty(place: &Place) -> bool {
    std::fs::read_dir(place.path("repo")).unwrap().count() == 0
}

#[test]
fn a_backup_makes_no_repository_unless_it_is_told_to() {
    let site = stopped_node();
    let place = &site.place;

    for line in [DIFF, FULL] {
        let text = assert_exit(place, line, 10);
        assert!(text.contains("`kbackup init`"), "{text}");
        assert!(!place.path("repo").exists(), "{line}");
    }

    assert_exit(place, &format!("{FULL} --new-repository"), 0);
    assert_exit(place, DIFF, 0);
}

#[test]
fn an_unmounted_disk_is_no_place_for_a_new_repository() {
    let site = stopped_node();
    let place = &site.place;
    assert_exit(place, "init --repo repo", 0);
    assert_exit(place, DIFF, 0);
    unmount(place, "disk");

    for (line, code) in [
        (DIFF.to_owned(), 10),
        (FULL.to_owned(), 10),
        ("list --repo repo".to_owned(), 10),
        (format!("{FULL} --new-repository"), 23),
        (format!("{FULL} --new-repository --dry-run"), 23),
        ("init --repo repo".to_owned(), 23),
        // A path that is written in another way is the same path.
        (format!("init --repo {}/", place.path("repo").display()), 23),
    ] {
        let text = assert_exit(place, &line, code);
        assert!(text.contains("look for the repository "), "{line}: {text}");
        assert!(text.contains("not mounted"), "{line}: {text}");
        assert!(is_empty(place), "{line}");
    }

    mount(place, "disk");
    assert_exit(place, DIFF, 0);
}

#[test]
fn every_verb_remembers_which_repository_it_saw() {
    let site = stopped_node();
    let place = &site.place;
    assert_exit(place, "init --repo repo", 0);
    assert_exit(place, DIFF, 0);

    let verbs = [
        "list --repo repo",
        "show --repo repo",
        "status --repo repo",
        "verify --repo repo",
        "restore --repo repo --to restored --dry-run",
        "expire --repo repo --keep-last 1 --dry-run",
        "full --repo repo --offline --db node/db --dry-run",
    ];
    for (number, verb) in verbs.iter().enumerate() {
        let state = format!("--state-dir state-of-{number}");
        assert_exit(place, &format!("{verb} {state}"), 0);

        unmount(place, "disk");
        assert_exit(place, &format!("{FULL} --new-repository {state}"), 23);
        assert!(is_empty(place), "{verb}");
        mount(place, "disk");
    }
}

#[test]
fn another_repository_in_the_same_place_is_not_changed_until_it_is_accepted() {
    let site = stopped_node();
    let place = &site.place;
    assert_exit(place, "init --repo repo", 0);
    assert_exit(place, DIFF, 0);
    unmount(place, "first");
    assert_exit(place, "init --repo repo --state-dir elsewhere", 0);

    for line in [
        DIFF,
        "expire --repo repo --keep-last 1 --confirm",
        "verify --repo repo --all --repair",
        "init --repo repo",
    ] {
        let text = assert_exit(place, line, 23);
        assert!(text.contains("another id"), "{line}: {text}");
    }
    // Reading works, and warns.
    let text = assert_exit(place, "list --repo repo", 0);
    assert!(text.contains("another id"), "{text}");
    let text = assert_exit(place, "status --repo repo", 1);
    assert!(text.contains("another id"), "{text}");

    // Disks that are exchanged by turns are both known.
    assert_exit(place, "init --repo repo --another", 0);
    assert_exit(place, DIFF, 0);
    unmount(place, "second");
    mount(place, "first");
    assert_exit(place, DIFF, 0);
}

#[test]
fn a_repository_that_is_gone_for_good_is_replaced_on_purpose() {
    let site = stopped_node();
    let place = &site.place;
    assert_exit(place, "init --repo repo", 0);
    std::fs::remove_dir_all(place.path("repo")).unwrap();

    assert_exit(place, "init --repo repo", 23);
    assert_exit(place, "init --repo repo --another", 0);
    assert_exit(place, DIFF, 0);
}
