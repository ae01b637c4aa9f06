use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::format::chunk::HEADER_LENGTH;
use crate::manifest::{Blake3Hash, samples};

/// As in [`samples::head`].
const CHUNK_SIZE: u64 = 65536;

/// A manifest whose log ends at `position`, with these files.
fn manifest(position: u64, files: Vec<Row>) -> Manifest {
    let mut head = samples::head(position);
    head.source.server_version = Some("24.10.0".to_owned());
    head.log.read.epoch = LogPosition::new(100);
    head.log.read.proposal = Some(1);
    head.log.stored.epoch = LogPosition::new(100);
    head.log.stored.proposal = Some(1);
    head.totals.files = files.len() as u64;

    Manifest { head, files }
}

fn row(path: &str, role: Role) -> Row {
    let name = path.rsplit('/').next().unwrap();
    Row {
        path: path.parse().unwrap(),
        role,
        size: HEADER_LENGTH + CHUNK_SIZE,
        mode: 0o100_777,
        modified: long_ago(),
        captured: long_ago(),
        blake3: Blake3Hash::of(name.as_bytes()),
        chunk: None,
        table_md5: None,
    }
}

fn long_ago() -> crate::clock::Timestamp {
    crate::clock::Timestamp::UNIX_EPOCH
}

/// A chunk file that holds the chunks `start` to `end`.
fn chunk(start: u32, end: u32, scavenged: bool) -> Row {
    let md5 = Some(Md5Hash([7; 16]));
    let chunk = serde_json::from_value(json!({
        "start": start,
        "end": end,
        "version": 0,
        "id": Uuid::nil(),
        "md5": md5,
        "scavenged": scavenged,
        "transform": "identity",
    }));
    Row {
        chunk: Some(chunk.unwrap()),
        ..row(&format!("db/chunk-{start:06}.000000"), Role::Chunk)
    }
}

fn outcome(manifest: &Manifest) -> DirectoryOutcome {
    DirectoryOutcome::new(manifest, false, None, false)
}

fn position(bytes: u64) -> LogPosition {
    LogPosition::new(bytes).unwrap()
}

#[test]
fn the_chunk_that_the_log_ends_in_is_cut_and_stays_writable() {
    let manifest = manifest(
        CHUNK_SIZE + 500,
        vec![chunk(0, 0, false), chunk(1, 1, false)],
    );
    let outcome = outcome(&manifest);

    let [complete, active] = outcome.files.as_slice() else {
        panic!("{:?}", outcome.files)
    };
    assert_eq!((complete.extent, complete.mode), (FileExtent::Whole, 0o444));
    assert_eq!(complete.bytes_on_disk(), 69632, "in whole blocks");
    assert_eq!(
        (active.extent, active.mode),
        (FileExtent::CutAt(HEADER_LENGTH + 500), 0o666)
    );
    assert_eq!(active.bytes_on_disk(), 4096, "the rest is a hole");
    assert_eq!(outcome.bytes(), 2 * (HEADER_LENGTH + CHUNK_SIZE));
}

#[test]
fn a_chunk_that_ends_with_the_log_is_complete() {
    let manifest = manifest(CHUNK_SIZE, vec![chunk(0, 0, false)]);
    let outcome = outcome(&manifest);
    assert_eq!(outcome.files[0].extent, FileExtent::Whole);
    assert_eq!(
        outcome.truncation,
        Truncation::ToPosition {
            position: position(CHUNK_SIZE)
        },
        "there is no file to truncate"
    );
}

#[test]
fn every_checkpoint_has_its_value() {
    let manifest = manifest(
        500,
        vec![chunk(0, 0, false), row("db/writer.chk", Role::Checkpoint)],
    );
    let outcome = outcome(&manifest);
    assert_eq!(outcome.files.len(), 1, "a checkpoint is not copied");
    assert_eq!(
        outcome.checkpoints.values(),
        [
            (Checkpoint::Epoch, 100),
            (Checkpoint::Proposal, 1),
            (Checkpoint::Truncate, 500),
            (Checkpoint::Chaser, 500),
            (Checkpoint::Writer, 500),
        ]
    );

    let ready = DirectoryOutcome::new(&manifest, true, None, false);
    assert_eq!(ready.truncation, Truncation::Ready);
    assert_eq!(ready.checkpoints.truncate, checkpoint::NONE);
}

