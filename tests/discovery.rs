//! Finding a node's directories, proving that they are its own, and asking whether the node is fit.

#![expect(clippy::unwrap_used, reason = "a test may end in a panic")]

use std::io::{Read, Write};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kbackup::error::{Error, Kind};
use kbackup::event::Silent;
use kbackup::format::checkpoint;
use kbackup::manifest::Directories;
use kbackup::node::{
    Client, Connection, FitnessLimits, NodeState, NodeTraits, Session, TimeLimits, Unfit, agree,
    check_directories, locate, wait_until_fit,
};
use kbackup::run::Run;
use kbackup_testnode::{Member, Node, Recording, Speed};

use crate::http_server;
use crate::recorded_node::{RECORDINGS, RecordedNode};

/// A node in the middle of its recording.
struct Setting(RecordedNode);

impl Deref for Setting {
    type Target = RecordedNode;

    fn deref(&self) -> &RecordedNode {
        &self.0
    }
}

impl Setting {
    fn new(recording: &str) -> Self {
        let recorded = RecordedNode::start(recording);
        let half = recorded.node.len() / 2;
        recorded.node.advance_to(half).unwrap();
        Self(recorded)
    }

    fn session(&self) -> Session {
        self.0.session(TimeLimits::default())
    }

    fn locate(&self, db: Option<&Path>, index: Option<&Path>) -> Result<Directories, Error> {
        locate(&self.session(), db, index, &self.run)
    }

    /// A copy of the node's directories in their present state.
    fn copy(&self, name: &str) -> PathBuf {
        let to = self.directory.path().join(name);
        std::fs::create_dir(&to).unwrap();
        let options = fs_extra::dir::CopyOptions::new().content_only(true);
        fs_extra::dir::copy(self.node.db(), &to, &options).unwrap();
        to
    }
}

#[test]
fn finds_the_directories_of_every_version() {
    for recording in RECORDINGS {
        let setting = Setting::new(recording);
        let directories = setting.locate(None, None).unwrap();
        assert_eq!(
            directories,
            Directories::new(setting.node.db(), None),
            "{recording}"
        );
        let agreement = agree(&setting.session(), &directories, &setting.run).unwrap();
        assert!(agreement.writer.get() > 0, "{recording}");
        assert_eq!(
            agreement.epoch.is_some(),
            !recording.starts_with("20.10"),
            "{recording}: a single 20.10 does not gossip"
        );
        assert!(setting.run.warnings().is_empty(), "{recording}");
    }
}

#[test]
fn agrees_while_the_log_grows() {
    for recording in ["21.10-append", "26.1-append"] {
        let setting = Setting::new(recording);
        setting.node.run(Speed::Times(1.0));
        let directories = setting.locate(None, None).unwrap();
        for _ in 0..5 {
            agree(&setting.session(), &directories, &setting.run).unwrap();
        }
        setting.node.hold();
    }
}

#[test]
fn takes_the_directories_of_the_options() {
    let setting = Setting::new("26.1-append");
    let copy = setting.copy("mounted");
    setting.node.change_quirks(|quirks| {
        quirks.db_option = Some("/var/lib/in-the-container".to_owned());
        quirks.index_option = Some("/var/lib/in-the-container/index".to_owned());
    });

    let error = setting.locate(None, None).unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
    assert!(
        error.hints().iter().any(|hint| hint.contains("--db"))
            && error.hints().iter().any(|hint| hint.contains("container")),
        "{error:?}"
    );
    assert_eq!(
        setting.locate(Some(&copy), None).unwrap(),
        Directories::new(&copy, None),
        "the index lies in its usual directory below db"
    );

    let link = setting.directory.path().join("link");
    std::os::unix::fs::symlink(&copy, &link).unwrap();
    assert_eq!(
        setting
            .locate(Some(&link), Some(&link.join("index")))
            .unwrap(),
        Directories::new(&copy, None)
    );

    setting
        .node
        .change_quirks(|quirks| quirks.db_option = Some("data".to_owned()));
    assert!(
        setting
            .locate(None, None)
            .unwrap_err()
            .what()
            .contains("relative")
    );

    setting
        .node
        .change_quirks(|quirks| quirks.index_option = Some("elsewhere".to_owned()));
    let error = setting.locate(Some(&copy), None).unwrap_err();
    assert!(error.hints()[0].contains("--index"), "{error:?}");

    setting
        .node
        .change_quirks(|quirks| quirks.index_option = Some(String::new()));
    assert_eq!(
        setting.locate(Some(&copy), None).unwrap().index,
        copy.join("index")
    );
}

