//! The logs of real nodes of six versions, read by the parsers of `kbackup::format`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use kbackup::format::boundary::Boundaries;
use kbackup::format::checkpoint::{self, Checkpoint};
use kbackup::format::chunk::{self, ChunkFile, ChunkState, Transform};
use kbackup::format::names::{ChunkName, DbFile, IndexFile};
use kbackup::format::position_map::PositionMap;
use kbackup::format::record::{Backwards, Forwards, Lookup, Record};
use kbackup::format::{Boundary, Chain, EpochRecord, Lineage, LogPosition, WriterPosition};
use kbackup_testnode::{Checkpoint as Recorded, Node, Recording, Synthetic, log};
use md5::{Digest, Md5};
use serde_json::Value;

use crate::fixtures::{DataDirectory, read};

/// A chunk file in memory.
struct Chunk {
    name: ChunkName,
    bytes: Vec<u8>,
    file: ChunkFile,
}

/// A whole log.
struct Log {
    writer: LogPosition,
    chunks: Vec<Chunk>,
}

impl Log {
    /// The log of a directory without superseded chunks.
    fn read(db: &Path) -> Result<Self> {
        let writer =
            checkpoint_position(db, Checkpoint::Writer)?.context("no writer checkpoint")?;
        let mut chunks = Vec::new();
        for name in chunk_names(db)? {
            let bytes = read(&db.join(name.to_string()))?;
            let file =
                chunk::inspect(&bytes).with_context(|| format!("{} {name}", db.display()))?;
            // A chunk that was created ahead of W is not part of the log yet (O16).
            if file.header.start_position() <= writer {
                chunks.push(Chunk { name, bytes, file });
            }
        }
        Ok(Self { writer, chunks })
    }

    /// The bytes of the file that hold records.
    fn data(&self, chunk: &Chunk) -> Result<std::ops::Range<u64>> {
        let data = if chunk.file.header.covers(self.writer) {
            chunk.file.data_before(self.writer)?
        } else {
            chunk.file.completed_data()?
        };
        Ok(data)
    }

    fn epoch_at(&self, position: LogPosition) -> Result<EpochRecord> {
        let chunk = self
            .chunks
            .iter()
            .find(|chunk| chunk.file.header.covers(position))
            .context("no such chunk")?;
        let mut lookup = Lookup::new(&chunk.bytes, &chunk.file, self.data(chunk)?)?;
        Ok(EpochRecord::parse(
            &lookup
                .read_at_position(position)?
                .context("no such record")?,
        )?)
    }

    fn lineage(&self, last: Option<LogPosition>) -> Result<Lineage> {
        let mut chain = Chain::starting_at(last);
        while let Some(position) = chain.wanted() {
            chain.add(&self.epoch_at(position)?)?;
        }
        Ok(chain.finish())
    }

    /// The last boundary, read from another boundary on.
    fn boundary(&self, from: Boundary) -> Result<Boundary> {
        let mut boundaries = Boundaries::starting_at(from);
        for chunk in self
            .chunks
            .iter()
            .filter(|chunk| chunk.file.header.end_position() > from.position())
        {
            let header = &chunk.file.header;
            let mut data = self.data(chunk)?;
            data.start = header.offset_of(from.position()).unwrap_or(data.start);
            let mut records = Forwards::new(&chunk.bytes, header, data)?;
            while let Some(frame) = records.next()? {
                boundaries.add(&frame);
            }

            if header.end_position() <= self.writer {
                boundaries.chunk_completed(header);
            }
        }

        Ok(boundaries.last())
    }
}

