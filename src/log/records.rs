//! The records of one chunk file, read in one go or while the file is being copied.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::frames::data_before;
use super::scavenge_notes::is_of_scavenge;
use crate::clock::Timestamp;
use crate::error::Error;
use crate::format::boundary::PartBoundaries;
use crate::format::chunk::{self, ChunkFile, HEADER_LENGTH};
use crate::format::position_map::{MapEntry, PositionMap};
use crate::format::record::{Forwards, Frame, Prepare, PrepareFlags, Record};
use crate::format::{self, Epoch, EpochRecord, LogPosition, Malformed, ReadAt, WriterPosition};
use crate::run::Run;
use crate::transfer::Follow;

/// Records that are read before the run is asked again whether it should stop.
const RECORDS_BETWEEN_CHECKS: u64 = 4096;

/// What records tell, besides the positions where the log may end.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RecordTally {
    /// The epochs among them, oldest first.
    pub epochs: Vec<Epoch>,
    /// The time of the last event, by the clock of its leader.
    pub last_event: Option<Timestamp>,
    /// How many records were read.
    pub records: u64,
    /// How many of them are events.
    pub events: u64,
    /// How many of the events say that a scavenge began or ended.
    pub scavenges: u64,
}

impl RecordTally {
    fn add(&mut self, frame: &Frame<'_>) -> format::Result<()> {
        self.records += 1;

        match &frame.record {
            Record::Prepare(prepare) => {
                if is_event(prepare) {
                    self.events += 1;
                    let microseconds = prepare.timestamp.unix_microseconds();
                    self.last_event = Timestamp::from_microsecond(microseconds).ok();
                }
                self.scavenges += u64::from(is_of_scavenge(prepare.stream));
            }
            Record::System(system) if system.is_epoch() => {
                self.epochs.push(EpochRecord::parse(frame)?.epoch);
            }
            Record::Commit(_) | Record::System(_) => {}
        }

        Ok(())
    }

    /// Adds what the following records of the log told.
    pub(crate) fn append(&mut self, later: &Self) {
        self.epochs.extend_from_slice(&later.epochs);

        // An event with an impossible time counts too. The last event then has no known time.
        if later.events > 0 {
            self.last_event = later.last_event;
        }

        self.records += later.records;
        self.events += later.events;
        self.scavenges += later.scavenges;
    }
}

fn is_event(prepare: &Prepare<'_>) -> bool {
    prepare.flags.contains(PrepareFlags::DATA)
        || prepare.flags.contains(PrepareFlags::STREAM_DELETE)
}

/// What the records of a chunk file tell. It does not depend on the records before the file.
///
/// A repository keeps it beside a copy of the file, so that a later run need not read the copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRecords {
    /// The bytes of the file that were read.
    data: Range<u64>,
    /// The log position behind the last record, and the start before a first record was read.
    pub(crate) reached: LogPosition,
    /// Whether the last record was an epoch.
    pub(crate) ends_with_epoch: bool,
    pub(crate) boundaries: PartBoundaries,
    pub(crate) tally: RecordTally,
}

impl ChunkRecords {
    fn starting_at(from: LogPosition, data: Range<u64>) -> Self {
        Self {
            data,
            reached: from,
            ends_with_epoch: false,
            boundaries: PartBoundaries::starting_at(from),
            tally: RecordTally::default(),
        }
    }

    /// Whether these are the records of `file` from `from` on, if the log ends at `writer`.
    pub(crate) fn are_of(
        &self,
        file: &ChunkFile,
        from: LogPosition,
        writer: WriterPosition,
    ) -> bool {
        match data_from(file, from, writer) {
            Ok(data) => data == self.data,
            Err(_) => false,
        }
    }

    fn add(&mut self, frame: &Frame<'_>) -> format::Result<()> {
        self.boundaries.add(frame);
        self.reached = frame.end();
        self.ends_with_epoch = matches!(&frame.record, Record::System(system) if system.is_epoch());
        self.tally.add(frame)
    }
}

