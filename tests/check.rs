//! Whether a server would start from a directory: directories of real nodes, and the damages that
//! real servers were tested with (O2–O39).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use kbackup::event::Silent;
use kbackup::format::indexmap::IndexMap;
use kbackup::manifest::Directories;
use kbackup::proof::{
    self, Depth, Effect, Examination, ExamineOptions, Finding, Severity, StartOutcome, StartVerdict,
};
use kbackup::run::Run;
use kbackup::server::ServerLine;
use kbackup_testnode::log::{self, Kind, Record};
use kbackup_testnode::{Action, Node, Recording, Synthetic};
use proptest::prelude::*;

use crate::backup::bench::copy_tree;
use crate::fixtures::{DataDirectory, seal};

/// The chunk size of all fixtures but one.
const SIZE: u64 = 0x40000;
/// The length of an active chunk of that size.
const FULL: usize = 266_240;

/// The server lines that the experiments ran.
const RUN: [ServerLine; 6] = [
    ServerLine::V20_10,
    ServerLine::V21_10,
    ServerLine::V22_10,
    ServerLine::V23_10,
    ServerLine::V24_10,
    ServerLine::V26_1,
];
const MODERN: [ServerLine; 4] = [
    ServerLine::V24_10,
    ServerLine::V25_0,
    ServerLine::V25_1,
    ServerLine::V26_1,
];
/// A clean directory of each version.
const CLEAN: [&str; 6] = [
    "20.10-append",
    "21.10-append",
    "22.10-append",
    "23.10-append",
    "24.10-append",
    "26.1-append",
];

fn examine_at(db: &Path, version: Option<ServerLine>, depth: Depth) -> Result<Examination> {
    let options = ExamineOptions {
        version,
        depth,
        in_use: false,
    };
    let files = Directories::new(db, None);
    Ok(proof::examine(&files, &options, &Run::new(Silent))?)
}

fn examine(directory: &DataDirectory, version: ServerLine) -> Result<Examination> {
    examine_at(&directory.db(), Some(version), Depth::Normal)
}

fn own_line(directory: &DataDirectory) -> ServerLine {
    let (major, minor) = directory.server();
    ServerLine::of_version(&format!("{major}.{minor}")).unwrap_or(ServerLine::V26_1)
}

fn codes(examination: &Examination, from: Severity) -> Vec<&'static str> {
    examination
        .findings
        .iter()
        .filter(|finding| finding.severity >= from)
        .map(|finding| finding.code)
        .collect()
}

fn finding<'a>(examination: &'a Examination, code: &str) -> Result<&'a Finding> {
    let mut findings = examination.findings.iter();
    let found = findings.find(|finding| finding.code == code);
    found.with_context(|| format!("no {code} in {examination:#?}"))
}

/// True if the finding names a file with this name.
fn is_about(finding: &Finding, name: &str) -> bool {
    let file = finding.file.as_ref();
    file.is_some_and(|file| file.ends_with(name))
}

/// The outcome, the verdict, and the codes of all warnings and errors.
type Answer = (StartOutcome, StartVerdict, Vec<&'static str>);

fn answer(directory: &DataDirectory, line: ServerLine) -> Result<Answer> {
    let examination = examine(directory, line)?;
    let codes = codes(&examination, Severity::Warning);
    let outcome = examination.outcome(line).context("no outcome")?;
    ensure!(outcome.verdict == examination.verdict, "{examination:#?}");
    Ok((outcome.outcome, examination.verdict, codes))
}

fn set(directory: &DataDirectory, checkpoint: &str, value: i64) -> Result<()> {
    Ok(fs::write(
        directory.db().join(format!("{checkpoint}.chk")),
        value.to_le_bytes(),
    )?)
}

fn remove(directory: &DataDirectory, name: &str) -> Result<()> {
    fs::remove_file(directory.db().join(name)).with_context(|| name.to_owned())
}

fn get(directory: &DataDirectory, checkpoint: &str) -> Result<i64> {
    directory
        .checkpoint(checkpoint)
        .with_context(|| checkpoint.to_owned())
}

fn records(directory: &DataDirectory) -> Result<Vec<Record>> {
    let writer = u64::try_from(get(directory, "writer")?)?;
    let mut records = Vec::new();
    for chunk in log::chunks(&directory.db())? {
        records.extend(chunk.records(writer)?);
    }
    Ok(records)
}

/// The ends of records behind `from`: first those where an append ends, then those inside one.
fn ends_from(directory: &DataDirectory, from: u64) -> Result<(Vec<i64>, Vec<i64>)> {
    let (mut whole, mut half) = (Vec::new(), Vec::new());
    for record in records(directory)? {
        if record.end <= from {
            continue;
        }

        let end = i64::try_from(record.end)?;
        if record.is_boundary() {
            whole.push(end);
        } else {
            half.push(end);
        }
    }
    Ok((whole, half))
}

/// The path of the active chunk.
fn active(directory: &DataDirectory) -> Result<PathBuf> {
    let last = log::chunks(&directory.db())?.pop().context("no chunk")?;
    Ok(last.path)
}

fn commit(directory: &DataDirectory) -> Result<i64> {
    directory
        .facts
        .pointer("/index/commit")
        .and_then(serde_json::Value::as_i64)
        .context("no commit")
}

fn overwrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
    let mut bytes = fs::read(path)?;
    change(&mut bytes);
    Ok(fs::write(path, bytes)?)
}

/// Truncates a directory as the server's truncator does (disk-format §2.8).
fn truncate_offline(directory: &DataDirectory, end: i64) -> Result<()> {
    let end = u64::try_from(end)?;
    let mut epoch = -1;
    for record in records(directory)? {
        if matches!(record.kind, Kind::Epoch(_)) && record.position < end {
            epoch = i64::try_from(record.position)?;
        }
    }

    for chunk in log::chunks(&directory.db())? {
        let start = u64::from(chunk.header.start) * SIZE;
        if start >= end {
            fs::remove_file(&chunk.path)?;
        } else if start + SIZE > end {
            let kept = usize::try_from(128 + end - start)?;
            overwrite(&chunk.path, |bytes| {
                bytes.truncate(kept);
                bytes.resize(FULL, 0);
            })?;
        }
    }

    let end = i64::try_from(end)?;
    set(directory, "writer", end)?;
    set(directory, "chaser", end)?;
    set(directory, "truncate", -1)?;
    set(directory, "epoch", epoch)
}

