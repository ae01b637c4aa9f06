//! `kbackup prune`, as an operator uses it.

use super::{NodeSite, snapshots};

#[test]
fn what_expire_leaves_in_an_object_store_is_pruned() {
    let site = NodeSite::backed_up("24.10-append");
    let place = &site.place;
    let objects = format!("object+file://{}", place.path("objects").display());
    let second = site.line(&format!(
        "full --repo {objects} --node URL --new-repository"
    ));
    std::fs::create_dir(place.path("objects")).unwrap();
    place.kbackup(&second).assert().code(0);
    site.advance(600);
    place.kbackup(&second).assert().code(0);

    let expired = place.transcript(&format!("expire --repo {objects} --keep-last 1 --confirm"));
    assert!(
        expired.contains("1 backup to remove; then `kbackup prune` frees")
            && expired.contains("removed 1 backup; `kbackup prune` frees")
            && !expired.contains("freed"),
        "{expired}"
    );

    let unconfirmed = place.transcript(&format!("prune --repo {objects}"));
    assert!(
        unconfirmed.contains("only with a confirmation") && unconfirmed.contains("to delete: 0"),
        "{unconfirmed}"
    );
    place
        .kbackup(&format!("prune --repo {objects}"))
        .assert()
        .code(23);

    let marked = place.transcript(&format!("prune --repo {objects} --confirm"));
    assert!(marked.contains("deleted 0 objects"), "{marked}");
    let waits = place.transcript(&format!("prune --repo {objects}"));
    assert!(waits.contains("not marked yet: 0"), "{waits}");
    place
        .kbackup(&format!("prune --repo {objects}"))
        .assert()
        .code(0);

    let pruned = place.transcript(&format!("prune --repo {objects} --grace 0s --confirm"));
    assert!(
        pruned.contains("freed") && !pruned.contains("deleted 0 objects"),
        "{pruned}"
    );
    let line = format!("verify --repo {objects} --all --deep");
    place.kbackup(&line).assert().code(0);
}

#[test]
fn a_directory_needs_no_prune() {
    let site = NodeSite::backed_up("24.10-append");
    let place = &site.place;

    snapshots!(place,
        "prune-directory": site.transcript("prune --repo repo"),
        "prune-directory-json": site.transcript("prune --repo repo --confirm --json"),
        "prune-no-repository": site.transcript("prune --repo nowhere"),
        "prune-grace": site.transcript("prune --repo repo --grace soon"),
    );
}
