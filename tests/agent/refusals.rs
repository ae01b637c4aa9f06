//! What the node refuses is not tried again by each look.

use std::time::{Duration, Instant};

use kbackup_testnode::{Credentials, Request};

use super::days::{EAGER, append, begin, job, kept, runs, site};
use crate::cli::NodeSite;

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

/// Each run makes the agent look before and after it.
#[test]
fn a_refused_login_is_not_repeated_by_each_look() {
    let site = site();
    let wanted = |password: &str| {
        let credentials = Credentials::operator("ops", password);
        site.node
            .change_quirks(|quirks| quirks.credentials = Some(credentials));
    };
    wanted("correct-horse");
    let password = site.place.write("password", "correct-horse\n");
    let options = format!("{EAGER} --user ops --password-file {}", password.display());
    let sidecar = begin(&site, &options);
    kept(&sidecar, 1);

    wanted("battery-staple");
    append(&site.place);
    // A look or a run that was under way may be refused in its middle, more than once.
    let status = sidecar.shows("a refused look and a refused run", |status| {
        status["node"]["problem"].is_string() && runs(status, "diff", "failed") >= 2
    });
    let before = runs(&status, "diff", "failed");

    let began = Instant::now();
    site.node.forget_requests();
    let status = sidecar.shows("failures", |status| {
        runs(status, "diff", "failed") >= before + 8
    });
    assert_eq!(job(&status, "diff")["last"]["kind"], "denied");

    // Each run logs in once. The last one may have no record yet.
    let refused = count(&site, |request| request.status == Some(401));
    let failed = runs(&sidecar.status(), "diff", "failed") - before;
    let by_looks = attempts_in(began.elapsed());
    assert!(
        refused <= failed + 1 + by_looks,
        "{refused} refused logins, {failed} failed runs, {by_looks} attempts of looks"
    );
    assert!(
        status["node"]["hints"].to_string().contains("SIGHUP"),
        "{status:#}"
    );

    std::fs::write(&password, "battery-staple\n").unwrap();
    kept(&sidecar, 2);
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
