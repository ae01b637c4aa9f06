//! What the server would know of some streams after its start: their last events, their metadata
//! and their deletion. It looks them up in the tables, as the server does, and in the part of the
//! log behind the tables, which the server reads again at each start.
//!
//! Only a proof that found a gap in the index asks for this, so it may cost some reads.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use super::tables::CheckedTable;
use super::visibility::{MetadataEvent, ScavengePoint, StreamHistory, StreamLimits};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::format::chunk::Transform;
use crate::format::hash::stream_hash;
use crate::format::ptable::{Table, TableEntry};
use crate::format::record::{Forwards, Prepare, PrepareFlags, Record, Ticks};
use crate::format::{self, LogPosition, ReadAt};
use crate::log::{ChunkSet, LogFile, data_before, lookup, open_listed, with_place};
use crate::manifest::FileSet;
use crate::run::Run;

/// The stream that the server notes its scavenges in (disk-format §2.6).
const SCAVENGES: &str = "$scavengePoints";
/// What the name of a stream begins with that holds the metadata of another stream.
const META: &str = "$$";
/// Entries that are looked up of one stream. The server looks at so many before it gives up on
/// streams with the same hash.
const NEWEST: usize = 100;
/// Scavenges that are looked up.
const NEWEST_SCAVENGES: usize = 10_000;
/// Bytes of the longest metadata that is read.
const LONGEST_METADATA: u64 = 16 * 1024 * 1024;

/// Where to look streams up.
pub(super) struct StreamReader<'a> {
    pub(super) files: &'a dyn FileSet,
    pub(super) chunks: &'a ChunkSet,
    pub(super) tables: &'a [CheckedTable],
    /// How far the tables reach.
    pub(super) commit: LogPosition,
    /// Where the log ends.
    pub(super) end: LogPosition,
    pub(super) run: &'a Run,
}

/// What index and log say of some streams, and the scavenges of the log.
pub(super) struct KnownStreams {
    streams: HashMap<String, StreamEvents>,
    pub(super) scavenges: Vec<ScavengePoint>,
}

/// The events that were found of one stream.
#[derive(Default)]
struct StreamEvents {
    last: Option<i64>,
    is_deleted: bool,
    /// Only of a stream that holds metadata.
    metadata: Vec<MetadataEvent>,
    /// Only of the stream of scavenges.
    scavenges: Vec<ScavengePoint>,
}

/// What is needed of the record of an event.
struct EventRecord {
    stream: String,
    is_deletion: bool,
    written: Timestamp,
    /// Only of a stream that holds metadata. `None` if nobody knows what the server reads.
    limits: Option<StreamLimits>,
}

impl KnownStreams {
    /// The history of one of the streams that were asked for.
    pub(super) fn history(&self, stream: &str) -> StreamHistory {
        let metadata_of = format!("{META}{stream}");
        let original = stream.strip_prefix(META);
        let is_deleted = |name: &str| self.streams.get(name).is_some_and(|known| known.is_deleted);

        StreamHistory {
            last: self.streams.get(stream).and_then(|known| known.last),
            is_deleted: is_deleted(stream) || original.is_some_and(is_deleted),
            is_metastream: original.is_some(),
            metadata: match self.streams.get(&metadata_of) {
                Some(known) => known.metadata.clone(),
                None => Vec::new(),
            },
        }
    }
}

