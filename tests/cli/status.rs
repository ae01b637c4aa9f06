//! The verb `status` for a repository, without an agent: is the node safe now?

use super::{NodeSite, Place, snapshots};

/// The output of a command, and its exit code.
fn told(place: &Place, line: &str) -> (String, i32) {
    let output = place.kbackup(line).output().unwrap();
    (
        String::from_utf8(output.stdout).unwrap(),
        output.status.code().unwrap(),
    )
}

#[test]
fn the_status_of_a_repository_is_shown() {
    let site = NodeSite::backed_up("26.1-append");
    snapshots!(site.place,
        "status": site.place.transcript("status --repo repo"),
        "status-too-old": site.place.transcript("status --repo repo --max-age 0s"),
        "status-missing": site.place.transcript("status --repo elsewhere"),
        "status-nothing-named": site.place.transcript("status"),
    );
}

/// The node and the repository of a test are on one disk.
#[test]
fn a_repository_on_the_nodes_own_disk_is_a_warning() {
    let site = NodeSite::new("26.1-append");
    let place = &site.place;
    let run = |line: &str| {
        let mut command = place.kbackup(&site.line(line));
        let output = command.env_remove("KBACKUP_ACCEPT_SAME_DISK").output();
        let output = output.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code().unwrap(), text)
    };

    let (code, summary) = run("full --repo repo --node URL --json");
    assert_eq!(code, 3, "{summary}");
    assert!(summary.contains("on the node's own disk"), "{summary}");
    let (code, text) = run("status --repo repo");
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("on the node's own disk"), "{text}");

    let (code, summary) = run("full --repo repo --node URL --accept-same-disk");
    assert_eq!(code, 0, "{summary}");
    let (code, text) = run("status --repo repo --accept-same-disk");
    assert_eq!(code, 0, "{text}");
}

/// Without an agent, nobody else would say it.
#[test]
fn the_status_of_a_repository_names_what_is_to_be_given_back() {
    let site = NodeSite::backed_up("26.1-append");
    let listed = site.place.listed();
    let manifest = site.place.path("repo/backups").join(&listed[0]);
    let manifest = std::fs::read(manifest.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let own = manifest["source"]["identity"]["database"].as_str().unwrap();

    let other = uuid::Uuid::nil().to_string();
    for (database, code) in [(own, 3), (&*other, 0)] {
        let record = serde_json::json!({
            "format": 1,
            "node": {
                "url": "http://127.0.0.1:1",
                "unix_socket": null,
                "endpoint": "node:2113",
                "instance": null,
                "database": database,
            },
            "scavenge": null,
            "auto_scavenge": {"since": "2026-03-01T10:00:00Z"},
            "process": 1,
        });
        site.place.write("state/node.json", &record.to_string());

        let (text, found) = told(&site.place, "status --repo repo");
        assert_eq!(found, code, "{text}");
        let is_named = text.contains(
            "it is not given back yet: auto-scavenge of http://127.0.0.1:1, \
             since 2026-03-01 10:00:00 UTC",
        ) && text.contains("hint: run `kbackup release`");
        assert_eq!(is_named, code == 3, "{text}");
    }
}

#[test]
fn the_status_names_damage() {
    let site = NodeSite::backed_up("26.1-append");
    site.advance(600);
    site.place
        .kbackup(&site.line("diff --repo repo --node URL"))
        .assert()
        .code(0);

    let label = site.place.listed().pop().unwrap();
    super::errors::flip(
        &site
            .place
            .path("repo/backups")
            .join(&label)
            .join("db/writer.chk"),
        1,
    );
    site.place.kbackup("verify --repo repo").assert().code(20);

    let (text, code) = told(&site.place, "status --repo repo");
    assert_eq!(code, 3, "{text}");
    assert!(
        text.starts_with(&format!(
            "This node is backed up, but look at this: backup {label} is damaged\n"
        )),
        "{text}"
    );

    assert!(
        text.contains("-full, "),
        "the newest good one is the full: {text}"
    );
}

/// The exit codes follow the convention: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN. The output is one line
/// with measurements behind a bar.
#[test]
fn the_status_serves_as_a_monitoring_plugin() {
    let site = NodeSite::backed_up("26.1-append");
    let place = &site.place;
    let (text, code) = told(place, "status --repo repo --monitoring-plugin");
    assert!(
        code == 0
            && text.starts_with("KBACKUP OK - This node is safe: ")
            && text.contains(" | age=")
            && text.lines().count() == 1,
        "{text}"
    );
    assert!(text.contains("s;;93600 backups=1 free="), "{text}");

    let (text, code) = told(place, "status --repo repo --monitoring-plugin --max-age 0s");
    assert!(
        code == 2 && text.starts_with("KBACKUP CRITICAL - This node is not safe: "),
        "{text}"
    );

    let (text, code) = told(place, "status --repo elsewhere --monitoring-plugin");
    assert!(
        code == 2
            && text.contains("its repository cannot be read: there is no repository")
            && !text.contains('|'),
        "{text}"
    );

    let (text, code) = told(
        place,
        "status --repo repo --agent http://127.0.0.1:1 --monitoring-plugin",
    );
    assert!(
        code == 1 && text.contains("the agent does not answer"),
        "{text}"
    );

    let (text, code) = told(
        place,
        "status --agent http://127.0.0.1:1 --monitoring-plugin",
    );
    assert!(
        code == 3 && text.starts_with("KBACKUP UNKNOWN - "),
        "{text}"
    );

    for wrong in [
        "status --monitoring-plugin",
        "status --repo repo --max-age soon --monitoring-plugin",
        "status --config missing.toml --monitoring-plugin",
    ] {
        assert_eq!(told(place, wrong).1, 3, "{wrong}");
    }
}
