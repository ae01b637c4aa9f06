use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Display;
use std::ops::Deref;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::format::chunk::ChunkFile;
use crate::format::{LogPosition, Md5Hash, ReadAt, bloom, chunk, ptable};
use crate::fs::{self, Stamp};
use crate::log::{ChunkRecords, ChunkSet, Inspected};
use crate::manifest::{
    Blake3Hash, ChunkRow, Cost, Directories, FileEntry, FileSet, Manifest, RelativePath, Role, Row,
};
use crate::parallel;
use crate::proof::LogStretch;
use crate::repository::{Attributes, Incoming, Ingest, Stored};
use crate::run::Run;
use crate::transfer::{Follower, hash_file, paced};

/// Adopted files up to this many bytes are hashed whole.
const SMALL: u64 = 4096;
/// Adopted files that are open at once.
const ADOPTED_AT_ONCE: usize = 256;

/// The working copy of one run: what the incoming backup holds, and what its parent could give.
///
/// It outlives the attempts of a run: what one attempt has captured is held already in the next.
pub(super) struct Capture<'a> {
    pub(super) incoming: Box<dyn Incoming + 'a>,
    pub(super) source: &'a Directories,
    pub(super) run: &'a Run,
    pub(super) cost: Cost,
    parent: Option<&'a Manifest>,
    /// Rows of the parent; empty where everything has to be read again.
    lent: HashMap<&'a RelativePath, &'a Row>,
    here: BTreeMap<RelativePath, Held<'a>>,
    /// The adopted chunks, as they were looked at in this backup.
    inspected: Inspected,
    /// The chunks of the source, as the preflight has seen them; nothing once they were listed
    /// again.
    pub(super) seen: Inspected,
    /// Files of the parent that turned out not to be what was stored.
    distrusted: Vec<RelativePath>,
}

struct Held<'a> {
    row: HeldRow<'a>,
    way: Way,
    /// The attempt under way has found that it belongs into the backup.
    wanted: bool,
    /// For chunks that this run has read: the records that have to be looked at, by this attempt or
    /// the next, unless they were already.
    records: Option<Box<Records>>,
    /// It fails the server's own MD5, and the operator wants it all the same.
    damaged: bool,
}

/// Records of a chunk, from this position in the log on, and what they have shown while they were
/// copied.
pub(super) struct Records {
    pub(super) from: LogPosition,
    pub(super) told: Option<ChunkRecords>,
}

/// There can be tens of thousands: what the parent holds is not held twice.
enum HeldRow<'a> {
    Parents(&'a Row),
    New(Box<Row>),
}

impl Deref for HeldRow<'_> {
    type Target = Row;

    fn deref(&self) -> &Row {
        match self {
            Self::Parents(row) => row,
            Self::New(row) => row,
        }
    }
}

/// What a first look at an adopted file has shown.
enum Glance {
    /// It is as its row says; of a chunk also the state in which it was read, and what was read.
    Fits(Option<(Stamp, Arc<ChunkFile>)>),
    /// It was not taken.
    Gone(Error),
    /// It was taken, and is another one than its row says.
    Unlike(Error),
}

/// How a file came into the backup.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// From the parent.
    Adopted,
    /// By an interrupted run.
    TakenUp,
    /// By this run.
    Copied,
}

/// What to take from an open source file, and what is known of it.
pub(super) struct Take<'a> {
    pub(super) role: Role,
    pub(super) file: &'a fs::File,
    /// Bytes from the start to take; the stored file is as long as `full_length`.
    pub(super) length: u64,
    pub(super) full_length: u64,
    /// The last 16 bytes are an MD5 of all others.
    pub(super) has_md5: bool,
    /// It may be written to at this moment.
    pub(super) live: bool,
    pub(super) mode: Mode,
    pub(super) chunk: Option<ChunkRow>,
}

/// The stored file's permission bits.
#[derive(Clone, Copy)]
pub(super) enum Mode {
    /// As on the node.
    AsFound,
    /// The server has to write to it.
    Writable,
}