/// How many events the index of a directory holds at least.
fn indexed_events(directory: &DataDirectory) -> u64 {
    let facts = &directory.facts;
    match facts.get("visible").and_then(|streams| streams.as_object()) {
        Some(streams) => streams.values().filter_map(serde_json::Value::as_u64).sum(),
        None => facts
            .get("events")
            .and_then(serde_json::Value::as_u64)
            .unwrap_or(0),
    }
}

#[test]
fn every_real_directory_is_found_to_start() -> Result<()> {
    for directory in DataDirectory::all()? {
        let directory = directory?;
        if directory.name.ends_with("bad-index") {
            continue;
        }

        for depth in [Depth::Quick, Depth::Normal, Depth::Deep] {
            let examination = examine_at(&directory.db(), Some(own_line(&directory)), depth)?;
            let name = format!("{} {depth:?}: {:#?}", directory.name, examination.findings);
            assert_eq!(examination.versions.len(), 1, "{name}");
            assert_eq!(
                examination.versions[0].outcome,
                StartOutcome::Starts,
                "{name}"
            );
            assert!(
                !examination.versions[0].unproven
                    || codes(&examination, Severity::Info).contains(&"index-unlisted"),
                "{name}"
            );
            assert_eq!(examination.verdict, StartVerdict::Starts, "{name}");
            assert_eq!(examination.kind(), None, "{name}");
            assert_eq!(codes(&examination, Severity::Warning), [""; 0], "{name}");

            let log = examination.log.context("no log")?;
            assert_eq!(
                (log.chunk_size, Some(log.writer)),
                (SIZE, directory.checkpoint("writer")),
                "{name}"
            );
            assert_eq!(log.epochs, directory.facts["epochs"].as_u64(), "{name}");
            assert_eq!(log.position.is_some(), depth > Depth::Quick, "{name}");

            let index = examination.index.context("no index")?;
            assert_eq!(
                (Some(index.tables), index.commit),
                (
                    directory.facts["index"]["tables"].as_u64(),
                    Some(commit(&directory)?.unsigned_abs())
                )
            );
            assert!(
                depth == Depth::Quick
                    || index.entries_compared >= 1000.min(indexed_events(&directory) / 2),
                "{name}"
            );
        }
    }
    Ok(())
}

#[test]
fn newer_servers_start_from_what_older_ones_wrote() -> Result<()> {
    for name in CLEAN {
        let directory = DataDirectory::unpack(name)?;
        let examination = examine_at(&directory.db(), None, Depth::Normal)?;
        assert_eq!(examination.versions.len(), ServerLine::ALL.len());

        for version in &examination.versions {
            assert_eq!(version.outcome, StartOutcome::Starts, "{name} {version:?}");
            assert!(
                version.verdict <= StartVerdict::StartsAndRebuilds,
                "{name} {version:?}"
            );
            // Restored directories were started on every line (observed.md §5). Nobody removed an
            // index on 25.0 and 25.1, or looked what happens to tables that the index map lacks.
            let has_unlisted = codes(&examination, Severity::Info).contains(&"index-unlisted");
            assert!(
                !version.unproven || !version.rebuilds.is_empty() || has_unlisted,
                "{name} {version:?}"
            );
        }

        let own = examination
            .versions
            .iter()
            .find(|version| version.version == own_line(&directory));
        assert!(own.is_some_and(|own| !own.older_than_files), "{name}");
        assert_eq!(examination.kind(), None, "{name}");
    }
    Ok(())
}

#[test]
fn o2_a_torn_table_is_named_with_what_the_server_does() -> Result<()> {
    let directory = DataDirectory::unpack("26.1-vendor-procedure-bad-index")?;
    let examination = examine(&directory, ServerLine::V26_1)?;

    assert_eq!(
        (examination.versions[0].outcome, examination.verdict),
        (StartOutcome::Starts, StartVerdict::Damaged)
    );
    assert_eq!(
        examination.kind().map(kbackup::error::Kind::exit_code),
        Some(20)
    );

    let torn = finding(&examination, "index-table-damaged")?;
    assert!(
        is_about(torn, "5ba5bfa8-ada3-4029-9997-a9e5ef8cc355"),
        "{torn:?}"
    );
    assert_eq!(torn.worst(), Some(Effect::SetsIndexAside));
    assert_eq!(examination.versions[0].rebuilds, ["index-table-damaged"]);
    Ok(())
}

/// An old repair left such twins, and `cp -al` carries them on.
#[test]
fn two_names_of_the_server_for_one_file_are_damage() -> Result<()> {
    let index = "index/stream-existence/streamExistenceFilter";
    let filter = (format!("{index}.chk"), format!("{index}.dat"));
    for (name, twin, what) in [
        ("writer.chk", "chaser.chk", "can lose events"),
        ("writer.chk", "truncate.chk", "can lose events"),
        ("proposal.chk", "epoch.chk", "can lose events"),
        (&filter.1, &filter.0, "changes both"),
    ] {
        let directory = DataDirectory::unpack("26.1-append")?;
        let db = directory.db();
        fs::remove_file(db.join(twin))?;
        fs::hard_link(db.join(name), db.join(twin))?;

        let examination = examine(&directory, ServerLine::V26_1)?;
        let twins = finding(&examination, "file-twins")?;
        assert_eq!(twins.severity, Severity::Error);
        let text = format!("{twins:?}");
        for part in [name, twin, what] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(examination.verdict >= StartVerdict::Damaged, "{name}");
        assert!(examination.kind().is_some(), "{name}");

        // The hint helps.
        let own = fs::read(db.join(twin))?;
        fs::remove_file(db.join(twin))?;
        fs::write(db.join(twin), own)?;
        let examination = examine(&directory, ServerLine::V26_1)?;
        assert!(finding(&examination, "file-twins").is_err(), "{name}");
    }
    Ok(())
}

/// Other names of a server's file do no harm to the server: a copy that somebody keeps beside it, and
/// links that lead out of the directory.
#[test]
fn a_hard_link_that_no_server_writes_to_is_no_finding() -> Result<()> {
    let directory = DataDirectory::unpack("26.1-append")?;
    let db = directory.db();
    fs::hard_link(db.join("writer.chk"), db.join("writer.chk.bak"))?;
    let elsewhere = tempfile::tempdir_in(db.parent().context("no parent")?)?;
    fs::hard_link(db.join("chaser.chk"), elsewhere.path().join("writer.chk"))?;

    assert_eq!(
        answer(&directory, ServerLine::V26_1)?,
        (StartOutcome::Starts, StartVerdict::Starts, vec![])
    );
    Ok(())
}

