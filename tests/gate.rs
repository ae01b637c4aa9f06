//! The gate: no directory becomes a backup without evidence that its files are what a server needs.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may end in a panic"
)]

use std::collections::HashSet;

use kbackup::error::Error;
use kbackup::event::Silent;
use kbackup::format::{Boundary, WriterPosition};
use kbackup::log::{ChunkSet, Inspected};
use kbackup::manifest::{Manifest, RelativePath, Role, SecondaryIndex};
use kbackup::proof::{BackupEvidence, LogProof, LogStretch, prove_backup, scan};
use kbackup::repository::Repository;
use kbackup::run::Run;

use crate::restore::handmade::HandmadeBackup;

/// The evidence that a full backup needs.
struct Shown {
    md5_compared: HashSet<RelativePath>,
    log: LogProof,
}

fn shown(handmade: &HandmadeBackup) -> Shown {
    let files = handmade.repository.files(&handmade.manifest.label).unwrap();
    let chunks = ChunkSet::read(&*files).unwrap();
    let stretches: Vec<LogStretch> = chunks
        .in_use()
        .iter()
        .map(|file| LogStretch::new(file.path.clone(), file.header().start_position()))
        .collect();

    let writer = WriterPosition(handmade.manifest.log.position.position());
    let log = scan(
        &*files,
        &chunks,
        &stretches,
        Boundary::ZERO,
        writer,
        &Run::new(Silent),
    )
    .unwrap();

    let hashed = handmade
        .manifest
        .files
        .iter()
        .filter(|row| matches!(row.role, Role::Chunk | Role::Table));

    Shown {
        md5_compared: hashed.map(|row| row.path.clone()).collect(),
        log,
    }
}

fn prove(
    handmade: &HandmadeBackup,
    manifest: Manifest,
    parent: Option<&Manifest>,
    shown: &Shown,
) -> Result<Manifest, Error> {
    let files = handmade.repository.files(&handmade.manifest.label).unwrap();
    let inspected = Inspected::default();
    let evidence = BackupEvidence {
        parent,
        md5_compared: &shown.md5_compared,
        log: &shown.log,
        inspected: &inspected,
    };
    prove_backup(&*files, manifest, &evidence, &Run::new(Silent)).map(|proven| (*proven).clone())
}

#[test]
fn a_complete_backup_passes() {
    for name in [
        "20.10-append",
        "21.10-truncate",
        "22.10-scavenge",
        "23.10-append",
        "24.10-scavenge",
        "26.1-truncate",
    ] {
        let handmade = HandmadeBackup::new(name);
        assert_eq!(
            prove(
                &handmade,
                handmade.manifest.clone(),
                None,
                &shown(&handmade)
            )
            .unwrap(),
            handmade.manifest,
            "{name}"
        );
    }
}

#[test]
fn each_hash_needs_evidence() {
    let handmade = HandmadeBackup::new("26.1-scavenge");
    let whole = shown(&handmade);
    for path in whole
        .md5_compared
        .iter()
        .filter(|path| !path.file_name().ends_with("7.000000"))
    {
        let mut less = Shown {
            md5_compared: whole.md5_compared.clone(),
            log: whole.log.clone(),
        };

        less.md5_compared.remove(path);
        let error = prove(&handmade, handmade.manifest.clone(), None, &less).unwrap_err();
        assert!(
            error.causes()[0].contains(&format!("{path}: its MD5 was not compared")),
            "{path} {:?}",
            error.causes()
        );

        // An earlier backup with the same file is evidence too, but not one with another file.
        prove(
            &handmade,
            handmade.manifest.clone(),
            Some(&handmade.manifest),
            &less,
        )
        .unwrap();

        let mut other = handmade.manifest.clone();
        other
            .files
            .iter_mut()
            .find(|row| row.path == *path)
            .unwrap()
            .blake3 = kbackup::manifest::Blake3Hash::of(b"other");
        prove(&handmade, handmade.manifest.clone(), Some(&other), &less).unwrap_err();

        // A file that the operator accepted with its damage is marked.
        let mut accepted = handmade.manifest.clone();
        accepted.contents.damaged.push(path.clone());
        prove(&handmade, accepted, None, &less).unwrap();
    }
}

