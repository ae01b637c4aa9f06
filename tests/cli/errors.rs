//! Each thing that can go wrong gives one clear error, a hint and its exit code, and leaves nothing
//! half done.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use kbackup_testnode::{Checkpoint, Credentials, Mark, Node, Recording, Version};

use super::{Place, Stage, snapshots};

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
    let stage = Stage::new("26.1-append");
    let inside = stage.node.db().join("backups");
    std::os::unix::fs::symlink(stage.node.db(), stage.place.path("elsewhere")).unwrap();
    std::fs::create_dir(stage.place.path("foreign")).unwrap();
    stage.place.write("foreign/holiday.jpg", "");
    snapshots!(stage.place,
        "error-repository-is-foreign": stage.transcript("full --repo foreign --node URL"),
        "error-repository-inside": stage.transcript("full --repo node/db/backups --node URL"),
        "error-repository-inside-by-link": stage.transcript("full --repo elsewhere/new/backups --node URL"),
        "error-repository-is-the-source": stage.transcript("full --repo node/db --node URL"),
    );
    assert!(
        !inside.exists()
            && !stage.node.db().join("new").exists()
            && !stage.node.db().join("kbackup.json").exists()
    );
}

#[test]
fn repositories() {
    let stage = Stage::backed_up("26.1-append");
    let marker = stage.place.path("repo/kbackup.json");
    let good = std::fs::read_to_string(&marker).unwrap();
    snapshots!(stage.place,
        "error-no-such-label": stage.transcript("restore 20200101T000000Z-full --repo repo --to restored"),
        "error-no-such-label-json": stage.transcript("show 20200101T000000Z-full --repo repo --json"),
    );
    std::fs::write(&marker, good.replace("\"format\": 1", "\"format\": 2")).unwrap();
    assert_ne!(good, std::fs::read_to_string(&marker).unwrap());
    snapshots!(stage.place,
        "error-newer-repository": stage.transcript("list --repo repo"),
        "error-newer-repository-json": stage.transcript("diff --repo repo --node URL --json"),
    );
    std::fs::write(&marker, "{").unwrap();
    snapshots!(stage.place, "error-damaged-repository": stage.transcript("list --repo repo"),);
    std::fs::write(&marker, good).unwrap();
    let label = stage.place.listed().pop().unwrap();
    let manifest = stage
        .place
        .path("repo/backups")
        .join(&label)
        .join("manifest.json");
    std::fs::set_permissions(&manifest, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&manifest, "{").unwrap();
    snapshots!(stage.place,
        "error-damaged-manifest-list": stage.transcript("list --repo repo"),
        "error-damaged-manifest-list-json": stage.transcript("list --repo repo --json"),
        "error-damaged-manifest-show": stage.transcript("show --repo repo"),
        "error-damaged-manifest-restore": stage.transcript("restore --repo repo --to restored"),
        "error-damaged-manifest-verify": stage.transcript("verify --repo repo"),
    );
}

#[test]
fn a_repository_in_use() {
    let stage = Stage::backed_up("26.1-append");
    let path = stage.place.path("repo/state/lock");
    let text = r#"{"pid":4711,"host":"elsewhere","user":"backup","command":"full","since":"2026-11-21T06:00:00Z"}"#;
    let holder = std::fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    holder.try_lock().unwrap();
    std::fs::write(&path, text).unwrap();
    snapshots!(stage.place,
        "error-locked": stage.transcript("diff --repo repo --node URL"),
        "error-locked-json": stage.transcript("diff --repo repo --node URL --json"),
    );
    stage.place.kbackup("list --repo repo").assert().code(0);
    drop(holder);
    stage
        .place
        .kbackup(&stage.line("diff --repo repo --node URL"))
        .assert()
        .code(0);
}

