//! Steps D1–D9: the index, copied until `indexmap` holds still. Only tables that `indexmap` names
//! are copied, and each is proven by its own MD5 (O2).

use std::path::Path;
use std::time::Duration;

use super::capture::{Arrived, Capture, Take, changed, open, read_small, timestamp};
use crate::clock::{self, Timestamp};
use crate::error::{Error, Kind, Result};
use crate::format::checkpoint;
use crate::format::indexmap::IndexMap;
use crate::format::names::TableId;
use crate::format::{InContext, LogPosition, ReadAt, WriterPosition, bloom, ptable};
use crate::fs;
use crate::log::ChunkSet;
use crate::manifest::{RelativePath, Role, Row};
use crate::parallel;
use crate::proof;
use crate::transfer::{FILES_AT_ONCE, Paced};

/// A checkpoint has 8 bytes; more are read only to say that it has not.
const FILTER_CHECKPOINT_LIMIT: u64 = 64;

/// What makes up the index, filters of streams aside.
const INDEX: [Role; 3] = [Role::IndexMap, Role::Table, Role::TableFilter];

/// How often the index is read again before the backup goes on without it.
const ROUNDS: u32 = 20;
/// A node needs some milliseconds between deleting `indexmap` and renaming the new one into its
/// place.
const BETWEEN_ROUNDS: Duration = Duration::from_millis(20);
/// How often a bad table, or a bad `indexmap`, is read before the backup goes on without it.
const CORRUPT_READINGS: u32 = 3;
/// Header, footer and MD5: what is read of a table that is held already.
const TABLE_IDENTITY_BYTES: u64 = 272;

/// The index that was captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Index {
    /// The node has no tables yet.
    Empty,
    /// `indexmap` and every table it names.
    Captured {
        /// Up to where the tables reach in the log.
        commit: Option<LogPosition>,
    },
    /// It could not be had; the server rebuilds it.
    LeftOut,
}

/// What to do about the stream-existence filter.
#[derive(Debug, Clone, Copy)]
pub(super) struct FilterPolicy {
    /// A held pair that was read earlier than this is read again.
    pub(super) read_since: Timestamp,
    /// One that was read later than this was read by a clock that was wrong.
    pub(super) now: Timestamp,
}

/// Copies the index.
///
/// # Errors
/// `Unstable` where the source changed in a way that another attempt may mend; what source and
/// repository report.
pub(super) fn copy(capture: &mut Capture<'_>, policy: FilterPolicy) -> Result<Index> {
    let index = tables(capture)?;
    stream_filter(capture, policy)?;
    scavenge_state(capture)?;
    Ok(index)
}

/// Steps D1–D6.
fn tables(capture: &mut Capture<'_>) -> Result<Index> {
    let (mut unproven, mut corrupt) = (None, 0);
    for round in 0..ROUNDS {
        if corrupt >= CORRUPT_READINGS {
            break;
        }
        if round > 0 {
            capture.run.pause(BETWEEN_ROUNDS)?;
            capture.look_again_for(&INDEX);
        }
        let Some(before) = index_map(capture)? else {
            if has_tables(&capture.source.index)? {
                continue;
            }
            return Ok(Index::Empty);
        };
        // The file is replaced as a whole; one that does not parse is bad at the source, or it was
        // caught in the middle of a copy by other tools.
        let map = match IndexMap::parse(&before.0).in_source(&capture.source.index) {
            Ok(map) => map,
            Err(error) => {
                (unproven, corrupt) = (Some(error), corrupt + 1);
                continue;
            }
        };
        match each_table(capture, &map) {
            Ok(()) => {}
            Err(error) if error.kind() == Kind::Unstable => continue,
            Err(error) if error.kind() == Kind::SourceCorrupt => {
                (unproven, corrupt) = (Some(error), corrupt + 1);
                continue;
            }
            Err(error) => return Err(error),
        }
        if index_map(capture)?.is_some_and(|after| after.0 == before.0) {
            let path = RelativePath::index_map();
            capture.write(&path, Role::IndexMap, &before.0, before.1)?;
            return Ok(Index::Captured { commit: map.commit });
        }
    }
    let why = unproven.map_or_else(
        || "it never came to rest".to_owned(),
        |error| describe(&error),
    );
    leave_out(
        capture,
        &format!("{why}; the server will rebuild it from the log"),
    )?;
    Ok(Index::LeftOut)
}