impl StreamReader<'_> {
    /// Looks up streams.
    ///
    /// # Errors
    /// What the storage reports, and an interruption.
    pub(super) fn read(&self, streams: &BTreeSet<&str>) -> Result<KnownStreams> {
        let mut wanted: HashMap<String, StreamEvents> = HashMap::new();
        wanted.insert(SCAVENGES.to_owned(), StreamEvents::default());
        for stream in streams {
            wanted.insert((*stream).to_owned(), StreamEvents::default());
            wanted.insert(format!("{META}{stream}"), StreamEvents::default());
            if let Some(original) = stream.strip_prefix(META) {
                wanted.insert(original.to_owned(), StreamEvents::default());
            }
        }

        self.read_tables(&mut wanted)?;
        self.read_log(&mut wanted)?;

        let mut scavenges = Vec::new();
        for events in wanted.values_mut() {
            // Tables are read backwards, and the log behind them forwards.
            let metadata = &mut events.metadata;
            metadata.sort_by_key(|event| Reverse(event.position));
            scavenges.append(&mut events.scavenges);
        }
        Ok(KnownStreams {
            streams: wanted,
            scavenges,
        })
    }

    /// Looks up the newest entries of all tables.
    fn read_tables(&self, wanted: &mut HashMap<String, StreamEvents>) -> Result<()> {
        let mut newest: HashMap<&String, Vec<TableEntry>> = HashMap::new();
        for checked in self.tables {
            self.run.check()?;
            let source = open_listed(self.files, &checked.path)?;
            let table = with_place(self.files, &checked.path, Table::open(&*source))?;

            for stream in wanted.keys() {
                let hash = checked.version.entry_hash(stream_hash(stream));
                let found = table.newest_of(hash, most_of(stream));
                let found = with_place(self.files, &checked.path, found)?;
                newest.entry(stream).or_default().extend(found);
            }
        }

        let mut known = Vec::new();
        for (stream, mut entries) in newest {
            self.run.check()?;
            entries.sort_by_key(|entry| Reverse((entry.event_number, entry.position)));
            entries.truncate(most_of(stream));
            known.push((stream.clone(), self.read_entries(stream, &entries)?));
        }
        wanted.extend(known);
        Ok(())
    }

    /// Reads the records of entries, the newest first. Other streams may have the same hash, so
    /// only the record tells whether an entry is of this stream.
    fn read_entries(&self, stream: &str, entries: &[TableEntry]) -> Result<StreamEvents> {
        let mut known = StreamEvents::default();
        for entry in entries {
            let Some(record) = self.record_at(entry.position)? else {
                continue;
            };
            if record.stream != stream {
                continue;
            }

            known.add(entry.event_number, entry.position, &record);
            if !needs_all_events(stream) {
                break;
            }
        }
        Ok(known)
    }

    /// Reads one record. Returns `None` if there is no event, or none that can be read.
    fn record_at(&self, position: LogPosition) -> Result<Option<EventRecord>> {
        let Some(file) = self.chunks.holding(position) else {
            return Ok(None);
        };
        if file.header().transform != Transform::Identity {
            return Ok(None);
        }

        let source = file.open(self.files)?;
        let mut lookup = match lookup(file, &*source) {
            Ok(lookup) => lookup,
            Err(format::Error::Malformed(_)) => return Ok(None),
            Err(error) => return with_place(self.files, &file.path, Err(error)),
        };
        match lookup.read_at_position(position) {
            Ok(Some(frame)) => match &frame.record {
                Record::Prepare(prepare) => self.event_record(file, prepare, &*source).map(Some),
                Record::Commit(_) | Record::System(_) => Ok(None),
            },
            // Another finding reports damage.
            Ok(None) | Err(format::Error::Malformed(_)) => Ok(None),
            Err(error) => with_place(self.files, &file.path, Err(error)),
        }
    }

    fn event_record(
        &self,
        file: &LogFile,
        prepare: &Prepare<'_>,
        source: &dyn ReadAt,
    ) -> Result<EventRecord> {
        let stream = prepare.stream_name().into_owned();
        let limits = if stream.starts_with(META) {
            let read = read_limits(prepare, source);
            with_place(self.files, &file.path, read)?
        } else {
            None
        };

        Ok(EventRecord {
            stream,
            is_deletion: prepare.flags.contains(PrepareFlags::STREAM_DELETE),
            written: moment(prepare.timestamp),
            limits,
        })
    }

    /// Reads the events behind the tables. The server reads them at each start.
    fn read_log(&self, wanted: &mut HashMap<String, StreamEvents>) -> Result<()> {
        for file in self.chunks.in_use() {
            let header = file.header();
            let is_behind = header.end_position() > self.commit;
            if is_behind && header.start_position() < self.end {
                self.read_chunk(file, wanted)?;
            }
        }
        Ok(())
    }

    /// Reads the events of one chunk behind the tables. If the chunk is damaged, the rest of it is
    /// not read. Another finding reports the damage.
    fn read_chunk(&self, file: &LogFile, wanted: &mut HashMap<String, StreamEvents>) -> Result<()> {
        if file.header().transform != Transform::Identity {
            return Ok(());
        }

        let source = file.open(self.files)?;
        let data = data_before(&file.chunk, self.end);
        let frames = data.and_then(|data| Forwards::new(&*source, file.header(), data));
        let mut frames = match frames {
            Ok(frames) => frames,
            Err(format::Error::Malformed(_)) => return Ok(()),
            Err(error) => return with_place(self.files, &file.path, Err(error)),
        };

        loop {
            self.run.check()?;
            let frame = match frames.next() {
                Ok(Some(frame)) => frame,
                Ok(None) | Err(format::Error::Malformed(_)) => return Ok(()),
                Err(error) => return with_place(self.files, &file.path, Err(error)),
            };
            let Record::Prepare(prepare) = &frame.record else {
                continue;
            };
            let (position, Some(number)) = (frame.position, prepare.event_number()) else {
                continue;
            };
            if position <= self.commit || position >= self.end || !is_event(prepare) {
                continue;
            }

            if let Some(known) = wanted.get_mut(&*prepare.stream_name()) {
                let record = self.event_record(file, prepare, &*source)?;
                known.add(number, position, &record);
            }
        }
    }
}

