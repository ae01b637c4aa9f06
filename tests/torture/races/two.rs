//! Two kbackup runs at once. On one repository, one of them has to wait. On one node, the scavenge is
//! given back once, and not before it may run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kbackup_testnode::log::Log;

use super::process::{Process, State, kbackup, stop_at};
use crate::backup::bench::{Bench, Live, small};
use crate::restore::handmade::contents;

struct Pair {
    bench: Bench,
    live: Live,
}

impl Pair {
    fn new() -> Self {
        let bench = Bench::new(&small());
        let live = bench.serve();
        live.node
            .change_quirks(|quirks| quirks.scavenge_duration = Duration::from_secs(600));
        Self { bench, live }
    }

    /// Starts a full of the running node that stops before an operation.
    fn start(
        &self,
        name: &str,
        repository: &str,
        state: &str,
        stop: Option<(&str, PathBuf, usize)>,
    ) -> Process {
        let place = self.bench.path("");
        let url = self.live.server.url();
        let mut command = kbackup(
            &place,
            &[
                "full",
                "--repo",
                repository,
                "--node",
                &url,
                "--attempts",
                "5",
            ],
        );

        command.env("KBACKUP_STATE_DIR", place.join(state));
        if let Some((operation, part, number)) = stop {
            stop_at(&mut command, operation, &part.display().to_string(), number);
        }
        Process::start(&mut command, &self.bench.path(name))
    }

    /// The number of requests to start a scavenge.
    fn posts(&self) -> usize {
        let mut requests = self.live.node.requests();
        requests.retain(|request| {
            request.method == "POST" && request.path.starts_with("/admin/scavenge")
        });
        requests.len()
    }

    fn listed(&self, repository: &str) -> usize {
        std::fs::read_dir(self.bench.path(repository).join("backups")).map_or(0, Iterator::count)
    }

    /// A moment while the run copies the chunks. It asks nothing more of the node by then.
    fn in_the_chunks(&self) -> Option<(&'static str, PathBuf, usize)> {
        Some(("read", self.bench.chunk(4, 0), 3))
    }

    fn assert_whole(&self, repository: &str) {
        let events = self.bench.events();
        for backup in std::fs::read_dir(self.bench.path(repository).join("backups")).unwrap() {
            let log = Log::read(&backup.unwrap().path().join("db")).unwrap();
            assert_eq!(
                log.event_ids().collect::<std::collections::HashSet<_>>(),
                events
            );
        }
    }
}

#[test]
fn one_repository_has_one_writer() {
    let pair = Pair::new();
    let mut first = pair.start("first", "repo", "state", pair.in_the_chunks());
    assert_eq!(first.wait(), State::Stopped);

    let mut second = pair.start("second", "repo", "other-state", None);
    assert_eq!(second.wait(), State::Ended(11), "{}", second.said());
    assert!(
        second
            .said()
            .contains("another run writes to this repository"),
        "{}",
        second.said()
    );

    first.go_on();
    assert_eq!(first.wait(), State::Ended(0), "{}", first.said());
    assert_eq!(pair.listed("repo"), 1);
    pair.assert_whole("repo");
}

/// The slower run reads the repository before the faster one begins, and takes the lock after the
/// faster one is done.
#[test]
fn a_run_that_was_overtaken_fails_and_changes_nothing() {
    let pair = Pair::new();
    let repository = pair.bench.path("repo");
    assert_eq!(
        pair.start("before", "repo", "state", None).wait(),
        State::Ended(0)
    );
    for operation in ["create", "lock"] {
        let before = pair.listed("repo");
        pair.live.node.start_scavenge(None).ok();

        let mut slow = pair.start(
            "slow",
            "repo",
            "state",
            Some((operation, repository.join("state/lock"), 1)),
        );
        assert_eq!(slow.wait(), State::Stopped);

        let mut fast = pair.start("fast", "repo", "state", None);
        assert_eq!(fast.wait(), State::Ended(0), "{}", fast.said());
        let asked = pair.posts();
        slow.go_on();
        assert_eq!(slow.wait(), State::Ended(11), "{}", slow.said());

        assert!(
            slow.said().contains("another run has committed a backup")
                && slow.said().contains("run it again"),
            "{}",
            slow.said()
        );
        assert_eq!(
            pair.posts(),
            asked,
            "the slower run noticed it before it asked anything of the node"
        );
        assert_eq!(pair.listed("repo"), before + 1);
    }

    assert_eq!(
        pair.start("after", "repo", "state", None).wait(),
        State::Ended(0)
    );
    pair.assert_whole("repo");
}

