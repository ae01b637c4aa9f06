//! The answers of each verb, as text and as JSON.

use super::{NodeSite, Place, snapshots, stable};

#[test]
fn help() {
    let place = Place::new();
    stable(&place, || {
        for verb in [
            "",
            "init",
            "full",
            "diff",
            "restore",
            "verify",
            "check",
            "expire",
            "prune",
            "list",
            "show",
            "status",
            "release",
            "agent",
            "completions",
            "manual",
        ] {
            let line = format!("{verb} --help");
            let name = if verb.is_empty() {
                "help".to_owned()
            } else {
                format!("help-{verb}")
            };
            insta::assert_snapshot!(
                name,
                super::transcript(line.trim(), place.kbackup(&line).env("COLUMNS", "120"))
            );
        }
        insta::assert_snapshot!("version", place.transcript("--version"));
    });
}

#[test]
fn usage() {
    let place = Place::new();
    snapshots!(place,
        "usage-no-verb": place.transcript(""),
        "usage-unknown-verb": place.transcript("incremental"),
        "usage-unknown-option": place.transcript("full --repo repo --node http://localhost --fast"),
        "usage-no-repository": place.transcript("list"),
        "usage-no-target": place.transcript("restore --repo repo"),
        "usage-wrong-time": place.transcript("full --repo repo --node http://localhost --wait soon"),
        "usage-exclusive": place.transcript("verify --repo repo --quick --deep"),
        "usage-exclusive-json": place.transcript("verify --repo repo --quick --deep --json"),
        "usage-json": place.transcript("list --json"),
        "usage-no-node": place.transcript("full --repo repo"),
        "usage-no-db": place.transcript("full --repo repo --offline"),
        "usage-label": place.transcript("show yesterday --repo repo"),
        "usage-targets": place.transcript("restore --repo repo --to a --to b --index-to c"),
        "usage-owner": place.transcript("restore --repo repo --to a --owner nobody"),
    );
}

#[test]
fn a_day_of_an_operator() {
    let site = NodeSite::new("26.1-append");
    let place = &site.place;
    snapshots!(place,
        "full-dry-run": site.transcript("full --repo repo --node URL --dry-run"),
        "full-dry-run-json": site.transcript("full --repo repo --node URL --dry-run --json"),
        "full": site.transcript("full --repo repo --node URL"),
    );
    assert!(place.path("repo/kbackup.json").is_file());

    site.advance(300);
    snapshots!(place,
        "diff-dry-run": site.transcript("diff --repo repo --node URL --dry-run"),
        // The index is in the middle of a change, and the node does not go on. So the backup has no
        // index, and the exit code is 3.
        "diff-json": site.transcript("diff --repo repo --node URL --json"),
    );

    site.advance(300);
    snapshots!(place,
        "diff": site.transcript("diff --repo repo --node URL"),
        "list": site.transcript("list --repo repo"),
        "list-json": site.transcript("list --repo repo --json"),
        "show": site.transcript("show --repo repo"),
        "show-files": site.transcript("show --repo repo --files"),
        "show-json": site.transcript("show --repo repo --json"),

        "verify-quick": site.transcript("verify --repo repo --quick"),
        "verify": site.transcript("verify --repo repo --all"),
        "verify-json": site.transcript("verify --repo repo --deep --json"),
        "restore-dry-run": site.transcript("restore --repo repo --to restored --dry-run"),
        "restore-dry-run-json": site.transcript("restore --repo repo --to restored --dry-run --json"),
    );

    assert!(!place.path("restored").exists());

    snapshots!(place,
        "restore": site.transcript("restore --repo repo --to restored"),
        "restore-json": site.transcript("restore --repo repo --to again --ready --json"),
        "check": site.transcript("check restored"),
        "check-json": site.transcript("check again --server-version 26.1 --deep --json"),
        "release-nothing": site.transcript("release"),
        "release-nothing-json": site.transcript("release --json"),
    );
}

#[test]
fn what_is_not_kept_goes() {
    let site = NodeSite::backed_up("26.1-append");
    let place = &site.place;

    for _ in 0..2 {
        site.advance(100);
        let mut diff = place.kbackup(&site.line("diff --repo repo --node URL"));
        assert!(matches!(diff.output().unwrap().status.code(), Some(0 | 3)));
    }

    snapshots!(place,
        "expire-no-rule": site.transcript("expire --repo repo --confirm"),
        "expire-no-rule-json": site.transcript("expire --repo repo --json"),
        "expire-zero": site.transcript("expire --repo repo --keep-last 0"),
        "expire-zone": site.transcript("expire --repo repo --keep-daily 1 --time-zone Berlin"),
        "expire-nothing": site.transcript("expire --repo repo --keep-last 3"),
        "expire-dry-run": site.transcript("expire --repo repo --keep-last 1 --dry-run"),
        "expire-dry-run-json": site.transcript("expire --repo repo --keep-last 1 --dry-run --json --time-zone UTC"),
        "expire-unconfirmed": site.transcript("expire --repo repo --keep-last 2"),
    );
    assert_eq!(place.listed().len(), 3);

    snapshots!(place,
        "expire": site.transcript("expire --repo repo --keep-last 2 --confirm"),
        "expire-json": site.transcript("expire --repo repo --keep-last 1 --confirm --json"),
    );
    assert_eq!(place.listed().len(), 1);
}

#[test]
fn offline_and_a_first_diff() {
    let site = NodeSite::new("24.10-append");
    site.node.advance_to_end().unwrap();
    snapshots!(site.place,
        "init": site.transcript("init --repo repo"),
        "init-again-json": site.transcript("init --repo repo --json"),
        "diff-first-offline": site.transcript("diff --repo repo --offline --db node/db"),
        "full-second-json": site.transcript("full --repo repo --offline --db node/db --server-version 24.10.4 --json"),
    );
}

#[test]
fn nothing_in_the_repository() {
    let place = Place::new();
    std::fs::create_dir(place.path("repo")).unwrap();
    let site = NodeSite::backed_up("26.1-append");
    std::fs::remove_dir_all(site.place.path("repo/backups")).unwrap();
    snapshots!(site.place,
        "list-empty": site.transcript("list --repo repo"),
        "list-empty-json": site.transcript("list --repo repo --json"),
        "show-empty": site.transcript("show --repo repo"),
        "verify-empty": site.transcript("verify --repo repo"),
        "restore-empty": site.transcript("restore --repo repo --to restored"),
    );
}

#[test]
fn without_quiescing() {
    let site = NodeSite::new("26.1-append");
    site.node
        .change_quirks(|quirks| quirks.admin_ui_disabled = true);
    snapshots!(site.place,
        "no-quiesce": site.transcript("full --repo repo --node URL --no-quiesce"),
        "no-quiesce-show": site.transcript("show --repo repo"),
    );
}
