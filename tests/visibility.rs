//! Events that the log holds and the index lacks: kbackup calls that damage only if a server would
//! show them (O48).
//!
//! The directory `24.10-index-scavenged-only` is that of a healthy node. Its index lacks events of
//! the streams `lim0` and `lim1` that its chunks still hold. Their metadata is `$maxCount` 3. Each
//! test gives `lim0` other metadata, or appends to the log, as a client would have done.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may end in a panic"
)]

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use kbackup::event::Silent;
use kbackup::manifest::Directories;
use kbackup::proof::{self, Depth, Effect, Examination, ExamineOptions, Finding, StartVerdict};
use kbackup::run::Run;
use kbackup::server::ServerLine;
use kbackup::verify::{VerifyReport, Which, verify};
use kbackup_testnode::index::{Entry, indexmap, stream_hash, write_filter};

use crate::fixtures::{DataDirectory, read, seal, write_old_table};
use crate::restore::handmade::back_up;
use crate::stores::TestRepository;

const HEALTHY: &str = "24.10-index-scavenged-only";
/// The metadata of `lim0` and `lim1`.
const THREE: &str = "{\n  \"$maxCount\": 3\n}";
/// The start of the chunk that the log ends in.
const ACTIVE_START: i64 = 3 * 0x40000;

const DATA: u16 = 0x01;
const STREAM_DELETE: u16 = 0x08;
const WHOLE_COMMITTED: u16 = 0x02 | 0x04 | 0x20;
const JSON: u16 = 0x100;

/// A record that a client would have caused.
struct Appended<'a> {
    stream: &'a str,
    number: i64,
    flags: u16,
    data: &'a str,
}

fn metadata(number: i64, data: &str) -> Appended<'_> {
    Appended {
        stream: "$$lim0",
        number,
        flags: DATA | JSON,
        data,
    }
}

const DELETION: Appended<'static> = Appended {
    stream: "lim0",
    number: i64::MAX,
    flags: STREAM_DELETE,
    data: "",
};

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.push(u8::try_from(text.len()).unwrap());
    bytes.extend(text.as_bytes());
}

/// Appends a record to the log, and moves the checkpoints behind it. Returns its position.
fn append(directory: &DataDirectory, appended: &Appended<'_>) -> Result<i64> {
    let writer = directory.db().join("writer.chk");
    let position = i64::from_le_bytes(fs::read(&writer)?.try_into().unwrap());

    let mut body = vec![0, 1];
    body.extend(position.to_le_bytes());
    body.extend((appended.flags | WHOLE_COMMITTED).to_le_bytes());
    body.extend(position.to_le_bytes());
    body.extend(0_i32.to_le_bytes());
    body.extend((appended.number - 1).to_le_bytes());
    text(&mut body, appended.stream);
    body.extend([7; 32]);
    body.extend(639_316_611_622_686_166_i64.to_le_bytes());
    text(&mut body, "$metadata");
    body.extend(i32::try_from(appended.data.len())?.to_le_bytes());
    body.extend(appended.data.as_bytes());
    body.extend(0_i32.to_le_bytes());

    let length = i32::try_from(body.len())?.to_le_bytes();
    let record = [&length[..], &body, &length].concat();
    let start = usize::try_from(128 + position - ACTIVE_START)?;
    overwrite(&directory.db().join("chunk-000003.000000"), |bytes| {
        bytes[start..start + record.len()].copy_from_slice(&record);
    })?;

    let end = position + i64::try_from(record.len())?;
    fs::write(&writer, end.to_le_bytes())?;
    fs::write(directory.db().join("chaser.chk"), end.to_le_bytes())?;
    Ok(position)
}

fn overwrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
    let mut bytes = fs::read(path)?;
    change(&mut bytes);
    Ok(fs::write(path, bytes)?)
}

fn place_of(bytes: &[u8], wanted: &str) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted.as_bytes())
}