#[test]
fn refuses_a_directory_that_is_no_data_directory() {
    let setting = Setting::new("26.1-append");
    let empty = tempfile::tempdir().unwrap();
    for wrong in [
        empty.path().to_owned(),
        empty.path().join("missing"),
        setting.node.index(),
    ] {
        let error = check_directories(&Directories::new(&wrong, None), &setting.run).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage, "{error:?}");
        assert!(error.hints()[0].contains("--db"));
    }

    let copy = setting.copy("copy");
    for wrong in [empty.path().join("missing"), copy.clone()] {
        let error =
            check_directories(&Directories::new(&copy, Some(wrong)), &setting.run).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage, "{error:?}");
        assert!(error.hints()[0].contains("--index"));
    }

    std::fs::write(copy.join("truncate.chk"), []).unwrap();
    let error = check_directories(&Directories::new(&copy, None), &setting.run).unwrap_err();
    assert_eq!(
        error.kind(),
        Kind::SourceCorrupt,
        "an empty truncate.chk wipes the database (O13)"
    );
    assert!(error.place().unwrap().ends_with("truncate.chk"));
}

#[test]
fn refuses_another_nodes_directory() {
    let setting = Setting::new("26.1-append");
    let session = setting.session();
    let refused = |db: PathBuf| {
        let error = agree(&session, &Directories::new(&db, None), &setting.run).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{error:?}");
        assert!(error.hints()[0].contains("--db"));
        error.causes().join(" ")
    };

    let other = Setting::new("24.10-append");
    assert!(refused(other.node.db()).contains("its log ends at"));

    let older = setting.copy("older");
    setting.node.advance_to(setting.node.len() * 3 / 4).unwrap();
    assert!(refused(older).contains("its log ends at"));

    let copy = setting.copy("elections");
    std::fs::write(copy.join("epoch.chk"), checkpoint::encode(4711)).unwrap();
    assert!(refused(copy.clone()).contains("4711"));
    std::fs::write(copy.join("epoch.chk"), checkpoint::encode(-1)).unwrap();
    assert!(refused(copy).contains("nowhere"));
}

/// Passes a request on to the test node, as a proxy does.
fn forward(address: std::net::SocketAddr, request: &http_server::Request) -> String {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(
        stream,
        "{} {} HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\nConnection: close\r\n\r\n",
        request.method, request.path
    )
    .unwrap();

    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[test]
fn refuses_a_log_with_another_election_at_the_same_position() {
    let setting = Setting::new("26.1-append");
    let address = setting.server.address();
    let server = http_server::Server::start(move |request| {
        let mut answer: serde_json::Value =
            serde_json::from_str(&forward(address, request)).unwrap();
        if request.path == "/gossip" {
            answer["members"][0]["epochId"] = "00000000-0000-0000-0000-00000000abcd".into();
        }
        http_server::Answer::json(answer.to_string())
    });

    let session = Session::open(
        Client::new(&Connection::new(&server.url)).unwrap(),
        &setting.run,
    )
    .unwrap();
    let error = agree(
        &session,
        &Directories::new(setting.node.db(), None),
        &setting.run,
    )
    .unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.causes().join(" ").contains("abcd"), "{error:?}");
}

