//! The records of one chunk file, looked at in one go or while the file is being copied.

use std::ops::Range;

use crate::clock::Timestamp;
use crate::error::Error;
use crate::format::boundary::Part;
use crate::format::chunk::{ChunkFile, HEADER_LENGTH};
use crate::format::position_map::{MapEntry, PositionMap};
use crate::format::record::{Flags, Forwards, Frame, Prepare, Record};
use crate::format::{self, Epoch, EpochRecord, LogPosition, Malformed, ReadAt, WriterPosition};
use crate::run::Run;
use crate::transfer::Follow;

/// What records tell besides where the log may end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// The epochs that were seen, oldest first.
    pub epochs: Vec<Epoch>,
    /// The time of the last event that was seen.
    pub last_event: Option<Timestamp>,
    /// Records seen.
    pub records: u64,
    /// Events seen.
    pub events: u64,
    /// Events seen that say that a scavenge began or ended.
    pub scavenges: u64,
}

impl Tally {
    fn see(&mut self, frame: &Frame<'_>) -> format::Result<()> {
        self.records += 1;
        match &frame.record {
            Record::Prepare(prepare) => {
                if prepare.flags.contains(Flags::DATA)
                    || prepare.flags.contains(Flags::STREAM_DELETE)
                {
                    self.events += 1;
                    self.last_event =
                        Timestamp::from_microsecond(prepare.timestamp.unix_microseconds()).ok();
                }
                self.scavenges += u64::from(is_of_scavenge(prepare));
            }
            Record::System(system) if system.is_epoch() => {
                self.epochs.push(EpochRecord::parse(frame)?.epoch)
            }
            Record::Commit(_) | Record::System(_) => {}
        }
        Ok(())
    }

    pub(super) fn go_on(&mut self, later: &Self) {
        self.epochs.extend_from_slice(&later.epochs);
        // An event with an impossible time has none.
        if later.events > 0 {
            self.last_event = later.last_event;
        }
        self.records += later.records;
        self.events += later.events;
        self.scavenges += later.scavenges;
    }
}

/// Whether a scavenge says with this event that it begins or has ended (disk-format §2.6).
fn is_of_scavenge(prepare: &Prepare<'_>) -> bool {
    prepare.stream == b"$scavengePoints" || prepare.stream.starts_with(b"$scavenges")
}

/// What the records of a chunk file have shown, whatever stands before them in the log.
#[derive(Debug, Clone)]
pub struct Passage {
    /// The bytes of the file that were read.
    data: Range<u64>,
    /// The log position behind the last record, or where the first one is to be looked for.
    pub(super) reached: LogPosition,
    /// The last record was an epoch.
    pub(super) behind_epoch: bool,
    pub(super) boundaries: Part,
    pub(super) tally: Tally,
}

impl Passage {
    fn starting_at(from: LogPosition, data: Range<u64>) -> Self {
        Self {
            data,
            reached: from,
            behind_epoch: false,
            boundaries: Part::starting_at(from),
            tally: Tally::default(),
        }
    }

    /// Whether these are the records of `file` from `from` on, in a log that ends at `writer`.
    pub(super) fn is_of(
        &self,
        file: &ChunkFile,
        from: LogPosition,
        writer: WriterPosition,
    ) -> bool {
        data_from(file, from, writer).is_ok_and(|data| data == self.data)
    }

    fn see(&mut self, frame: &Frame<'_>) -> format::Result<()> {
        self.boundaries.add(frame);
        self.reached = frame.end();
        self.behind_epoch = matches!(&frame.record, Record::System(system) if system.is_epoch());
        self.tally.see(frame)
    }
}

/// The bytes of a file that hold records before `end`.
pub(super) fn data_of(file: &ChunkFile, end: LogPosition) -> format::Result<Range<u64>> {
    // The file that the log ends in may have any footer (disk-format §3.7); one that ends where the
    // log does may not have been completed yet (§6.6).
    let past = file.header.end_position() < end
        || (file.header.end_position() == end
            && (file.footer().is_some() || file.header.scavenged));
    if past {
        file.completed_data()
    } else {
        file.data_before(end)
    }
}

/// As [`data_of`], from a position on; of a scavenged file all of it.
fn data_from(
    file: &ChunkFile,
    from: LogPosition,
    writer: WriterPosition,
) -> format::Result<Range<u64>> {
    let mut data = data_of(file, writer.0)?;
    let header = &file.header;
    if !header.scavenged {
        data.start = header
            .offset_of(from)
            .filter(|offset| *offset <= data.end)
            .ok_or_else(|| {
                let wanted = format!(
                    "a place between {} and the log's end at {writer}",
                    header.start_position()
                );
                Malformed::new("chunk file", 0, wanted, format!("log position {from}"))
            })?;
    }
    Ok(data)
}

/// Where a record stands in the log that should begin at byte `offset` of a file that was not
/// scavenged.
fn place_in(file: &ChunkFile, offset: u64) -> LogPosition {
    let start = file.header.start_position();
    start
        .checked_add(offset.saturating_sub(HEADER_LENGTH))
        .unwrap_or(start)
}