/// Whether an index has an entry of a stream, or of another stream with the same hash.
pub(super) fn has_entries(
    files: &dyn FileSet,
    tables: &[CheckedTable],
    stream: &str,
) -> Result<bool> {
    for checked in tables {
        let source = open_listed(files, &checked.path)?;
        let table = with_place(files, &checked.path, Table::open(&*source))?;
        let hash = checked.version.entry_hash(stream_hash(stream));
        let newest = with_place(files, &checked.path, table.newest_of(hash, 1))?;
        if !newest.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

impl StreamEvents {
    fn add(&mut self, number: i64, position: LogPosition, record: &EventRecord) {
        self.last = self.last.max(Some(number));
        self.is_deleted |= record.is_deletion;

        if record.stream == SCAVENGES {
            self.scavenges.push(ScavengePoint {
                position,
                written: record.written,
            });
        } else if record.stream.starts_with(META) {
            self.metadata.push(MetadataEvent {
                number,
                position,
                limits: record.limits,
            });
        }
    }
}

/// Whether the last event of the stream is not enough.
fn needs_all_events(stream: &str) -> bool {
    stream == SCAVENGES || stream.starts_with(META)
}

fn most_of(stream: &str) -> usize {
    if stream == SCAVENGES {
        NEWEST_SCAVENGES
    } else {
        NEWEST
    }
}

/// Whether the server puts the prepare into the index.
fn is_event(prepare: &Prepare<'_>) -> bool {
    let flags = prepare.flags;
    flags.contains(PrepareFlags::DATA) || flags.contains(PrepareFlags::STREAM_DELETE)
}

/// Reads the data of a metadata event. Returns `None` if nobody knows what the server reads.
fn read_limits(prepare: &Prepare<'_>, source: &dyn ReadAt) -> format::Result<Option<StreamLimits>> {
    let is_json = prepare.flags.contains(PrepareFlags::IS_JSON);
    if !is_json || prepare.data.length == 0 {
        return Ok(Some(StreamLimits::default()));
    }
    let Ok(length) = usize::try_from(prepare.data.length) else {
        return Ok(None);
    };
    if prepare.data.length > LONGEST_METADATA {
        return Ok(None);
    }

    let mut data = vec![0; length];
    source.read_exact_at(prepare.data.offset, &mut data)?;
    Ok(StreamLimits::parse(&data))
}

/// A time of the server.
pub(super) fn moment(ticks: Ticks) -> Timestamp {
    let microseconds = ticks.unix_microseconds();
    Timestamp::from_microsecond(microseconds).unwrap_or(Timestamp::MIN)
}
