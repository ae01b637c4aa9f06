//! Each failure gives one clear error with a hint and an exit code, and leaves nothing incomplete.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use kbackup_testnode::{Checkpoint, Credentials, Mark, Node, Recording, Version};

use super::{NodeSite, Place, snapshots};

#[test]
fn directories() {
    let place = Place::new();
    for directory in ["empty", "foreign", "wrong"] {
        std::fs::create_dir(place.path(directory)).unwrap();
    }
    place.write("foreign/holiday.jpg", "");
    place.write("wrong/notes.txt", "");
    place.write("file", "");

    snapshots!(place,
        "error-no-repository": place.transcript("list --repo missing"),
        "error-no-repository-json": place.transcript("list --repo missing --json"),
        "error-empty-mount-point": place.transcript("restore --repo empty --to restored"),
        "error-repository-is-a-file": place.transcript("list --repo file"),
        "error-db-missing": place.transcript("full --repo repo --offline --db missing"),
        "error-db-wrong": place.transcript("full --repo repo --offline --db wrong"),
        "error-db-is-a-file": place.transcript("full --repo repo --offline --db file"),
        "error-check-missing": place.transcript("check missing"),
        "error-check-wrong": place.transcript("check wrong"),
        "error-check-file": place.transcript("check file"),
    );
    assert!(!place.path("repo").exists());

    let site = NodeSite::new("26.1-append");
    let inside = site.node.db().join("backups");
    std::os::unix::fs::symlink(site.node.db(), site.place.path("elsewhere")).unwrap();
    std::fs::create_dir(site.place.path("foreign")).unwrap();
    site.place.write("foreign/holiday.jpg", "");

    snapshots!(site.place,
        "error-repository-is-foreign": site.transcript("full --repo foreign --node URL"),
        "error-repository-inside": site.transcript("full --repo node/db/backups --node URL"),
        "error-repository-inside-by-link": site.transcript("full --repo elsewhere/new/backups --node URL"),
        "error-repository-is-the-source": site.transcript("full --repo node/db --node URL"),
    );

    assert!(
        !inside.exists()
            && !site.node.db().join("new").exists()
            && !site.node.db().join("kbackup.json").exists()
    );
}

#[test]
fn repositories() {
    let site = NodeSite::backed_up("26.1-append");
    let marker = site.place.path("repo/kbackup.json");
    let good = std::fs::read_to_string(&marker).unwrap();

    snapshots!(site.place,
        "error-no-such-label": site.transcript("restore 20200101T000000Z-full --repo repo --to restored"),
        "error-no-such-label-json": site.transcript("show 20200101T000000Z-full --repo repo --json"),
    );

    std::fs::write(&marker, good.replace("\"format\": 1", "\"format\": 2")).unwrap();
    assert_ne!(good, std::fs::read_to_string(&marker).unwrap());
    snapshots!(site.place,
        "error-newer-repository": site.transcript("list --repo repo"),
        "error-newer-repository-json": site.transcript("diff --repo repo --node URL --json"),
    );

    std::fs::write(&marker, "{").unwrap();
    snapshots!(site.place, "error-damaged-repository": site.transcript("list --repo repo"),);
    std::fs::write(&marker, good).unwrap();

    let label = site.place.listed().pop().unwrap();
    let manifest = site
        .place
        .path("repo/backups")
        .join(&label)
        .join("manifest.json");
    std::fs::set_permissions(&manifest, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&manifest, "{").unwrap();

    snapshots!(site.place,
        "error-damaged-manifest-list": site.transcript("list --repo repo"),
        "error-damaged-manifest-list-json": site.transcript("list --repo repo --json"),
        "error-damaged-manifest-show": site.transcript("show --repo repo"),
        "error-damaged-manifest-restore": site.transcript("restore --repo repo --to restored"),
        "error-damaged-manifest-verify": site.transcript("verify --repo repo"),
    );
}