/// Why the records of a file were not read to their end.
pub(super) enum Broken {
    /// Here stands no record, or not the one that belongs here.
    Torn(LogPosition, format::Error),
    /// The run was told to end.
    Stopped(Error),
}

/// Reads the records of a file from `from` on.
pub(super) fn read(
    file: &ChunkFile,
    source: &dyn ReadAt,
    from: LogPosition,
    writer: WriterPosition,
    run: &Run,
) -> Result<Passage, Broken> {
    /// Records between two looks at whether the run was told to end.
    const BETWEEN_CHECKS: u64 = 4096;
    let torn = |position: LogPosition| move |why: format::Error| Broken::Torn(position, why);
    let data = data_from(file, from, writer).map_err(torn(from))?;
    let mut passage = Passage::starting_at(from, data.clone());
    let mut map = match file.header.scavenged {
        true => Some(PositionMap::new(source, file).map_err(torn(from))?),
        false => None,
    };
    let mut frames = Forwards::new(source, &file.header, data).map_err(torn(from))?;
    loop {
        let place = if map.is_some() {
            passage.reached
        } else {
            place_in(file, frames.offset())
        };
        let Some(frame) = frames.next().map_err(torn(place))? else {
            break;
        };
        if let Some(map) = &mut map {
            agrees_with_map(map, &frame).map_err(torn(frame.position))?;
        }
        passage.see(&frame).map_err(torn(frame.position))?;
        if passage.tally.records.is_multiple_of(BETWEEN_CHECKS) {
            run.check().map_err(Broken::Stopped)?;
        }
    }
    if let Some(map) = &mut map
        && let Some(entry) = map.next_entry().map_err(torn(passage.reached))?
    {
        let found = format!("one for log position {}", entry.position);
        let why = Malformed::new(
            "position map",
            entry.offset,
            "no more entries than records",
            found,
        );
        return Err(torn(entry.position)(why.into()));
    }
    Ok(passage)
}

fn agrees_with_map(map: &mut PositionMap<'_>, frame: &Frame<'_>) -> format::Result<()> {
    match map.next_entry()? {
        Some(entry) if entry == place_of(frame) => Ok(()),
        Some(entry) => {
            let wanted = format!(
                "the record at log position {} and byte {}, as the position map has it",
                entry.position, entry.offset
            );
            Err(Malformed::new(
                "log record",
                frame.offset,
                wanted,
                format!("log position {}", frame.position),
            )
            .into())
        }
        None => Err(Malformed::new(
            "log record",
            frame.offset,
            "an entry for it in the position map",
            "none",
        )
        .into()),
    }
}

fn place_of(frame: &Frame<'_>) -> MapEntry {
    MapEntry {
        position: frame.position,
        offset: frame.offset,
    }
}

/// Reads the records of a chunk file while it is copied, so that nothing has to be read from a disk
/// again.
///
/// It finds that all is well, or nothing: what is wrong with a file, and where, [`super::scan`]
/// says.
pub struct Following {
    file: ChunkFile,
    passage: Passage,
    /// The record at this byte is the next one.
    at: u64,
    previous: Option<LogPosition>,
    /// Of a scavenged file: where its records stand, to be compared with its map, which follows
    /// them.
    places: Option<Places>,
    well: bool,
}

impl Following {
    /// The records of `file` from `from` on, in a log that ends at `writer`; none where header and
    /// footer leave no room for any.
    #[must_use]
    pub fn new(file: &ChunkFile, from: LogPosition, writer: WriterPosition) -> Option<Self> {
        let data = data_from(file, from, writer).ok()?;
        Some(Self {
            file: file.clone(),
            at: data.start,
            passage: Passage::starting_at(from, data),
            previous: None,
            places: file.header.scavenged.then(Places::default),
            well: true,
        })
    }

    /// What the records have shown, once all of the file is stored; none where something is wrong
    /// with them.
    #[must_use]
    pub fn finish(mut self, stored: &dyn ReadAt) -> Option<Passage> {
        self.follow(stored, self.passage.data.end);
        let all = self.well && self.at == self.passage.data.end;
        let maps = self
            .places
            .is_none_or(|places| Places::of_map(stored, &self.file).is_ok_and(|map| map == places));
        (all && maps).then_some(self.passage)
    }

    fn read(&mut self, stored: &dyn ReadAt, end: u64) -> format::Result<()> {
        let data = self.at..self.passage.data.end;
        let mut frames =
            Forwards::new(stored, &self.file.header, data)?.as_far_as(end, self.previous);
        while let Some(frame) = frames.next()? {
            if let Some(places) = &mut self.places {
                places.add(place_of(&frame));
            }
            self.passage.see(&frame)?;
        }
        (self.at, self.previous) = (frames.offset(), frames.previous());
        Ok(())
    }
}

impl Follow for Following {
    fn follow(&mut self, stored: &dyn ReadAt, end: u64) {
        if self.well && self.at < end {
            self.well = self.read(stored, end).is_ok();
        }
    }
}

/// A sequence of places, in a few bytes.
#[derive(Default)]
struct Places {
    hash: blake3::Hasher,
    count: u64,
}

impl Places {
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

impl PartialEq for Places {
    fn eq(&self, other: &Self) -> bool {
        self.count == other.count && self.hash.finalize() == other.hash.finalize()
    }
}
