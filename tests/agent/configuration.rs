//! Configurations that cannot work, and reloads that cannot be used.

use std::io::{Read, Write};
use std::net::TcpStream;

use rustix::process::Signal;

use super::days::{concerns, site};
use super::sidecar::Sidecar;
use crate::backup::bench::copy_tree;
use crate::cli::{NodeSite, Place};

/// A configuration that works.
const GOOD: &str = "node = 'http://127.0.0.1:1'\nrepo = 'repo'\n";

/// A place with the repository of [`GOOD`].
fn place() -> Place {
    let place = Place::new();
    place.kbackup("init --repo repo").assert().code(0);
    place
}

/// What `--check-config` says, with its exit code.
fn checked(place: &Place, configuration: &str) -> (Option<i32>, String) {
    place.write("kbackup.toml", configuration);
    let mut command = place.kbackup("agent --check-config --config kbackup.toml");
    command
        .env("PATH", "/usr/bin:/bin")
        .env_remove("KBACKUP_NEW_REPOSITORY");
    if configuration.contains("state-dir") {
        // The environment counts before the file.
        command.env_remove("KBACKUP_STATE_DIR");
    }
    let output = command.output().unwrap();

    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    let place = place();
    place.write("empty", "");
    assert_eq!(checked(&place, GOOD).0, Some(0));

    for (more, words) in [
        // What the agent would have to ignore.
        (
            "[prune]\ndry-run = true\n",
            "cannot run `prune` with `dry-run`",
        ),
        (
            "[expire]\ndry-run = true\n",
            "cannot run `expire` with `dry-run`",
        ),
        (
            "[verify]\nrepair = true\ndry-run = true\n",
            "cannot run `verify` with `dry-run`",
        ),
        (
            "[diff]\ndry-run = true\n",
            "cannot run `diff` with `dry-run`",
        ),
        (
            "[full]\noffline = true\n",
            "`offline` and `node` exclude each other",
        ),
        // Tables that contradict the agent.
        (
            "[diff]\nrepo = 'other'\n",
            "`diff` has another `repo` than the agent",
        ),
        (
            "[prune]\nrepo = 'other'\n",
            "`prune` has another `repo` than the agent",
        ),
        (
            "[expire]\nrepo = 'other'\n",
            "`expire` has another `repo` than the agent",
        ),
        (
            "[full]\nnode = 'http://127.0.0.1:2'\n",
            "`full` has another `node` than the agent",
        ),
        (
            "[diff]\ndb = 'elsewhere'\n",
            "`diff` has another `db` than the agent",
        ),
        // What is missing.
        ("ca-file = 'missing'\n", "missing"),
        ("user = 'ops'\npassword-file = 'missing'\n", "missing"),
        (
            "listen-certificate-file = 'empty'\nlisten-key-file = 'missing'\n",
            "missing",
        ),
        ("on-failure = ['/missing/program']\n", "`/missing/program`"),
        (
            "on-failure = ['./empty now']\n",
            "the program of a hook is not executable: `./empty`",
        ),
        (
            "on-failure = ['no-such-program now']\n",
            "`no-such-program`",
        ),
        // Schedules.
        (
            "[agent]\ndiff-schedule = 'off'\nverify-schedule = 'off'\n",
            "every schedule is off",
        ),
        (
            "[agent]\nexpire-schedule = '1d'\n",
            "no rule says what to keep",
        ),
        ("[agent]\ndiff-schedule = '2d'\n", "may be 2d apart"),
        ("[agent]\ndiff-schedule = '0 3 * * 1-5'\n", "apart"),
        (
            "[agent]\ndiff-schedule = 'off'\non-change = '30h'\n",
            "may be 30h apart",
        ),
        (
            "[agent]\nmax-age = '4h'\n[diff]\nwindow = '22:00-05:00'\n",
            "apart",
        ),
    ] {
        let (code, said) = checked(&place, &format!("{GOOD}{more}"));
        assert_eq!(code, Some(2), "{more}: {said}");
        assert!(said.contains(words), "{more}: {said}");
    }

    let malformed = GOOD.replace("http://127.0.0.1:1", "http://[node:1");
    assert_eq!(checked(&place, &malformed).0, Some(2));
}

#[test]
fn a_configuration_that_works_is_not_refused() {
    let place = place();
    for more in [
        "[verify]\nrepair = true\n",
        "[diff]\nnode = 'http://127.0.0.1:1'\n",
        "[diff]\ntimings = true\n",
        "on-failure = ['/bin/sh -c true', 'cat', 'https://hooks.example/1']\n",
        // The full is taken on the day without a diff.
        "[agent]\ndiff-schedule = '0 3 * * 1-6'\nfull-schedule = '0 3 * * 0'\n",
        "[agent]\ndiff-schedule = '7d'\non-change = '64MiB or 5m'\n",
        "[agent]\ndiff-schedule = 'off'\non-change = '64MiB'\n",
        "[agent]\ndiff-schedule = 'off'\n",
    ] {
        let (code, said) = checked(&place, &format!("{GOOD}{more}"));
        assert_eq!(code, Some(0), "{more}: {said}");
    }
}