fn chunk_names(db: &Path) -> Result<Vec<ChunkName>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(db)? {
        if let DbFile::Chunk(name) = DbFile::of(&entry?.file_name().to_string_lossy()) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn checkpoint_position(db: &Path, checkpoint: Checkpoint) -> Result<Option<LogPosition>> {
    Ok(checkpoint::position(&read(
        &db.join(checkpoint.file_name()),
    )?)?)
}

#[test]
fn checkpoints_read_as_the_checker_found() -> Result<()> {
    for directory in DataDirectory::all()? {
        let directory = directory?;
        for checkpoint in Checkpoint::ALL {
            let fact = directory.checkpoint(checkpoint.file_name().trim_end_matches(".chk"));
            let file = directory.db().join(checkpoint.file_name());
            let found = if file.is_file() {
                Some(checkpoint::decode(&read(&file)?)?)
            } else {
                None
            };
            assert_eq!(found, fact, "{} {checkpoint:?}", directory.name);
        }
    }
    Ok(())
}

#[test]
fn chunks_read_as_the_checker_found() -> Result<()> {
    for directory in DataDirectory::all()? {
        let directory = directory?;
        let mut rows = Vec::new();
        for Chunk { name, bytes, file } in Log::read(&directory.db())?.chunks {
            let header = file.header;
            let mut row = serde_json::json!({
                "name": name.to_string(),
                "size": file.length,
                "min": header.min_compatible,
                "ver": header.version,
                "start": header.start,
                "end": header.end,
                "scavenged": header.scavenged,
                "id": header.id,
                "transform": u8::from(header.transform != Transform::Identity),
                "chunk_size": header.chunk_size,
                "completed": file.footer().is_some(),
            });
            assert_eq!(
                header.encode()[..],
                bytes[..128],
                "{} {name}",
                directory.name
            );

            assert_eq!(file.identity(name.version).length, bytes.len() as u64);
            if let ChunkState::Completed(footer) = &file.state {
                let hashed =
                    usize::try_from(chunk::hashed_length(file.length).context("too short")?)?;
                row["md5ok"] = Value::Bool(Md5::digest(&bytes[..hashed])[..] == footer.md5.0);
                assert_eq!(
                    footer.encode().as_ref().map(|bytes| &bytes[..]),
                    bytes.last_chunk::<128>().map(|bytes| &bytes[..])
                );
                assert_eq!(footer.file_length(&header), Some(file.length));
            } else {
                assert_eq!(file.state, ChunkState::Ongoing, "{} {name}", directory.name);
                assert_eq!(
                    chunk::full_length(header.chunk_size, header.transform),
                    Some(file.length)
                );
            }

            rows.push(row);
        }

        assert_eq!(
            Value::Array(rows),
            directory.facts["chunks"],
            "{}",
            directory.name
        );
    }
    Ok(())
}

#[test]
fn records_are_those_that_the_checker_found() -> Result<()> {
    for directory in DataDirectory::all()? {
        let directory = directory?;
        let log = Log::read(&directory.db())?;
        let (mut records, mut events, mut epochs) = (0_u64, 0_u64, 0_u64);
        let mut streams = BTreeSet::new();
        let mut last_timestamp = 0;

        for chunk in &log.chunks {
            let mut forwards = Forwards::new(&chunk.bytes, &chunk.file.header, log.data(chunk)?)?;
            while let Some(frame) = forwards
                .next()
                .with_context(|| format!("{} {}", directory.name, chunk.name))?
            {
                records += 1;
                last_timestamp = frame.record.timestamp().get();
                match frame.record {
                    Record::Prepare(prepare) => {
                        events += 1;
                        streams.insert(prepare.stream_name().into_owned());
                        ensure!(prepare.event_number().is_some(), "an explicit transaction");
                    }
                    Record::System(_) => {
                        EpochRecord::parse(&frame)?;
                        epochs += 1;
                    }
                    Record::Commit(_) => {}
                }
            }
        }

        let found = serde_json::json!([records, events, streams.len(), epochs, last_timestamp]);
        let facts = &directory.facts;
        let expected = serde_json::json!([
            facts["records"],
            facts["events"],
            facts["streams"],
            facts["epochs"],
            facts["last_timestamp"]
        ]);
        assert_eq!(found, expected, "{}", directory.name);
    }
    Ok(())
}

#[test]
fn an_independent_reader_finds_the_same_records() -> Result<()> {
    for directory in DataDirectory::all()? {
        let directory = directory?;
        let log = Log::read(&directory.db())?;

        let mut theirs = BTreeMap::new();
        for chunk in log::chunks(&directory.db())? {
            for record in chunk.records(log.writer.get())? {
                theirs.insert(record.position, record);
            }
        }

        for chunk in &log.chunks {
            let mut forwards = Forwards::new(&chunk.bytes, &chunk.file.header, log.data(chunk)?)?;
            while let Some(frame) = forwards.next()? {
                let record = theirs
                    .remove(&frame.position.get())
                    .with_context(|| format!("{}: {}", directory.name, frame.position))?;

                assert_eq!(record.end, frame.end().get());
                match (&frame.record, record.kind) {
                    (
                        Record::Prepare(mine),
                        log::Kind::Prepare {
                            flags,
                            transaction,
                            stream,
                            number,
                            event,
                            event_type,
                            data,
                            ticks,
                        },
                    ) => {
                        let found = (
                            mine.flags.0,
                            mine.transaction.to_signed(),
                            mine.stream,
                            mine.event_number(),
                            mine.event_id,
                        );
                        assert_eq!(
                            found,
                            (flags, transaction, stream.as_bytes(), Some(number), event)
                        );
                        assert_eq!(
                            (mine.event_type, mine.timestamp.get()),
                            (event_type.as_bytes(), u64::try_from(ticks)?)
                        );
                        let (from, to) = (mine.data.offset, mine.data.offset + mine.data.length);
                        assert_eq!(
                            chunk.bytes[usize::try_from(from)?..usize::try_from(to)?],
                            data[..]
                        );
                    }
                    (Record::System(mine), log::Kind::Epoch(json)) => {
                        assert_eq!(mine.data, &json[..]);
                    }
                    (mine, theirs) => panic!("{mine:?} against {theirs:?}"),
                }
            }
        }

        assert!(
            theirs.is_empty(),
            "{}: {} records were not found",
            directory.name,
            theirs.len()
        );
    }
    Ok(())
}

#[test]
fn reading_backwards_and_by_position_gives_the_same_records() -> Result<()> {
    for directory in DataDirectory::all()? {
        let directory = directory?;
        let log = Log::read(&directory.db())?;
        for chunk in &log.chunks {
            let header = &chunk.file.header;
            let data = log.data(chunk)?;

            let mut forwards = Forwards::new(&chunk.bytes, header, data.clone())?;
            let mut lookup = Lookup::new(&chunk.bytes, &chunk.file, data.clone())?;
            let mut seen = Vec::new();

            while let Some(frame) = forwards.next()? {
                let same = lookup.read_at_position(frame.position)?;
                assert_eq!(same, Some(frame), "{} {}", directory.name, chunk.name);
                seen.push((frame.position, frame.offset, frame.length));
            }

            let mut backwards = Backwards::new(&chunk.bytes, header, data)?;
            while let Some(frame) = backwards.next()? {
                assert_eq!(
                    Some((frame.position, frame.offset, frame.length)),
                    seen.pop(),
                    "{} {}",
                    directory.name,
                    chunk.name
                );
            }
            assert!(seen.is_empty());
        }
    }
    Ok(())
}

#[test]
fn a_position_map_names_every_record_that_a_scavenge_left() -> Result<()> {
    let mut scavenged = 0;
    for directory in DataDirectory::all()? {
        let directory = directory?;
        let log = Log::read(&directory.db())?;
        for chunk in log
            .chunks
            .iter()
            .filter(|chunk| chunk.file.header.scavenged)
        {
            scavenged += 1;

            let mut map = PositionMap::new(&chunk.bytes, &chunk.file)?;
            let mut forwards = Forwards::new(&chunk.bytes, &chunk.file.header, log.data(chunk)?)?;
            let mut missing = None;
            while let Some(frame) = forwards.next()? {
                let entry = map.next_entry()?.context("the map ends too early")?;
                assert_eq!(
                    (entry.position, entry.offset),
                    (frame.position, frame.offset),
                    "{} {}",
                    directory.name,
                    chunk.name
                );
                missing = frame.position.checked_add(1);
            }

            assert_eq!(map.next_entry()?, None);
            let mut lookup = Lookup::new(&chunk.bytes, &chunk.file, log.data(chunk)?)?;
            assert_eq!(
                lookup.read_at_position(missing.context("an empty chunk")?)?,
                None,
                "no record begins there"
            );
        }
    }
    assert_eq!(
        scavenged, 7,
        "one for each version, and one whose index lost more than its chunks"
    );
    Ok(())
}

#[test]
fn lineages_lead_back_to_the_first_epoch() -> Result<()> {
    for directory in DataDirectory::all()? {
        let directory = directory?;
        let log = Log::read(&directory.db())?;
        let last = checkpoint_position(&directory.db(), Checkpoint::Epoch)?;
        let lineage = log.lineage(last)?;

        assert_eq!(
            Some(lineage.epochs().len() as u64),
            directory.facts["epochs"].as_u64(),
            "{}",
            directory.name
        );
        assert_eq!(lineage.last().map(|epoch| epoch.position), last);
        assert_eq!(
            lineage.first().map(|epoch| (epoch.position, epoch.number)),
            Some((LogPosition::ZERO, 0))
        );

        let mut theirs = last.map(LogPosition::get);
        for epoch in lineage.epochs().iter().rev() {
            let record = log::epoch_at(&directory.db(), theirs.context("too many epochs")?)?;
            assert_eq!(
                (epoch.position.to_signed(), epoch.number, epoch.id),
                (record.position, record.number, record.id)
            );
            theirs = u64::try_from(record.previous).ok();
        }

        let again: Lineage = serde_json::from_str(&serde_json::to_string(&lineage)?)?;
        assert_eq!(again, lineage);
    }
    Ok(())
}

#[test]
fn a_scan_from_any_boundary_ends_at_the_same_one() -> Result<()> {
    for directory in DataDirectory::all()? {
        let directory = directory?;
        let log = Log::read(&directory.db())?;
        let last = log.boundary(Boundary::ZERO)?;

        if directory.facts["half"].is_null() {
            assert_eq!(
                last.position(),
                log.writer,
                "{} ends between two appends",
                directory.name
            );
        }

        assert_eq!(log.boundary(last)?, last);
        // The chaser's position may lie inside an append. A log cut there ends at a boundary at or
        // before it.
        let cut = Log {
            writer: checkpoint_position(&directory.db(), Checkpoint::Chaser)?
                .context("no chaser checkpoint")?,
            ..Log::read(&directory.db())?
        };
        let middle = cut.boundary(Boundary::ZERO)?;
        assert!(middle.position() <= cut.writer, "{}", directory.name);
        assert_eq!(log.boundary(middle)?, last, "{}", directory.name);
    }
    Ok(())
}

#[test]
fn each_writer_checkpoint_of_a_running_node_has_its_boundary() -> Result<()> {
    // O38: up to 22.10, W may lie inside an append. At a chunk's end, the last boundary then lies in
    // the chunk before.
    for (name, inside, chunk_before) in [
        ("20.10-append", true, true),
        ("22.10-append", true, true),
        ("23.10-append", false, false),
        ("26.1-kill", false, false),
    ] {
        let scratch = tempfile::tempdir()?;
        let recording = Arc::new(Recording::named(name)?);
        let node = Node::start(Arc::clone(&recording), scratch.path())?;
        let mut last = Boundary::ZERO;

        let (mut found_inside, mut found_before) = (false, false);
        for (step, value) in recording.values_of(Recorded::Writer) {
            node.advance_to(step)?;
            let Some(writer) =
                LogPosition::from_signed(value).filter(|writer| *writer > LogPosition::ZERO)
            else {
                continue;
            };

            let log = Log::read(&node.db())?;
            assert_eq!(log.writer, writer, "{name}: step {step}");
            let chunk_size = log.chunks[0].file.header.chunk_size;
            let boundary = log.boundary(last)?;
            assert!(
                last <= boundary && boundary.position() <= writer,
                "{name}: step {step}"
            );

            let inside = boundary.position() < writer;
            found_inside |= inside;
            if inside && chunk_size.chunk_of(boundary.position()) != chunk_size.chunk_of(writer) {
                found_before = true;
                assert_eq!(chunk_size.local(writer), 0, "{name}: step {step}");
            }
            last = boundary;
        }

        assert_eq!(
            (found_inside, found_before),
            (inside, chunk_before),
            "{name}"
        );
        assert_eq!(
            Log::read(&node.db())?.boundary(Boundary::ZERO)?,
            last,
            "{name}: a scan in pieces ends where a whole scan ends"
        );
    }
    Ok(())
}

#[test]
fn the_last_boundary_may_lie_in_the_chunk_before_w() -> Result<()> {
    // These are the steps that O38 names. O38 counts steps from 0, so one more step is done.
    let scratch = tempfile::tempdir()?;
    let recording = Arc::new(Recording::named("22.10-append")?);
    let node = Node::start(Arc::clone(&recording), scratch.path())?;
    for step in [906, 914] {
        node.advance_to(step + 1)?;
        let log = Log::read(&node.db())?;
        assert_eq!(
            (
                log.writer.get(),
                log.boundary(Boundary::ZERO)?.position().get()
            ),
            (262_144, 253_636),
            "step {step}"
        );
    }
    Ok(())
}

#[test]
fn every_name_in_a_data_directory_is_known() -> Result<()> {
    for directory in DataDirectory::all()? {
        let directory = directory?;
        for entry in std::fs::read_dir(directory.db())? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            assert!(
                name == "index" || DbFile::of(&name) != DbFile::Other,
                "{} {name}",
                directory.name
            );
        }

        let mut below = vec![directory.index()];
        while let Some(here) = below.pop() {
            for entry in std::fs::read_dir(here)? {
                let path = entry?.path();
                if path.is_dir() {
                    below.push(path);
                    continue;
                }
                let relative = path
                    .strip_prefix(directory.index())?
                    .to_string_lossy()
                    .into_owned();
                assert!(
                    IndexFile::of(&relative) != IndexFile::Other,
                    "{} {relative}",
                    directory.name
                );
            }
        }
    }
    Ok(())
}

