//! Disks that do not answer, and repositories that are gone. What the agent does not know any more,
//! it says so, everywhere. A signal ends it nevertheless.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::days::{EAGER, append, begin, concerns, is_safe, job, kept, level, runs, site};
use super::sidecar::Sidecar;
use crate::cli::NodeSite;

/// More time than anything in these tests takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A disk that does not answer while it hangs: every operation on a path that contains some words.
struct Disk {
    fault: String,
    switch: PathBuf,
}

impl Disk {
    fn of(site: &NodeSite, operation: &str, path: &str) -> Self {
        Self {
            fault: format!("{operation}:{}:1:hang", site.place.path(path).display()),
            switch: site.place.path("hang"),
        }
    }

    fn hangs(&self) {
        std::fs::write(&self.switch, "").unwrap();
    }

    fn answers(&self) {
        std::fs::remove_file(&self.switch).unwrap();
    }

    /// Waits until the agent waits for the disk.
    fn is_waited_for(&self) {
        let began = Instant::now();
        while !self.switch.with_extension("waits").exists() {
            assert!(began.elapsed() < PATIENCE, "nothing waits for the disk");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// A command for an agent that has this disk. Its patience is short.
    fn command(&self, site: &NodeSite, options: &str) -> Command {
        let mut command = site.place.process(&site.line(&format!("agent {options}")));
        command
            .env("KBACKUP_FAULT", &self.fault)
            .env("KBACKUP_HANG", &self.switch)
            .env("KBACKUP_HURRY", "100");
        command
    }

    fn begin(&self, site: &NodeSite, options: &str) -> Sidecar {
        Sidecar::start(self.command(site, options))
    }
}

fn metric(agent: &Sidecar, series: &str) -> Option<f64> {
    let (_, text) = agent.get("/metrics", "*/*");
    text.lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

fn readiness(agent: &Sidecar) -> String {
    let (head, body) = agent.get("/readyz", "*/*");
    format!("{} {body}", head.split(' ').nth(1).unwrap())
}

#[test]
fn a_repository_that_does_not_answer_is_not_known() {
    let site = site();
    let disk = Disk::of(&site, "", "repo");
    let agent = disk.begin(&site, EAGER);
    let status = agent.shows("a safe node", |status| {
        is_safe(status) && status["exposure"]["bytes"] == 0
    });
    assert!(readiness(&agent).starts_with("200"), "{status:#}");

    disk.hangs();
    let status = agent.shows("that the repository is not known", |status| {
        level(status) == "danger" && concerns(status).contains("`diff` has been due since")
    });
    let sentence = status["verdict"]["sentence"].as_str().unwrap();
    assert!(sentence.contains("not known since"), "{status:#}");
    assert!(status["repository"]["unknown_since"].is_string());
    assert!(status["repository"]["points"].is_null(), "{status:#}");

    let ready = readiness(&agent);
    assert!(
        ready.starts_with("503") && ready.contains("not known since"),
        "{ready}"
    );
    assert_eq!(metric(&agent, "kbackup_repository_readable"), Some(0.0));
    assert!(agent.log().contains("not known since"), "{}", agent.log());

    // The node has nothing to do with it.
    let asked = status["node"]["at"].as_str().unwrap().to_owned();
    agent.shows("that the agent still asks the node", |status| {
        status["node"]["at"] != asked && status["node"]["version"].is_string()
    });

    append(&site.place);
    disk.answers();
    let status = kept(&agent, 2);
    assert!(is_safe(&status), "{status:#}");
    assert!(agent.ends_well().contains("is known again"));
}

#[test]
fn a_data_directory_that_does_not_answer_is_not_known() {
    let site = site();
    let disk = Disk::of(&site, "", "node");
    let agent = disk.begin(&site, EAGER);
    kept(&agent, 1);

    disk.hangs();
    let status = agent.shows("that the node is not known", |status| {
        status["node"]["unknown_since"].is_string() && status["exposure"].is_null()
    });
    assert!(
        !is_safe(&status) && concerns(&status).contains("not known since"),
        "{status:#}"
    );
    assert_eq!(metric(&agent, "kbackup_node_reachable"), Some(0.0));
    assert_eq!(metric(&agent, "kbackup_repository_readable"), Some(1.0));

    disk.answers();
    agent.shows("a safe node", is_safe);
    agent.ends_well();
}

/// Only writes hang, as on a pool that is full. All that the agent reads is well.
#[test]
fn a_run_that_stands_still_is_a_concern() {
    let site = site();
    let disk = Disk::of(&site, "create", "repo/incoming");
    let agent = disk.begin(&site, EAGER);
    kept(&agent, 1);
    agent.shows("a safe node", is_safe);

    disk.hangs();
    append(&site.place);
    disk.is_waited_for();
    let status = agent.shows("that the run stands still", |status| {
        concerns(status).contains("`diff` has made no progress for")
    });
    assert_eq!(level(&status), "attention", "{status:#}");
    assert!(status["running"]["still_since"].is_string(), "{status:#}");
    assert!(status["repository"]["points"].is_array(), "{status:#}");
    let ready = readiness(&agent);
    assert!(ready.contains("has made no progress for"), "{ready}");
    assert_eq!(
        metric(&agent, r#"kbackup_verdict{level="attention"}"#),
        Some(1.0)
    );

    disk.answers();
    let status = kept(&agent, 2);
    assert!(is_safe(&status), "{status:#}");
    agent.ends_well();
}

/// A run that waits for its disk does not hear that it is to end.
#[test]
fn the_agent_ends_although_its_run_does_not() {
    for second_signal in [false, true] {
        let site = site();
        let disk = Disk::of(&site, "create", "repo/incoming");
        disk.hangs();
        let mut command = disk.command(&site, EAGER);
        if second_signal {
            // Without the second signal, the agent would wait for a minute.
            command.env_remove("KBACKUP_HURRY");
        }
        let agent = Sidecar::start(command);
        agent.shows("a run", |status| status["running"]["job"] == "diff");
        disk.is_waited_for();

        let began = Instant::now();
        agent.signal(Signal::TERM);
        if second_signal {
            agent.soon("that it was told", |agent| {
                agent.log().contains("told to end").then_some(())
            });
            agent.signal(Signal::TERM);
        }
        let (status, log) = agent.ended_with_log();
        assert_eq!(status.code(), Some(143), "{log}");
        assert!(log.contains("`diff` has not ended"), "{log}");
        assert!(began.elapsed() < PATIENCE, "{log}");

        // The next agent continues.
        disk.answers();
        let agent = begin(&site, EAGER);
        let status = kept(&agent, 1);
        assert_eq!(runs(&status, "diff", "interrupted"), 1, "{status:#}");
        agent.ends_well();
    }
}

#[test]
fn an_agent_whose_state_directory_does_not_answer_can_be_told_to_end() {
    let site = site();
    let disk = Disk::of(&site, "", "state");
    disk.hangs();
    let mut agent = disk.command(&site, EAGER).spawn().unwrap();
    disk.is_waited_for();

    kill_process(Pid::from_child(&agent), Signal::TERM).unwrap();
    let began = Instant::now();
    while agent.try_wait().unwrap().is_none() {
        if began.elapsed() > PATIENCE {
            agent.kill().unwrap();
            panic!("the agent does not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(agent.wait().unwrap().code(), Some(0));
}

/// The rule `KbackupTooOld` compares these two.
fn lag_and_limit(agent: &Sidecar) -> (Option<f64>, f64) {
    let limit = metric(agent, "kbackup_recovery_point_lag_limit_seconds");
    (
        metric(agent, "kbackup_recovery_point_lag_seconds"),
        limit.unwrap(),
    )
}

#[test]
fn the_last_known_backup_stays_in_the_metrics_while_the_repository_is_gone() {
    let site = site();
    let options = format!("{EAGER} --max-age 5s");
    let agent = begin(&site, &options);
    kept(&agent, 1);
    let newest = metric(&agent, "kbackup_newest_backup_timestamp_seconds");
    assert!(newest.is_some());

    // Nothing is written. Nevertheless, nobody knows whether the backup is still there.
    std::fs::rename(site.place.path("repo"), site.place.path("elsewhere")).unwrap();
    agent.signal(Signal::HUP);
    let wait_until_it_is_too_old = |agent: &Sidecar| {
        agent.soon("a lag above the limit", |agent| {
            let (lag, limit) = lag_and_limit(agent);
            (lag? > limit).then_some(())
        });
        assert_eq!(metric(agent, "kbackup_repository_readable"), Some(0.0));
        assert_eq!(
            metric(agent, "kbackup_newest_backup_timestamp_seconds"),
            newest
        );
    };
    wait_until_it_is_too_old(&agent);
    let status = agent.status();
    assert!(status["last_known"]["newest"].is_string(), "{status:#}");
    assert!(
        concerns(&status).contains("in no backup that the agent can read"),
        "{status:#}"
    );
    agent.ends_well();

    // An agent that is started meanwhile knows it, too.
    let agent = begin(&site, &options);
    wait_until_it_is_too_old(&agent);

    std::fs::rename(site.place.path("elsewhere"), site.place.path("repo")).unwrap();
    agent.signal(Signal::HUP);
    let status = agent.shows("a safe node", is_safe);
    assert!(status["last_known"].is_null(), "{status:#}");
    agent.soon("no lag", |agent| {
        (lag_and_limit(agent).0 == Some(0.0)).then_some(())
    });
    agent.ends_well();
}

/// All backups turn out to be damaged while the rule fires.
#[test]
fn the_lag_does_not_end_because_the_last_good_backup_is_lost() {
    let site = site();
    let agent = begin(
        &site,
        "--repo repo --node URL --diff-schedule @monthly --full-schedule off \
         --max-age 32d --verify-schedule 1s",
    );
    let status = kept(&agent, 1);
    assert_eq!(runs(&status, "diff", "done"), 1);

    let label = site.place.listed().remove(0);
    let chunk = format!("repo/backups/{label}/db/chunk-000000.000000");
    crate::cli::errors::flip(&site.place.path(&chunk), 5000);
    let status: Value = agent.shows("the damage", |status| {
        concerns(status).contains("no backup is known to be good")
    });
    assert_eq!(job(&status, "diff")["failures"], 0, "{status:#}");
    assert!(lag_and_limit(&agent).0.is_some(), "{status:#}");
    agent.ends_well();
}
