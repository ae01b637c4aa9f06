//! Agents beside the members of a cluster: real processes, each with its own repository in one
//! directory.

use std::fs::OpenOptions;

use kbackup_testnode::{Mark, Member, Node, Recording, Server};
use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

use super::sidecar::{Sidecar, labels};
use crate::cli::Place;

const STATES: [&str; 3] = ["Leader", "Follower", "ReadOnlyReplica"];

/// Three members that hold the same log and gossip about each other.
struct Cluster {
    place: Place,
    nodes: Vec<Node>,
    servers: Vec<Server>,
}

impl Cluster {
    fn new() -> Self {
        let place = Place::new();
        let recording = std::sync::Arc::new(Recording::named("26.1-append").unwrap());
        let mut nodes = Vec::new();
        for number in 0..3 {
            let directory = place.path(&format!("db{number}"));
            nodes.push(Node::start(std::sync::Arc::clone(&recording), directory).unwrap());
        }
        for node in &nodes {
            node.advance_to_mark(Mark::Ready).unwrap();
        }

        let servers: Vec<Server> = nodes.iter().map(|node| node.serve().unwrap()).collect();
        std::fs::create_dir(place.path("repos")).unwrap();

        let cluster = Self {
            place,
            nodes,
            servers,
        };
        cluster.play(STATES);
        cluster
    }

    /// Gives each member its role from now on.
    fn play(&self, states: [&str; 3]) {
        for (me, node) in self.nodes.iter().enumerate() {
            let mut members = Vec::new();
            for (number, server) in self.servers.iter().enumerate() {
                if number != me {
                    let port = server.address().port();
                    members.push(Member::new(states[number], "127.0.0.1", port));
                }
            }

            node.change_quirks(|quirks| {
                (quirks.state, quirks.members) = (Some(states[me].to_owned()), members);
            });
        }
    }

    fn agent(&self, number: usize, options: &str) -> Sidecar {
        let url = self.servers[number].url();
        let line = format!(
            "agent --repo repos/node{number} --cluster-dir repos --node {url} \
             --verify-schedule off --state-dir state{number} {options}"
        );
        Sidecar::start(self.place.process(&line))
    }

    fn endpoint(&self, number: usize) -> String {
        self.servers[number]
            .url()
            .trim_start_matches("http://")
            .trim_end_matches('/')
            .to_owned()
    }
}