#[test]
fn o10_o11_the_documented_restore_starts_once_or_twice() -> Result<()> {
    for name in CLEAN {
        let directory = DataDirectory::unpack(name)?;
        let line = own_line(&directory);
        set(&directory, "truncate", get(&directory, "chaser")?)?;

        let (outcome, verdict, codes) = answer(&directory, line)?;
        if line >= ServerLine::V24_10 {
            assert_eq!(
                (outcome, codes),
                (
                    StartOutcome::StartsAfterSecondStart,
                    vec!["truncation-pending"]
                ),
                "{name}"
            );
        } else {
            assert_eq!((outcome, codes), (StartOutcome::Starts, vec![]), "{name}");
        }
        assert_eq!(verdict, StartVerdict::Starts, "{name}");

        // An operator must not take it for a loss.
        let examination = examine(&directory, line)?;
        let pending = finding(&examination, "truncation-pending")?;
        assert!(pending.what.contains("nothing is lost"), "{pending:?}");

        set(&directory, "truncate", -1)?;
        assert_eq!(
            answer(&directory, line)?,
            (StartOutcome::Starts, StartVerdict::Starts, vec![]),
            "{name}"
        );
    }
    Ok(())
}

#[test]
fn o3_a_truncation_inside_an_append_shows_half_of_it() -> Result<()> {
    for name in CLEAN {
        let directory = DataDirectory::unpack(name)?;
        let line = own_line(&directory);

        let writer = get(&directory, "writer")?;
        let (_, half) = ends_from(&directory, writer.unsigned_abs() / SIZE * SIZE)?;
        for chaser in half.into_iter().rev().step_by(19).take(5) {
            set(&directory, "chaser", chaser)?;
            set(&directory, "truncate", chaser)?;

            let examination = examine(&directory, line)?;
            assert_eq!(examination.verdict, StartVerdict::Loses, "{name} {chaser}");
            assert!(
                examination.versions[0].loses.contains(&"half-append"),
                "{name} {chaser} {examination:#?}"
            );
            assert!(
                examination.versions[0].loses.contains(&"truncation-loses"),
                "{name} {chaser}"
            );
        }
    }
    Ok(())
}

#[test]
fn o12_a_missing_truncate_epoch_or_proposal_checkpoint_does_not_matter() -> Result<()> {
    for name in CLEAN {
        for missing in ["truncate", "epoch", "proposal"] {
            let directory = DataDirectory::unpack(name)?;
            remove(&directory, &format!("{missing}.chk"))?;
            assert_eq!(
                answer(&directory, own_line(&directory))?,
                (StartOutcome::Starts, StartVerdict::Starts, vec![]),
                "{name} {missing}"
            );
        }
    }
    Ok(())
}

#[test]
fn o13_an_empty_truncate_checkpoint_wipes_the_database() -> Result<()> {
    for name in CLEAN {
        let directory = DataDirectory::unpack(name)?;
        let line = own_line(&directory);
        fs::write(directory.db().join("truncate.chk"), [])?;

        let examination = examine(&directory, line)?;
        let modern = line >= ServerLine::V24_10;
        let outcome = if modern {
            StartOutcome::StartsAfterSecondStart
        } else {
            StartOutcome::Starts
        };

        assert_eq!(
            (examination.versions[0].outcome, examination.verdict),
            (outcome, StartVerdict::Loses),
            "{name}"
        );

        let loss = finding(&examination, "truncation-loses")?;
        assert!(
            loss.what
                .contains(&format!("0 to {}", get(&directory, "writer")?)),
            "{name} {loss:?}"
        );
        assert_eq!(loss.evidence, Some("O13"), "{name}");

        assert_eq!(
            finding(&examination, "checkpoint-length")?.severity,
            Severity::Error,
            "{name}"
        );
    }
    Ok(())
}

#[test]
fn o14_a_missing_writer_checkpoint_is_never_harmless() -> Result<()> {
    for name in CLEAN {
        let directory = DataDirectory::unpack(name)?;
        let line = own_line(&directory);
        remove(&directory, "writer.chk")?;

        let (outcome, verdict, codes) = answer(&directory, line)?;
        assert_eq!(
            (outcome, verdict, codes),
            (
                StartOutcome::Refuses,
                StartVerdict::Refuses,
                vec!["reader-ahead"]
            ),
            "{name}"
        );

        remove(&directory, "chaser.chk")?;
        let examination = examine(&directory, line)?;
        assert_eq!(examination.verdict, StartVerdict::Refuses, "{name}");

        let loses_first = examination.findings.iter().any(|finding| {
            finding.worst() == Some(Effect::LosesEvents) && is_about(finding, "chunk-000001.000000")
        });
        assert_eq!(
            loses_first,
            line >= ServerLine::V24_10,
            "{name} {examination:#?}"
        );

        let refuses_second = examination.findings.iter().any(|finding| {
            finding.worst() == Some(Effect::Refuses) && is_about(finding, "chunk-000002.000000")
        });
        assert!(refuses_second, "{name}");

        // The server would overwrite a single chunk from its start (disk-format §1).
        for number in 1..6 {
            let _ = fs::remove_file(directory.db().join(format!("chunk-{number:06}.000000")));
        }
        let examination = examine(&directory, line)?;
        assert_eq!(
            examination.verdict,
            StartVerdict::Loses,
            "{name} {examination:#?}"
        );
        assert!(
            examination.versions[0].unproven
                && examination.versions[0].loses.contains(&"writer-missing"),
            "{name}"
        );
    }
    Ok(())
}