#[test]
fn reads_an_election_out_of_merged_chunks() {
    for recording in [
        "20.10-scavenge",
        "21.10-scavenge",
        "23.10-scavenge",
        "26.1-scavenge",
        "26.1-kill",
    ] {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::start(
            Recording::named(recording).unwrap(),
            directory.path().join("node"),
        )
        .unwrap();
        let last = node.recording().steps.len() - 30;
        node.advance_to(last).unwrap();

        let server = node.serve().unwrap();
        let run = Run::new(Silent);
        let session =
            Session::open(Client::new(&Connection::new(server.url())).unwrap(), &run).unwrap();
        let agreement = agree(&session, &Directories::new(node.db(), None), &run).unwrap();
        assert_eq!(
            agreement.epoch.is_some(),
            !recording.starts_with("20.10"),
            "{recording}"
        );
    }
}

#[test]
fn reads_the_traits_of_every_version() {
    for recording in RECORDINGS {
        let setting = Setting::new(recording);
        let traits = NodeTraits::of(setting.session().options());
        assert_eq!(
            traits,
            NodeTraits {
                cluster_size: Some(1),
                ..NodeTraits::default()
            },
            "{recording}"
        );
    }
}

fn limits() -> FitnessLimits {
    FitnessLimits {
        wait: Duration::from_millis(700),
        ..FitnessLimits::default()
    }
}

#[test]
fn a_single_node_of_every_version_is_fit() {
    for recording in RECORDINGS {
        let setting = Setting::new(recording);
        let fitness = wait_until_fit(&setting.session(), limits(), &setting.run).unwrap();
        assert_eq!(
            (fitness.state, fitness.leader_position),
            (NodeState::Leader, None),
            "{recording}"
        );
    }
}

#[test]
fn a_node_that_is_not_fit_is_refused_or_overridden() {
    let setting = Setting::new("26.1-append");
    setting
        .node
        .change_quirks(|quirks| quirks.state = Some("CatchingUp".to_owned()));
    let session = setting.session();
    let error = wait_until_fit(&session, limits(), &setting.run).unwrap_err();
    assert_eq!(error.kind(), Kind::Unstable);
    assert!(
        error.causes().join(" ").contains("CatchingUp")
            && error.hints()[0].contains("--allow-unfit"),
        "{error:?}"
    );

    let fitness = wait_until_fit(
        &session,
        FitnessLimits {
            allow_unfit: true,
            ..limits()
        },
        &setting.run,
    )
    .unwrap();
    assert!(
        fitness
            .overridden
            .contains(&Unfit::State(NodeState::Other("CatchingUp".to_owned())))
    );
    assert!(
        setting
            .run
            .warnings()
            .iter()
            .any(|warning| warning.contains("CatchingUp")),
        "{:?}",
        setting.run.warnings()
    );

    let node = setting.node.clone();
    let catching_up = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(600));
        node.change_quirks(|quirks| quirks.state = None);
    });
    wait_until_fit(
        &session,
        FitnessLimits {
            wait: Duration::from_secs(10),
            ..limits()
        },
        &setting.run,
    )
    .unwrap();
    catching_up.join().unwrap();
}

#[test]
fn a_follower_is_compared_with_its_leader() {
    let setting = Setting::new("26.1-append");

    // The leader cannot be reached, so the follower's knowledge of it counts.
    let known = setting
        .node
        .checkpoint(kbackup_testnode::Checkpoint::Writer)
        .unwrap()
        + 500;
    setting.node.change_quirks(|quirks| {
        quirks.state = Some("Follower".to_owned());
        quirks.members = vec![Member::new("Leader", "127.0.0.1", 1).with_writer(known)];
    });
    let fitness = wait_until_fit(&setting.session(), limits(), &setting.run).unwrap();
    assert_eq!(fitness.state, NodeState::Follower);
    assert_eq!(fitness.leader_position.unwrap().to_signed(), known);

    setting.node.change_quirks(|quirks| {
        quirks.members = vec![Member::new("Leader", "127.0.0.1", 1).with_writer(known + (1 << 30))];
    });
    let error = wait_until_fit(&setting.session(), limits(), &setting.run).unwrap_err();
    assert!(error.causes().join(" ").contains("behind"), "{error:?}");
}