/// A source file that was stored. [`Capture::enter`] makes it part of the backup.
pub(super) struct Arrived {
    pub(super) row: Row,
    /// What the stored bytes hash to, where the server has an MD5 of them.
    pub(super) md5: Option<Md5Hash>,
    pub(super) way: Way,
    /// Bytes read from the source.
    pub(super) read: u64,
    pub(super) records: Option<Box<Records>>,
    pub(super) damaged: bool,
}

impl<'a> Take<'a> {
    /// The whole file as it is now.
    pub(super) fn whole(role: Role, file: &'a fs::File) -> Self {
        Self {
            role,
            file,
            length: file.size(),
            full_length: file.size(),
            has_md5: false,
            live: false,
            mode: Mode::AsFound,
            chunk: None,
        }
    }
}

impl<'a> Capture<'a> {
    pub(super) fn new(
        incoming: Box<dyn Incoming + 'a>,
        source: &'a Directories,
        parent: Option<&'a Manifest>,
        run: &'a Run,
    ) -> Self {
        let lent = parent
            .map(|parent| parent.files.iter().map(|row| (&row.path, row)).collect())
            .unwrap_or_default();
        Self {
            incoming,
            source,
            run,
            cost: Cost::default(),
            parent,
            lent,
            here: BTreeMap::new(),
            inspected: Inspected::default(),
            seen: Inspected::default(),
            distrusted: Vec::new(),
        }
    }