fn hold(status: &Value) -> String {
    let jobs = status["jobs"].as_array().unwrap();
    jobs.iter().find(|job| job["job"] == "diff").unwrap()["hold"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn one_backup_counts_for_all_members() {
    let cluster = Cluster::new();
    let agents: Vec<Sidecar> = [0, 1, 2]
        .map(|number| cluster.agent(number, "--cluster one --cluster-grace 1h"))
        .into();

    let preferred = agents[2].shows("the read-only replica's backup", |status| {
        labels(status).len() == 1
    });
    assert_eq!(preferred["cluster"]["newest"], Value::Null);

    for (number, agent) in agents.iter().enumerate().take(2) {
        let status = agent.shows("the replica's backup", |status| {
            status["cluster"]["newest"]["label"] == labels(&preferred)[0]
        });
        assert_eq!(status["cluster"]["newest"]["member"], cluster.endpoint(2));
        assert_eq!(status["verdict"]["level"], "safe", "{}", status["verdict"]);
        let sentence = status["verdict"]["sentence"].as_str().unwrap();
        assert!(
            sentence.contains(&format!("backed up by {}", cluster.endpoint(2))),
            "{sentence}"
        );

        let skipped = agent.shows("the skipped run", |status| {
            status["history"][0]["outcome"] == "skipped"
        });

        let because = skipped["history"][0]["because"].as_str().unwrap();
        assert!(
            because.starts_with(&format!("up to date by {}: ", cluster.endpoint(2))),
            "{because}"
        );
        assert!(
            !cluster.place.path(&format!("repos/node{number}")).exists(),
            "the member has no repository of its own"
        );
    }

    let restored = cluster.place.path("restored");
    let line = format!(
        "restore --repo repos/node2 --to {} --ready",
        restored.display()
    );
    cluster.place.kbackup(&line).assert().code(0);
}

#[test]
fn the_members_wait_for_the_preferred_member_and_then_replace_it() {
    let cluster = Cluster::new();
    // The replica and the follower have no agents.
    let leader = cluster.agent(0, "--cluster one --cluster-grace 3s");
    let status = leader.shows("the wait", |status| {
        !hold(status).is_empty() || !labels(status).is_empty()
    });
    assert!(
        hold(&status).starts_with(&format!("it is left to {} until ", cluster.endpoint(2))),
        "{}",
        hold(&status)
    );
    leader.shows("its own backup", |status| labels(status).len() == 1);
}

#[test]
fn after_an_election_another_member_is_preferred() {
    let cluster = Cluster::new();
    cluster.play(["Follower", "Leader", "CatchingUp"]);
    let agents: Vec<Sidecar> = [1, 0]
        .map(|number| cluster.agent(number, "--cluster one --cluster-grace 1h"))
        .into();
    agents[1].shows("the follower's backup", |status| labels(status).len() == 1);
    agents[0].shows("that the leader is covered", |status| {
        status["cluster"]["newest"]["member"] == cluster.endpoint(0)
    });
}

#[test]
fn a_member_waits_while_another_is_backed_up() {
    let cluster = Cluster::new();
    let path = cluster.place.path("repos/turn");
    let turn = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .open(&path)
        .unwrap();
    flock(&turn, FlockOperation::LockExclusive).unwrap();
    std::fs::write(
        &path,
        r#"{"member":"elsewhere:2113","since":"2026-01-01T00:00:00Z"}"#,
    )
    .unwrap();

    let agent = cluster.agent(2, "--turns one-after-another");
    agent.shows("the wait", |status| {
        hold(status) == "it waits for its turn: elsewhere:2113 is being backed up"
    });
    assert!(labels(&agent.status()).is_empty());

    // The lock also ends when its process dies.
    drop(turn);
    agent.shows("its backup", |status| labels(status).len() == 1);
}

#[test]
fn without_locks_the_backups_continue() {
    let cluster = Cluster::new();
    // A directory cannot be locked.
    std::fs::create_dir(cluster.place.path("repos/turn")).unwrap();
    let agent = cluster.agent(2, "--turns one-after-another");
    let status = agent.shows("its backup", |status| labels(status).len() == 1);
    assert_eq!(status["verdict"]["level"], "attention");
    assert!(
        agent
            .log()
            .contains("the members of the cluster cannot take turns"),
        "{}",
        agent.log()
    );
}

#[test]
fn a_reload_without_turns_ends_the_concern_about_them() {
    let cluster = Cluster::new();
    std::fs::create_dir(cluster.place.path("repos/turn")).unwrap();
    let configuration = "[agent]\nturns = \"one-after-another\"\n";
    cluster.place.write("kbackup.toml", configuration);
    let agent = cluster.agent(2, "--config kbackup.toml");
    let problem = |status: &Value| status["cluster"]["problem"].clone();
    agent.shows("the problem", |status| problem(status).is_string());

    cluster.place.write("kbackup.toml", "");
    agent.reload();
    agent.shows("no problem", |status| problem(status).is_null());
}

#[test]
fn no_two_members_are_backed_up_at_once() {
    let cluster = Cluster::new();
    let agents: Vec<Sidecar> = [0, 1, 2]
        .map(|number| cluster.agent(number, "--turns one-after-another"))
        .into();
    let runs = agents.iter().map(|agent| {
        let status = agent.shows("its backup", |status| {
            labels(status).len() == 1 && status["running"].is_null()
        });
        let history = status["history"].as_array().unwrap();
        let run = history.iter().find(|run| run["outcome"] == "done").unwrap();
        let time = |name: &str| -> jiff::Timestamp { run[name].as_str().unwrap().parse().unwrap() };
        (time("began"), time("ended"))
    });
    let mut runs: Vec<_> = runs.collect();
    assert!(
        runs[2].0 < runs[1].0 && runs[1].0 < runs[0].0,
        "the replica goes first, the leader last: {runs:?}"
    );

    runs.sort();
    assert!(
        runs.windows(2).all(|pair| pair[0].1 <= pair[1].0),
        "{runs:?}"
    );
}

#[test]
fn a_cluster_needs_its_directory() {
    let place = Place::new();
    for (line, why) in [
        (
            "agent --check-config --node http://127.0.0.1:1 --repo repos/node1 --cluster one",
            "need `--cluster-dir`",
        ),
        (
            "agent --check-config --node http://127.0.0.1:1 --repo elsewhere/node1 \
             --turns one-after-another --cluster-dir repos",
            "is not in `--cluster-dir`",
        ),
    ] {
        let output = place.kbackup(line).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.code() == Some(2) && stderr.contains(why),
            "{stderr}"
        );
    }

    let line = "agent --check-config --node http://127.0.0.1:1 --repo repos/node1 \
                --cluster one --cluster-dir ./repos";
    place.kbackup(line).assert().code(0);
}