/// The directory, with other metadata of `lim0`.
fn with_metadata(data: &str) -> Result<DataDirectory> {
    let directory = DataDirectory::unpack(HEALTHY)?;
    let padded = format!("{data:<width$}", width = THREE.len());
    assert_eq!(padded.len(), THREE.len(), "{data}");

    overwrite(&directory.db().join("chunk-000000.000001"), |bytes| {
        let stream = place_of(bytes, "$$lim0").unwrap();
        let at = stream + place_of(&bytes[stream..], THREE).unwrap();
        bytes[at..at + padded.len()].copy_from_slice(padded.as_bytes());
        seal(bytes);
    })?;
    Ok(directory)
}

fn examine_at(directory: &DataDirectory, line: ServerLine, depth: Depth) -> Result<Examination> {
    let options = ExamineOptions {
        version: Some(line),
        depth,
        in_use: false,
    };
    let files = Directories::new(directory.db(), None);
    Ok(proof::examine(&files, &options, &Run::new(Silent))?)
}

fn examine(directory: &DataDirectory) -> Result<Examination> {
    examine_at(directory, ServerLine::V24_10, Depth::Normal)
}

fn finding<'a>(examination: &'a Examination, code: &str) -> Option<&'a Finding> {
    let mut findings = examination.findings.iter();
    findings.find(|finding| finding.code == code)
}

/// Backs the directory up as it is, and verifies the backup.
fn verified(directory: &DataDirectory, depth: Depth) -> Result<VerifyReport> {
    let place = tempfile::tempdir()?;
    let repository = TestRepository::create(&place.path().join("repository"));
    back_up(&repository, directory, 1, None, |_| ());
    Ok(verify(
        &repository,
        &Which::Newest,
        depth,
        &Run::new(Silent),
    )?)
}

#[test]
fn a_scavenge_that_left_hidden_events_in_chunks_is_no_damage() -> Result<()> {
    let directory = DataDirectory::unpack(HEALTHY)?;
    for depth in [Depth::Normal, Depth::Deep] {
        let examination = examine_at(&directory, ServerLine::V24_10, depth)?;
        assert_eq!(examination.findings, [], "{depth:?}");
        assert_eq!(examination.verdict, StartVerdict::Starts);

        let report = verified(&directory, depth)?;
        assert!(report.is_sound(), "{depth:?} {report:#?}");
    }
    Ok(())
}

#[test]
fn events_that_the_metadata_hides_are_not_missing() -> Result<()> {
    for data in ["{\"$tb\": 1199}", "{\"$maxAge\": 60}"] {
        let directory = with_metadata(data)?;
        let examination = examine(&directory)?;
        assert_eq!(examination.verdict, StartVerdict::Starts, "{data}");
        assert_eq!(finding(&examination, "index-hides-events"), None, "{data}");
    }
    Ok(())
}

#[test]
fn events_that_the_metadata_shows_are_missing() -> Result<()> {
    for data in [
        "{}",
        "{\"$tb\": 423}",
        "{\"$maxCount\": 5000}",
        "{\"$maxAge\":99999999}",
    ] {
        let directory = with_metadata(data)?;
        let examination = examine(&directory)?;
        let hidden = finding(&examination, "index-hides-events");
        let hidden = hidden.with_context(|| format!("{data}: {examination:#?}"))?;
        assert_eq!(hidden.worst(), Some(Effect::LosesEvents), "{data}");
        assert_eq!(examination.verdict, StartVerdict::Loses, "{data}");

        let report = verified(&directory, Depth::Normal)?;
        let findings = &report.backups[0].findings;
        assert_eq!(findings.len(), 1, "{data} {findings:#?}");
        assert!(findings[0].what.contains("(O39)"), "{findings:#?}");
    }
    Ok(())
}

#[test]
fn events_that_were_dropped_before_the_metadata_was_widened_are_not_missing() -> Result<()> {
    let directory = DataDirectory::unpack(HEALTHY)?;
    append(&directory, &metadata(1, "{\"$maxCount\": 5000}"))?;
    let examination = examine(&directory)?;
    assert_eq!(
        examination.verdict,
        StartVerdict::Starts,
        "{examination:#?}"
    );
    assert_eq!(finding(&examination, "index-hides-events"), None);
    Ok(())
}