/// The bytes of a file that hold records from `from` up to `writer`. A scavenged file is always
/// read whole, because its offsets say nothing about log positions.
fn data_from(
    file: &ChunkFile,
    from: LogPosition,
    writer: WriterPosition,
) -> format::Result<Range<u64>> {
    let mut data = data_before(file, writer.0)?;
    let header = &file.header;
    if header.scavenged {
        return Ok(data);
    }

    match header.offset_of(from) {
        Some(offset) if offset <= data.end => {
            data.start = offset;
            Ok(data)
        }
        _ => {
            let start = header.start_position();
            let wanted = format!("a place between {start} and the log's end at {writer}");
            let found = format!("log position {from}");
            Err(Malformed::new("chunk file", 0, wanted, found).into())
        }
    }
}

/// The log position of a record that should begin at byte `offset` of a file that was not
/// scavenged.
fn position_at(file: &ChunkFile, offset: u64) -> LogPosition {
    let start = file.header.start_position();
    let position = start.checked_add(offset.saturating_sub(HEADER_LENGTH));
    position.unwrap_or(start)
}

/// Why not all records of a file could be read.
pub(crate) enum RecordsFailure {
    /// There is no record at this position, or not the record that belongs there.
    Torn(LogPosition, format::Error),
    /// The run was interrupted.
    Stopped(Error),
}

fn torn_at(position: LogPosition) -> impl FnOnce(format::Error) -> RecordsFailure {
    move |why| RecordsFailure::Torn(position, why)
}

/// Reads the records of a file from `from` up to `writer`. If the file was scavenged, compares the
/// records with its position map.
pub(crate) fn read_records(
    file: &ChunkFile,
    source: &dyn ReadAt,
    from: LogPosition,
    writer: WriterPosition,
    run: &Run,
) -> Result<ChunkRecords, RecordsFailure> {
    let data = data_from(file, from, writer).map_err(torn_at(from))?;
    let mut records = ChunkRecords::starting_at(from, data.clone());
    let mut map = None;
    if file.header.scavenged {
        map = Some(PositionMap::new(source, file).map_err(torn_at(from))?);
    }

    let mut frames = Forwards::new(source, &file.header, data).map_err(torn_at(from))?;
    loop {
        // Where the next record should be: if it cannot be read, the damage is reported there.
        let expected = match map {
            Some(_) => records.reached,
            None => position_at(file, frames.offset()),
        };
        let Some(frame) = frames.next().map_err(torn_at(expected))? else {
            break;
        };

        if let Some(map) = &mut map {
            agrees_with_map(map, &frame).map_err(torn_at(frame.position))?;
        }
        records.add(&frame).map_err(torn_at(frame.position))?;

        if records.tally.records.is_multiple_of(RECORDS_BETWEEN_CHECKS) {
            run.check().map_err(RecordsFailure::Stopped)?;
        }
    }

    if let Some(map) = &mut map {
        map_is_at_its_end(map, records.reached)?;
    }
    Ok(records)
}

fn agrees_with_map(map: &mut PositionMap<'_>, frame: &Frame<'_>) -> format::Result<()> {
    let (wanted, found) = match map.next_entry()? {
        Some(entry) if entry == place_of(frame) => return Ok(()),
        Some(MapEntry { position, offset }) => (
            format!(
                "the record at log position {position} and byte {offset}, \
                 as the position map has it"
            ),
            format!("log position {}", frame.position),
        ),
        None => (
            "an entry for the record in the position map".to_owned(),
            "no entry".to_owned(),
        ),
    };
    Err(Malformed::new("log record", frame.offset, wanted, found).into())
}

/// Checks that the position map has no entry left after the last record.
fn map_is_at_its_end(
    map: &mut PositionMap<'_>,
    reached: LogPosition,
) -> Result<(), RecordsFailure> {
    let Some(entry) = map.next_entry().map_err(torn_at(reached))? else {
        return Ok(());
    };

    let wanted = "no more entries than records";
    let found = format!("an entry for log position {}", entry.position);
    let why = Malformed::new("position map", entry.offset, wanted, found);
    Err(RecordsFailure::Torn(entry.position, why.into()))
}

fn place_of(frame: &Frame<'_>) -> MapEntry {
    MapEntry {
        position: frame.position,
        offset: frame.offset,
    }
}

