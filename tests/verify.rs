//! Verification of stored backups: intact ones are found intact, and every flipped byte is named.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may end in a panic"
)]

use std::os::unix::fs::PermissionsExt;

use kbackup::error::Kind;
use kbackup::event::{Event, Observer, Silent};
use kbackup::format::LogPosition;
use kbackup::manifest::{BackupKind, Label, Manifest, Role, Row, Totals};
use kbackup::proof::{Depth, Proven};
use kbackup::repository::{Repository, remembered};
use kbackup::run::Run;
use kbackup::verify::{VerifyReport, Which, verify};
use proptest::prelude::*;

use crate::fixtures::DataDirectory;
use crate::restore::handmade::HandmadeBackup;
use crate::stores::{TestRepository, in_every_store, in_stores_with_copies};

in_every_store! {
    backups_of_every_real_node_are_intact,
    a_file_that_backups_share_is_hashed_once,
    a_quick_verification_does_not_replace_a_deeper_one,
    an_interruption_ends_a_verification,
    a_quick_verification_warns_of_known_damage,
    a_verification_of_nothing_warns,
}

in_stores_with_copies! {
    a_lost_file_is_named_once,
}

fn check(handmade: &HandmadeBackup, which: &Which, depth: Depth) -> VerifyReport {
    verify(&handmade.repository, which, depth, &Run::new(Silent)).unwrap()
}

/// Commits a second backup with the same files.
fn second(handmade: &HandmadeBackup) -> Manifest {
    let run = Run::new(Silent);
    let parent = &handmade.manifest;
    let incoming = handmade
        .repository
        .writer(&run)
        .and_then(|writer| writer.begin(Some(parent)))
        .unwrap();
    for row in &parent.files {
        incoming.reuse(&[row], &|_, _| ()).remove(0).unwrap();
    }

    let mut manifest = parent.clone();
    let finished = parent.finished + std::time::Duration::from_secs(60);
    (manifest.sequence, manifest.kind, manifest.finished) =
        (parent.sequence + 1, BackupKind::Diff, finished);
    (manifest.label, manifest.parent) = (
        Label::new(finished, BackupKind::Diff),
        Some(parent.label.clone()),
    );

    let proven = Proven::unproven(manifest);
    incoming.commit(&proven).unwrap();
    (*proven).clone()
}

/// The bytes of the backup. Bytes that files share count once.
fn bytes_of(handmade: &HandmadeBackup) -> u64 {
    let mut copies = std::collections::HashSet::new();
    let mut bytes = 0;
    for row in &handmade.manifest.files {
        let stored = handmade
            .repository
            .open(&handmade.manifest.label, row)
            .unwrap();
        if copies.insert(stored.copy_id().unwrap()) {
            bytes += row.size;
        }
    }
    bytes
}

fn backups_of_every_real_node_are_intact() {
    let names = DataDirectory::all().unwrap().map(|data| data.unwrap().name);
    for name in names.filter(|name| !name.ends_with("killed") && !name.ends_with("bad-index")) {
        let handmade = HandmadeBackup::new(&name);
        for depth in [Depth::Quick, Depth::Normal, Depth::Deep] {
            let report = check(&handmade, &Which::Newest, depth);
            assert!(report.is_sound(), "{name} {depth:?} {report:#?}");
            let backup = &report.backups[0];
            assert_eq!(
                (backup.label.clone(), backup.files),
                (
                    handmade.manifest.label.clone(),
                    handmade.manifest.files.len() as u64
                )
            );

            let hashed = if depth == Depth::Quick {
                0
            } else {
                bytes_of(&handmade)
            };
            assert_eq!(report.bytes_hashed, hashed, "{name} {depth:?}");

            if depth == Depth::Deep {
                assert_eq!(
                    Some(backup.records),
                    handmade.data.facts["records"].as_u64(),
                    "{name}"
                );
                assert!(backup.entries > 500, "{name}");
            }

            let known = remembered(&handmade.repository, &backup.label)
                .unwrap()
                .unwrap();
            assert_eq!((known.depth, known.findings), (depth, 0));
        }
    }
}

fn a_file_that_backups_share_is_hashed_once() {
    let handmade = HandmadeBackup::new("26.1-scavenge");
    let diff = second(&handmade);
    let report = check(&handmade, &Which::All, Depth::Deep);
    assert!(report.is_sound(), "{report:#?}");
    assert_eq!(report.backups.len(), 2);
    assert_eq!(report.bytes_hashed, bytes_of(&handmade));

    // A flipped bit is in every backup that links the file.
    let row = handmade.row(Role::Chunk);
    handmade.damage(row);
    let report = check(&handmade, &Which::All, Depth::Normal);
    for (backup, label) in report
        .backups
        .iter()
        .zip([&handmade.manifest.label, &diff.label])
    {
        assert_eq!(&backup.label, label);
        assert!(
            backup
                .findings
                .iter()
                .any(|finding| finding.path.as_ref() == Some(&row.path)),
            "{backup:#?}"
        );
    }

    let one = check(
        &handmade,
        &Which::Named(vec![handmade.manifest.label.clone()]),
        Depth::Normal,
    );
    assert_eq!(one.backups.len(), 1);
}