    /// The backup whose files may be taken over.
    pub(super) fn parent(&self) -> Option<&'a Manifest> {
        self.parent
    }

    /// A new attempt: everything has to be found again, nothing has to be copied again.
    pub(super) fn start_over(&mut self) {
        self.here.values_mut().for_each(|held| held.wanted = false);
    }

    /// Everything of these roles has to be found again.
    pub(super) fn look_again_for(&mut self, roles: &[Role]) {
        self.here
            .values_mut()
            .filter(|held| roles.contains(&held.row.role))
            .for_each(|held| held.wanted = false);
    }

    /// The row under which a path is held already, here or in the parent.
    pub(super) fn held(&self, path: &RelativePath) -> Option<&Row> {
        self.here
            .get(path)
            .map(|held| &*held.row)
            .or_else(|| self.lent(path))
    }

    /// The parent's row of a path.
    pub(super) fn lent(&self, path: &RelativePath) -> Option<&'a Row> {
        self.lent.get(path).copied()
    }

    /// Takes a held file into the backup as it is. False where the parent's file is not what was
    /// stored: then it has to be read from the source.
    pub(super) fn keep(&mut self, path: &RelativePath) -> Result<bool> {
        let kept = self.keep_all(std::slice::from_ref(path))?;
        Ok(kept.into_iter().all(|kept| kept))
    }

    /// As [`Self::keep`], for many files. Several at once, as each costs no more than a few calls
    /// of the system.
    pub(super) fn keep_all(&mut self, paths: &[RelativePath]) -> Result<Vec<bool>> {
        let mut kept = Vec::with_capacity(paths.len());
        for paths in paths.chunks(ADOPTED_AT_ONCE) {
            self.run.check()?;
            kept.extend(self.keep_some(paths)?);
        }
        Ok(kept)
    }

    /// As [`Self::keep`], for so many files as may be open at once.
    fn keep_some(&mut self, paths: &[RelativePath]) -> Result<Vec<bool>> {
        let mut rows = Vec::with_capacity(paths.len());
        for path in paths {
            if !self.here.contains_key(path) {
                rows.extend(self.lent(path));
            }
        }
        let adopted = self.look_at(&rows)?;
        let mut adopted = adopted.into_iter().peekable();

        let mut kept = Vec::with_capacity(paths.len());
        for path in paths {
            let glance = adopted.next_if(|(row, _)| row.path == *path);
            kept.push(match glance {
                Some((row, Glance::Fits(chunk))) => {
                    if let Some((stamp, file)) = chunk {
                        self.inspected.add(path, stamp, file);
                    }
                    self.run.emit(Event::Reused {
                        path: path.to_string(),
                    });
                    self.insert(HeldRow::Parents(row), Way::Adopted);
                    true
                }
                Some((_, Glance::Gone(error))) => {
                    self.distrust(path, &error);
                    false
                }
                Some((_, Glance::Unlike(error))) => {
                    self.reject(path, &error)?;
                    false
                }
                None => {
                    if let Some(held) = self.here.get_mut(path) {
                        held.wanted = true;
                    }
                    true
                }
            });
        }
        Ok(kept)
    }

    /// Takes files of the parent, and looks at each.
    fn look_at(&self, rows: &[&'a Row]) -> Result<Vec<(&'a Row, Glance)>> {
        let stored = self.incoming.adopt(rows);
        let stored: Vec<_> = rows.iter().copied().zip(stored).collect();
        let glances = parallel::map(&stored, |(row, stored)| {
            self.run.check()?;
            match stored {
                Ok(stored) => self.glance(row, &**stored).map(Some),
                Err(_) => Ok(None),
            }
        })?;

        let mut looked_at = Vec::with_capacity(rows.len());
        for ((row, stored), glance) in stored.into_iter().zip(glances) {
            let glance = match (stored, glance) {
                (_, Some(glance)) => glance,
                (Err(error), None) if error.kind() == Kind::StoredCorrupt => Glance::Gone(error),
                (Err(error), None) => return Err(error),
                (Ok(_), None) => continue,
            };
            looked_at.push((row, glance));
        }
        Ok(looked_at)
    }

    /// What a glance shows to be damaged in a file that was just adopted. The proof needs just as
    /// much of it, and could only say then that there is no backup: small files whole, of the
    /// others what identifies them.
    fn glance(&self, row: &Row, stored: &dyn ReadAt) -> Result<Glance> {
        let unlike = |why: String| Ok(Glance::Unlike(not_as_stored(&row.path, why)));
        stored.expect_pieces();
        let stamp = stored.stamp();
        let bytes;
        let stored = if row.size <= SMALL {
            let Some(small) = self.small(row, stored)? else {
                return unlike("the BLAKE3 differs".to_owned());
            };
            bytes = small;
            &bytes
        } else {
            stored
        };
        let fits = match row.role {
            Role::Chunk => match chunk::inspect(stored) {
                Ok(found)
                    if row
                        .chunk
                        .is_some_and(|chunk| chunk == ChunkRow::of(&found, chunk.version)) =>
                {
                    return Ok(Glance::Fits(stamp.map(|stamp| (stamp, Arc::new(found)))));
                }
                found => found.map(|_| false),
            },
            Role::Table => ptable::inspect(stored).map(|layout| Some(layout.md5) == row.table_md5),
            Role::TableFilter | Role::StreamFilter => bloom::inspect(stored).map(|_| true),
            _ => Ok(true),
        };
        match fits {
            Ok(true) => Ok(Glance::Fits(None)),
            Ok(false) => unlike("header and footer are not what its row says".to_owned()),
            Err(error) => unlike(error.to_string()),
        }
    }

    /// The bytes of a small file; none where they are not those of its row.
    fn small(&self, row: &Row, stored: &dyn ReadAt) -> Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; usize::try_from(row.size).unwrap_or_default()];
        match stored.read_exact_at(0, &mut bytes) {
            Ok(()) => self.run.pace().spend(row.size),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => {
                return Err(Error::new(Kind::Failed, "cannot read")
                    .on(&row.path)
                    .because(error));
            }
        }
        Ok((Blake3Hash::of(&bytes) == row.blake3).then_some(bytes))
    }

    /// Whether a stored file has the bytes of its row.
    pub(super) fn holds(&self, stored: Box<dyn ReadAt>, row: &Row) -> Result<bool> {
        let digest = hash_file(&*paced(stored, self.run), false, self.run)
            .map_err(|error| error.on(&row.path))?;
        Ok(digest.blake3 == row.blake3)
    }

    /// Hashes the adopted files that `which` chooses, and takes those that are not as they were
    /// stored out again, so that the next attempt reads them from the node. Whether there was one.
    pub(super) fn weed_out(&mut self, which: impl Fn(&Row) -> bool) -> Result<bool> {
        let adopted: Vec<Row> = self
            .here
            .values()
            .filter(|held| held.way == Way::Adopted && which(&held.row))
            .map(|held| (*held.row).clone())
            .collect();
        let mut any = false;
        for row in adopted {
            let Some(stored) = self.incoming.open(&row.path)? else {
                continue;
            };
            if !self.holds(stored, &row)? {
                any = true;
                self.reject(&row.path, &not_as_stored(&row.path, "the BLAKE3 differs"))?;
            }
        }
        Ok(any)
    }

    /// Takes a file of the parent out again that is not what was stored.
    fn reject(&mut self, path: &RelativePath, error: &Error) -> Result<()> {
        self.forget(path)?;
        self.distrust(path, error);
        Ok(())
    }

    /// Takes nothing more from the parent's file: what it was is read from the source.
    pub(super) fn distrust(&mut self, path: &RelativePath, error: &Error) {
        self.lent.remove(path);
        self.distrusted.push(path.clone());
        self.run.warn(format!(
            "{error}: {}; it is read from the node again",
            error.causes().join(": ")
        ));
    }

    /// The files of the parent that were distrusted since this was asked last.
    pub(super) fn distrusted(&mut self) -> Vec<RelativePath> {
        std::mem::take(&mut self.distrusted)
    }

    /// Takes up what an interrupted run has copied of a source file whose MD5 is `md5`. None where
    /// there is nothing of it: then it has to be read.
    pub(super) fn take_up(
        &self,
        path: &RelativePath,
        take: &Take<'_>,
        md5: Md5Hash,
    ) -> Result<Option<Arrived>> {
        let attributes = take.attributes()?;
        let Some(stored) = self.incoming.resume(path, take.full_length, md5)? else {
            return Ok(None);
        };
        self.run.emit(Event::Resumed {
            path: path.to_string(),
            bytes: stored.size,
        });
        Ok(Some(take.arrived(
            path,
            stored,
            attributes,
            Way::TakenUp,
            0,
        )))
    }

    /// Copies a source file in.
    pub(super) fn read(
        &self,
        path: &RelativePath,
        take: &Take<'_>,
        follow: Follower<'_>,
    ) -> Result<Arrived> {
        let attributes = take.attributes()?;
        let stored = self.incoming.ingest(path, take.ingest(attributes, follow));
        self.copied(path, take, stored, attributes, take.length)
    }

    /// Copies a source file in whose first `prefix` bytes the parent's file `held` has already.
    pub(super) fn extend(
        &self,
        path: &RelativePath,
        held: &Row,
        prefix: u64,
        take: &Take<'_>,
        follow: Follower<'_>,
    ) -> Result<Arrived> {
        let attributes = take.attributes()?;
        let stored = self
            .incoming
            .extend(path, held, prefix, take.ingest(attributes, follow));
        self.copied(
            path,
            take,
            stored,
            attributes,
            take.length.saturating_sub(prefix),
        )
    }

    fn copied(
        &self,
        path: &RelativePath,
        take: &Take<'_>,
        stored: Result<Stored>,
        attributes: Attributes,
        read: u64,
    ) -> Result<Arrived> {
        match stored {
            Ok(stored) => {
                self.run.emit(Event::Copied {
                    path: path.to_string(),
                    bytes: read,
                });
                Ok(take.arrived(path, stored, attributes, Way::Copied, read))
            }
            Err(error) => {
                // Half a file, under a name that the next attempt may not come back to.
                self.incoming.remove(path)?;
                Err(error)
            }
        }
    }

    /// Makes what has arrived part of the backup.
    pub(super) fn enter(&mut self, arrived: Arrived) {
        let Arrived {
            row,
            way,
            read,
            records,
            damaged,
            ..
        } = arrived;
        self.cost.bytes_read += read;
        let held = Held {
            row: HeldRow::New(Box::new(row)),
            way,
            wanted: true,
            records,
            damaged,
        };
        self.here.insert(held.row.path.clone(), held);
    }

    /// Copies a source file in that has nothing to be proven by.
    pub(super) fn take(&mut self, path: &RelativePath, take: &Take<'_>) -> Result<()> {
        self.here.remove(path);
        let arrived = self.read(path, take, None)?;
        self.enter(arrived);
        Ok(())
    }

    /// Stores bytes that were read, or made, here.
    pub(super) fn write(
        &mut self,
        path: &RelativePath,
        role: Role,
        bytes: &[u8],
        modified: Timestamp,
    ) -> Result<()> {
        let attributes = Attributes {
            mode: 0o644,
            modified,
        };
        let stored = self.incoming.write(path, bytes, attributes)?;
        self.insert_new(row(path, role, stored, attributes), Way::Copied);
        Ok(())
    }

    /// Makes what lies beyond `length` a hole.
    pub(super) fn cut(&mut self, path: &RelativePath, length: u64, full_length: u64) -> Result<()> {
        let Some(held) = self.here.get(path) else {
            return Err(Error::new(Kind::Failed, "nothing to cut is held").on(path));
        };
        let (mut row, mode) = ((*held.row).clone(), held.row.mode | 0o200);
        if held.way == Way::Adopted {
            self.prove_before_cut(path, &row)?;
        }
        let stored = self.incoming.cut(
            path,
            length,
            full_length,
            Attributes {
                mode,
                modified: row.modified,
            },
        )?;
        (row.size, row.blake3, row.mode) = (stored.size, stored.blake3, mode);
        row.chunk = row.chunk.map(|chunk| ChunkRow { md5: None, ..chunk });
        self.insert_new(row, Way::Copied);
        Ok(())
    }

    /// What is cut gets a new hash, and damage would be part of it.
    fn prove_before_cut(&mut self, path: &RelativePath, row: &Row) -> Result<()> {
        let stored = self.incoming.open(path)?;
        if stored.map(|stored| self.holds(stored, row)).transpose()? == Some(true) {
            return Ok(());
        }
        let error = changed("a stored file is not as it was stored")
            .on(self.incoming.place_of(path))
            .because("the BLAKE3 differs");
        self.reject(path, &error)?;
        Err(error)
    }

    /// Drops a file that turned out wrong, so that nothing takes it for held.
    pub(super) fn forget(&mut self, path: &RelativePath) -> Result<()> {
        self.here.remove(path);
        self.incoming.remove(path)
    }

    /// The chunks in the backup that fail their own MD5.
    pub(super) fn damaged(&self) -> Vec<RelativePath> {
        self.paths(|held| held.damaged && held.wanted)
    }

    /// The stretches of the log that this run has read: whole chunks, or from the parent's end on,
    /// as all before that was proven there.
    pub(super) fn newly_read(&self) -> Vec<LogStretch> {
        let stretch = |held: &Held<'_>| {
            let Records { from, told } = held.records.as_deref()?;
            Some(LogStretch {
                path: held.row.path.clone(),
                from: *from,
                records: told.clone(),
            })
        };
        self.here
            .values()
            .filter(|held| held.wanted)
            .filter_map(stretch)
            .collect()
    }

    /// Step D6 and D17: removes what this attempt did not find at the source.
    pub(super) fn drop_unwanted(&mut self) -> Result<()> {
        let unwanted: Vec<RelativePath> = self.paths(|held| !held.wanted);
        unwanted.iter().try_for_each(|path| self.forget(path))
    }

    /// Whether this run has read the file at the source.
    pub(super) fn is_newly_read(&self, path: &RelativePath) -> bool {
        self.here
            .get(path)
            .is_some_and(|held| held.way != Way::Adopted)
    }

    /// The rows of everything that belongs into the backup, in the order of their paths.
    pub(super) fn rows(&self) -> Vec<Row> {
        self.here.values().map(|held| (*held.row).clone()).collect()
    }

    /// The paths of these roles.
    pub(super) fn of_roles(&self, roles: &[Role]) -> Vec<RelativePath> {
        self.paths(|held| roles.contains(&held.row.role))
    }

    fn paths(&self, which: impl Fn(&Held<'_>) -> bool) -> Vec<RelativePath> {
        self.here
            .values()
            .filter(|held| which(held))
            .map(|held| held.row.path.clone())
            .collect()
    }

    /// The captured files, under the names they have at the source: what is wrong with them is
    /// wrong there.
    pub(super) fn files(&self) -> AsSource<'_> {
        AsSource {
            files: &*self.incoming,
            source: self.source,
        }
    }

    /// The files whose bytes this run has read, here or at the source, and compared with the
    /// server's MD5 where there is one.
    pub(super) fn newly_copied(&self) -> HashSet<RelativePath> {
        self.here
            .values()
            .filter(|held| held.way != Way::Adopted && !held.damaged)
            .map(|held| held.row.path.clone())
            .collect()
    }

    pub(super) fn into_incoming(self) -> (Box<dyn Incoming + 'a>, Inspected) {
        (self.incoming, self.inspected)
    }

    /// The chunks among what this attempt has captured.
    pub(super) fn chunks(&self) -> Result<ChunkSet> {
        let entry = |held: &Held<'_>| {
            let stamp = if held.way == Way::Adopted {
                self.inspected.stamp(&held.row.path)
            } else {
                None
            };
            FileEntry {
                path: held.row.path.clone(),
                size: held.row.size,
                mode: held.row.mode,
                stamp,
            }
        };
        let entries = self
            .here
            .values()
            .filter(|held| held.row.role == Role::Chunk)
            .map(entry);
        ChunkSet::among(&self.files(), entries, &self.inspected)
    }

    /// What the run has cost so far.
    pub(super) fn cost(&self) -> Cost {
        let count = |way| self.here.values().filter(|held| held.way == way).count() as u64;
        Cost {
            bytes_stored: self.incoming.bytes_stored(),
            files_linked: count(Way::Adopted),
            files_copied: count(Way::Copied),
            files_resumed: count(Way::TakenUp),
            bytes_resumed: self
                .here
                .values()
                .filter(|held| held.way == Way::TakenUp)
                .map(|held| held.row.size)
                .sum(),
            ..self.cost.clone()
        }
    }

    fn insert(&mut self, row: HeldRow<'a>, way: Way) {
        self.here.insert(
            row.path.clone(),
            Held {
                row,
                way,
                wanted: true,
                records: None,
                damaged: false,
            },
        );
    }

    fn insert_new(&mut self, row: Row, way: Way) {
        self.insert(HeldRow::New(Box::new(row)), way);
    }
}