#[test]
fn o15_no_server_starts_from_a_guarded_directory() -> Result<()> {
    for name in CLEAN {
        let directory = DataDirectory::unpack(name)?;
        set(&directory, "chaser", i64::MAX)?;

        for writer in [get(&directory, "writer")?, i64::MAX - 1] {
            set(&directory, "writer", writer)?;
            for line in RUN {
                assert_eq!(
                    answer(&directory, line)?,
                    (
                        StartOutcome::Refuses,
                        StartVerdict::Refuses,
                        vec!["start-guard"]
                    ),
                    "{name} {line}"
                );
            }
        }

        // The restore writes the writer checkpoint last.
        set(&directory, "chaser", get(&directory, "chaser")?)?;
        let examination = examine_at(&directory.db(), None, Depth::Normal)?;
        assert!(
            examination
                .versions
                .iter()
                .all(|version| version.outcome == StartOutcome::Refuses),
            "{name}"
        );
        assert!(
            finding(&examination, "start-guard")?
                .hint
                .as_ref()
                .is_some_and(|hint| hint.contains("restore")),
            "{name}"
        );

        let half_restored = tempfile::tempdir()?;
        for (checkpoint, value) in [
            ("writer.chk", i64::MAX - 1),
            ("chaser.chk", i64::MAX),
            ("truncate.chk", -1),
        ] {
            fs::write(half_restored.path().join(checkpoint), value.to_le_bytes())?;
        }

        assert_eq!(
            examine_at(half_restored.path(), None, Depth::Normal)?.verdict,
            StartVerdict::Refuses
        );
    }
    Ok(())
}

/// Adds the chunk that a node creates before it moves the writer checkpoint.
fn add_next_chunk(directory: &DataDirectory) -> Result<PathBuf> {
    let active = active(directory)?;
    let number = u32::try_from(get(directory, "writer")?.unsigned_abs() / SIZE)? + 1;
    let header: Vec<u8> = fs::read(active)?.into_iter().take(128).collect();

    let mut bytes: Vec<u8> = header
        .into_iter()
        .chain(std::iter::repeat(0))
        .take(FULL)
        .collect();
    for at in [6, 10] {
        bytes.splice(at..at + 4, number.to_le_bytes());
    }

    let path = directory.db().join(format!("chunk-{number:06}.000000"));
    fs::write(&path, bytes)?;
    Ok(path)
}

#[test]
fn o16_a_chunk_beyond_the_writer_stops_older_servers() -> Result<()> {
    for name in CLEAN {
        let directory = DataDirectory::unpack(name)?;
        add_next_chunk(&directory)?;

        let examination = examine_at(&directory.db(), None, Depth::Normal)?;
        for version in &examination.versions {
            let modern = MODERN.contains(&version.version);
            let wanted = if modern {
                StartOutcome::Starts
            } else {
                StartOutcome::Refuses
            };
            assert_eq!(version.outcome, wanted, "{name} {version:?}");
            assert!(version.loses.is_empty(), "{name} {version:?}");
        }

        let extra = finding(&examination, "chunk-beyond-writer")?;
        assert!(
            extra
                .file
                .as_ref()
                .is_some_and(|file| file.contains("chunk-00000")),
            "{extra:?}"
        );

        set(&directory, "truncate", get(&directory, "chaser")?)?;
        for line in ServerLine::ALL {
            let answer = answer(&directory, line)?;
            assert_eq!(
                answer,
                (
                    StartOutcome::Refuses,
                    StartVerdict::Refuses,
                    vec!["truncation-excess-chunk"]
                ),
                "{name} {line}"
            );
        }
    }
    Ok(())
}

