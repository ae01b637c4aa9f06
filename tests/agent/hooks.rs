//! Hooks: commands and URLs that get messages.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use serde_json::Value;

use super::sidecar::Sidecar;
use crate::cli::{NodeSite, json, kernel_hangs};

/// A hook that appends each message to a file with the hook's name.
fn keeper(site: &NodeSite, name: &str) -> String {
    let script = site.place.write(
        &format!("{name}.sh"),
        "#!/bin/sh\ncat >> \"$1\"; echo >> \"$1\"; env >> \"$1.env\"; echo \"said by $1\"\n",
    );
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("{} {name}", script.display())
}

fn kept(site: &NodeSite, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(site.place.path(name)).unwrap_or_default();
    // Only half of the last line may be written yet.
    text.lines()
        .map_while(|line| serde_json::from_str(line).ok())
        .collect()
}

fn begin(site: &NodeSite, options: &str, hooks: &[(&str, &str)]) -> Sidecar {
    let mut command = site
        .place
        .process(&site.line(&format!("agent --repo repo --node URL {options}")));

    command.args(
        hooks
            .iter()
            .flat_map(|(option, hook)| [format!("--{option}"), (*hook).to_owned()]),
    );
    command
        .env("PATH", "/usr/bin:/bin")
        .env("KBACKUP_TOKEN", "hunter2");

    Sidecar::start(command)
}

/// Moves the repository away or back, and makes the agent look.
fn hide(agent: &Sidecar, site: &NodeSite, is_away: bool) {
    let (here, there): (PathBuf, PathBuf) = (site.place.path("repo"), site.place.path("elsewhere"));
    let (from, to) = if is_away {
        (here, there)
    } else {
        (there, here)
    };
    std::fs::rename(from, to).unwrap();
    agent.signal(Signal::HUP);
}

/// The agent's threads block the signals that end it, except for one. A program hears them.
#[test]
fn a_hook_blocks_no_signal_that_ends_the_agent() {
    let site = NodeSite::still();
    let script = site.place.write(
        "masks.sh",
        "#!/bin/sh\ncat > /dev/null; cat /proc/self/status > masks.new; mv masks.new masks\n",
    );
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();

    let hook = script.display().to_string();
    let agent = begin(&site, "--diff-schedule 1s", &[("on-success", &hook)]);
    let status = agent.soon("the hook", |_| {
        std::fs::read_to_string(site.place.path("masks")).ok()
    });
    assert_eq!(kernel_hangs::blocked_of_ending(&status), 0, "{status}");

    kernel_hangs::assert_one_thread_takes_signals(agent.process());
    agent.reload();
    agent.ends_well();
}

#[test]
fn each_hook_gets_the_messages_that_it_wants() {
    let site = NodeSite::still();
    let hooks = [
        ("on-success", keeper(&site, "good")),
        ("on-failure", keeper(&site, "bad")),
        ("on-too-old", keeper(&site, "old")),
    ];
    let hooks = hooks.each_ref();
    let hooks = hooks.map(|(option, hook)| (*option, hook.as_str()));

    let agent = begin(
        &site,
        "--diff-schedule 1s --max-age 6s --verify-schedule off",
        &hooks,
    );

    agent.soon("a success", |_| kept(&site, "good").pop());
    hide(&agent, &site, true);
    agent.soon("a failure", |_| kept(&site, "bad").pop());
    agent.soon("a message that the newest backup is too old", |_| {
        kept(&site, "old").pop()
    });
    hide(&agent, &site, false);
    agent.soon("a message that the newest backup is young again", |_| {
        kept(&site, "old")
            .into_iter()
            .find(|message| message["event"] == "recovered")
    });
    agent.soon("a message that the failure is over", |_| {
        kept(&site, "bad")
            .into_iter()
            .find(|message| message["event"] == "recovered")
    });

    let old = kept(&site, "old");
    let old: Vec<&Value> = old.iter().map(|message| &message["event"]).collect();
    assert_eq!(old, ["too-old", "recovered"], "each message comes once");

    let bad = kept(&site, "bad");
    assert_eq!(bad[0]["event"], "failure");
    assert_eq!(bad[0]["run"]["failures_before"], 0);
    let again = bad
        .iter()
        .find(|message| message["event"] == "recovered")
        .unwrap();
    assert_eq!(again["after"], "failure");

    assert!(
        again["run"]["failures_before"].as_u64().unwrap() >= 1,
        "{again}"
    );
    let mut all = kept(&site, "good");
    let first = all[0].clone();
    assert_eq!(
        first["verdict"]["level"], "safe",
        "the message knows of the new backup: {first}"
    );
    all.extend(bad.into_iter().chain(kept(&site, "old")));
    json::assert_as_promised(&all, "kbackup.hook/1");

    agent.soon("the hook's output", |agent| {
        agent.log().contains("said by good").then_some(())
    });

    assert!(
        !std::fs::read_to_string(site.place.path("good.env"))
            .unwrap()
            .contains("hunter2"),
        "a secret is in the hook's environment"
    );
}