/// Directories with which each backup would fail. The exit code and the sentence are those of a
/// backup.
#[test]
fn directories_that_no_backup_can_use_are_refused() {
    let site = NodeSite::new("24.10-append");
    let place = &site.place;
    place.kbackup("init --repo repo").assert().code(0);
    std::fs::create_dir(place.path("empty")).unwrap();
    place.write("file", "");
    copy_tree(&site.node.db(), &place.path("repo/incoming/db"));
    copy_tree(&place.path("repo"), &place.path("node/db/repo"));
    copy_tree(&place.path("repo"), &place.path("node/db/index/repo"));

    let no_index = "there is no index directory: `/nope`";
    for (repository, more, code, words) in [
        ("repo", "index = '/nope'", 2, no_index),
        ("repo", "db = 'node/db'\nindex = '/nope'", 2, no_index),
        ("repo", "index = 'empty'", 2, "`--index` names is empty"),
        (
            "repo",
            "db = 'node/db'\nindex = 'empty'",
            2,
            "`--index` names is empty",
        ),
        (
            "repo",
            "index = 'node'",
            2,
            "this is not a server's index directory",
        ),
        (
            "repo",
            "db = '/nope'",
            2,
            "there is no db directory: `/nope`",
        ),
        ("repo", "db = 'file'", 2, "this is not a directory"),
        (
            "repo",
            "db = 'empty'",
            2,
            "this is not a server's db directory",
        ),
        (
            "repo",
            "db = 'repo/incoming/db'",
            23,
            "the node's own directory lies inside the repository",
        ),
        (
            "repo",
            "index = 'repo/incoming/db/index'",
            23,
            "the node's own directory lies inside the repository",
        ),
        (
            "node/db/repo",
            "db = 'node/db'",
            23,
            "the repository lies inside the node's own directory",
        ),
        (
            "node/db/index/repo",
            "index = 'node/db/index'",
            23,
            "the repository lies inside the node's own directory",
        ),
        (
            "node/db/new",
            "new-repository = true",
            23,
            "the repository would lie inside the directory of a server",
        ),
        (
            "repo",
            "state-dir = 'node/db/state'",
            23,
            "the state directory would lie inside the directory of a server",
        ),
        (
            "repo",
            "state-dir = 'node/db/index/deep/state'",
            23,
            "the state directory would lie inside the directory of a server",
        ),
        (
            "repo",
            "state-dir = 'file'",
            2,
            "the state directory is no directory",
        ),
        ("missing", "", 10, "there is no repository"),
        ("file", "", 10, "file`"),
        (
            "ftp://bucket",
            "",
            2,
            "kbackup knows no object store `ftp://`",
        ),
    ] {
        let node = "node = 'http://127.0.0.1:1'";
        let configuration = format!("{node}\nrepo = '{repository}'\n{more}\n");
        let (found, said) = checked(place, &configuration);
        assert_eq!(found, Some(code), "{configuration}{said}");
        assert!(said.contains(words), "{configuration}{said}");
    }

    for more in [
        "db = 'node/db'",
        "index = 'node/db/index'",
        "db = 'node/db'\nindex = 'node/db/index'",
        "repo = 'new'\nnew-repository = true",
    ] {
        let repository = if more.contains("repo =") {
            ""
        } else {
            "repo = 'repo'"
        };
        let configuration = format!("node = 'http://127.0.0.1:1'\n{repository}\n{more}\n");
        let (code, said) = checked(place, &configuration);
        assert_eq!(code, Some(0), "{configuration}{said}");
    }
    assert!(!place.path("new").exists());
}

/// What the page answers to a reader who was led here under a foreign name.
fn foreign(agent: &Sidecar) -> String {
    let mut stream = TcpStream::connect(agent.address()).unwrap();
    let request = "GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_reload_that_needs_a_restart_is_refused_as_a_whole() {
    let site = site();
    let good = "repo = 'repo'\nstate-dir = 'state'\nlisten = '127.0.0.1:0'\n\
                diff-schedule = '1h'\n";
    let file = site.place.write("kbackup.toml", good);
    let line = site.line("agent --node URL --config kbackup.toml");
    let mut command = site.place.process(&line);
    command.env_remove("KBACKUP_STATE_DIR");
    let agent = Sidecar::start_at_its_address(command);
    assert!(foreign(&agent).contains(" 421 "));

    for (old, new, name) in [
        ("127.0.0.1:0", "0.0.0.0:0", "`listen`"),
        ("repo = 'repo'", "repo = 'other'", "`repo`"),
        ("'state'", "'elsewhere'", "`state-dir`"),
    ] {
        let bad = good.replace(old, new).replace("'1h'", "'2h'");
        std::fs::write(&file, bad).unwrap();
        agent.signal(Signal::HUP);
        let status = agent.shows("the refusal", |status| {
            let problem = status["agent"]["configuration"]
                .as_str()
                .unwrap_or_default();
            problem.contains(name) && problem.contains("restart the agent")
        });
        assert!(concerns(&status).contains(name), "{status:#}");

        let diff = &status["jobs"][1];
        assert_eq!(
            (&diff["job"], &diff["schedule"]),
            (&"diff".into(), &"1h".into())
        );
        assert!(foreign(&agent).contains(" 421 "), "{name}");
    }

    std::fs::write(&file, good.replace("'1h'", "'2h'")).unwrap();
    agent.signal(Signal::HUP);
    agent.shows("the new schedule", |status| {
        status["agent"]["configuration"].is_null() && status["jobs"][1]["schedule"] == "2h"
    });
    agent.ends_well();
}