#[test]
fn nodes() {
    let stage = Stage::new("26.1-append");
    stage
        .node
        .change_quirks(|quirks| quirks.credentials = Some(Credentials::operator("ops", "correct")));
    stage.place.write("password", "wrong\n");
    stage.place.write("right", "correct\n");
    snapshots!(stage.place,
        "error-no-password": stage.transcript("full --repo repo --node URL"),
        "error-wrong-password": stage.transcript("full --repo repo --node URL --user ops --password-file password"),
        "error-wrong-password-json": stage.transcript("full --repo repo --node URL --user ops --password-file password --json"),
    );
    stage
        .place
        .kbackup(&stage.line("full --repo other --node URL --user ops --password-file right"))
        .assert()
        .code(0);
    stage.node.change_quirks(|quirks| quirks.credentials = None);
    stage
        .node
        .change_quirks(|quirks| quirks.body = Some("<html>It works!</html>".to_owned()));
    snapshots!(stage.place, "error-garbage": stage.transcript("full --repo repo --node URL"),);
    stage
        .node
        .change_quirks(|quirks| quirks.body = Some("{}".to_owned()));
    snapshots!(stage.place, "error-empty-json": stage.transcript("full --repo repo --node URL"),);
    stage.node.change_quirks(|quirks| quirks.body = None);
    stage.node.change_quirks(|quirks| {
        quirks.redirect_to = Some("http://elsewhere.example:2113".to_owned())
    });
    snapshots!(stage.place, "error-redirect": stage.transcript("full --repo repo --node URL"),);
    stage.node.change_quirks(|quirks| quirks.redirect_to = None);
    stage
        .node
        .change_quirks(|quirks| quirks.other_node_every = Some(2));
    snapshots!(stage.place, "error-load-balancer": stage.transcript("full --repo repo --node URL"),);
    stage
        .node
        .change_quirks(|quirks| quirks.other_node_every = None);
    stage
        .node
        .change_quirks(|quirks| quirks.state = Some("CatchingUp".to_owned()));
    snapshots!(stage.place, "error-unfit": stage.transcript("full --repo repo --node URL --wait 1s"),);
    stage.node.change_quirks(|quirks| quirks.state = None);
    stage
        .node
        .change_quirks(|quirks| quirks.admin_ui_disabled = true);
    snapshots!(stage.place, "error-admin-disabled": stage.transcript("full --repo repo --node URL"),);
    assert!(stage.place.listed().is_empty());
}

#[test]
fn a_node_that_is_away() {
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
    let stage = Stage::backed_up("26.1-append");
    let other = Stage::new("24.10-append");
    let line = format!(
        "diff --node {} --repo {}",
        other.server.url(),
        stage.place.path("repo").display()
    );
    snapshots!(stage.place, "error-another-node": super::transcript(&line, &mut other.place.kbackup(&line)),);
    let line = format!(
        "full --repo repo --node {} --db {}",
        stage.server.url(),
        other.node.db().display()
    );
    let place = &other.place;
    snapshots!(place, "error-another-nodes-directory": place.transcript(&line),);
    assert!(place.listed().is_empty());
}

#[test]
fn running_nodes_directory() {
    let stage = Stage::backed_up("26.1-append");
    std::fs::create_dir(stage.place.path("used")).unwrap();
    stage.place.write("used/notes.txt", "");
    snapshots!(stage.place,
        "error-offline-on-running": stage.transcript("full --repo repo --offline --db node/db"),
        "error-offline-on-running-json": stage.transcript("full --repo repo --offline --db node/db --json"),
        "error-restore-not-empty": stage.transcript("restore --repo repo --to used"),
        "error-restore-in-use": stage.transcript("restore --repo repo --to node/db"),
        "error-restore-into-repository": stage.transcript("restore --repo repo --to repo/restored"),
        "error-restore-older-server": stage.transcript("restore --repo repo --to restored --server-version 20.10"),
    );
    assert_eq!(
        std::fs::read_dir(stage.place.path("used")).unwrap().count(),
        1
    );
    assert!(!stage.place.path("repo/restored").exists() && !stage.place.path("restored").exists());
}