/// Drops the index again: the server rebuilds it from the log (O18).
pub(super) fn leave_out(capture: &mut Capture<'_>, why: &str) -> Result<()> {
    capture
        .run
        .warn(format!("this backup carries no index: {why}"));
    capture
        .of_roles(&INDEX)
        .iter()
        .try_for_each(|path| capture.forget(path))
}

fn describe(error: &Error) -> String {
    let causes = error.causes();
    if causes.is_empty() {
        error.to_string()
    } else {
        format!("{error}, {}", causes.join(", "))
    }
}

fn index_map(capture: &mut Capture<'_>) -> Result<Option<(Vec<u8>, Timestamp)>> {
    let read = read_small(
        capture.source,
        &RelativePath::index_map(),
        IndexMap::MAXIMUM_SIZE,
    )?;
    capture.cost.bytes_read += read.as_ref().map_or(0, |(bytes, _)| bytes.len() as u64);
    Ok(read)
}

/// Whether there are files named like tables: then `indexmap` is only gone for a moment.
fn has_tables(index: &Path) -> Result<bool> {
    if fs::status(index)?.is_none() {
        return Ok(false);
    }
    let entries = fs::list(index)?;
    Ok(entries.iter().any(|entry| {
        entry
            .name
            .to_str()
            .is_some_and(|name| name.parse::<TableId>().is_ok())
    }))
}

/// The tables that `indexmap` names, and their filters. What is not held is copied by several
/// threads.
fn each_table(capture: &mut Capture<'_>, map: &IndexMap) -> Result<()> {
    let mut fresh = Vec::new();
    for row in &map.tables {
        let table = Table::open(capture, row.table)?;
        capture.cost.bytes_read += TABLE_IDENTITY_BYTES;
        let same =
            |row: &Row| row.size == table.layout.size && row.table_md5 == Some(table.layout.md5);
        if capture.held(&table.path).is_some_and(same) && capture.keep(&table.path)? {
            held_filter(capture, row.table)?;
        } else {
            fresh.push(row.table);
        }
    }
    let (mut all, mut filters) = (Vec::new(), Ok(()));
    let reader = &*capture;
    let copied = parallel::for_each(
        FILES_AT_ONCE,
        &fresh,
        |id| {
            reader.run.check()?;
            let table = Table::open(reader, *id)?.copy(reader)?;
            Ok((table, filter(reader, *id)))
        },
        |_, (table, filter)| {
            all.push(table);
            match filter {
                Ok(filter) => all.extend(filter),
                Err(error) => filters = std::mem::replace(&mut filters, Ok(())).and(Err(error)),
            }
        },
    );
    // Also after a failure: the next round has what this one could copy.
    all.into_iter().for_each(|arrived| capture.enter(arrived));
    copied.and(filters)
}

/// An index table of the source, open.
struct Table {
    path: RelativePath,
    file: fs::File,
    layout: ptable::Layout,
}

impl Table {
    fn open(capture: &Capture<'_>, id: TableId) -> Result<Self> {
        let path = RelativePath::table(id);
        let file = open(capture.source, &path)?;
        file.expect_pieces();
        let layout = ptable::inspect(&file).in_source(file.path())?;
        Ok(Self { path, file, layout })
    }

    fn copy(&self, capture: &Capture<'_>) -> Result<Arrived> {
        let take = Take {
            has_md5: true,
            ..Take::whole(Role::Table, &self.file)
        };
        let arrived = match capture.take_up(&self.path, &take, self.layout.md5)? {
            Some(arrived) => arrived,
            None => capture.read(&self.path, &take, None)?,
        };
        if arrived.md5 == Some(self.layout.md5) {
            return Ok(Arrived {
                read: arrived.read + TABLE_IDENTITY_BYTES,
                ..arrived
            });
        }
        capture.incoming.remove(&self.path)?;
        Err(
            Error::new(Kind::SourceCorrupt, "the index table fails its own MD5")
                .at(self.file.path()),
        )
    }
}