#[test]
fn a_cut_or_damaged_chunk_is_an_error_and_never_other_records() -> Result<()> {
    let directory = DataDirectory::unpack("26.1-append")?;
    let log = Log::read(&directory.db())?;
    let chunk = &log.chunks[1];
    let data = chunk.file.completed_data()?;
    let count = |bytes: &Vec<u8>| -> kbackup::format::Result<usize> {
        let mut forwards = Forwards::new(bytes, &chunk.file.header, data.clone())?;
        let mut count = 0;
        while forwards.next()?.is_some() {
            count += 1;
        }
        Ok(count)
    };

    count(&chunk.bytes)?;
    for cut in [0, 127, 128, 129, 4096, 200_000] {
        assert!(count(&chunk.bytes[..cut].to_vec()).is_err(), "cut at {cut}");
        assert!(
            chunk::inspect(&chunk.bytes[..cut].to_vec())
                .and_then(|file| file.completed().copied())
                .is_err(),
            "cut at {cut}"
        );
    }

    // A machine that lost its power may leave a page of zeros (O17).
    for page in 1..60 {
        let mut bytes = chunk.bytes.clone();
        bytes[page * 4096..(page + 1) * 4096].fill(0);
        let error = count(&bytes).unwrap_err().to_string();
        assert!(error.starts_with("log record at byte "), "{error}");
    }
    Ok(())
}