#[test]
fn no_truncation_goes_into_a_compacted_chunk() {
    let merged_or_scavenged = [chunk(0, 1, false), chunk(0, 0, true)];
    for last in merged_or_scavenged {
        let manifest = manifest(500, vec![last.clone()]);
        assert_eq!(
            outcome(&manifest).truncation,
            Truncation::Scavenged {
                chunk: "chunk-000000.000000".to_owned()
            },
            "{last:?}"
        );
    }

    let at_its_start = manifest(CHUNK_SIZE, vec![chunk(0, 0, false), chunk(1, 1, true)]);
    assert_eq!(
        outcome(&at_its_start).checkpoints.truncate,
        i64::try_from(CHUNK_SIZE).unwrap()
    );
}

#[test]
fn an_empty_log_is_not_truncated() {
    let outcome = outcome(&manifest(0, Vec::new()));
    assert_eq!(outcome.truncation, Truncation::EmptyLog);
    assert_eq!(outcome.checkpoints.truncate, checkpoint::NONE);
}

#[test]
fn a_secondary_index_is_carried_only_if_it_cannot_be_ahead() {
    let mut manifest = manifest(500, vec![row("db/kurrent.ddb", Role::SecondaryIndex)]);

    manifest.contents.secondary_index = SecondaryIndex::Included;
    let carried = outcome(&manifest);
    assert_eq!(carried.secondary_index, SecondaryIndexOutcome::Carried);
    assert_eq!((carried.files.len(), carried.left_out.len()), (1, 0));

    manifest.log.read.writer.0 = position(501);
    let ahead = outcome(&manifest);
    assert_eq!(ahead.secondary_index, SecondaryIndexOutcome::MayBeAhead);
    assert_eq!((ahead.files.len(), ahead.left_out.len()), (0, 1));

    manifest.contents.secondary_index = SecondaryIndex::LeftOut;
    assert_eq!(
        outcome(&manifest).secondary_index,
        SecondaryIndexOutcome::NotInBackup
    );
}

#[test]
fn the_mark_of_an_earlier_restore_is_left_out() {
    let mark = row("db/kbackup-restore.json", Role::Chunk);
    let outcome = outcome(&manifest(0, vec![mark.clone()]));
    assert_eq!(
        (outcome.files, outcome.left_out),
        (Vec::new(), vec![mark.path])
    );
}

#[test]
fn an_md5_that_the_backup_knows_to_be_wrong_is_not_expected() {
    let table = Row {
        table_md5: Some(Md5Hash([9; 16])),
        ..row("index/2f6a1f5e-5c7b-4f0e-9d3e-0a1b2c3d4e5f", Role::Table)
    };
    let mut manifest = manifest(2 * CHUNK_SIZE, vec![chunk(0, 0, false), table]);
    let md5s = |manifest: &Manifest| -> Vec<_> {
        let files = outcome(manifest).files;
        files.iter().map(|file| file.md5).collect()
    };
    assert_eq!(
        md5s(&manifest),
        [Some(Md5Hash([7; 16])), Some(Md5Hash([9; 16]))]
    );

    manifest.contents.damaged = vec![manifest.files[0].path.clone()];
    assert_eq!(md5s(&manifest), [None, Some(Md5Hash([9; 16]))]);
}

#[test]
fn the_first_start_depends_on_the_truncation_and_the_server() {
    let manifest = manifest(500, vec![chunk(0, 0, false)]);
    let behaviour = |ready, server: Option<&str>| {
        let server = server.map(|text| ServerVersion::parse(text).unwrap());
        let outcome = DirectoryOutcome::new(&manifest, ready, server.as_ref(), false);
        outcome.first_start.behaviour
    };
    assert_eq!(
        behaviour(false, Some("24.6.0")),
        FirstStartBehaviour::ExitsOnce
    );
    assert_eq!(
        behaviour(false, Some("23.10.0")),
        FirstStartBehaviour::TruncatesAndStarts
    );
    assert_eq!(behaviour(false, None), FirstStartBehaviour::MayExitOnce);
    assert_eq!(behaviour(true, Some("26.1.0")), FirstStartBehaviour::Starts);
}
