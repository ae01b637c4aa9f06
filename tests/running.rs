//! Finding out whether a server runs on a directory.

#![expect(clippy::unwrap_used, reason = "a test may end in a panic")]

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use kbackup::error::Kind;
use kbackup::event::Silent;
use kbackup::manifest::Directories;
use kbackup::node::{
    Client, Connection, Patience, ProbeDoubt, ProbeFindings, QuiesceCheck, QuiescedOffline,
    RunningSign, probe,
};
use kbackup::run::Run;
use kbackup_testnode::{Mark, Node, Recording};

const RECORDINGS: [&str; 6] = [
    "20.10-append",
    "21.10-append",
    "22.10-append",
    "23.10-append",
    "24.10-append",
    "26.1-append",
];

fn directories(node: &Node) -> Directories {
    Directories::new(node.db(), None)
}

fn look(db: &Path) -> ProbeFindings {
    probe(&Directories::new(db, None), None).unwrap()
}

/// A directory of a stopped server, as far as the probes look.
fn stopped() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for name in [
        "writer.chk",
        "chaser.chk",
        "chunk-000000.000000",
        "kurrent.ddb",
    ] {
        std::fs::write(directory.path().join(name), [0; 8]).unwrap();
    }
    directory
}

/// Another process that holds a file. It ends with its standard input.
struct Holder(Child);

impl Holder {
    fn start(what: &str, path: &Path) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "running::holder", "--ignored", "--nocapture"])
            .env("KBACKUP_TEST_HOLD", what)
            .env("KBACKUP_TEST_PATH", path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut holder = Self(child);
        let mut lines = BufReader::new(holder.0.stdout.take().unwrap()).lines();
        assert!(
            lines.any(|line| line.unwrap().contains("holding")),
            "the other process holds nothing"
        );
        holder
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

#[test]
#[ignore = "the other process of the tests below"]
fn holder() {
    let path = std::env::var_os("KBACKUP_TEST_PATH").unwrap();
    let file = match std::env::var("KBACKUP_TEST_HOLD").unwrap().as_str() {
        "reading" => std::fs::File::open(&path).unwrap(),
        what => {
            let file = std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open(&path)
                .unwrap();
            if what == "fcntl" {
                rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
                    .unwrap();
            }
            file
        }
    };

    // The harness writes the test's name without a line break.
    println!("\nholding");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    drop(file);
}

#[test]
fn sees_every_version_run_and_stop() {
    for recording in RECORDINGS {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::start(
            Recording::named(recording).unwrap(),
            directory.path().join("node"),
        )
        .unwrap();
        node.advance_to_mark(Mark::Ready).unwrap();
        let findings = look(&node.db());

        for name in ["writer.chk", "chaser.chk", "epoch.chk", "truncate.chk"] {
            assert!(
                findings
                    .signs
                    .contains(&RunningSign::Locked(node.db().join(name))),
                "{recording} {name}: {findings:?}"
            );
        }

        let error = findings
            .refuse("cannot restore into this directory", &node.db(), true)
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Refused);
        assert!(error.causes().join(" ").contains("writer.chk"));

        let run = Run::new(Silent);
        assert_eq!(
            QuiescedOffline::begin(&directories(&node), &run)
                .map(drop)
                .unwrap_err()
                .kind(),
            Kind::Refused,
            "{recording}"
        );

        node.advance_to_end().unwrap();
        assert!(!look(&node.db()).is_running(), "{recording}");
        assert_eq!(
            node.lock_conflicts(),
            Vec::<String>::new(),
            "{recording}: the probe disturbed the node"
        );
    }
}

#[test]
fn an_empty_directory_shows_no_server() {
    let directory = stopped();
    let findings = look(directory.path());
    assert!(!findings.is_running(), "{findings:?}");
    findings.refuse("cannot", directory.path(), false).unwrap();
    assert!(!look(&directory.path().join("missing")).is_running());
    // No lock stays.
    let file = std::fs::File::open(directory.path().join("writer.chk")).unwrap();
    file.try_lock().unwrap();
    assert_eq!(
        look(directory.path()).signs,
        [RunningSign::Locked(directory.path().join("writer.chk"))]
    );
}