fn a_quick_verification_does_not_replace_a_deeper_one() {
    let handmade = HandmadeBackup::new("24.10-append");
    let label = &handmade.manifest.label;
    assert_eq!(remembered(&handmade.repository, label).unwrap(), None);

    check(&handmade, &Which::All, Depth::Normal);
    check(&handmade, &Which::All, Depth::Quick);
    assert_eq!(
        remembered(&handmade.repository, label)
            .unwrap()
            .unwrap()
            .depth,
        Depth::Normal
    );

    handmade.damage(handmade.row(Role::Chunk));
    assert!(
        check(&handmade, &Which::All, Depth::Quick).is_sound(),
        "no quick verification reads the byte"
    );
    check(&handmade, &Which::All, Depth::Normal);
    let known = remembered(&handmade.repository, label).unwrap().unwrap();
    assert!(
        known.findings > 0 && known.to_string().ends_with("DAMAGED"),
        "{known}"
    );

    check(&handmade, &Which::All, Depth::Quick);
    assert_eq!(
        remembered(&handmade.repository, label).unwrap().unwrap(),
        known
    );
}

#[test]
fn a_quick_verification_with_findings_does_not_replace_a_deeper_one() {
    let handmade = HandmadeBackup::new("24.10-append");
    let label = &handmade.manifest.label;
    handmade.damage(handmade.row(Role::Chunk));
    check(&handmade, &Which::All, Depth::Normal);
    let stranger = std::path::Path::new(&handmade.repository.place())
        .join("backups")
        .join(label.as_str())
        .join("db/chunk-000099.000000");
    std::fs::write(&stranger, b"").unwrap();
    assert!(!check(&handmade, &Which::All, Depth::Quick).is_sound());

    std::fs::remove_file(stranger).unwrap();
    assert!(
        check(&handmade, &Which::All, Depth::Quick).is_sound(),
        "no quick verification reads the byte"
    );
    assert!(
        remembered(&handmade.repository, label)
            .unwrap()
            .unwrap()
            .is_damaged()
    );
}

#[test]
fn a_manifest_that_contradicts_the_log_is_found() {
    type Change = fn(&mut Manifest);
    let changes: [(&str, Change, &str); 5] = [
        (
            "epoch",
            |manifest| manifest.log.lineage = serde_json::from_str("[]").unwrap(),
            "epoch",
        ),
        (
            "index commit",
            |manifest| manifest.log.index_commit = LogPosition::new(5),
            "another position",
        ),
        (
            "a lost row",
            |manifest| drop(manifest.files.remove(manifest.files.len() / 2)),
            "does not know this file",
        ),
        (
            "the chunk's id",
            |manifest| chunk(manifest).id = uuid::Uuid::nil(),
            "header and footer",
        ),
        (
            "the position",
            |manifest| manifest.log.position = serde_json::from_str("1200000").unwrap(),
            "should hold",
        ),
    ];
    for (what, change, wanted) in changes {
        // The repository checks that rows and files agree. This manifest is written past it.
        let handmade = HandmadeBackup::new("26.1-append");

        let mut manifest = handmade.manifest.clone();
        change(&mut manifest);
        manifest.totals = Totals::of(&manifest.files);
        let place = std::path::Path::new(&handmade.repository.place())
            .join("backups")
            .join(manifest.label.as_str())
            .join("manifest.json");
        std::fs::write(place, crate::conformance::text(&manifest)).unwrap();

        let report = check(&handmade, &Which::Newest, Depth::Quick);
        assert!(
            report.backups[0]
                .findings
                .iter()
                .any(|finding| finding.what.contains(wanted)),
            "{what}: {report:#?}"
        );
    }
}

fn chunk(manifest: &mut Manifest) -> &mut kbackup::manifest::ChunkRow {
    manifest
        .files
        .iter_mut()
        .find_map(|row| row.chunk.as_mut())
        .unwrap()
}

#[test]
fn a_damaged_manifest_is_a_finding_and_an_unknown_label_is_an_error() {
    let handmade = HandmadeBackup::new("23.10-append");
    second(&handmade);
    let place = std::path::Path::new(&handmade.repository.place())
        .join("backups")
        .join(handmade.manifest.label.as_str())
        .join("manifest.json");
    let mut bytes = std::fs::read(&place).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&place, bytes).unwrap();

    let report = check(&handmade, &Which::All, Depth::Normal);
    let counts: Vec<usize> = report
        .backups
        .iter()
        .map(|backup| backup.findings.len())
        .collect();
    assert_eq!(counts, [1, 0], "{report:#?}");

    let unknown: Label = "20200101T000000Z-full".parse().unwrap();
    let error = verify(
        &handmade.repository,
        &Which::Named(vec![unknown]),
        Depth::Quick,
        &Run::new(Silent),
    )
    .unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

