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

fn link(place: &Place, target: &str, name: &str) {
    std::os::unix::fs::symlink(target, place.path(name)).unwrap();
}

/// An empty directory where a disk was mounted.
fn lose_disk(place: &Place) {
    std::fs::rename(place.path("disk"), place.path("away")).unwrap();
    std::fs::create_dir(place.path("disk")).unwrap();
}

fn return_disk(place: &Place) {
    std::fs::remove_dir(place.path("disk")).unwrap();
    std::fs::rename(place.path("away"), place.path("disk")).unwrap();
}

/// Links to one place are that place, also those on the disk that is gone.
#[test]
fn a_link_does_not_hide_which_repository_was_seen() {
    const ALL: [&str; 4] = ["link", "disk/repo", "disk/../disk/repo", "disk/real"];

    let site = stopped_node();
    let place = &site.place;
    std::fs::create_dir(place.path("disk")).unwrap();
    link(place, "second", "link");
    link(place, "disk/repo", "second");
    link(place, "real", "disk/repo");
    std::fs::create_dir(place.path("disk/real")).unwrap();
    assert_exit(place, "init --repo disk/real --state-dir other", 0);

    for (number, seen) in ["link", "disk/../disk/repo"].iter().enumerate() {
        let state = format!("--state-dir state-{number}");
        assert_exit(place, &format!("list --repo {seen} {state}"), 0);
        lose_disk(place);
        for asked in ALL {
            let line = format!("full --offline --db node/db --new-repository --repo {asked}");
            let text = assert_exit(place, &format!("{line} {state}"), 23);
            assert!(text.contains("not mounted"), "{seen}, {asked}: {text}");
        }
        return_disk(place);
    }
}

/// Only the end of the way was seen. The link is newer.
#[test]
fn a_new_link_leads_to_what_was_seen() {
    let site = stopped_node();
    let place = &site.place;
    std::fs::create_dir(place.path("disk")).unwrap();
    assert_exit(place, "init --repo disk/repo", 0);
    lose_disk(place);
    link(place, &place.path("disk").display().to_string(), "link");

    for line in [
        "init --repo link/repo",
        "full --offline --db node/db --new-repository --repo link/repo",
    ] {
        let text = assert_exit(place, line, 23);
        assert!(text.contains("not mounted"), "{text}");
    }
    assert_eq!(std::fs::read_dir(place.path("disk")).unwrap().count(), 0);
}

/// A link to a place that does not exist yet leads there, too.
#[test]
fn a_link_does_not_hide_the_directory_of_the_node() {
    let site = stopped_node();
    let place = &site.place;
    link(place, "node/db/backups", "repo");

    let text = assert_exit(place, &format!("{FULL} --new-repository"), 23);
    assert!(text.contains("inside"), "{text}");
    assert!(!place.path("node/db/backups").exists());
}

/// The newest backup was moved away, and the kept numbers are lost.
#[test]
fn numbers_that_the_repository_has_lost_are_not_given_again() {
    let site = stopped_node();
    let place = &site.place;
    assert_exit(place, "init --repo repo", 0);
    assert_exit(place, DIFF, 0);
    assert_exit(place, DIFF, 0);
    let newest = place.listed().pop().unwrap();
    let in_repository = place.path(&format!("repo/backups/{newest}"));
    std::fs::rename(&in_repository, place.path("aside")).unwrap();
    std::fs::remove_file(place.path("repo/state/numbers")).unwrap();

    assert_exit(place, DIFF, 0);
    assert!(!place.listed().contains(&newest));
    std::fs::rename(place.path("aside"), in_repository).unwrap();
    let listed = assert_exit(place, "list --repo repo --json", 0);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let mut numbers = Vec::new();
    for backup in listed["backups"].as_array().unwrap() {
        numbers.push(backup["sequence"].as_u64().unwrap());
    }
    assert_eq!(numbers, [1, 2, 3], "{listed:#}");
}

#[test]
fn init_makes_the_directory_of_objects_but_not_where_a_repository_was_seen() {
    let site = stopped_node();
    let place = &site.place;
    let objects = place.path("deep/objects");
    let at = format!("--repo object+file://{}", objects.display());

    let text = assert_exit(place, &format!("list {at}"), 10);
    assert!(text.contains("whether its disk is mounted"), "{text}");
    assert!(!objects.exists());

    assert_exit(place, &format!("init {at}"), 0);
    assert_exit(place, &format!("full {at} --offline --db node/db"), 0);

    std::fs::rename(&objects, place.path("elsewhere")).unwrap();
    let text = assert_exit(place, &format!("init {at}"), 23);
    assert!(text.contains("`findmnt --target /"), "{text}");
    assert!(!objects.exists());
}
