//! What the node refuses is not tried again by each look.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use kbackup_testnode::{AutoScavengeState, Credentials, Request};

use super::days::{EAGER, append, begin, is_safe, job, kept, runs, site};
use super::sidecar::Sidecar;
use crate::cli::NodeSite;
use crate::cli::release::{hide_process, records, swapped_addresses};

/// The first pause after a refusal. Each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// How many attempts the looks may make in this time.
fn attempts_in(time: Duration) -> usize {
    let (mut attempts, mut next, mut pause) = (0, Duration::ZERO, FIRST_PAUSE);
    while next <= time {
        attempts += 1;
        next += pause;
        pause *= 2;
    }
    attempts
}

fn count(site: &NodeSite, is_one: impl Fn(&Request) -> bool) -> usize {
    site.node.requests().iter().filter(|it| is_one(it)).count()
}

/// A node that knows one password, and an agent's options with a file that holds it.
fn site_with_password() -> (NodeSite, PathBuf, String) {
    let site = site();
    change_password(&site, "correct-horse");
    let password = site.place.write("password", "correct-horse\n");
    let options = format!("{EAGER} --user ops --password-file {}", password.display());
    (site, password, options)
}

fn change_password(site: &NodeSite, password: &str) {
    let credentials = Credentials::operator("ops", password);
    site.node
        .change_quirks(|quirks| quirks.credentials = Some(credentials));
}

fn refused_logins(site: &NodeSite) -> usize {
    count(site, |request| request.status == Some(401))
}

/// The verifications ask the node nothing, and each makes the agent look before and after it.
#[test]
fn a_refused_login_is_repeated_neither_by_each_look_nor_by_each_run() {
    let (site, password, options) = site_with_password();
    let options = options.replace("--verify-schedule off", "--verify-schedule 1s");
    let sidecar = begin(&site, &options);
    kept(&sidecar, 1);

    change_password(&site, "battery-staple");
    append(&site.place);
    // A look or a run that was under way may be refused in its middle, more than once.
    let status = sidecar.shows("a refused look, and a run that waits", |status| {
        let hold = job(status, "diff")["hold"].as_str().unwrap_or_default();
        status["node"]["problem"].is_string() && hold.contains("the node refused the last login")
    });
    assert_eq!(job(&status, "diff")["last"]["kind"], "denied", "{status:#}");
    assert!(
        status["node"]["hints"].to_string().contains("SIGHUP"),
        "{status:#}"
    );
    let failed = runs(&status, "diff", "failed");
    let verified = runs(&status, "verify", "done");

    let began = Instant::now();
    site.node.forget_requests();
    let status = sidecar.shows("verifications", |status| {
        runs(status, "verify", "done") >= verified + 8
    });
    let (refused, by_looks) = (refused_logins(&site), attempts_in(began.elapsed()));
    assert!(
        refused <= by_looks,
        "{refused} refused logins, {by_looks} attempts of looks"
    );
    assert_eq!(runs(&status, "diff", "failed"), failed, "{status:#}");

    std::fs::write(&password, "battery-staple\n").unwrap();
    kept(&sidecar, 2);
    sidecar.ends_well();
}

/// A directory service that was away for a while refuses a right password.
#[test]
fn a_run_that_logs_in_ends_the_pause_of_the_looks() {
    let (site, _, options) = site_with_password();
    let sidecar = begin(&site, &options);
    kept(&sidecar, 1);

    // No run is due meanwhile. After the second refusal, the looks pause for 10 seconds.
    site.node.forget_requests();
    change_password(&site, "battery-staple");
    sidecar.shows("two refused looks", |_| refused_logins(&site) >= 2);
    change_password(&site, "correct-horse");

    // A look precedes the next run. So the first run must have ended the pause by then.
    append(&site.place);
    kept(&sidecar, 2);
    append(&site.place);
    let status = kept(&sidecar, 3);
    assert!(status["node"]["problem"].is_null(), "{status:#}");
    sidecar.ends_well();
}