#[test]
fn metadata_behind_the_index_hides_events_too() -> Result<()> {
    let directory = with_metadata("{}")?;
    assert_eq!(examine(&directory)?.verdict, StartVerdict::Loses);

    append(&directory, &metadata(1, "{\"$maxCount\": 3}"))?;
    assert_eq!(examine(&directory)?.verdict, StartVerdict::Starts);
    Ok(())
}

#[test]
fn events_of_a_deleted_stream_are_not_missing() -> Result<()> {
    let directory = with_metadata("{}")?;
    append(&directory, &DELETION)?;
    assert_eq!(examine(&directory)?.verdict, StartVerdict::Starts);
    Ok(())
}

#[test]
fn metadata_that_only_the_server_can_read_is_a_warning_and_no_damage() -> Result<()> {
    let directory = with_metadata("{'$maxCount': 5000}")?;
    let examination = examine(&directory)?;
    let hidden = finding(&examination, "index-hides-events").context("no finding")?;
    assert_eq!(hidden.worst(), Some(Effect::MayHideEvents));
    assert_eq!(examination.kind(), None);

    let report = verified(&directory, Depth::Normal)?;
    assert!(report.is_sound(), "{report:#?}");
    Ok(())
}

#[test]
fn tables_of_version_1_are_old_and_not_damaged() -> Result<()> {
    let directory = DataDirectory::unpack("22.10-append")?;
    for table in directory.tables()? {
        write_old_table(&table, 1, |_| ())?;
    }

    let report = verified(&directory, Depth::Deep)?;
    assert!(report.is_sound(), "{report:#?}");

    let examination = examine_at(&directory, ServerLine::V22_10, Depth::Deep)?;
    assert_eq!(
        examination.verdict,
        StartVerdict::Starts,
        "{examination:#?}"
    );
    let newer = examine(&directory)?;
    assert_eq!(newer.verdict, StartVerdict::StartsAndRebuilds, "{newer:#?}");
    Ok(())
}

#[test]
fn a_deletion_indexed_with_32_bits_is_no_contradiction() -> Result<()> {
    let directory = DataDirectory::unpack(HEALTHY)?;
    let position = append(&directory, &DELETION)?;
    let tables = directory.tables()?;
    let table = tables.first().context("no table")?;
    write_old_table(table, 2, |entries| {
        entries.push(Entry {
            hash: stream_hash("lim0"),
            number: i32::MAX.into(),
            position,
        });
    })?;

    // The index reaches up to the deletion.
    let listed = [(0, 0, file_name(table)?)];
    fs::write(
        directory.index().join("indexmap"),
        indexmap(position, position, &listed),
    )?;

    let examination = examine_at(&directory, ServerLine::V23_10, Depth::Deep)?;
    assert_eq!(finding(&examination, "index-entry-wrong"), None);
    Ok(())
}

#[test]
fn a_filter_needs_only_streams_that_the_index_has() -> Result<()> {
    let directory = DataDirectory::unpack(HEALTHY)?;
    let filter = directory
        .index()
        .join("stream-existence/streamExistenceFilter.dat");
    let bits = u64::from_le_bytes(read(&filter)?[8..16].try_into().unwrap());
    fs::remove_file(&filter)?;
    write_filter(&filter, bits / 8)?;
    fs::copy(
        directory.db().join("writer.chk"),
        filter.with_extension("chk"),
    )?;
    let lacking = examine(&directory)?;
    assert!(finding(&lacking, "stream-filter-incomplete").is_some());

    for table in directory.tables()? {
        write_old_table(&table, 2, Vec::clear)?;
    }
    let examination = examine(&directory)?;
    assert_eq!(finding(&examination, "stream-filter-incomplete"), None);
    Ok(())
}

fn file_name(path: &Path) -> Result<String> {
    let name = path.file_name().and_then(|name| name.to_str());
    Ok(name.context("no name")?.to_owned())
}
