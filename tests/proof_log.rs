//! The log of real nodes, read by `kbackup::log` and judged by `kbackup::proof`: the chunks that
//! count, every record, the epochs, and where the log may end.

use anyhow::{Context, Result};
use kbackup::event::Silent;
use kbackup::format::{Boundary, LogPosition, WriterPosition};
use kbackup::log::{self, ChunkRecords, ChunkSet, LogFile, RecordFollower};
use kbackup::manifest::Directories;
use kbackup::proof::{self, LogEnd, LogProof, LogStretch};
use kbackup::run::Run;
use kbackup::transfer::Follow;
use kbackup_testnode::log::{self as node_log, Kind};
use proptest::prelude::*;

use crate::fixtures::DataDirectory;

/// A position inside a fixture's log.
fn position(bytes: u64) -> LogPosition {
    LogPosition::new(bytes).unwrap_or_default()
}

fn writer(directory: &DataDirectory) -> Result<WriterPosition> {
    let writer = directory
        .checkpoint("writer")
        .and_then(LogPosition::from_signed)
        .context("no writer checkpoint")?;
    Ok(WriterPosition(writer))
}

fn whole(chunks: &ChunkSet) -> Vec<LogStretch> {
    chunks
        .in_use()
        .iter()
        .map(|file| LogStretch::new(file.path.clone(), LogPosition::ZERO))
        .collect()
}

fn scan_whole(
    directory: &DataDirectory,
    writer: WriterPosition,
) -> kbackup::error::Result<LogProof> {
    let files = Directories::new(directory.db(), None);
    let chunks = ChunkSet::read(&files)?;
    proof::scan(
        &files,
        &chunks,
        &whole(&chunks),
        Boundary::ZERO,
        writer,
        &Run::new(Silent),
    )
}