/// Reads the records of a chunk file while it is copied, so that kbackup need not read the file
/// again.
///
/// It either accepts all records or says nothing about them. In the second case `proof::scan` reads
/// the file again and reports what is wrong and where.
pub struct RecordFollower {
    file: ChunkFile,
    records: ChunkRecords,
    /// The byte of the file where the next record begins.
    at: u64,
    /// The log position of the record before it.
    previous: Option<LogPosition>,
    /// For a scavenged file: the places of its records. They are compared with the position map,
    /// which follows the records in the file.
    places: Option<PlacesHash>,
    is_well: bool,
    /// What header and footer of the stored file say.
    stored: Option<ChunkFile>,
    is_finished: bool,
}

/// What a copy of a chunk has shown.
#[derive(Debug)]
pub struct FollowedChunk {
    /// What the records tell. `None` if something is wrong with them.
    pub records: Option<ChunkRecords>,
    /// What header and footer of the stored file say. `None` if something is wrong with them.
    pub file: Option<ChunkFile>,
}

impl RecordFollower {
    /// Follows the records of `file` from `from` on, if the log ends at `writer`. Returns `None` if
    /// header and footer leave no room for records.
    #[must_use]
    pub fn new(file: &ChunkFile, from: LogPosition, writer: WriterPosition) -> Option<Self> {
        let data = data_from(file, from, writer).ok()?;
        Some(Self {
            file: file.clone(),
            at: data.start,
            records: ChunkRecords::starting_at(from, data),
            previous: None,
            places: file.header.scavenged.then(PlacesHash::default),
            is_well: true,
            stored: None,
            is_finished: false,
        })
    }

    /// What the copy has shown, once it is finished.
    #[must_use]
    pub fn into_followed(self) -> FollowedChunk {
        let is_whole = self.is_finished && self.is_well;
        FollowedChunk {
            records: is_whole.then_some(self.records),
            file: self.stored,
        }
    }

    /// Whether the records were read to their end, and stand where the position map has them.
    fn is_at_its_end(&self, stored: &dyn ReadAt) -> bool {
        if self.at != self.records.data.end {
            return false;
        }
        let Some(places) = &self.places else {
            return true;
        };
        match PlacesHash::of_map(stored, &self.file) {
            Ok(mapped) => mapped == *places,
            Err(_) => false,
        }
    }

    /// Reads the records that lie completely before byte `end`.
    fn read(&mut self, stored: &dyn ReadAt, end: u64) -> format::Result<()> {
        let data = self.at..self.records.data.end;
        let frames = Forwards::new(stored, &self.file.header, data)?;
        let mut frames = frames.as_far_as(end, self.previous);

        while let Some(frame) = frames.next()? {
            if let Some(places) = &mut self.places {
                places.add(place_of(&frame));
            }
            self.records.add(&frame)?;
        }

        (self.at, self.previous) = (frames.offset(), frames.previous());
        Ok(())
    }
}

impl Follow for RecordFollower {
    fn follow(&mut self, stored: &dyn ReadAt, end: u64) {
        if self.is_well && self.at < end {
            self.is_well = self.read(stored, end).is_ok();
        }
    }

    fn finish(&mut self, stored: &dyn ReadAt) {
        self.follow(stored, self.records.data.end);
        self.is_well = self.is_well && self.is_at_its_end(stored);
        self.is_finished = true;
        self.stored = chunk::inspect(stored).ok();
    }
}

/// A hash over the places of any number of records, for comparing them in little memory.
#[derive(Default)]
struct PlacesHash {
    hash: blake3::Hasher,
    count: u64,
}

impl PlacesHash {
    fn of_map(stored: &dyn ReadAt, file: &ChunkFile) -> format::Result<Self> {
        let mut map = PositionMap::new(stored, file)?;
        let mut places = Self::default();
        while let Some(entry) = map.next_entry()? {
            places.add(entry);
        }
        Ok(places)
    }

    fn add(&mut self, entry: MapEntry) {
        self.hash.update(&entry.position.get().to_le_bytes());
        self.hash.update(&entry.offset.to_le_bytes());
        self.count += 1;
    }
}

impl PartialEq for PlacesHash {
    fn eq(&self, other: &Self) -> bool {
        self.count == other.count && self.hash.finalize() == other.hash.finalize()
    }
}