#[test]
fn a_manifest_that_contradicts_the_files_is_refused() {
    type Change = fn(&mut Manifest);
    let changes: [(&str, Change, &str); 16] = [
        (
            "end",
            |manifest| manifest.log.position = serde_json::from_str("1000000").unwrap(),
            "last boundary found",
        ),
        (
            "epoch",
            |manifest| manifest.log.stored.epoch = None,
            "the stored epoch is not the lineage's last",
        ),
        (
            "lineage",
            |manifest| manifest.log.lineage = serde_json::from_str("[]").unwrap(),
            "in the log and not in the lineage",
        ),
        (
            "proposal",
            |manifest| manifest.log.stored.proposal = None,
            "proposal",
        ),
        (
            "chunk size",
            |manifest| manifest.log.chunk_size = serde_json::from_str("1048576").unwrap(),
            "bytes of log",
        ),
        (
            "a file too few",
            |manifest| drop(manifest.files.remove(0)),
            "does not know this file",
        ),
        (
            "a size",
            |manifest| manifest.files[0].size += 1,
            "its row says",
        ),
        (
            "a role",
            |manifest| manifest.files[0].role = Role::IndexMap,
            "its name does not fit its role",
        ),
        (
            "a chunk's MD5",
            |manifest| chunk(manifest).md5 = None,
            "header and footer",
        ),
        (
            "a chunk's id",
            |manifest| chunk(manifest).id = uuid::Uuid::nil(),
            "header and footer",
        ),
        (
            "no identity",
            |manifest| {
                manifest
                    .files
                    .iter_mut()
                    .find(|row| row.chunk.is_some())
                    .unwrap()
                    .chunk = None;
            },
            "what identifies it",
        ),
        (
            "a table's MD5",
            |manifest| table(manifest, "00112233445566778899aabbccddeeff"),
            "its MD5 is not the one in its row",
        ),
        (
            "no index",
            |manifest| manifest.contents.index = false,
            "there is an index",
        ),
        (
            "index commit",
            |manifest| manifest.log.index_commit = None,
            "another position",
        ),
        (
            "kurrent.ddb",
            |manifest| manifest.contents.secondary_index = SecondaryIndex::Absent,
            "kurrent.ddb",
        ),
        (
            "kurrent.ddb of a running node",
            |manifest| manifest.source.online = true,
            "changes it in place",
        ),
    ];

    let handmade = HandmadeBackup::new("26.1-append");
    let whole = shown(&handmade);
    for (what, change, wanted) in changes {
        let mut manifest = handmade.manifest.clone();
        change(&mut manifest);
        let error = prove(&handmade, manifest, None, &whole).unwrap_err();
        assert!(
            error.causes()[0].contains(wanted),
            "{what}: {:?}",
            error.causes()
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

fn table(manifest: &mut Manifest, md5: &str) {
    manifest
        .files
        .iter_mut()
        .find(|row| row.role == Role::Table)
        .unwrap()
        .table_md5 = Some(md5.parse().unwrap());
}

#[test]
fn files_that_no_server_starts_from_are_refused() {
    type Harm = fn(&HandmadeBackup);
    let harms: [(&str, Harm, &str); 9] = [
        (
            "a pending truncation",
            |handmade| write(handmade, "db/truncate.chk", &1000_i64.to_le_bytes()),
            "should hold -1",
        ),
        (
            "an empty checkpoint",
            |handmade| write(handmade, "db/truncate.chk", b""),
            "8 bytes",
        ),
        (
            "chaser behind",
            |handmade| write(handmade, "db/chaser.chk", &1000_i64.to_le_bytes()),
            "db/chaser.chk: it holds 1000",
        ),
        (
            "a missing checkpoint",
            |handmade| remove(handmade, "db/proposal.chk"),
            "db/proposal.chk: the file is missing",
        ),
        (
            "a hole in the log",
            |handmade| remove(handmade, "db/chunk-000002.000000"),
            "db/chunk-000002.000000: the file is missing",
        ),
        (
            "a chunk beyond",
            |handmade| beyond(handmade),
            "lies beyond the log's end",
        ),
        (
            "a short active chunk",
            |handmade| shorten(handmade, "db/chunk-000004.000000"),
            "full length",
        ),
        (
            "a table that is not listed",
            |handmade| write(handmade, "index/5ba5bfa8-ada3-4029-9997-a9e5ef8cc355", b""),
            "does not name it (O2)",
        ),
        (
            "an index that says otherwise",
            |handmade| write(handmade, "index/indexmap", b"0"),
            "index/indexmap",
        ),
    ];

    for (what, harm, wanted) in harms {
        let handmade = HandmadeBackup::new("26.1-append");
        let whole = shown(&handmade);

        harm(&handmade);
        let error = prove(&handmade, handmade.manifest.clone(), None, &whole).unwrap_err();
        assert!(
            error.causes()[0].contains(wanted),
            "{what}: {:?}",
            error.causes()
        );
    }
}

fn place(handmade: &HandmadeBackup, path: &str) -> std::path::PathBuf {
    let path: RelativePath = path.parse().unwrap();
    let backup = std::path::Path::new(&handmade.repository.place())
        .join("backups")
        .join(handmade.manifest.label.as_str());
    path.under(&backup)
}

fn write(handmade: &HandmadeBackup, path: &str, bytes: &[u8]) {
    let place = place(handmade, path);
    let _ = std::fs::remove_file(&place);
    std::fs::write(place, bytes).unwrap();
}

fn remove(handmade: &HandmadeBackup, path: &str) {
    std::fs::remove_file(place(handmade, path)).unwrap();
}

fn shorten(handmade: &HandmadeBackup, path: &str) {
    let bytes = std::fs::read(place(handmade, path)).unwrap();
    write(handmade, path, &bytes[..bytes.len() - 4096]);
}

/// The chunk that a node creates before it moves the writer checkpoint.
fn beyond(handmade: &HandmadeBackup) {
    let mut bytes = std::fs::read(place(handmade, "db/chunk-000004.000000")).unwrap();
    bytes[128..].fill(0);
    (bytes[6], bytes[10]) = (5, 5);
    write(handmade, "db/chunk-000005.000000", &bytes);
}