/// The notes of a real server about a scavenge, and what a client wrote behind them.
#[test]
fn a_server_notes_its_scavenges() {
    // The metadata of the stream of the first scavenge.
    const NOTES: u64 = 0x11_bb45;

    let place = tempfile::tempdir().unwrap();
    let recording = Recording::named("26.1-scavenge-stopped").unwrap();
    let node = Node::start(recording, place.path()).unwrap();
    let writer = || node.checkpoint(Recorded::Writer).unwrap_or(0);
    while writer() < 0x11_be30 {
        node.advance_to(node.step() + 1).unwrap();
    }

    let end = |from: u64, writer: u64| {
        let from = LogPosition::new(from).unwrap();
        let writer = WriterPosition(LogPosition::new(writer).unwrap());
        kbackup::log::end_of_scavenge_notes(&node.db(), from, writer).unwrap()
    };
    let writer = u64::try_from(writer()).unwrap();
    let notes = end(NOTES, writer).get();
    assert!((0x11_bdb1..=writer).contains(&notes), "{notes:#x}");
    assert_eq!(end(notes, writer).get(), notes, "nothing else is a note");
    assert_eq!(end(0, writer).get(), 0, "too far away");
}

#[test]
fn notes_of_auto_scavenge_end_where_a_client_writes() {
    let place = tempfile::tempdir().unwrap();
    Synthetic {
        filter_bytes: 10_000,
        ..Synthetic::of_size(1 << 20, 1 << 20)
    }
    .make(place.path())
    .unwrap();

    let start = Synthetic::append(place.path(), 5_000).unwrap();
    let paused = Synthetic::note(place.path(), "$auto-scavenges", 0).unwrap();
    let resumed = Synthetic::note(place.path(), "$auto-scavenges", 1).unwrap();
    let end = |from: u64, writer: u64| {
        let from = LogPosition::new(from).unwrap();
        let writer = WriterPosition(LogPosition::new(writer).unwrap());
        kbackup::log::end_of_scavenge_notes(&place.path().join("db"), from, writer)
            .unwrap()
            .get()
    };
    assert_eq!(end(start, paused), paused);
    assert_eq!(end(start, resumed), resumed);

    let configured = Synthetic::note(place.path(), "$auto-scavenge-configuration", 0).unwrap();
    assert_eq!(end(start, configured), resumed, "the operator did that");
    assert_eq!(end(resumed, configured), resumed);
}