/// A filter is written once, before `indexmap` names its table; it has no checksum that the server
/// would miss, so it is held only beside its held table.
fn held_filter(capture: &mut Capture<'_>, table: TableId) -> Result<()> {
    let Some((path, file)) = open_filter(capture, table)? else {
        return Ok(());
    };
    if capture
        .held(&path)
        .is_some_and(|row| row.size == file.size())
        && capture.keep(&path)?
    {
        return Ok(());
    }
    let filter = filter(capture, table)?;
    filter.into_iter().for_each(|filter| capture.enter(filter));
    Ok(())
}

/// A filter of the source. Servers before 21.10 write none, and a start without one is only slower.
fn open_filter(capture: &Capture<'_>, table: TableId) -> Result<Option<(RelativePath, fs::File)>> {
    let path = RelativePath::table_filter(table);
    match open(capture.source, &path) {
        Ok(file) => Ok(Some((path, file))),
        Err(error) if error.kind() == Kind::Unstable => Ok(None),
        Err(error) => Err(error),
    }
}

/// Copies the filter of a table; none where there is none that is worth it.
fn filter(capture: &Capture<'_>, table: TableId) -> Result<Option<Arrived>> {
    let Some((path, file)) = open_filter(capture, table)? else {
        return Ok(None);
    };
    if !is_good_filter(capture, &file)? {
        return Ok(None);
    }
    let arrived = capture.read(&path, &Take::whole(Role::TableFilter, &file), None)?;
    let accepted = lines_of(capture, &path, &file);
    if matches!(accepted, Ok(true)) {
        return Ok(Some(arrived));
    }
    capture.incoming.remove(&path)?;
    if !accepted? {
        capture.run.warn(format!("more than 5 % of the lines of {path} are damaged; it is left out, and the server does without it"));
    }
    Ok(None)
}

/// Whether a server accepts the lines of a stored filter.
fn lines_of(capture: &Capture<'_>, path: &RelativePath, source: &fs::File) -> Result<bool> {
    let Some(stored) = capture.incoming.open(path)? else {
        return Ok(false);
    };
    let lines = bloom::inspect(&*stored)
        .and_then(|filter| filter.check_lines())
        .in_source(source.path())?;
    Ok(lines.accepted())
}