#[test]
fn every_record_of_every_node_is_found() -> Result<()> {
    for directory in DataDirectory::all()? {
        let directory = directory?;
        let (name, facts) = (&directory.name, &directory.facts);
        let files = Directories::new(directory.db(), None);
        let chunks = ChunkSet::read(&files)?;
        assert_eq!(
            Some(chunks.chunk_size().get()),
            facts["chunk_size"].as_u64(),
            "{name}"
        );
        let used: Vec<_> = chunks
            .in_use()
            .iter()
            .map(|file| file.path.below_root().to_owned())
            .collect();
        let listed: Vec<_> = facts["chunks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|chunk| chunk["name"].as_str().unwrap())
            .collect();
        assert_eq!(used, listed, "{name}");
        assert_eq!(
            (chunks.missing(), chunks.superseded()),
            (&[][..], &[][..]),
            "{name}"
        );

        let proof = scan_whole(&directory, writer(&directory)?)?;
        assert_eq!(
            Some(proof.seen.records),
            facts["records"].as_u64(),
            "{name}"
        );
        assert_eq!(Some(proof.seen.events), facts["events"].as_u64(), "{name}");
        assert_eq!(
            Some(proof.seen.epochs.len() as u64),
            facts["epochs"].as_u64(),
            "{name}"
        );
        assert_eq!(
            (proof.end, proof.boundary.position()),
            (LogEnd::Whole, writer(&directory)?.0),
            "{name}"
        );
        let microseconds =
            (facts["last_timestamp"].as_i64().unwrap() - 621_355_968_000_000_000) / 10;
        assert_eq!(
            proof.seen.last_event.unwrap().as_microsecond(),
            microseconds,
            "{name}"
        );
        assert_eq!(
            proof.seen.scavenges > 0,
            name.contains("scavenge"),
            "{name}"
        );
    }
    Ok(())
}

#[test]
fn the_lineage_is_what_a_scan_and_the_checker_find() -> Result<()> {
    for directory in DataDirectory::all()? {
        let directory = directory?;
        let files = Directories::new(directory.db(), None);
        let chunks = ChunkSet::read(&files)?;

        let epoch = directory.checkpoint("epoch").context("no epoch")?;
        let lineage = log::lineage(
            &files,
            &chunks,
            LogPosition::from_signed(epoch).context("no epoch")?,
        )?;
        assert_eq!(
            lineage.epochs(),
            scan_whole(&directory, writer(&directory)?)?.seen.epochs,
            "{}",
            directory.name
        );

        let checked = node_log::lineage(&directory.db(), epoch)?;
        assert_eq!(lineage.epochs().len(), checked.len(), "{}", directory.name);
        for (ours, theirs) in lineage.epochs().iter().zip(checked) {
            assert_eq!(
                (ours.position.to_signed(), ours.id),
                (theirs.position, theirs.id),
                "{}",
                directory.name
            );
        }

        let last = log::last_epoch(&files, &chunks, writer(&directory)?.0, &Run::new(Silent))?;
        assert_eq!(last, LogPosition::from_signed(epoch), "{}", directory.name);
    }
    Ok(())
}

/// Where each record ends, and whether an append is whole there, by an independent reader; for the
/// chunks from the last scavenged one on.
fn ends(directory: &DataDirectory) -> Result<Vec<(u64, bool)>> {
    let writer = writer(directory)?.0.get();
    let mut ends = Vec::new();
    for chunk in node_log::chunks(&directory.db())? {
        if chunk.header.scavenged {
            ends.clear();
            continue;
        }
        for record in chunk.records(writer)? {
            let epoch = matches!(record.kind, Kind::Epoch(_));
            ends.push((record.end, record.is_boundary() && !epoch));
        }
    }
    Ok(ends)
}

#[test]
fn a_log_may_end_where_its_last_append_ends() -> Result<()> {
    for name in [
        "20.10-append",
        "26.1-append",
        "24.10-scavenge",
        "26.1-truncate",
    ] {
        let directory = DataDirectory::unpack(name)?;
        let mut last = None;
        for (end, whole) in ends(&directory)?.into_iter().step_by(37) {
            let proof = scan_whole(&directory, WriterPosition(position(end)))?;
            assert_eq!(
                proof.boundary.position() == position(end),
                whole,
                "{name} {end}"
            );
            assert_eq!(proof.end == LogEnd::Whole, whole, "{name} {end}");
            assert!(proof.boundary.position() <= position(end), "{name}");
            assert!(last <= Some(proof.boundary), "{name}");
            last = Some(proof.boundary);
        }
    }
    Ok(())
}

#[test]
fn a_scan_may_start_at_any_boundary_and_cover_single_chunks() -> Result<()> {
    for name in ["21.10-append", "23.10-scavenge", "26.1-scavenge"] {
        let directory = DataDirectory::unpack(name)?;
        let files = Directories::new(directory.db(), None);
        let chunks = ChunkSet::read(&files)?;
        let writer = writer(&directory)?;
        for (end, _) in ends(&directory)?
            .into_iter()
            .filter(|(_, whole)| *whole)
            .step_by(101)
        {
            let start = scan_whole(&directory, WriterPosition(position(end)))?.boundary;
            let mut stretches: Vec<LogStretch> = chunks
                .in_use()
                .iter()
                .filter(|file| file.header().end_position() > start.position())
                .map(|file| LogStretch::new(file.path.clone(), start.position()))
                .collect();
            let proof = proof::scan(
                &files,
                &chunks,
                &stretches,
                start,
                writer,
                &Run::new(Silent),
            )?;
            assert_eq!(proof.boundary.position(), writer.0, "{name} from {end}");

            // After a scavenge, an old chunk may be new again.
            let first = &chunks.in_use()[0];
            stretches.push(LogStretch::new(first.path.clone(), LogPosition::ZERO));
            let with_first = proof::scan(
                &files,
                &chunks,
                &stretches,
                start,
                writer,
                &Run::new(Silent),
            )?;
            assert_eq!(
                (with_first.boundary, with_first.end),
                (proof.boundary, proof.end),
                "{name} from {end}"
            );
            assert!(
                with_first.seen.records > proof.seen.records
                    || first.header().covers(start.position()),
                "{name} from {end}"
            );
        }

        let at_rest = proof::scan(
            &files,
            &chunks,
            &[],
            scan_whole(&directory, writer)?.boundary,
            writer,
            &Run::new(Silent),
        )?;
        assert_eq!(at_rest.boundary.position(), writer.0);

        let gap = whole(&chunks).into_iter().rev().skip(1).collect::<Vec<_>>();
        assert!(
            proof::scan(
                &files,
                &chunks,
                &gap,
                Boundary::ZERO,
                writer,
                &Run::new(Silent)
            )
            .is_err()
        );
    }
    Ok(())
}

/// What the records of a file show when it comes in pieces of this many bytes; none where something
/// is wrong with them.
fn followed(
    bytes: &[u8],
    file: &LogFile,
    from: LogPosition,
    writer: WriterPosition,
    piece: usize,
) -> Option<ChunkRecords> {
    let mut following = RecordFollower::new(&file.chunk, from, writer)?;
    // What has not come yet reads as zeros, as it does in a file that is being written.
    let mut stored = vec![0; bytes.len()];
    let mut end = 0;
    for new in bytes.chunks(piece) {
        stored.splice(end..end + new.len(), new.iter().copied());
        end += new.len();
        following.follow(&stored, end as u64);
    }
    following.finish(&stored);
    following.into_followed().records
}

#[test]
fn following_a_copy_proves_the_same_as_a_scan() -> Result<()> {
    for directory in DataDirectory::all()? {
        let directory = directory?;
        let name = &directory.name;
        let files = Directories::new(directory.db(), None);
        let chunks = ChunkSet::read(&files)?;
        let ends = ends(&directory)?;
        for (end, piece) in ends
            .iter()
            .rev()
            .step_by(ends.len() / 3)
            .map(|(end, _)| *end)
            .zip([1 << 20, 5000, 77_777, 1000])
        {
            let writer = WriterPosition(position(end));
            let scanned = proof::scan(
                &files,
                &chunks,
                &whole(&chunks),
                Boundary::ZERO,
                writer,
                &Run::new(Silent),
            )?;

            let mut stretches = Vec::new();
            for file in chunks
                .in_use()
                .iter()
                .filter(|file| file.header().start_position() <= writer.0)
            {
                let mut bytes = std::fs::read(directory.db().join(file.path.below_root()))?;
                let start = file.chunk.header.start_position();

                let records = followed(&bytes, file, start, writer, piece);
                assert!(records.is_some(), "{name} {end}: {}", file.path);

                // With one wrong byte in the first record, nothing is proven.
                bytes[132] ^= 1;
                assert!(
                    followed(&bytes, file, start, writer, piece).is_none() || writer.0 == start,
                    "{name} {end}: {}",
                    file.path
                );
                stretches.push(LogStretch {
                    records,
                    ..LogStretch::new(file.path.clone(), LogPosition::ZERO)
                });
            }

            // With the records of all files, no file is opened.
            let nothing = tempfile::tempdir()?;
            let nowhere = Directories::new(nothing.path().to_owned(), None);
            let put_together = proof::scan(
                &nowhere,
                &chunks,
                &stretches,
                Boundary::ZERO,
                writer,
                &Run::new(Silent),
            )?;
            assert_eq!(put_together, scanned, "{name} {end}");

            // Records of another log are refused.
            let other = WriterPosition(position(end + 8));
            assert!(
                proof::scan(
                    &nowhere,
                    &chunks,
                    &stretches,
                    Boundary::ZERO,
                    other,
                    &Run::new(Silent)
                )
                .is_err(),
                "{name} {end}"
            );
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_hole_below_the_writer_is_named(at in 0_u64..1_200_000, length in 8_u64..5000) {
        let directory = DataDirectory::unpack("23.10-append").unwrap();
        let end = writer(&directory).unwrap().0.get();
        let (number, local) = (at / 0x40000, at % 0x40000);
        let path = directory.db().join(format!("chunk-{number:06}.000000"));
        let hole = at..(at + length).min(end);
        let lengths: Vec<u64> = node_log::ChunkFile::open(&path).unwrap().records(end).unwrap().iter().map(|record| record.position).collect();
        prop_assume!(lengths.iter().any(|position| hole.contains(position) && hole.contains(&(position + 3))));
        let mut bytes = std::fs::read(&path).unwrap();
        let from = usize::try_from(128 + local).unwrap();
        let to = bytes.len().min(from + usize::try_from(length).unwrap());
        bytes[from..to].fill(0);
        std::fs::write(&path, bytes).unwrap();

        let error = scan_whole(&directory, writer(&directory).unwrap()).unwrap_err();
        let text = format!("{error}: {}", error.causes().join(": "));
        prop_assert_eq!(error.kind().exit_code(), 21);
        prop_assert!(text.contains(&format!("chunk-{number:06}.000000")), "{}", text);
        prop_assert!(text.contains("the log is damaged at position") && text.contains("at byte"), "{}", text);
    }
}