#[test]
fn a_hook_that_hangs_is_killed_with_all_its_children() {
    let site = NodeSite::still();
    let script = "sh -c 'sleep 600 & echo $! > child; wait'";
    let agent = begin(
        &site,
        "--diff-schedule 1s --on-success true --hook-timeout 1s",
        &[("on-success", script)],
    );
    let child = || {
        std::fs::read_to_string(site.place.path("child"))
            .ok()?
            .trim()
            .parse::<u32>()
            .ok()
    };

    // The new parent of a process may leave it as a zombie.
    let is_gone = |process| {
        std::fs::read_to_string(format!("/proc/{process}/stat"))
            .map_or(true, |text| text.contains(") Z "))
    };

    let started = agent.soon("the hanging process", |_| child());

    // The agent does not wait for the hook.
    let status = agent.shows("the hook's failure", |status| {
        status["agent"]["hooks"]
            .as_array()
            .is_some_and(|hooks| !hooks.is_empty())
    });
    assert!(
        status["agent"]["hooks"][0]
            .as_str()
            .unwrap()
            .contains("killed after 1 s"),
        "{status}"
    );
    assert!(
        status["verdict"]["concerns"]
            .as_array()
            .unwrap()
            .iter()
            .any(|concern| concern["level"] == "attention")
    );

    agent.soon("the end of the process", |_| is_gone(started).then_some(()));
    agent.ran("diff", "up-to-date");
    assert!(agent.end().success());
}

/// A web server that gives one status after another, and repeats the last one. Returns its URL and
/// the messages that it got.
fn web(answers: &'static [u16]) -> (String, Arc<Mutex<Vec<Value>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hunter2", listener.local_addr().unwrap());
    let told = Arc::<Mutex<Vec<Value>>>::default();
    let keep = Arc::clone(&told);

    std::thread::spawn(move || {
        let codes = answers
            .iter()
            .chain(std::iter::repeat(answers.last().unwrap()));

        for (stream, code) in listener.incoming().zip(codes) {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut length = 0;
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if line.trim().is_empty() {
                    break;
                }
            }

            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            keep.lock()
                .unwrap()
                .push(serde_json::from_slice(&body).unwrap());

            write!(
                stream,
                "HTTP/1.1 {code} Told\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            .unwrap();
        }
    });

    (url, told)
}

#[test]
fn a_url_that_cannot_answer_now_gets_the_message_again() {
    let site = NodeSite::still();
    let (url, told) = web(&[503, 429, 200]);
    let agent = begin(
        &site,
        "--diff-schedule 1h --verify-schedule off --log debug",
        &[("on-success", &url)],
    );

    agent.soon("the third message", |_| {
        (told.lock().unwrap().len() == 3).then_some(())
    });
    let told = told.lock().unwrap();
    let ids: Vec<&Value> = told.iter().map(|message| &message["id"]).collect();
    assert!(
        ids[0].is_string() && ids.iter().all(|id| *id == ids[0]),
        "{ids:?}"
    );

    agent.soon("a success in the log", |agent| {
        agent.log().contains("was told").then_some(())
    });
    assert!(!agent.log().contains("hunter2"), "{}", agent.log());
}

#[test]
fn a_url_that_refuses_gets_the_message_once_and_is_shown() {
    let site = NodeSite::still();
    let (url, told) = web(&[404]);
    let agent = begin(
        &site,
        "--diff-schedule 1h --verify-schedule off",
        &[("on-success", &url)],
    );

    let status = agent.shows("the refusal", |status| {
        status["agent"]["hooks"]
            .as_array()
            .is_some_and(|hooks| !hooks.is_empty())
    });
    assert!(
        status["agent"]["hooks"][0]
            .as_str()
            .unwrap()
            .ends_with("it answered 404 Not Found"),
        "{status}"
    );

    assert!(!status.to_string().contains("hunter2"), "{status}");
    assert_eq!(status["jobs"][1]["failures"], 0);
    assert_eq!(told.lock().unwrap().len(), 1);
}
