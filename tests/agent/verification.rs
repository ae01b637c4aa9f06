//! Verifications of the agent: what they find, and how they make way for backups.

use std::os::unix::fs::PermissionsExt;

use kbackup_testnode::{Node, Synthetic, Version};
use rustix::process::Signal;
use serde_json::Value;

use super::days::{append, concerns, job, runs};
use super::sidecar::{Sidecar, labels};
use crate::cli::{NodeSite, Place, errors};

const MIB: u64 = 1 << 20;

fn begin(site: &NodeSite, options: &str) -> Sidecar {
    let line = format!("agent --repo repo --node URL --config kbackup.toml {options}");
    Sidecar::start(site.place.process(&site.line(&line)))
}

/// A node of 24 MiB in many chunks, so that a verification has soon proven some of them.
fn many_chunks() -> NodeSite {
    let place = Place::new();
    Synthetic {
        filter_bytes: 10_000,
        ..Synthetic::of_size(24 << 20, 512 << 10)
    }
    .make(place.path("node"))
    .unwrap();

    let node = Node::still(Version::new(26, 1), place.path("node")).unwrap();
    let server = node.serve().unwrap();
    NodeSite {
        node,
        server,
        place,
    }
}

/// Damages a chunk of the newest backup.
fn damage(site: &NodeSite) -> String {
    let label = site.place.listed().pop().unwrap();
    let chunk = format!("repo/backups/{label}/db/chunk-000000.000000");
    errors::flip(&site.place.path(&chunk), 5000);
    label
}

#[test]
fn a_verification_that_finds_damage_is_done_and_tells_of_it_once() {
    let site = NodeSite::still();
    let script = site
        .place
        .write("bad.sh", "#!/bin/sh\ncat >> bad; echo >> bad\n");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    site.place.write(
        "kbackup.toml",
        &format!("on-failure = ['{}']\n", script.display()),
    );
    // No diff replaces the damaged file, and a second verification follows soon.
    let agent = begin(
        &site,
        "--diff-schedule @monthly --max-age 32d --verify-schedule 3s",
    );
    agent.shows("a backup", |status| labels(status).len() == 1);
    let label = damage(&site);
    let status = agent.shows("two verifications that found damage", |status| {
        let history = status["history"].as_array().unwrap();
        let found = history.iter().filter(|run| run["damaged"].is_array());
        found.count() >= 2
    });
    let last = &job(&status, "verify")["last"];
    assert_eq!(last["damaged"][0], label.as_str(), "{status:#}");
    assert_eq!(runs(&status, "verify", "failed"), 0, "{status:#}");
    assert_eq!(job(&status, "verify")["failures"], 0);
    assert!(concerns(&status).contains("is damaged"), "{status:#}");

    agent.ends_well();
    let told = std::fs::read_to_string(site.place.path("bad")).unwrap();
    let told: Vec<Value> = told
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let about_damage = told.iter().filter(|message| message["event"] == "damage");
    assert_eq!(about_damage.count(), 1, "{told:#?}");
    assert!(
        told.iter().all(|message| message["event"] != "failure"),
        "{told:#?}"
    );
}

#[test]
fn a_verification_may_repair() {
    let site = NodeSite::still();
    site.place
        .write("kbackup.toml", "[verify]\nrepair = true\n");
    for verb in ["full", "full"] {
        site.place
            .kbackup(&site.line(&format!("{verb} --repo repo --node URL")))
            .assert()
            .code(0);
    }
    damage(&site);

    let agent = begin(&site, "--diff-schedule @monthly --max-age 32d");
    let status = agent.ran("verify", "done");
    let last = &job(&status, "verify")["last"];
    assert!(last["damaged"].is_null(), "{status:#}");
    agent.ends_well();
    site.place
        .kbackup("verify --all --repo repo")
        .assert()
        .code(0);
}

/// Waits until a verification has read some MiB.
fn verifies(agent: &Sidecar, mebibytes: u64) -> Value {
    agent.shows("a verification under way", |status| {
        let running = &status["running"];
        running["job"] == "verify" && running["done"].as_u64() > Some(mebibytes * MIB)
    })
}