#[test]
fn o16_a_writer_checkpoint_that_is_too_old_costs_a_chunk() -> Result<()> {
    for name in ["24.10-append", "26.1-append"] {
        let directory = DataDirectory::unpack(name)?;

        // The writer checkpoint is too old, and the log goes on in chunk 4.
        set(&directory, "writer", i64::try_from(4 * SIZE - 4096)?)?;
        set(&directory, "chaser", i64::try_from(4 * SIZE - 4096)?)?;
        let examination = examine_at(&directory.db(), Some(own_line(&directory)), Depth::Quick)?;
        let lost = finding(&examination, "chunk-beyond-writer")?;
        assert_eq!(lost.worst(), Some(Effect::LosesEvents), "{name}");
        assert_eq!(examination.verdict, StartVerdict::Loses, "{name}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn o17_a_flipped_byte_in_a_completed_chunk_kills_the_node(which in 0..CLEAN.len(), number in 0_u32..4, at in 128_usize..250_000, bit in 0_u32..8) {
        let directory = DataDirectory::unpack(CLEAN[which]).unwrap();
        let path = directory.db().join(format!("chunk-{number:06}.000000"));
        overwrite(&path, |bytes| {
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
        }).unwrap();

        // A start may depend on a byte of the header.
        prop_assume!(at >= 128);
        let examination = examine(&directory, own_line(&directory)).unwrap();

        prop_assert_eq!(examination.versions[0].outcome, StartOutcome::StartsThenDies);

        let bad = finding(&examination, "chunk-md5").unwrap();
        let name = format!("chunk-{number:06}.000000");
        prop_assert!(bad.file.as_ref().unwrap().ends_with(&name));
        prop_assert_eq!(examination.kind().unwrap().exit_code(), 20);
    }
}

#[test]
fn o17_zeros_below_the_writer_stop_the_start() -> Result<()> {
    for name in CLEAN {
        let directory = DataDirectory::unpack(name)?;
        let line = own_line(&directory);
        let base = get(&directory, "writer")?.unsigned_abs() / SIZE * SIZE;
        let commit = commit(&directory)?.unsigned_abs();

        let mut behind = records(&directory)?;
        behind.retain(|record| record.position >= base);
        for record in behind.iter().step_by(97) {
            let directory = DataDirectory::unpack(name)?;
            overwrite(&active(&directory)?, |bytes| {
                let at = usize::try_from(128 + record.position - base).unwrap();
                let end = usize::try_from(128 + record.end - base).unwrap();
                bytes[at..end].fill(0);
            })?;

            let examination = examine(&directory, line)?;
            let damage = finding(&examination, "log-damaged")?;
            assert!(
                damage
                    .what
                    .contains(&format!("position {}", record.position)),
                "{name} {damage:?}"
            );

            // A start reads nothing before the end of the index again.
            let wanted = if record.position >= commit {
                StartVerdict::Refuses
            } else {
                StartVerdict::Loses
            };
            assert_eq!(
                examination.verdict, wanted,
                "{name} {} {commit}",
                record.position
            );
            assert_eq!(
                damage.consequences[0].unproven,
                record.position < commit,
                "{name}"
            );
        }
    }
    Ok(())
}

#[test]
fn o18_without_index_or_filters_the_server_rebuilds() -> Result<()> {
    for name in CLEAN {
        let fresh = || DataDirectory::unpack(name);
        let line = own_line(&fresh()?);
        let has_filters = line >= ServerLine::V21_10;

        let directory = fresh()?;
        fs::remove_dir_all(directory.index())?;
        let (outcome, verdict, codes) = answer(&directory, line)?;
        assert_eq!(
            (outcome, verdict),
            (StartOutcome::Starts, StartVerdict::StartsAndRebuilds),
            "{name}"
        );
        assert!(codes.contains(&"index-absent"), "{name} {codes:?}");

        let directory = fresh()?;
        remove(&directory, "index/indexmap")?;
        assert_eq!(
            answer(&directory, line)?,
            (
                StartOutcome::Starts,
                StartVerdict::StartsAndRebuilds,
                vec!["index-absent"]
            ),
            "{name}"
        );

        let directory = fresh()?;
        let map = IndexMap::parse(&fs::read(directory.index().join("indexmap"))?)?;
        let table = directory.index().join(map.tables[0].table.to_string());
        overwrite(&table, |bytes| bytes[200] ^= 1)?;
        let (outcome, verdict, codes) = answer(&directory, line)?;
        assert_eq!(
            (outcome, verdict, codes),
            (
                StartOutcome::Starts,
                StartVerdict::Damaged,
                vec!["index-table-damaged"]
            ),
            "{name}"
        );

        fs::remove_file(&table)?;
        let (outcome, verdict, codes) = answer(&directory, line)?;
        assert_eq!(
            (outcome, verdict, codes),
            (
                StartOutcome::Starts,
                StartVerdict::Damaged,
                vec!["index-table-missing"]
            ),
            "{name}"
        );

        let directory = fresh()?;
        overwrite(&directory.index().join("indexmap"), |bytes| bytes[40] ^= 1)?;
        assert_eq!(
            answer(&directory, line)?,
            (
                StartOutcome::Starts,
                StartVerdict::Damaged,
                vec!["index-map-damaged"]
            ),
            "{name}"
        );

        let directory = fresh()?;
        set(&directory, "chaser", commit(&directory)?)?;
        assert_eq!(
            answer(&directory, line)?,
            (
                StartOutcome::Starts,
                StartVerdict::StartsAndRebuilds,
                vec!["index-ahead"]
            ),
            "{name}"
        );

        if has_filters {
            let directory = fresh()?;
            remove(
                &directory,
                "index/stream-existence/streamExistenceFilter.dat",
            )?;
            assert_eq!(
                answer(&directory, line)?,
                (
                    StartOutcome::Starts,
                    StartVerdict::StartsAndRebuilds,
                    vec!["stream-filter-absent"]
                ),
                "{name}"
            );

            let directory = fresh()?;
            overwrite(
                &directory
                    .index()
                    .join("stream-existence/streamExistenceFilter.dat"),
                |bytes| bytes[64..].fill(0xff),
            )?;
            assert_eq!(
                answer(&directory, line)?,
                (
                    StartOutcome::Starts,
                    StartVerdict::StartsAndRebuilds,
                    vec!["stream-filter-damaged"]
                ),
                "{name}"
            );

            let directory = fresh()?;
            overwrite(
                &directory
                    .index()
                    .join("stream-existence/streamExistenceFilter.dat"),
                |bytes| bytes[64..].fill(0),
            )?;
            let (outcome, verdict, codes) = answer(&directory, line)?;

            let chk = fs::read(
                directory
                    .index()
                    .join("stream-existence/streamExistenceFilter.chk"),
            )?;
            if chk != (-1_i64).to_le_bytes() {
                assert_eq!(
                    (outcome, verdict, codes),
                    (
                        StartOutcome::Starts,
                        StartVerdict::Loses,
                        vec!["stream-filter-incomplete"]
                    ),
                    "{name}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn o30_o32_a_log_cut_offline_starts_if_no_append_is_cut() -> Result<()> {
    for name in CLEAN {
        let line = own_line(&DataDirectory::unpack(name)?);
        let (whole, half) = ends_from(&DataDirectory::unpack(name)?, SIZE / 2)?;

        // Before 23.10, an append may go on in the next chunk.
        let end_of_chunk = (line >= ServerLine::V23_10).then_some(i64::try_from(2 * SIZE)?);
        let mut boundaries: Vec<i64> = whole.iter().copied().step_by(whole.len() / 6).collect();
        boundaries.extend(end_of_chunk);
        for end in boundaries {
            let directory = DataDirectory::unpack(name)?;
            truncate_offline(&directory, end)?;
            fs::remove_dir_all(directory.index())?;
            let (outcome, verdict, codes) = answer(&directory, line)?;
            assert_eq!(
                (outcome, verdict),
                (StartOutcome::Starts, StartVerdict::StartsAndRebuilds),
                "{name} {end} {codes:?}"
            );
        }

        for end in half.iter().copied().step_by(half.len() / 6) {
            let directory = DataDirectory::unpack(name)?;
            truncate_offline(&directory, end)?;
            fs::remove_dir_all(directory.index())?;
            let (outcome, verdict, codes) = answer(&directory, line)?;
            assert_eq!(
                (outcome, verdict),
                (StartOutcome::Starts, StartVerdict::Loses),
                "{name} {end}"
            );
            assert!(codes.contains(&"half-append"), "{name} {end} {codes:?}");
        }
    }
    Ok(())
}

#[test]
fn o31_o37_an_index_ahead_of_the_log_is_set_aside() -> Result<()> {
    for name in CLEAN {
        let directory = DataDirectory::unpack(name)?;
        let (whole, _) = ends_from(&directory, SIZE)?;
        let commit = commit(&directory)?;
        let before = *whole
            .iter()
            .rev()
            .find(|end| **end <= commit)
            .context("no boundary")?;

        truncate_offline(&directory, before)?;
        let (outcome, verdict, codes) = answer(&directory, own_line(&directory))?;
        assert_eq!(
            (outcome, verdict),
            (StartOutcome::Starts, StartVerdict::StartsAndRebuilds),
            "{name} {codes:?}"
        );
        assert!(codes.contains(&"index-ahead"), "{name} {codes:?}");
    }
    Ok(())
}

#[test]
fn o33_a_truncation_into_a_merged_chunk_goes_back_to_its_start() -> Result<()> {
    let mut seen = 0;
    for name in [
        "22.10-scavenge",
        "23.10-scavenge",
        "24.10-scavenge",
        "26.1-scavenge",
    ] {
        let directory = DataDirectory::unpack(name)?;
        let line = own_line(&directory);
        let chunks = log::chunks(&directory.db())?;
        let merged = chunks
            .iter()
            .find(|chunk| chunk.header.scavenged && chunk.header.end > chunk.header.start)
            .context("no merged chunk")?;

        let start = u64::from(merged.header.start) * SIZE;
        let inside = i64::try_from(u64::from(merged.header.end) * SIZE + 5000)?;
        set(&directory, "truncate", inside)?;

        let examination = examine(&directory, line)?;
        let loss = finding(&examination, "truncation-loses")?;
        assert!(
            loss.what
                .contains(&format!("{start} to {}", get(&directory, "writer")?)),
            "{name} {loss:?}"
        );

        assert_eq!(
            (loss.evidence, examination.verdict),
            (Some("O33"), StartVerdict::Loses),
            "{name}"
        );
        seen += 1;
    }
    assert_eq!(seen, 4);
    Ok(())
}

#[test]
fn o34_a_scavenge_state_from_a_lost_future_is_named() -> Result<()> {
    for name in [
        "22.10-scavenge",
        "23.10-scavenge",
        "24.10-scavenge",
        "26.1-scavenge",
    ] {
        let directory = DataDirectory::unpack(name)?;
        let line = own_line(&directory);

        // The state tells of the second scavenge. Its scavenge point is the last record of chunk 5.
        let point = records(&directory)?
            .into_iter()
            .rev()
            .find(|record| matches!(&record.kind, Kind::Prepare { stream, .. } if stream == "$scavengePoints"))
            .context("no scavenge point")?;

        let (whole, _) = ends_from(&directory, point.position / SIZE * SIZE)?;
        let end = *whole
            .iter()
            .rev()
            .find(|end| end.unsigned_abs() < point.position)
            .context("no boundary")?;

        truncate_offline(&directory, end)?;

        for table in fs::read_dir(directory.index())? {
            let path = table?.path();
            if path.is_file() {
                fs::remove_file(path)?;
            }
        }

        let examination = examine(&directory, line)?;
        let foreign = finding(&examination, "scavenge-state-foreign")?;
        assert!(
            foreign.what.contains(&point.position.to_string()),
            "{name} {foreign:?}"
        );

        assert_eq!(
            (examination.versions[0].outcome, examination.verdict),
            (StartOutcome::Starts, StartVerdict::Loses),
            "{name}"
        );
        assert_eq!(
            foreign.consequences[0].unproven,
            line == ServerLine::V22_10,
            "{name}"
        );

        fs::remove_dir_all(directory.index().join("scavenging"))?;
        assert_eq!(
            examine(&directory, line)?.verdict,
            StartVerdict::StartsAndRebuilds,
            "{name}"
        );
    }
    Ok(())
}

#[test]
fn o35_a_secondary_index_that_cannot_be_opened_stops_the_server() -> Result<()> {
    let fresh = || DataDirectory::unpack("26.1-append");

    let directory = fresh()?;
    remove(&directory, "kurrent.ddb")?;
    assert_eq!(
        answer(&directory, ServerLine::V26_1)?,
        (StartOutcome::Starts, StartVerdict::Starts, vec![])
    );

    type Change = fn(&mut Vec<u8>);
    let spoil: [(&str, Change); 3] = [
        ("empty", Vec::clear),
        ("torn", |bytes| bytes.truncate(3 * 4096 + 100)),
        ("broken header", |bytes| bytes[8..12].fill(0)),
    ];
    for (how, change) in spoil {
        let directory = fresh()?;
        overwrite(&directory.db().join("kurrent.ddb"), change)?;

        let examination = examine_at(&directory.db(), None, Depth::Quick)?;
        for version in &examination.versions {
            let wanted = if version.version >= ServerLine::V25_1 {
                StartOutcome::Refuses
            } else {
                StartOutcome::Starts
            };
            assert_eq!(version.outcome, wanted, "{how} {version:?}");
        }

        let bad = finding(&examination, "secondary-index-damaged")?;
        let unproven: Vec<_> = bad
            .consequences
            .iter()
            .map(|consequence| (consequence.version, consequence.unproven))
            .collect();
        assert_eq!(
            unproven,
            [(ServerLine::V25_1, true), (ServerLine::V26_1, false)],
            "{how}"
        );
    }
    Ok(())
}

#[test]
fn a_table_filter_that_lacks_streams_hides_events() -> Result<()> {
    for name in ["21.10-append", "24.10-scavenge", "26.1-append"] {
        let directory = DataDirectory::unpack(name)?;
        let filters = directory.index_files(|name| name.ends_with(".bloomfilter"))?;
        let filter = filters.first().context("no filter")?;
        let whole = fs::read(filter)?;

        overwrite(filter, |bytes| bytes[64..99 * 64].fill(0))?;
        for depth in [Depth::Normal, Depth::Deep] {
            let examination = examine_at(&directory.db(), None, depth)?;
            let found = finding(&examination, "table-filter-incomplete")?;
            assert!(is_about(found, ".bloomfilter"), "{name} {found:?}");
            assert_eq!(
                examination.kind().map(kbackup::error::Kind::exit_code),
                Some(20)
            );

            // Older servers have no filters.
            for version in &examination.versions {
                let is_hurt = version.version >= ServerLine::V21_10;
                assert_eq!(version.loses.is_empty(), !is_hurt, "{name} {version:?}");
            }
        }

        // The server does without the filter.
        fs::remove_file(filter)?;
        assert_eq!(
            examine(&directory, own_line(&directory))?.verdict,
            StartVerdict::Starts,
            "{name}"
        );
        fs::write(filter, whole)?;
    }
    Ok(())
}

/// A normal examination looks up a sample, and a deep one every stream.
#[test]
fn a_deep_examination_misses_no_stream_of_a_filter() -> Result<()> {
    let place = tempfile::tempdir()?;
    let made = Synthetic {
        completed_chunks: 2,
        active_bytes: 20_000,
        event_bytes: 10,
        most_events_in_append: 1,
        streams: 2000,
        table_entries: 1500,
        chunk_size: 128 * 1024,
        filter_bytes: 10_000,
        ..Synthetic::default()
    }
    .make(place.path())?;
    let mut filters = Vec::new();
    for entry in fs::read_dir(&made.index)? {
        let path = entry?.path();
        if path.extension() == Some("bloomfilter".as_ref()) {
            filters.push(path);
        }
    }
    let filter = filters.first().context("no filter")?;
    let whole = fs::read(filter)?;

    let mut found_by = [0, 0];
    let lines: Vec<usize> = (1..whole.len() / 64).step_by(12).collect();
    for line in &lines {
        let mut lacking = whole.clone();
        lacking[line * 64..][..64].fill(0);
        fs::write(filter, lacking)?;
        for (depth, found) in [Depth::Normal, Depth::Deep].into_iter().zip(&mut found_by) {
            let examination = examine_at(&made.db, Some(ServerLine::V26_1), depth)?;
            let findings = codes(&examination, Severity::Error);
            *found += usize::from(findings.contains(&"table-filter-incomplete"));
        }
    }
    assert!(
        lines.len() > 10 && found_by[1] == lines.len(),
        "{found_by:?}"
    );
    assert!(found_by[0] > 0, "{found_by:?}");
    Ok(())
}

#[test]
fn a_scavenge_state_that_is_no_database_is_damage() -> Result<()> {
    let directory = DataDirectory::unpack("26.1-scavenge")?;
    let state = directory.index().join("scavenging/scavenging.db");
    fs::write(&state, [1; 8192])?;
    let examination = examine(&directory, ServerLine::V26_1)?;
    finding(&examination, "scavenge-state-damaged")?;
    assert_eq!(examination.verdict, StartVerdict::Damaged);

    // A journal may hold what the file lacks, and SQLite takes an empty file for an empty database.
    let journal = directory.index().join("scavenging/scavenging.db-wal");
    fs::write(&journal, [1; 32])?;
    let examination = examine(&directory, ServerLine::V26_1)?;
    assert_eq!(examination.verdict, StartVerdict::Starts);
    fs::remove_file(journal)?;
    fs::write(&state, [])?;
    let examination = examine(&directory, ServerLine::V26_1)?;
    assert_eq!(examination.verdict, StartVerdict::Starts);
    Ok(())
}

#[test]
fn o36_bytes_beyond_the_writer_do_not_matter() -> Result<()> {
    for name in CLEAN {
        let directory = DataDirectory::unpack(name)?;
        let line = own_line(&directory);
        let from = commit(&directory)?
            .unsigned_abs()
            .max(get(&directory, "writer")?.unsigned_abs() / SIZE * SIZE);
        let (mut whole, _) = ends_from(&directory, from)?;
        whole.retain(|end| end.unsigned_abs() > from + 1);
        for end in whole.into_iter().rev().step_by(7).take(3) {
            set(&directory, "writer", end)?;
            set(&directory, "chaser", end)?;
            assert_eq!(
                answer(&directory, line)?,
                (StartOutcome::Starts, StartVerdict::Starts, vec![]),
                "{name} {end}"
            );

            set(&directory, "truncate", end)?;
            assert_eq!(
                answer(&directory, line)?.1,
                StartVerdict::Starts,
                "{name} {end}"
            );
            set(&directory, "truncate", -1)?;
        }

        // The file may end where the log ends (O5), but not before.
        let directory = DataDirectory::unpack(name)?;
        let local = get(&directory, "writer")?.unsigned_abs() % SIZE;
        overwrite(&active(&directory)?, |bytes| {
            bytes.truncate(usize::try_from(128 + local).unwrap().max(256));
        })?;
        assert_eq!(
            answer(&directory, line)?,
            (StartOutcome::Starts, StartVerdict::Starts, vec![]),
            "{name}"
        );

        overwrite(&active(&directory)?, |bytes| {
            bytes.truncate(usize::try_from(100 + local).unwrap());
        })?;
        assert_eq!(answer(&directory, line)?.1, StartVerdict::Refuses, "{name}");
    }
    Ok(())
}

/// A node in the middle of its recording.
fn node_at(name: &str, step: usize) -> Result<(tempfile::TempDir, Node)> {
    let directory = tempfile::tempdir()?;
    let node = Node::start(Recording::named(name)?, directory.path())?;
    node.advance_to(step)?;
    Ok((directory, node))
}

#[test]
fn o38_a_writer_inside_an_append_at_the_end_of_a_chunk_is_named() -> Result<()> {
    let mut half = 0;
    for step in [906, 914] {
        let (_directory, node) = node_at("22.10-append", step)?;
        let examination = examine_at(&node.db(), Some(ServerLine::V22_10), Depth::Normal)?;
        if let Ok(found) = finding(&examination, "half-append") {
            assert!(found.what.contains("253636"), "{found:?}");
            assert_eq!(examination.verdict, StartVerdict::Loses);
            half += 1;
        }
    }

    assert!(half > 0, "neither step ends inside an append");
    Ok(())
}

/// Gives the metadata in a chunk a name that the server does not know.
fn forget_max_count(bytes: &mut [u8], is_completed: bool) {
    const NAME: &[u8] = b"$maxCount";
    for at in 0..bytes.len() {
        let Some(rest) = bytes.get_mut(at..) else {
            break;
        };
        if rest.starts_with(NAME)
            && let Some(first) = rest.first_mut()
        {
            *first = b'_';
        }
    }

    if is_completed {
        seal(bytes);
    }
}

#[test]
fn o39_an_older_index_is_fine_and_a_scavenged_one_over_older_chunks_hides_events() -> Result<()> {
    for name in [
        "22.10-scavenge",
        "23.10-scavenge",
        "24.10-scavenge",
        "26.1-scavenge",
    ] {
        let recording = Recording::named(name)?;
        let line = own_line(&DataDirectory::unpack(name)?);

        // The chunks before the scavenge removed them.
        let kept = tempfile::tempdir()?;
        let directory = tempfile::tempdir()?;
        let mut unlinks = Vec::new();
        for (step, recorded) in recording.steps.iter().enumerate() {
            if let Action::Unlink { path } = &recorded.action
                && path.starts_with("db/chunk-")
                && path.ends_with(".000000")
            {
                unlinks.push((step, path.clone()));
            }
        }
        ensure!(!unlinks.is_empty(), "{name} removes no chunk");

        let node = Node::start(recording, directory.path())?;
        for (step, path) in unlinks {
            node.advance_to(step)?;
            let file = Path::new(&path).file_name().context("no name")?;
            fs::copy(directory.path().join(&path), kept.path().join(file))?;
        }

        node.advance_to_end()?;
        assert_eq!(
            examine_at(&node.db(), Some(line), Depth::Normal)?.verdict,
            StartVerdict::Starts,
            "{name}"
        );

        let mixed = tempfile::tempdir()?;
        copy_tree(&node.db(), mixed.path());
        for chunk in log::chunks(mixed.path())? {
            if chunk.header.scavenged {
                fs::remove_file(&chunk.path)?;
            }
        }
        copy_tree(kept.path(), mixed.path());

        // The streams' metadata hides what the scavenge dropped, so nobody misses it.
        assert_eq!(
            examine_at(mixed.path(), Some(line), Depth::Normal)?.verdict,
            StartVerdict::Starts,
            "{name}"
        );

        // Without the metadata a server should show it.
        for chunk in log::chunks(mixed.path())? {
            overwrite(&chunk.path, |bytes| {
                forget_max_count(bytes, chunk.footer.is_some());
            })?;
        }
        let examination = examine_at(mixed.path(), Some(line), Depth::Normal)?;
        let hidden =
            finding(&examination, "index-hides-events").with_context(|| name.to_owned())?;
        assert_eq!(
            (hidden.worst(), examination.verdict),
            (Some(Effect::LosesEvents), StartVerdict::Loses),
            "{name} {hidden:?}"
        );
        assert_eq!(hidden.evidence, Some("O39"));
        assert_eq!(
            examination.versions[0].outcome,
            StartOutcome::Starts,
            "{name}: the server starts without a warning"
        );
    }

    for name in ["21.10-append", "23.10-append", "26.1-append"] {
        let recording = Recording::named(name)?;
        let line = own_line(&DataDirectory::unpack(name)?);
        let (half, length) = (recording.steps.len() / 2, recording.steps.len());

        let (_older, node) = node_at(name, half)?;
        let kept = tempfile::tempdir()?;
        copy_tree(&node.index(), kept.path());
        node.advance_to(length)?;
        fs::remove_dir_all(node.index())?;
        copy_tree(kept.path(), &node.index());

        let examination = examine_at(&node.db(), Some(line), Depth::Deep)?;
        assert!(
            examination.verdict <= StartVerdict::StartsAndRebuilds,
            "{name} {examination:#?}"
        );
    }
    Ok(())
}

#[test]
fn a_directory_without_a_log_is_named() -> Result<()> {
    let empty = tempfile::tempdir()?;
    let examination = examine_at(empty.path(), None, Depth::Normal)?;
    assert_eq!(codes(&examination, Severity::Warning), ["no-log"]);
    let text = serde_json::to_value(&examination)?;
    assert!(text["versions"][0]["outcome"].is_string());
    Ok(())
}

#[test]
fn holes_in_the_log_and_bad_chunks_are_named() -> Result<()> {
    for name in CLEAN {
        let directory = DataDirectory::unpack(name)?;
        let line = own_line(&directory);
        remove(&directory, "chunk-000002.000000")?;
        let examination = examine(&directory, line)?;
        assert_eq!(examination.verdict, StartVerdict::Refuses, "{name}");
        assert!(
            finding(&examination, "chunk-missing")?
                .what
                .contains("chunk 2"),
            "{name}"
        );

        let directory = DataDirectory::unpack(name)?;
        overwrite(&directory.db().join("chunk-000001.000000"), |bytes| {
            bytes[0] = 7;
        })?;
        let examination = examine(&directory, line)?;
        assert_eq!(examination.verdict, StartVerdict::Refuses, "{name}");
        let unreadable = finding(&examination, "chunk-unreadable")?;
        assert!(is_about(unreadable, "chunk-000001.000000"), "{name}");

        let directory = DataDirectory::unpack(name)?;
        overwrite(&directory.db().join("chunk-000001.000000"), |bytes| {
            let footer = bytes.len() - 128;
            bytes[footer] = 0;
        })?;
        assert_eq!(
            finding(&examine(&directory, line)?, "chunk-not-completed")?.worst(),
            Some(Effect::Refuses),
            "{name}"
        );

        let directory = DataDirectory::unpack(name)?;
        set(&directory, "epoch", 5000)?;
        assert_eq!(
            finding(&examine(&directory, line)?, "epoch-record")?.worst(),
            Some(Effect::Refuses),
            "{name}"
        );

        let directory = DataDirectory::unpack(name)?;
        set(&directory, "chaser", get(&directory, "writer")? + 1)?;
        assert_eq!(
            finding(&examine(&directory, line)?, "reader-ahead")?.worst(),
            Some(Effect::Refuses),
            "{name}"
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the checkpoints and the files hold, `check` gives an answer and does not panic.
    #[test]
    fn every_damaged_directory_gets_an_answer(
        checkpoints in proptest::collection::vec((0_usize..5, prop_oneof![any::<i64>(), -2_i64..1_500_000], 0_usize..10), 0..3),
        files in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>(), 0_u8..4), 0..3),
    ) {
        let directory = DataDirectory::unpack("26.1-scavenge").unwrap();
        let names = ["writer.chk", "chaser.chk", "epoch.chk", "proposal.chk", "truncate.chk"];
        for (which, value, length) in checkpoints {
            let mut bytes = value.to_le_bytes().to_vec();
            bytes.resize(if length == 9 { 9 } else { 8 - length % 8 }, 0);
            fs::write(directory.db().join(names[which]), bytes).unwrap();
        }

        let mut all = Vec::new();
        for entry in walkdir::WalkDir::new(directory.db()).into_iter().flatten() {
            if entry.file_type().is_file() {
                all.push(entry.into_path());
            }
        }
        for (file, place, byte, how) in files {
            let path = file.get(&all);
            overwrite(path, |bytes| match how {
                0 if !bytes.is_empty() => {
                    let at = place.index(bytes.len());
                    bytes[at] = byte;
                }
                1 if !bytes.is_empty() => {
                    let at = place.index(bytes.len());
                    bytes.truncate(at);
                }
                2 => bytes.extend(std::iter::repeat_n(byte, 100)),
                _ => bytes.clear(),
            }).unwrap();
        }

        let examination = examine_at(&directory.db(), None, Depth::Deep).unwrap();
        for version in &examination.versions {
            prop_assert_eq!(version.outcome == StartOutcome::Refuses, version.verdict == StartVerdict::Refuses);
        }
        serde_json::to_string(&examination).unwrap();
    }
}