/// One cause, one line: no other check reports what follows from it.
fn a_lost_file_is_named_once() {
    let files = HandmadeBackup::new("22.10-append").manifest.files.len();
    for number in 0..files {
        let handmade = HandmadeBackup::new("22.10-append");
        let row = &handmade.manifest.files[number];
        handmade
            .repository
            .lose(&handmade.manifest.label, &row.path);

        for depth in [Depth::Quick, Depth::Normal, Depth::Deep] {
            let report = check(&handmade, &Which::Newest, depth);
            let found = report.backups[0].findings.iter();
            let found: Vec<String> = found.map(ToString::to_string).collect();
            // In memory, a file of the same bytes is lost with it.
            let is_lost = |other: &&Row| match &handmade.repository {
                TestRepository::Directory(_) => other.path == row.path,
                TestRepository::Memory(_) | TestRepository::Objects(_) => {
                    other.blake3 == row.blake3
                }
            };
            let lost = handmade.manifest.files.iter().filter(is_lost);
            let wanted: Vec<String> = lost
                .map(|row| format!("{}: the file is missing", row.path))
                .collect();
            assert_eq!(found, wanted, "{depth:?}");
        }
    }
}

fn an_interruption_ends_a_verification() {
    /// Asks for the end as soon as bytes were read.
    struct Ending(std::sync::mpsc::Sender<()>);
    impl Observer for Ending {
        fn observe(&self, event: &Event) {
            if matches!(event, Event::Progress { .. }) {
                let _ = self.0.send(());
            }
        }
    }

    let handmade = HandmadeBackup::new("26.1-append");
    let (sender, receiver) = std::sync::mpsc::channel();
    let run = Run::new(Ending(sender));
    let error = std::thread::scope(|scope| {
        let interrupted = &run;
        scope.spawn(move || {
            receiver.recv().unwrap();
            interrupted.interrupt(kbackup::error::Signal::Terminate);
        });

        // There are so many runs that the signal comes during one of them.
        (0..1000).find_map(|_| verify(&handmade.repository, &Which::All, Depth::Deep, &run).err())
    });
    assert_eq!(error.unwrap().kind().exit_code(), 143);
}

/// Flips one bit of a stored file.
fn flip(handmade: &HandmadeBackup, row: &Row, at: u64, bit: u32) {
    let path = handmade.stored(row);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[usize::try_from(at).unwrap()] ^= 1 << bit;
    std::fs::write(&path, bytes).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_flipped_bit_is_named(which in 0_usize..4, file in any::<prop::sample::Index>(), place in any::<prop::sample::Index>(), bit in 0_u32..8) {
        let handmade = HandmadeBackup::new(["20.10-append", "22.10-scavenge", "24.10-truncate", "26.1-scavenge"][which]);
        let mut files: Vec<&Row> = handmade.manifest.files.iter().collect();
        files.retain(|row| row.size > 0);
        let row = file.get(&files);
        flip(&handmade, row, place.index(usize::try_from(row.size).unwrap()) as u64, bit);
        let report = check(&handmade, &Which::Newest, Depth::Normal);
        let mut findings = report.backups[0].findings.iter();
        let named = findings.any(|finding| finding.path.as_ref() == Some(&row.path) && finding.what.contains("BLAKE3"));
        prop_assert!(named, "{} {:#?}", row.path, report);
    }
}

fn a_quick_verification_warns_of_known_damage() {
    let handmade = HandmadeBackup::new("26.1-append");
    let label = handmade.manifest.label.clone();
    let run = Run::new(Silent);
    assert!(
        verify(&handmade.repository, &Which::Newest, Depth::Quick, &run)
            .unwrap()
            .is_sound()
            && run.warnings().is_empty()
    );
    kbackup::repository::remember_damage(&handmade.repository, &label).unwrap();
    assert!(
        verify(&handmade.repository, &Which::Newest, Depth::Quick, &run)
            .unwrap()
            .is_sound()
    );
    assert!(
        run.warnings()
            .concat()
            .contains(&format!("{label} is known to be DAMAGED")),
        "{:?}",
        run.warnings()
    );

    // A verification as deep as the one that found the damage needs no such warning.
    let run = Run::new(Silent);
    verify(&handmade.repository, &Which::Newest, Depth::Normal, &run).unwrap();
    assert_eq!(run.warnings(), Vec::<String>::new());
}

fn a_verification_of_nothing_warns() {
    let place = tempfile::tempdir().unwrap();
    let repository = TestRepository::create(&place.path().join("repo"));
    let run = Run::new(Silent);
    assert!(
        verify(&repository, &Which::All, Depth::Normal, &run)
            .unwrap()
            .backups
            .is_empty()
    );
    assert!(
        run.warnings().concat().contains("nothing was verified"),
        "{:?}",
        run.warnings()
    );
}