#[test]
fn sees_the_lock_of_the_secondary_index() {
    let directory = stopped();
    let path = directory.path().join("kurrent.ddb");
    let holder = Holder::start("fcntl", &path);
    let findings = look(directory.path());
    assert!(
        findings.signs.contains(&RunningSign::DatabaseLocked {
            path: path.clone(),
            process: Some(holder.0.id())
        }),
        "{findings:?}"
    );
    drop(holder);
    assert!(!look(directory.path()).is_running());
}

#[test]
fn sees_processes_that_have_files_open_for_writing() {
    let directory = stopped();
    let path = directory.path().join("chunk-000000.000000");
    let holder = Holder::start("writing", &path);

    // A container has another name for the directory.
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(directory.path(), &link).unwrap();
    let findings = look(&link);
    let [RunningSign::Open { process, name, .. }] = findings.signs.as_slice() else {
        panic!("{findings:?}")
    };
    assert_eq!(*process, holder.0.id());
    assert!(!name.is_empty());

    drop(holder);

    let _reader = Holder::start("reading", &path);
    let _ours = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    assert!(
        !look(directory.path()).is_running(),
        "neither a reader nor kbackup is a server"
    );
}

#[test]
fn sees_a_listening_socket_and_not_a_stale_one() {
    let directory = stopped();
    let path = directory.path().join("kurrent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    assert_eq!(
        look(directory.path()).signs,
        [RunningSign::Listens(path.clone())]
    );
    drop(listener);
    assert!(path.exists());
    assert!(!look(directory.path()).is_running());
}

#[test]
fn asks_the_node_at_its_address() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(
        Recording::named("26.1-append").unwrap(),
        directory.path().join("node"),
    )
    .unwrap();
    node.advance_to_mark(Mark::Ready).unwrap();
    let server = node.serve().unwrap();
    let client = Client::new(&Connection::new(server.url())).unwrap();
    let run = Run::new(Silent);
    let there = probe(&directories(&node), Some((&client, Patience::of(&run)))).unwrap();
    assert!(there.signs.contains(&RunningSign::Answers(server.url())));

    let other = stopped();
    let elsewhere = probe(
        &Directories::new(other.path(), None),
        Some((&client, Patience::of(&run))),
    )
    .unwrap();
    assert!(!elsewhere.is_running());
}

#[test]
fn a_doubt_refuses_until_it_is_confirmed() {
    let network = ProbeFindings {
        signs: Vec::new(),
        doubts: vec![ProbeDoubt::Network {
            path: "/db".into(),
            kind: "NFS",
        }],
    };
    let error = network
        .refuse("cannot restore", Path::new("/db"), false)
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.hints().join(" ").contains("--confirm"));

    network
        .refuse("cannot restore", Path::new("/db"), true)
        .unwrap();
    let hidden = ProbeFindings {
        signs: Vec::new(),
        doubts: vec![ProbeDoubt::HiddenProcesses(3)],
    };
    hidden
        .refuse("cannot restore", Path::new("/db"), false)
        .unwrap();
}

#[test]
fn an_offline_backup_notices_a_server_that_ran_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(
        Recording::named("26.1-kill").unwrap(),
        directory.path().join("node"),
    )
    .unwrap();
    node.advance_to_mark(Mark::Killed).unwrap();
    let run = Run::new(Silent);
    let mut quiet = QuiescedOffline::begin(&directories(&node), &run).unwrap();
    assert_eq!(
        quiet.check_undisturbed().unwrap(),
        QuiesceCheck::Undisturbed
    );

    node.advance_to_mark(Mark::Ready).unwrap();
    assert!(
        matches!(
            quiet.check_undisturbed().unwrap(),
            QuiesceCheck::Disturbed(_)
        ),
        "it runs"
    );
    assert_eq!(quiet.begin_again().unwrap_err().kind(), Kind::Refused);

    node.advance_to_end().unwrap();
    let QuiesceCheck::Disturbed(why) = quiet.check_undisturbed().unwrap() else {
        panic!("it ran")
    };
    assert!(why.contains("checkpoints changed"), "{why}");

    quiet.begin_again().unwrap();
    assert_eq!(
        quiet.check_undisturbed().unwrap(),
        QuiesceCheck::Undisturbed
    );
}