/// Captured files that are named as at the source.
pub(super) struct AsSource<'a> {
    files: &'a dyn FileSet,
    source: &'a Directories,
}

impl FileSet for AsSource<'_> {
    fn files(&self) -> Result<Vec<FileEntry>> {
        self.files.files()
    }

    fn open(&self, path: &RelativePath) -> Result<Option<Box<dyn ReadAt>>> {
        self.files.open(path)
    }

    fn place_of(&self, path: &RelativePath) -> String {
        self.source.place_of(path)
    }
}

impl Take<'_> {
    fn ingest<'a>(&'a self, attributes: Attributes, follow: Follower<'a>) -> Ingest<'a> {
        let Self {
            file,
            length,
            full_length,
            has_md5,
            live,
            ..
        } = *self;
        Ingest {
            source: file,
            place: file.path().display().to_string(),
            length,
            full_length,
            md5: has_md5,
            live,
            attributes,
            follow,
        }
    }

    fn arrived(
        &self,
        path: &RelativePath,
        stored: Stored,
        attributes: Attributes,
        way: Way,
        read: u64,
    ) -> Arrived {
        let table_md5 = stored.md5.filter(|_| self.role == Role::Table);
        let row = Row {
            chunk: self.chunk,
            table_md5,
            ..row(path, self.role, stored, attributes)
        };
        Arrived {
            row,
            md5: stored.md5,
            way,
            read,
            records: None,
            damaged: false,
        }
    }

    /// As they are before the file is read.
    fn attributes(&self) -> Result<Attributes> {
        let status = self.file.status()?;
        let mode = match self.mode {
            Mode::AsFound => status.mode & 0o777,
            Mode::Writable => status.mode & 0o777 | 0o200,
        };
        Ok(Attributes {
            mode,
            modified: timestamp(status.modified),
        })
    }
}

