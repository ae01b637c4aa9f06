//! The prune that follows each expiry of an agent, in an object store.

use super::sidecar::Sidecar;
use crate::cli::NodeSite;

#[test]
fn an_expiry_in_an_object_store_is_followed_by_a_prune() {
    let site = NodeSite::backed_up("24.10-append");
    let place = &site.place;
    let objects = format!("object+file://{}", place.path("objects").display());
    let full = format!("full --repo {objects} --node URL --new-repository");
    place.kbackup(&site.line(&full)).assert().code(0);
    // Two backups of one second that hold the same would leave nothing to prune.
    site.advance(600);
    place.kbackup(&site.line(&full)).assert().code(0);
    place.write(
        "kbackup.toml",
        "[expire]\nkeep-last = 1\n\n[prune]\ngrace = '0s'\n",
    );

    let line = format!(
        "agent --repo {objects} --node URL --config kbackup.toml --diff-schedule off \
         --verify-schedule off --on-change off --expire-schedule 1s"
    );
    let agent = Sidecar::start(place.process(&site.line(&line)));

    // The first run marks what its removal leaves, and a later one deletes it.
    agent.shows("an expiry that freed bytes", |status| {
        let history = status["history"].as_array().unwrap();
        history.iter().any(|run| {
            run["job"] == "expire" && run["outcome"] == "done" && run["bytes_stored"] != 0
        })
    });
    agent.ends_well();
}
