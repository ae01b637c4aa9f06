//! A node in the middle of its recording, with the server that answers for it. The tests of
//! `discovery` and `quiesce` begin with one.

#![expect(clippy::unwrap_used, reason = "a test may end in a panic")]

use kbackup::event::Silent;
use kbackup::node::{Client, Connection, Session, TimeLimits};
use kbackup::run::Run;
use kbackup_testnode::{Mark, Node, Recording, Server};

/// One recording per version that ends in a running node.
pub(crate) const RECORDINGS: [&str; 6] = [
    "20.10-append",
    "21.10-append",
    "22.10-append",
    "23.10-append",
    "24.10-append",
    "26.1-append",
];

pub(crate) struct RecordedNode {
    pub(crate) node: Node,
    pub(crate) server: Server,
    pub(crate) run: Run,
    pub(crate) directory: tempfile::TempDir,
}

impl RecordedNode {
    /// Replays the recording until the node is ready.
    pub(crate) fn start(recording: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let recording = Recording::named(recording).unwrap();
        let node = Node::start(recording, directory.path().join("node")).unwrap();
        node.advance_to_mark(Mark::Ready).unwrap();

        let server = node.serve().unwrap();
        Self {
            node,
            server,
            run: Run::new(Silent),
            directory,
        }
    }

    pub(crate) fn client(&self, limits: TimeLimits) -> Client {
        let connection = Connection {
            limits,
            ..Connection::new(self.server.url())
        };
        Client::new(&connection).unwrap()
    }

    pub(crate) fn session(&self, limits: TimeLimits) -> Session {
        Session::open(self.client(limits), &self.run).unwrap()
    }
}
