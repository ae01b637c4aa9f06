//! The agent's messages to the service manager, through a real socket, and its log as JSON.

use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use serde_json::Value;

use super::sidecar::Sidecar;
use crate::cli::NodeSite;

/// A service manager that keeps its messages.
fn manager(site: &NodeSite) -> Arc<Mutex<Vec<String>>> {
    let socket = UnixDatagram::bind(site.place.path("notify")).unwrap();
    let told = Arc::<Mutex<Vec<String>>>::default();
    let keep = Arc::clone(&told);

    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length) = socket.recv(&mut buffer) {
            keep.lock()
                .unwrap()
                .push(String::from_utf8(buffer[..length].to_vec()).unwrap());
        }
    });
    told
}

fn begin(site: &NodeSite, options: &str, watchdog: Option<&str>) -> Sidecar {
    let mut command = site
        .place
        .process(&site.line(&format!("agent --repo repo --node URL {options}")));
    command.env("NOTIFY_SOCKET", site.place.path("notify"));
    if let Some(microseconds) = watchdog {
        command.env("WATCHDOG_USEC", microseconds);
    }
    Sidecar::start(command)
}

#[test]
fn the_service_manager_gets_the_state_of_the_agent() {
    let site = NodeSite::still();
    let told = manager(&site);
    site.place
        .write("kbackup.toml", "[agent]\ndiff-schedule = '1h'\n");
    let agent = begin(&site, "--config kbackup.toml", None);

    let find = |what: &str| {
        let told = told.lock().unwrap();
        told.iter().position(|message| message.contains(what))
    };

    let ready = agent.soon("READY", |_| find("READY=1"));
    assert_eq!(ready, 0, "no message comes before READY");

    agent.soon("STATUS", |_| find("STATUS=This node is safe"));

    // The agent reads a configuration that it cannot use, too.
    for text in ["[agent]\ndiff-schedule = '2h'\n", "[agent]\nnonsense = 1\n"] {
        told.lock().unwrap().clear();
        site.place.write("kbackup.toml", text);
        agent.signal(Signal::HUP);
        let reloading = agent.soon("RELOADING", |_| find("RELOADING=1"));
        let ready = agent.soon("READY again", |_| find("READY=1"));
        assert!(reloading < ready);

        let message = told.lock().unwrap()[reloading].clone();
        let microseconds = message
            .lines()
            .find_map(|line| line.strip_prefix("MONOTONIC_USEC="))
            .unwrap();
        assert!(microseconds.parse::<u64>().unwrap() > 0, "{message}");
    }

    agent.soon("STATUS of it", |_| {
        find("STATUS=This node is backed up, but look at this: its configuration")
    });
    assert!(find("WATCHDOG").is_none(), "no watchdog is configured");

    assert!(agent.end().success());
    assert!(find("STOPPING=1").is_some());
}

#[test]
fn the_watchdog_gets_two_messages_in_its_time_even_if_the_node_is_silent() {
    let site = NodeSite::still();
    let told = manager(&site);
    // The node never answers, so every look waits.
    site.node.change_quirks(|quirks| quirks.never_answer = true);
    let agent = begin(
        &site,
        "--diff-schedule off --verify-schedule @monthly",
        Some("1000000"),
    );

    let count = || {
        let told = told.lock().unwrap();
        let alive = told.iter().filter(|message| message.contains("WATCHDOG=1"));
        alive.count()
    };

    agent.soon("the first", |_| (count() > 0).then_some(()));
    let began = std::time::Instant::now();
    let before = count();
    agent.soon("six more", |_| (count() >= before + 6).then_some(()));
    assert!(
        began.elapsed() < std::time::Duration::from_secs(6),
        "{:?}",
        began.elapsed()
    );
}

/// A node that does not answer cannot be given back its scavenge. The run tries for some seconds.
#[test]
fn the_watchdog_gets_messages_while_the_agent_waits_for_its_last_run() {
    let site = NodeSite::scavenging();
    let told = manager(&site);
    site.place
        .write("kbackup.toml", "[diff]\nlimit-rate = \"1MiB\"\n");
    let agent = begin(
        &site,
        "--config kbackup.toml --diff-schedule 1s --max-age 1s --scavenge-rest 0s \
         --node-patience 5s",
        Some("1000000"),
    );
    agent.shows("a stopped scavenge", |status| {
        status["running"]["holds"][0] == "scavenge"
    });

    site.node.change_quirks(|quirks| quirks.never_answer = true);
    assert!(agent.end().success());

    let told = told.lock().unwrap();
    let mut after = told
        .iter()
        .skip_while(|message| !message.contains("STOPPING=1"));
    assert!(after.next().is_some(), "{told:?}");
    let alive = after.filter(|message| message.contains("WATCHDOG=1"));
    assert!(alive.count() > 1, "{told:?}");
}

#[test]
fn every_line_of_the_log_is_an_object() {
    let site = NodeSite::still();
    let agent = begin(&site, "--diff-schedule 1h --log-format json", None);
    agent.ran("diff", "done");
    agent.soon("its end in the log", |agent| {
        agent.log().contains("\"done\"").then_some(())
    });

    let log = agent.log();
    let mut lines: Vec<Value> = Vec::new();

    for line in log.lines() {
        lines.push(serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")));
    }

    for line in &lines {
        assert!(
            ["timestamp", "level", "message"]
                .into_iter()
                .all(|field| line[field].is_string()),
            "{line}"
        );
    }

    let line = |message: &str| {
        lines
            .iter()
            .find(|line| line["message"] == message)
            .unwrap_or_else(|| panic!("{message} in {log}"))
    };

    assert_eq!(line("begins")["job"], "diff");
    assert_eq!(line("done")["job"], "diff");
    assert!(line("done")["seconds"].is_u64());
    assert!(line("committed")["label"].is_string() && line("committed")["position"].is_u64());
}