#[test]
fn two_runs_on_one_node_do_not_stop_its_scavenge_twice() {
    let pair = Pair::new();
    pair.live.node.start_scavenge(None).unwrap();

    let mut first = pair.start("first", "one", "state", pair.in_the_chunks());
    assert_eq!(first.wait(), State::Stopped);
    assert!(pair.live.node.owes_scavenge());

    let mut second = pair.start("second", "two", "state", None);
    assert_eq!(second.wait(), State::Ended(11), "{}", second.said());
    assert!(
        second.said().contains("works on this node"),
        "{}",
        second.said()
    );
    assert!(
        pair.live.node.owes_scavenge() && pair.live.node.current_scavenge().is_none(),
        "the second run gave back what the first one stopped"
    );

    first.go_on();
    assert_eq!(first.wait(), State::Ended(0), "{}", first.said());
    assert!(pair.live.node.current_scavenge().is_some() && !pair.live.node.owes_scavenge());
    assert_eq!(pair.posts(), 1);
    pair.assert_whole("one");
}

/// Runs on two machines, or of two users, know nothing of each other.
#[test]
fn two_runs_that_cannot_see_each_other_never_copy_during_a_scavenge() {
    let pair = Pair::new();
    pair.live.node.start_scavenge(None).unwrap();

    let mut first = pair.start("first", "one", "state", pair.in_the_chunks());
    assert_eq!(first.wait(), State::Stopped);

    // The second run finds the node at rest, so it has nothing to give back. It must notice when the
    // first run gives the scavenge back during its copy.
    let mut second = pair.start("second", "two", "elsewhere", pair.in_the_chunks());
    assert_eq!(second.wait(), State::Stopped, "{}", second.said());

    first.go_on();
    assert_eq!(first.wait(), State::Ended(0), "{}", first.said());
    assert!(pair.live.node.current_scavenge().is_some());

    second.go_on();
    assert_eq!(second.wait(), State::Ended(0), "{}", second.said());

    let text = std::fs::read_to_string(manifest(&pair.bench.path("two"))).unwrap();
    assert!(
        text.contains("\"retries\": 1"),
        "the second run did not start over: {}",
        second.said()
    );
    assert!(
        pair.live.node.current_scavenge().is_some() && !pair.live.node.owes_scavenge(),
        "the second run did not give the scavenge back"
    );
    assert_eq!(pair.posts(), 2);
    pair.assert_whole("one");
    pair.assert_whole("two");
}

/// The slower restore looks at the target before the faster one begins, and takes the lock after the
/// faster one is done.
#[test]
fn a_restore_that_was_overtaken_fails_and_changes_nothing() {
    let bench = Bench::new(&small());
    bench.full().unwrap();
    let (repository, target) = (bench.path("repository"), bench.path("target"));
    let start = |name: &str, stop: Option<&str>| {
        let line = [
            "restore",
            "latest",
            "--repo",
            repository.to_str().unwrap(),
            "--to",
            target.to_str().unwrap(),
        ];
        let mut command = kbackup(&bench.path(""), &line);
        if let Some(operation) = stop {
            let writer = target.join("writer.chk");
            stop_at(&mut command, operation, writer.to_str().unwrap(), 1);
        }
        Process::start(&mut command, &bench.path(name))
    };

    let mut slow = start("slow", Some("create"));
    assert_eq!(slow.wait(), State::Stopped, "{}", slow.said());
    let mut fast = start("fast", None);
    assert_eq!(fast.wait(), State::Ended(0), "{}", fast.said());
    let before = contents(&target);

    slow.go_on();
    assert_eq!(slow.wait(), State::Ended(23), "{}", slow.said());
    assert!(
        slow.said().contains("holds a restored database already"),
        "{}",
        slow.said()
    );
    assert!(
        contents(&target) == before,
        "the slower restore changed the target"
    );
    std::fs::remove_dir_all(&target).unwrap();

    // The slower restore has opened the file that it is about to lock, and somebody puts another
    // target in the place of this one.
    let mut slow = start("slow", Some("lock"));
    assert_eq!(slow.wait(), State::Stopped, "{}", slow.said());
    std::fs::rename(&target, bench.path("moved")).unwrap();
    assert_eq!(start("fast", None).wait(), State::Ended(0));
    let before = contents(&target);
    slow.go_on();
    assert_eq!(slow.wait(), State::Ended(23), "{}", slow.said());
    assert!(
        contents(&target) == before,
        "the slower restore changed the target"
    );
}

fn manifest(repository: &Path) -> PathBuf {
    let mut backups = std::fs::read_dir(repository.join("backups")).unwrap();
    let backup = backups.next().unwrap().unwrap();
    backup.path().join("manifest.json")
}