#[test]
fn a_repository_in_use_is_locked() {
    let site = NodeSite::backed_up("26.1-append");
    let path = site.place.path("repo/state/lock");
    let text = r#"{"pid":4711,"host":"elsewhere","user":"backup","command":"full","since":"2026-11-21T06:00:00Z"}"#;

    let holder = std::fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    holder.try_lock().unwrap();
    std::fs::write(&path, text).unwrap();

    snapshots!(site.place,
        "error-locked": site.transcript("diff --repo repo --node URL"),
        "error-locked-json": site.transcript("diff --repo repo --node URL --json"),
    );

    site.place.kbackup("list --repo repo").assert().code(0);
    drop(holder);
    site.place
        .kbackup(&site.line("diff --repo repo --node URL"))
        .assert()
        .code(0);
}

#[test]
fn nodes() {
    let site = NodeSite::new("26.1-append");
    site.node
        .change_quirks(|quirks| quirks.credentials = Some(Credentials::operator("ops", "correct")));
    site.place.write("password", "wrong\n");
    site.place.write("right", "correct\n");

    snapshots!(site.place,
        "error-no-password": site.transcript("full --repo repo --node URL"),
        "error-wrong-password": site.transcript("full --repo repo --node URL --user ops --password-file password"),
        "error-wrong-password-json": site.transcript("full --repo repo --node URL --user ops --password-file password --json"),
    );

    site.place
        .kbackup(&site.line("full --repo other --node URL --user ops --password-file right"))
        .assert()
        .code(0);

    site.node.change_quirks(|quirks| quirks.credentials = None);
    site.node
        .change_quirks(|quirks| quirks.body = Some("<html>It works!</html>".to_owned()));
    snapshots!(site.place, "error-garbage": site.transcript("full --repo repo --node URL"),);

    site.node
        .change_quirks(|quirks| quirks.body = Some("{}".to_owned()));
    snapshots!(site.place, "error-empty-json": site.transcript("full --repo repo --node URL"),);

    site.node.change_quirks(|quirks| quirks.body = None);
    site.node.change_quirks(|quirks| {
        quirks.redirect_to = Some("http://elsewhere.example:2113".to_owned());
    });
    snapshots!(site.place, "error-redirect": site.transcript("full --repo repo --node URL"),);
    site.node.change_quirks(|quirks| quirks.redirect_to = None);

    site.node
        .change_quirks(|quirks| quirks.other_node_every = Some(2));
    snapshots!(site.place, "error-load-balancer": site.transcript("full --repo repo --node URL"),);
    site.node
        .change_quirks(|quirks| quirks.other_node_every = None);
    site.node
        .change_quirks(|quirks| quirks.state = Some("CatchingUp".to_owned()));
    snapshots!(site.place, "error-unfit": site.transcript("full --repo repo --node URL --wait 1s"),);
    site.node.change_quirks(|quirks| quirks.state = None);

    site.node
        .change_quirks(|quirks| quirks.admin_ui_disabled = true);
    snapshots!(site.place, "error-admin-disabled": site.transcript("full --repo repo --node URL"),);

    assert!(site.place.listed().is_empty());
}

#[test]
fn a_node_that_does_not_answer_is_reported() {
    let place = Place::new();
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    snapshots!(place,
        "error-away": place.transcript(&format!("full --repo repo --node http://{closed} --node-patience 1s")),
        "error-away-json": place.transcript(&format!("full --repo repo --node http://{closed} --node-patience 1s --json")),
        "error-no-socket": place.transcript("full --repo repo --node-socket missing.sock --node-patience 1s"),
    );
    assert!(!place.path("repo").exists());
}

#[test]
fn another_node() {
    let site = NodeSite::backed_up("26.1-append");
    let other = NodeSite::new("24.10-append");
    let line = format!(
        "diff --node {} --repo {}",
        other.server.url(),
        site.place.path("repo").display()
    );
    snapshots!(site.place, "error-another-node": super::transcript(&line, &mut other.place.kbackup(&line)),);
    let line = format!(
        "full --repo repo --node {} --db {}",
        site.server.url(),
        other.node.db().display()
    );
    let place = &other.place;
    snapshots!(place, "error-another-nodes-directory": place.transcript(&line),);
    assert!(place.listed().is_empty());
}

