//! `kbackup copy`, as an operator uses it.

use std::os::unix::process::ExitStatusExt;

use super::errors::flip;
use super::{NodeSite, Place, snapshots};

/// A repository `repo` with two backups of a node.
fn site() -> NodeSite {
    let site = NodeSite::backed_up("24.10-append");
    site.advance(600);
    let line = site.line("diff --repo repo --node URL");
    site.place.kbackup(&line).assert().code(0);
    site
}

fn listed(place: &Place, repository: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(place.path(repository).join("backups")) else {
        return Vec::new();
    };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn a_second_place() {
    let site = site();
    let place = &site.place;

    snapshots!(place,
        "copy-dry-run": site.transcript("copy --from repo --to second --all --dry-run"),
        "copy-all": site.transcript("copy --from repo --to second --all"),
        "copy-again": site.transcript("copy --from repo --to second"),
        "copy-json": site.transcript("copy --from repo --to third --json"),
        "copy-older": site.transcript("copy --from repo --to third --all"),
    );
    assert_eq!(listed(place, "second"), place.listed());
    place
        .kbackup("verify --repo second --all --deep")
        .assert()
        .code(0);
    place
        .kbackup("restore --repo second --to restored")
        .assert()
        .code(0);
    place.kbackup("check restored --deep").assert().code(0);
}

#[test]
fn places_that_cannot_be_right() {
    let site = site();
    let place = &site.place;
    std::fs::create_dir(place.path("disk")).unwrap();

    snapshots!(place,
        "error-copy-into-itself": site.transcript("copy --from repo --to repo/../repo"),
        "error-copy-inside": site.transcript("copy --from repo --to repo/backups/second"),
        "error-copy-around": site.transcript("copy --from repo/backups --to repo"),
        "error-copy-no-source": site.transcript("copy --from disk --to second"),
        "error-copy-no-label": site.transcript("copy 20200101T000000Z-full --from repo --to second"),
    );

    // Without the option nothing is made.
    let mut command = place.kbackup("copy --from repo --to elsewhere");
    command
        .env_remove("KBACKUP_NEW_REPOSITORY")
        .assert()
        .code(10);
    assert!(!place.path("elsewhere").exists());
}

#[test]
fn damage_in_the_source_ends_with_20() {
    let site = site();
    let place = &site.place;
    let label = place.listed().remove(0);
    let chunk = place
        .path("repo/backups")
        .join(label)
        .join("db/chunk-000000.000000");
    flip(&chunk, 5000);

    snapshots!(place, "error-copy-damaged": site.transcript("copy --from repo --to second --all"),);
    assert_eq!(listed(place, "second"), Vec::<String>::new());
}

#[test]
fn a_killed_copy_is_repeated() {
    let site = NodeSite::still();
    let place = &site.place;
    let line = site.line("full --repo repo --node URL");
    place.kbackup(&line).assert().code(0);

    for chunk in ["chunk-000004", "chunk-000005"] {
        // Within this rate, one file is copied after the other.
        let mut process = place.process("copy --from repo --to second --limit-rate 60MiB");
        let status = process
            .env("KBACKUP_FAULT", format!("write:{chunk}:1:abort"))
            .output()
            .unwrap()
            .status;
        assert_eq!(status.signal(), Some(6));
        assert_eq!(listed(place, "second"), Vec::<String>::new());
    }

    let output = place
        .kbackup("copy --from repo --to second --json")
        .output()
        .unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let resumed = answer["copied"][0]["files_resumed"].as_u64().unwrap();
    assert!(resumed > 0, "{answer:#}");
    assert_eq!(listed(place, "second"), place.listed());
    place
        .kbackup("verify --repo second --deep")
        .assert()
        .code(0);
    assert_eq!(
        std::fs::read_dir(place.path("second/incoming"))
            .unwrap()
            .count(),
        0
    );
}