/// The runs that verify ask the node nothing, and each makes the agent look before and after it.
#[test]
fn a_give_back_that_fails_is_not_repeated_by_each_look() {
    let site = NodeSite::scavenging();
    let full = site.line("full --repo repo --node URL");
    site.place.kbackup(&full).assert().code(0);
    let fault = format!(
        "create:{}/incoming:9:abort",
        site.place.path("repo").display()
    );
    site.place
        .kbackup(&full)
        .env("KBACKUP_FAULT", fault)
        .assert()
        .failure();
    assert!(site.node.owes_scavenge() && site.place.release_records() == 1);

    site.node
        .change_quirks(|quirks| quirks.admin_ui_disabled = true);
    site.node.forget_requests();
    let began = Instant::now();
    let sidecar = begin(
        &site,
        "--repo repo --node URL --node-patience 1s --diff-schedule @monthly --max-age 32d \
         --verify-schedule 1s",
    );
    let status = sidecar.shows("verifications", |status| {
        runs(status, "verify", "done") >= 8
    });
    assert!(status["agent"]["owed"].is_string(), "{status:#}");

    let is_attempt =
        |request: &Request| request.method == "POST" && request.path.starts_with("/admin/scavenge");
    let attempts = count(&site, is_attempt);
    let allowed = attempts_in(began.elapsed());
    assert!(
        (1..=allowed).contains(&attempts),
        "{attempts} attempts, {allowed} are allowed"
    );

    // A reload ends the pause.
    site.node
        .change_quirks(|quirks| quirks.admin_ui_disabled = false);
    sidecar.reload();
    sidecar.shows("that everything was given back", |status| {
        site.place.release_records() == 0 && status["agent"]["owed"].is_null()
    });
    sidecar.ends_well();
}

const IDLE: &str = "--repo repo --node URL --node-patience 1s --diff-schedule @monthly \
                    --max-age 32d --verify-schedule off";

/// The pods of a cluster came back with each other's addresses, and the agent cannot prove that the
/// record is its node's.
#[test]
fn what_an_agent_cannot_prove_is_pending() {
    let site = swapped_addresses();
    hide_process(&site);
    let sidecar = begin(&site, IDLE);
    assert_pending(&sidecar);
    sidecar.ends_well();

    // Also if the record names another URL.
    for path in records(&site) {
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, text.replace(&site.server.url(), "http://127.0.0.1:1")).unwrap();
    }
    let sidecar = begin(&site, IDLE);
    assert_pending(&sidecar);
    assert_eq!(site.node.auto_scavenge(), Some(AutoScavengeState::Paused));

    // The process comes into sight.
    site.node
        .change_quirks(|quirks| quirks.missing_fields.clear());
    sidecar.reload();
    sidecar.shows("that everything was given back", |status| {
        site.place.release_records() == 0 && status["agent"]["owed"].is_null()
    });
    assert_ne!(site.node.auto_scavenge(), Some(AutoScavengeState::Paused));
    sidecar.ends_well();
}

fn assert_pending(sidecar: &Sidecar) {
    let status = sidecar.shows("that something is pending", |status| {
        status["agent"]["owed"].is_string()
    });
    assert!(!is_safe(&status), "{status:#}");
    let (_, metrics) = sidecar.get("/metrics", "text/plain");
    assert!(metrics.contains("kbackup_give_back_pending 1"), "{metrics}");
}

/// The operator says that the node has a new address.
#[test]
fn a_diff_of_an_agent_gives_back_at_a_new_address() {
    let site = swapped_addresses();
    hide_process(&site);
    let configuration = site.place.write("agent.toml", "new-address = true\n");
    let options = format!("{EAGER} --config {}", configuration.display());

    let sidecar = begin(&site, &options);
    // Nothing is to be backed up, so no diff quiesces the node.
    assert_pending(&sidecar);

    append(&site.place);
    sidecar.shows("that a diff gave everything back", |status| {
        runs(status, "diff", "done") >= 1
            && site.place.release_records() == 0
            && status["agent"]["owed"].is_null()
    });
    assert_ne!(site.node.auto_scavenge(), Some(AutoScavengeState::Paused));
    sidecar.ends_well();
}