#[test]
fn the_directory_of_a_running_node_is_refused() {
    let site = NodeSite::backed_up("26.1-append");
    std::fs::create_dir(site.place.path("used")).unwrap();
    site.place.write("used/notes.txt", "");
    snapshots!(site.place,
        "error-offline-on-running": site.transcript("full --repo repo --offline --db node/db"),
        "error-offline-on-running-json": site.transcript("full --repo repo --offline --db node/db --json"),
        "error-restore-not-empty": site.transcript("restore --repo repo --to used"),
        "error-restore-in-use": site.transcript("restore --repo repo --to node/db"),
        "error-restore-into-repository": site.transcript("restore --repo repo --to repo/restored"),
        "error-restore-older-server": site.transcript("restore --repo repo --to restored --server-version 20.10"),
    );
    assert_eq!(
        std::fs::read_dir(site.place.path("used")).unwrap().count(),
        1
    );
    assert!(!site.place.path("repo/restored").exists() && !site.place.path("restored").exists());
}

pub(crate) fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    let byte = bytes.get_mut(at).unwrap();
    *byte ^= 1;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_backup_is_reported_and_repaired() {
    let site = NodeSite::backed_up("26.1-append");
    let label = site.place.listed().pop().unwrap();

    flip(
        &site
            .place
            .path("repo/backups")
            .join(&label)
            .join("db/chunk-000000.000000"),
        1000,
    );

    snapshots!(site.place,
        "error-damaged-backup-verify": site.transcript("verify --repo repo"),
        "error-damaged-backup-verify-json": site.transcript("verify --repo repo --json"),
        "error-damaged-backup-restore-latest": site.transcript("restore --repo repo --to restored"),
    );

    assert!(!site.place.path("restored").exists());
    let named = |line: &str| site.transcript(&line.replace("LABEL", &label));
    snapshots!(site.place,
        "error-damaged-backup-restore": named("restore LABEL --repo repo --to restored"),
        "error-damaged-backup-restore-json": named("restore LABEL --repo repo --to again --json"),
        "error-damaged-backup-check": site.transcript("check restored"),
        "error-damaged-backup-list": site.transcript("list --repo repo"),
        "repair-nothing-right": site.transcript("verify --repo repo --repair"),
        "repair-diff": site.transcript("diff --repo repo --node URL"),
        "repair-dry-run": site.transcript("verify --repo repo --all --repair --dry-run"),
        "repair": site.transcript("verify --repo repo --all --repair"),
        "repair-list": site.transcript("list --repo repo"),
    );

    site.place
        .kbackup("restore --repo repo --to latest")
        .assert()
        .code(0);
    site.place
        .kbackup(&format!("restore {label} --repo repo --to older"))
        .assert()
        .code(0);
}

#[test]
fn a_damaged_source_is_reported_and_may_be_accepted() {
    let place = Place::new();
    let made = kbackup_testnode::Synthetic::of_size(3 << 20, 1 << 20)
        .make(place.path("node"))
        .unwrap();
    flip(&made.db.join("chunk-000000.000000"), 5000);
    snapshots!(place,
        "error-damaged-source": place.transcript("full --repo repo --offline --db node/db"),
        "error-damaged-source-json": place.transcript("full --repo repo --offline --db node/db --json"),
    );
    assert!(place.listed().is_empty());

    // Chance decides how far the other chunks came.
    for left in std::fs::read_dir(place.path("repo/incoming")).unwrap() {
        std::fs::remove_dir_all(left.unwrap().path()).unwrap();
    }

    snapshots!(place,
        "error-damaged-source-check": place.transcript("check node/db --server-version 26.1"),
        "damaged-source-accepted": place.transcript("full --repo repo --offline --db node/db --accept-damaged"),
        "damaged-source-listed": place.transcript("list --repo repo"),
    );
}