pub(super) fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    let byte = bytes.get_mut(at).unwrap();
    *byte ^= 1;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn damaged_backup() {
    let stage = Stage::backed_up("26.1-append");
    let label = stage.place.listed().pop().unwrap();
    flip(
        &stage
            .place
            .path("repo/backups")
            .join(&label)
            .join("db/chunk-000000.000000"),
        1000,
    );
    snapshots!(stage.place,
        "error-damaged-backup-verify": stage.transcript("verify --repo repo"),
        "error-damaged-backup-verify-json": stage.transcript("verify --repo repo --json"),
        "error-damaged-backup-restore-latest": stage.transcript("restore --repo repo --to restored"),
    );
    assert!(!stage.place.path("restored").exists());
    let named = |line: &str| stage.transcript(&line.replace("LABEL", &label));
    snapshots!(stage.place,
        "error-damaged-backup-restore": named("restore LABEL --repo repo --to restored"),
        "error-damaged-backup-restore-json": named("restore LABEL --repo repo --to again --json"),
        "error-damaged-backup-check": stage.transcript("check restored"),
        "error-damaged-backup-list": stage.transcript("list --repo repo"),
        "repair-nothing-right": stage.transcript("verify --repo repo --repair"),
        "repair-diff": stage.transcript("diff --repo repo --node URL"),
        "repair-dry-run": stage.transcript("verify --repo repo --all --repair --dry-run"),
        "repair": stage.transcript("verify --repo repo --all --repair"),
        "repair-list": stage.transcript("list --repo repo"),
    );
    stage
        .place
        .kbackup("restore --repo repo --to latest")
        .assert()
        .code(0);
    stage
        .place
        .kbackup(&format!("restore {label} --repo repo --to older"))
        .assert()
        .code(0);
}

#[test]
fn damaged_source() {
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
    // How far the other chunks came is by chance.
    for left in std::fs::read_dir(place.path("repo/incoming")).unwrap() {
        std::fs::remove_dir_all(left.unwrap().path()).unwrap();
    }
    snapshots!(place,
        "error-damaged-source-check": place.transcript("check node/db --server-version 26.1"),
        "damaged-source-accepted": place.transcript("full --repo repo --offline --db node/db --accept-damaged"),
        "damaged-source-listed": place.transcript("list --repo repo"),
    );
}

/// Every scavenge that is stopped is started again by somebody.
#[test]
fn a_source_that_never_rests() {
    let stage = Stage::new("26.1-append");
    let node = stage.node.clone();
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
        let output = stage
            .place
            .kbackup(&stage.line(
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
    assert!(stage.place.listed().is_empty());
    assert_eq!(stage.place.unfinished(), 0);
    assert_eq!(stage.place.debts(), 0);
}

#[test]
fn pending_truncation() {
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

/// What is owed is told, given back once, and told again that nothing is.
#[test]
fn what_is_owed() {
    let stage = Stage::new("26.1-append");
    let debt = format!(
        r#"{{"format":1,"node":{{"url":"{}","unix_socket":null,"endpoint":null,"instance":null}},
        "scavenge":{{"id":"3cb6a9a2-9d1e-4a6c-9a53-000000000000","threads":1,"throttle_percent":100,"since":"2026-11-21T06:00:00Z"}},
        "auto_scavenge":null,"process":1}}"#,
        stage.server.url()
    );
    std::fs::create_dir(stage.place.path("state")).unwrap();
    stage.place.write("state/node.json", &debt);
    snapshots!(stage.place,
        "release-dry-run": stage.transcript("release --dry-run"),
        "release-dry-run-json": stage.transcript("release --dry-run --json"),
        "release-another-node": stage.transcript("release --node http://127.0.0.1:1"),
        "release": stage.transcript("release"),
        "release-again": stage.transcript("release --node URL"),
    );
    let posts = stage
        .node
        .requests()
        .into_iter()
        .filter(|request| request.method == "POST")
        .count();
    assert_eq!(posts, 1);
}
