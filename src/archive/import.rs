//! Reads an archive into a repository. The manifest comes first, so each member after it is known
//! before it is read, and is proven by its row before the backup is committed.

use std::collections::{BTreeMap, HashSet};
use std::io::Read;

use serde::Serialize;

use super::member::MANIFEST;
use super::stream::{ArchiveStream, MemberHeader, broken};
use crate::copy::{
    Arrival, Brought, CopiedBackup, CopyRules, Filling, commit, ingest, is_as_described,
};
use crate::error::{Error, Kind, Result};
use crate::event::{Event, Step};
use crate::manifest::{Label, Manifest, RelativePath, Row};
use crate::proof;
use crate::repository::{Incoming, Ingest, Repository};
use crate::run::Run;

/// No manifest is longer.
const MAX_MANIFEST: u64 = 512 << 20;

/// An archive whose manifest was read.
pub struct IncomingArchive<'a> {
    stream: ArchiveStream<'a>,
    original: Manifest,
    run: &'a Run,
}

/// What an import did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImportReport {
    /// The place of the repository.
    pub repository: String,
    /// The backup in the archive.
    pub label: Label,
    /// Whether the repository held it already. Then the rest of the archive was not read.
    pub already_there: bool,
    /// What was stored.
    pub imported: Option<CopiedBackup>,
}

impl<'a> IncomingArchive<'a> {
    /// Reads the manifest of an archive.
    ///
    /// # Errors
    /// `StoredCorrupt` if this is no archive of kbackup, or if its manifest is damaged.
    pub fn open(input: impl Read + Send + 'a, run: &'a Run) -> Result<Self> {
        run.emit(Event::Step(Step::Preflight));
        let mut stream = ArchiveStream::new(input, run)?;

        let first = stream.next()?;
        let is_manifest = first.as_ref().is_some_and(|first| first.name == MANIFEST);
        let Some(MemberHeader { size, .. }) = first.filter(|_| is_manifest) else {
            return Err(
                broken("the archive does not begin with the manifest of a backup")
                    .hint("`kbackup export` makes such archives"),
            );
        };
        if size > MAX_MANIFEST {
            return Err(broken("the manifest in the archive is too long"));
        }

        let text = stream.bytes(size)?;
        let original = Manifest::read(&text).map_err(|error| error.on(MANIFEST))?;
        let misnamed = proof::misnamed(&original);
        if let Some(fault) = misnamed.first() {
            return Err(
                broken("the manifest in the archive is not that of a backup")
                    .because(fault.to_string()),
            );
        }
        Ok(Self {
            stream,
            original,
            run,
        })
    }

    /// Reads the rest of the archive into a repository, and commits the backup.
    ///
    /// # Errors
    /// `StoredCorrupt` if the archive is damaged, is not complete, or holds something else than the
    /// backup: then nothing of it stays in the repository. `Refused` if the repository does not
    /// take this backup. `Locked` if another run writes to it.
    pub fn import(self, to: &dyn Repository, rules: CopyRules) -> Result<ImportReport> {
        let Self {
            mut stream,
            original,
            run,
        } = self;
        let mut report = ImportReport {
            repository: to.place(),
            label: original.label.clone(),
            already_there: true,
            imported: None,
        };
        let Some(arrival) = Arrival::find(to, &original, &[], rules, run)? else {
            return Ok(report);
        };
        arrival.check_space(&original, to)?;

        let incoming = arrival.begin(to, run)?;
        let mut importing = Importing {
            original: &original,
            filling: Filling {
                to,
                parent: arrival.parent(),
                incoming: &*incoming,
                run,
            },
            reused: HashSet::new(),
            brought: Brought::default(),
        };
        let imported = importing.import(&arrival, &mut stream);
        let brought = importing.brought;
        let proven = imported.and_then(|()| arrival.prove(&*incoming, &original, &brought, run));
        let proven = match proven {
            Ok(proven) => proven,
            Err(error) => {
                if error.kind() == Kind::StoredCorrupt {
                    forget(&*incoming, &brought, run);
                }
                return Err(error);
            }
        };

        commit(incoming, &proven, run)?;
        report.already_there = false;
        report.imported = Some(CopiedBackup::new(&proven));
        Ok(report)
    }
}