/// A backup that was damaged at the source is never `latest`.
#[test]
fn latest_is_the_same_backup_for_show_and_restore() {
    let place = Place::new();
    let made = kbackup_testnode::Synthetic::of_size(3 << 20, 1 << 20)
        .make(place.path("node"))
        .unwrap();
    let full = "full --repo repo --offline --db node/db --accept-damaged";
    place.kbackup(full).assert().code(0);
    flip(&made.db.join("chunk-000000.000000"), 5000);
    place.kbackup(full).assert().code(3);
    let [good, damaged] = place.listed().try_into().unwrap();

    let label_in = |line: &str, pointer: &str| {
        let output = place.kbackup(line).output().unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        answer
            .pointer(pointer)
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned()
    };
    let restore = "restore latest --repo repo --to target --dry-run --json";
    let shown = label_in("show latest --repo repo --json", "/label");
    assert_eq!(shown, label_in(restore, "/backup/label"));
    assert_eq!(shown, good);

    // Neither takes the damaged one unasked.
    std::fs::remove_dir_all(place.path("repo/backups").join(good)).unwrap();
    for line in ["show latest --repo repo", restore] {
        let output = place.kbackup(line).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(10), "{told}");
        assert!(told.contains(&damaged), "{told}");
    }
}

/// Another client starts every stopped scavenge again.
#[test]
fn a_source_that_never_rests_fails_the_backup() {
    let site = NodeSite::new("26.1-append");
    let node = site.node.clone();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                if node.current_scavenge().is_none() {
                    let _ = node.start_scavenge(None);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let output = site
            .place
            .kbackup(&site.line(
                "full --repo repo --node URL --attempts 2 --quiesce-wait 1s --log error --json",
            ))
            .output();

        done.store(true, std::sync::atomic::Ordering::SeqCst);
        let output = output.unwrap();
        assert_eq!(
            output.status.code(),
            Some(22),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
    });

    assert!(site.place.listed().is_empty());
    assert_eq!(site.place.unfinished(), 0);
    assert_eq!(site.place.release_records(), 0);
}

#[test]
fn a_pending_truncation_is_refused() {
    let place = Place::new();
    let node = Node::start(Recording::named("26.1-append").unwrap(), place.path("node")).unwrap();
    node.advance_to_mark(Mark::Ready).unwrap();
    let position = node.checkpoint(Checkpoint::Writer).unwrap();
    node.advance_to_end().unwrap();
    std::fs::write(node.db().join("truncate.chk"), position.to_le_bytes()).unwrap();

    snapshots!(place,
        "error-truncation-pending-offline": place.transcript("full --repo repo --offline --db node/db"),
        "error-truncation-pending-check": place.transcript("check node/db --server-version 26.1"),
    );
    drop(node);

    let still = Node::still(Version::new(26, 1), place.path("node")).unwrap();
    let server = still.serve().unwrap();
    let line = format!(
        "full --repo repo --node {} --attempts 1 --wait 1s",
        server.url()
    );

    snapshots!(place, "error-truncation-pending": place.transcript(&line),);
    assert!(place.listed().is_empty());
}

/// `release` names the stopped scavenge, gives it back once, and then says that nothing is left.
#[test]
fn a_stopped_scavenge_is_named_and_given_back_once() {
    let site = NodeSite::new("26.1-append");

    let record = format!(
        r#"{{"format":1,"node":{{"url":"{}","unix_socket":null,"endpoint":null,"instance":null}},
        "scavenge":{{"id":"3cb6a9a2-9d1e-4a6c-9a53-000000000000","threads":1,"throttle_percent":100,"since":"2026-11-21T06:00:00Z"}},
        "auto_scavenge":null,"process":1}}"#,
        site.server.url()
    );
    std::fs::create_dir(site.place.path("state")).unwrap();
    site.place.write("state/node.json", &record);

    snapshots!(site.place,
        "release-dry-run": site.transcript("release --dry-run"),
        "release-dry-run-json": site.transcript("release --dry-run --json"),
        "release": site.transcript("release"),
        "release-again": site.transcript("release --node URL"),
    );

    let requests = site.node.requests();
    let posts = requests
        .iter()
        .filter(|request| request.method == "POST")
        .count();
    assert_eq!(posts, 1);
}