/// A filter that a server would throw away is not worth a failed backup: it starts without one, too
/// (O18).
fn is_good_filter(capture: &Capture<'_>, file: &fs::File) -> Result<bool> {
    match bloom::inspect(file).in_source(file.path()) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == Kind::SourceCorrupt => {
            capture.run.warn(format!(
                "{}; it is left out, and the server makes another one",
                describe(&error)
            ));
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Steps D7 and D8: the checkpoint first, because the filter is always ahead of it. An older pair
/// of the same log is as good: the server catches it up (O21).
fn stream_filter(capture: &mut Capture<'_>, policy: FilterPolicy) -> Result<()> {
    let (checkpoint_path, filter_path) = (
        RelativePath::stream_filter_checkpoint(),
        RelativePath::stream_filter(),
    );
    // A clock that went back must not keep a pair for as long as it was ahead.
    let fresh = |row: &Row| (policy.read_since..=policy.now).contains(&row.captured);
    if capture.held(&checkpoint_path).is_some()
        && capture.held(&filter_path).is_some_and(fresh)
        && capture.keep(&checkpoint_path)?
        && capture.keep(&filter_path)?
    {
        return Ok(());
    }
    let read =
        read_small(capture.source, &checkpoint_path, FILTER_CHECKPOINT_LIMIT).and_then(|read| {
            let Some((bytes, modified)) = read else {
                return Ok(None);
            };
            checkpoint::position(&bytes).in_source(&capture.source.path_of(&checkpoint_path))?;
            Ok(Some((bytes, modified)))
        });
    let (bytes, modified) = match read {
        Ok(Some(read)) => read,
        Ok(None) => return Ok(()),
        Err(error) if error.kind() == Kind::SourceCorrupt => {
            capture.run.warn(format!(
                "{}; the stream-existence filter is left out, and the server makes another one",
                describe(&error)
            ));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let filter = match open(capture.source, &filter_path) {
        Ok(file) => file,
        Err(error) if error.kind() == Kind::Unstable => return Ok(()),
        Err(error) => return Err(error),
    };
    if !is_good_filter(capture, &filter)? {
        return Ok(());
    }
    capture.cost.bytes_read += bytes.len() as u64;
    capture.write(
        &checkpoint_path,
        Role::StreamFilterCheckpoint,
        &bytes,
        modified,
    )?;
    capture.take(
        &filter_path,
        &Take {
            live: true,
            ..Take::whole(Role::StreamFilter, &filter)
        },
    )
}

/// Step D9: only a database that no scavenge has open. One with a journal beside it is left out;
/// the next scavenge starts from the beginning (disk-format §7).
fn scavenge_state(capture: &mut Capture<'_>) -> Result<()> {
    let path = RelativePath::scavenge_state();
    let file = match open(capture.source, &path) {
        Ok(file) => file,
        Err(error) if error.kind() == Kind::Unstable => return Ok(()),
        Err(error) => return Err(error),
    };
    let place = file.path().to_owned();
    for journal in ["-wal", "-journal", "-shm"] {
        let mut name = place.clone().into_os_string();
        name.push(journal);
        if fs::status(Path::new(&name))?.is_some() {
            capture.run.note(format!(
                "scavenging.db is left out, because `{}` lies beside it",
                Path::new(&name).display()
            ));
            return Ok(());
        }
    }
    let modified = timestamp(file.status()?.modified);
    if capture
        .held(&path)
        .is_some_and(|row| row.size == file.size() && row.modified == modified)
        && capture.keep(&path)?
    {
        return Ok(());
    }
    capture.take(
        &path,
        &Take {
            live: true,
            ..Take::whole(Role::ScavengeState, &file)
        },
    )?;
    let now = open(capture.source, &path)?.status()?;
    if now.size != file.size() || timestamp(now.modified) != modified {
        capture.forget(&path)?;
        return Err(changed("scavenging.db was written to").at(&place));
    }
    Ok(())
}

/// The filter may be ahead of the log that a restore brings back, never its checkpoint.
pub(super) fn hold_filter_back(capture: &mut Capture<'_>, end: LogPosition) -> Result<()> {
    let path = RelativePath::stream_filter_checkpoint();
    let Some(held) = capture.held(&path).cloned() else {
        return Ok(());
    };
    let Some(file) = capture.incoming.open(&path)? else {
        return Ok(());
    };
    let mut bytes = [0; 8];
    file.read_exact_at(0, &mut bytes).map_err(|error| {
        Error::new(Kind::Failed, "cannot read")
            .on(&path)
            .because(error)
    })?;
    if i64::from_le_bytes(bytes) > end.to_signed() {
        capture.write(
            &path,
            Role::StreamFilterCheckpoint,
            &checkpoint::encode(end.to_signed()),
            held.modified,
        )?;
    }
    Ok(())
}

/// A filter that lacks streams of the log, below the position up to which it says that it is
/// complete, makes a server take them for new ones. One that was taken over was looked at when it
/// was read. What is left out the server makes anew.
pub(super) fn complete_filter(
    capture: &mut Capture<'_>,
    chunks: &ChunkSet,
    end: LogPosition,
) -> Result<()> {
    let (checkpoint_path, filter_path) = (
        RelativePath::stream_filter_checkpoint(),
        RelativePath::stream_filter(),
    );
    if !capture.is_newly_read(&filter_path) {
        return Ok(());
    }
    let files = capture.files();
    let gap = proof::stream_filter_gap(
        &Paced::new(&files, capture.run),
        chunks,
        WriterPosition(end),
        capture.run,
    )?;
    let Some(gap) = gap else { return Ok(()) };
    capture.run.warn(format!(
        "{}: {}; the stream-existence filter is left out, and the server makes another one",
        gap.path, gap.what
    ));
    capture.forget(&checkpoint_path)?;
    capture.forget(&filter_path)
}

/// The policy for a kind of backup: a diff keeps a pair for `age`.
pub(super) fn filter_policy(age: Duration) -> FilterPolicy {
    let seconds = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
    let now = clock::now();
    let since = now.as_second().saturating_sub(seconds);
    FilterPolicy {
        read_since: Timestamp::from_second(since).unwrap_or(Timestamp::MIN),
        now,
    }
}