/// Removes what came out of an archive that cannot be believed. An interrupted import keeps it.
fn forget(incoming: &dyn Incoming, brought: &Brought, run: &Run) {
    for path in brought.hashes.keys() {
        if let Err(error) = incoming.remove(path) {
            run.note(format!(
                "kbackup could not remove {path}: {}",
                error.in_words()
            ));
        }
    }
}

/// The import of one backup.
struct Importing<'a> {
    original: &'a Manifest,
    filling: Filling<'a>,
    /// Files that the parent has, too.
    reused: HashSet<&'a RelativePath>,
    brought: Brought,
}

impl<'a> Importing<'a> {
    fn import(&mut self, arrival: &Arrival, stream: &mut ArchiveStream<'_>) -> Result<()> {
        let run = self.filling.run;
        let reusable = arrival.reusable(self.original);
        let lost = self.filling.reuse(&reusable)?;
        self.reused.extend(reusable.iter().map(|row| &row.path));
        for row in lost {
            self.reused.remove(&row.path);
        }
        self.brought.cost.files_linked = self.reused.len() as u64;

        run.emit(Event::Step(Step::Copy));
        run.emit(Event::Expected {
            files: self.original.totals.files,
            bytes: self.original.totals.bytes,
        });
        let left = self.filling.left()?;
        let mut missing: BTreeMap<&RelativePath, &'a Row> = BTreeMap::new();
        missing.extend(self.original.files.iter().map(|row| (&row.path, row)));

        while let Some(member) = stream.next()? {
            run.check()?;
            let row = self.row_of(&member, &mut missing)?;
            self.member(row, &left, stream)?;
        }
        if let Some(path) = missing.into_keys().next() {
            return Err(broken("the archive lacks a file of the backup").on(path));
        }
        stream.finish()
    }

    /// The row of a member, which no member before it had.
    fn row_of(
        &self,
        member: &MemberHeader,
        missing: &mut BTreeMap<&RelativePath, &'a Row>,
    ) -> Result<&'a Row> {
        let MemberHeader { name, size } = member;
        let path: RelativePath = name.parse().map_err(|error| {
            broken("a member of the archive is no file of a backup")
                .on(name)
                .because(error)
        })?;

        let Some(row) = missing.remove(&path) else {
            let what = match self.original.row(&path) {
                Some(_) => "a file is in the archive twice",
                None => "the manifest does not know a member of the archive",
            };
            return Err(broken(what).on(path));
        };
        if row.size != *size {
            let why = format!("it has {size} bytes, and its row says {}", row.size);
            return Err(broken("a member of the archive is not as long as its file")
                .on(path)
                .because(why));
        }
        Ok(row)
    }

    /// Reads the member that comes next, or past it if its bytes are there already.
    fn member(
        &mut self,
        row: &Row,
        left: &HashSet<RelativePath>,
        stream: &mut ArchiveStream<'_>,
    ) -> Result<()> {
        if self.reused.contains(&row.path) {
            return stream.skip_member(row.size);
        }
        if left.contains(&row.path)
            && let Some(stored) = self.filling.resume(row)?
        {
            self.brought.add_resumed(row, stored);
            return stream.skip_member(row.size);
        }

        let content = stream.content(row.size);
        let place = format!("{} in the archive", row.path);
        let from_archive = Ingest {
            // It cannot be read again, so nothing is taken from what an interrupted run has begun.
            reads_every_byte: true,
            ..ingest(row, &content, &place)
        };
        let stored = match self.filling.incoming.ingest(&row.path, from_archive) {
            Ok(stored) => stored,
            Err(error) => return Err(content.blame(error)),
        };
        let is_whole = content.is_read();
        drop(content);
        self.brought.add_copied(row, stored, row.size);

        if !is_whole || !is_as_described(row, stored) {
            return Err(differs(row));
        }
        self.filling.keep_proof(row, stored)?;
        self.filling.run.emit(Event::Copied {
            path: row.path.to_string(),
            bytes: row.size,
        });
        stream.skip_padding(row.size)
    }
}

fn differs(row: &Row) -> Error {
    broken("a file in the archive is damaged")
        .on(&row.path)
        .because("its bytes are not those of its row: the BLAKE3 differs")
        .hint("export it again, and look at the exit codes")
}