fn row(path: &RelativePath, role: Role, stored: Stored, attributes: Attributes) -> Row {
    let (
        Stored {
            size,
            blake3,
            captured,
            ..
        },
        Attributes { mode, modified },
    ) = (stored, attributes);
    Row {
        path: path.clone(),
        role,
        size,
        mode,
        modified,
        captured,
        blake3,
        chunk: None,
        table_md5: None,
    }
}

/// What is wrong with a file of an earlier backup.
pub(super) fn not_as_stored(place: impl Display, why: impl Into<String>) -> Error {
    Error::new(Kind::StoredCorrupt, "a stored file is not as it was stored")
        .on(place)
        .because(why.into())
}

/// The time a file was changed, as a row has it.
pub(super) fn timestamp(time: std::time::SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Opens a file of the node. One that is not there any more means that the directory changed
/// underfoot.
///
/// # Errors
/// [`Kind::Unstable`] where it vanished, else what the file system reports.
pub(super) fn open(source: &Directories, path: &RelativePath) -> Result<fs::File> {
    fs::open_source(&source.path_of(path)).map_err(of_source)
}

/// What an error on a file of the node says of the node: its files come, go and shrink, and all of
/// them are plain files.
pub(super) fn of_source(error: fs::IoError) -> Error {
    use std::io::ErrorKind;
    match error.source.kind() {
        ErrorKind::NotFound | ErrorKind::StaleNetworkFileHandle => {
            changed("a file vanished").at(&error.path)
        }
        ErrorKind::UnexpectedEof => changed("a file became shorter").at(&error.path),
        _ if error.is_no_plain_file() => no_plain_file(error),
        _ => error.into(),
    }
}

fn no_plain_file(error: fs::IoError) -> Error {
    Error::new(
        Kind::SourceCorrupt,
        "this should be a plain file of the node",
    )
    .at(&error.path)
    .because(error.source)
    .hint("links, also those to other disks, are not followed")
}

/// The source is not what it was a moment ago: worth another attempt.
pub(super) fn changed(what: impl Into<String>) -> Error {
    Error::new(Kind::Unstable, what)
}

/// Reads a small file whole, by the one descriptor that was opened: the name may stand for another
/// file a moment later. None where it does not exist.
///
/// # Errors
/// [`Kind::SourceCorrupt`] where it is longer than `limit` bytes; what the file system reports.
pub(super) fn read_small(
    source: &Directories,
    path: &RelativePath,
    limit: u64,
) -> Result<Option<(Vec<u8>, Timestamp)>> {
    let place = source.path_of(path);
    let file = match fs::open_source(&place) {
        Ok(file) => file,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(of_source(error)),
    };
    let modified = timestamp(file.status()?.modified);
    match file.read_small(limit) {
        Err(error) if error.source.kind() == std::io::ErrorKind::FileTooLarge => Err(Error::new(
            Kind::SourceCorrupt,
            format!("the file is longer than {limit} bytes"),
        )
        .at(&place)),
        read => Ok(Some((read.map_err(of_source)?, modified))),
    }
}
