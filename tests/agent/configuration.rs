//! Configurations that cannot work, and reloads that cannot be used.

use std::io::{Read, Write};
use std::net::TcpStream;

use rustix::process::Signal;

use super::days::{concerns, site};
use super::sidecar::Sidecar;
use crate::cli::Place;

/// A configuration that works.
const GOOD: &str = "node = 'http://127.0.0.1:1'\nrepo = 'repo'\n";

/// What `--check-config` says, with its exit code.
fn checked(place: &Place, configuration: &str) -> (Option<i32>, String) {
    place.write("kbackup.toml", configuration);
    let output = place
        .kbackup("agent --check-config --config kbackup.toml")
        .env("PATH", "/usr/bin:/bin")
        .output()
        .unwrap();

    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    let place = Place::new();
    place.write("empty", "");
    assert_eq!(checked(&place, GOOD).0, Some(0));

    for (more, words) in [
        // What the agent would have to ignore.
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
    let place = Place::new();
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