#[test]
fn a_backup_goes_before_a_verification_which_then_continues() {
    let site = many_chunks();
    site.place
        .write("kbackup.toml", "[verify]\nlimit-rate = '1MiB'\n");
    let agent = begin(&site, "--diff-schedule 1s --verify-schedule 1h");

    // A diff that finds nothing to do does not interrupt it.
    let status = verifies(&agent, 10);
    assert!(runs(&status, "diff", "up-to-date") > 0, "{status:#}");
    assert_eq!(runs(&status, "verify", "interrupted"), 0, "{status:#}");

    append(&site.place);
    let status = agent.shows("a backup before the end of the verification", |status| {
        labels(status).len() == 2
    });
    assert_eq!(runs(&status, "verify", "done"), 0, "{status:#}");
    assert_eq!(runs(&status, "verify", "interrupted"), 1, "{status:#}");

    let status = agent.ran("verify", "done");
    let read = job(&status, "verify")["last"]["bytes_read"].as_u64();
    assert!(read < Some(20 * MIB), "{status:#}");
    agent.ends_well();
}

#[test]
fn a_verification_continues_after_a_kill() {
    let site = many_chunks();
    site.place
        .write("kbackup.toml", "[verify]\nlimit-rate = '1MiB'\n");
    site.place
        .kbackup(&site.line("full --repo repo --node URL"))
        .assert()
        .code(0);

    let agent = begin(&site, "--diff-schedule 1h");
    verifies(&agent, 10);
    agent.signal(Signal::KILL);
    drop(agent);

    site.place.write("kbackup.toml", "");
    let agent = begin(&site, "--diff-schedule 1h");
    let status = agent.ran("verify", "done");
    let first = job(&status, "verify")["last"]["bytes_read"].as_u64();
    assert!(first < Some(20 * MIB), "{status:#}");
    agent.ends_well();

    // The next one begins anew.
    let agent = begin(&site, "--diff-schedule 1h --verify-schedule 1s");
    agent.shows("another one, of everything", |status| {
        job(status, "verify")["last"]["bytes_read"].as_u64() > Some(20 * MIB)
    });
    agent.ends_well();
}

#[test]
fn a_repair_continues_after_a_kill() {
    let site = many_chunks();
    for verb in ["full", "full"] {
        site.place
            .kbackup(&site.line(&format!("{verb} --repo repo --node URL")))
            .assert()
            .code(0);
    }
    let damaged = damage(&site);

    site.place.write(
        "kbackup.toml",
        "[verify]\nall = true\nrepair = true\nlimit-rate = '1MiB'\n",
    );
    let agent = begin(&site, "--diff-schedule @monthly --max-age 32d");
    verifies(&agent, 16);
    agent.signal(Signal::KILL);
    drop(agent);

    // The two fulls share no file: together they have 48 MiB.
    site.place
        .write("kbackup.toml", "[verify]\nall = true\nrepair = true\n");
    let agent = begin(&site, "--diff-schedule @monthly --max-age 32d");
    let status = agent.ran("verify", "done");
    let last = &job(&status, "verify")["last"];
    assert!(last["bytes_read"].as_u64() < Some(40 * MIB), "{status:#}");
    assert!(last["damaged"].is_null(), "{status:#}");
    let log = agent.log();
    assert!(
        log.contains(&format!("db/chunk-000000.000000 of {damaged} was damaged")),
        "{log}"
    );
    agent.ends_well();
    site.place
        .kbackup("verify --all --repo repo")
        .assert()
        .code(0);

    // The next one begins anew.
    let agent = begin(
        &site,
        "--diff-schedule @monthly --max-age 32d --verify-schedule 1s",
    );
    agent.shows("another one, of everything", |status| {
        job(status, "verify")["last"]["bytes_read"].as_u64() > Some(40 * MIB)
    });
    agent.ends_well();
}
