//! Writes a backup as an archive, and proves every byte on the way.
//!
//! Whoever unpacks an archive may not look at exit codes. So the last bytes of a file are written
//! only when its hash is right, and an archive that is not complete ends inside a member: every tar
//! complains about it.

use std::io::{self, Write};

use serde::Serialize;
use tar::Header;

use super::member::{self, padding};
use crate::error::{Error, Kind, Result};
use crate::event::{Event, Step};
use crate::format::ReadAt;
use crate::manifest::{Blake3Hash, FileSet, Label, Manifest, Row};
use crate::repository::Repository;
use crate::run::Run;
use crate::transfer::paced;

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;
/// The level of zstd: its default, which is faster than most networks.
const LEVEL: i32 = 3;
/// Two blocks of zeros end an archive.
const END: [u8; 1024] = [0; 1024];

/// The form of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveForm {
    /// A plain tar.
    Plain,
    /// A tar inside one zstd frame, with a checksum.
    Zstd,
}

/// What was exported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExportReport {
    /// The backup.
    pub label: Label,
    /// Its files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of the archive.
    pub archive_bytes: u64,
}

/// Writes a backup into `into`. After an error the archive is not complete.
///
/// # Errors
/// `NotFound` if there is no such backup. `StoredCorrupt` if its manifest or one of its files is
/// damaged. `Failed` if the archive cannot be written.
pub fn export(
    repository: &dyn Repository,
    label: &Label,
    form: ArchiveForm,
    into: &mut dyn Write,
    run: &Run,
) -> Result<ExportReport> {
    run.emit(Event::Step(Step::Preflight));
    let _held = repository.hold(label)?;
    let manifest = repository.manifest(label)?;
    run.emit(Event::Step(Step::Copy));
    run.emit(Event::Expected {
        files: manifest.totals.files,
        bytes: manifest.totals.bytes,
    });

    let mut counting = Counting { into, bytes: 0 };
    match form {
        ArchiveForm::Plain => write_archive(repository, &manifest, &mut counting, run)?,
        ArchiveForm::Zstd => {
            let mut encoder = zstd::Encoder::new(&mut counting, LEVEL).map_err(unwritable)?;
            encoder.include_checksum(true).map_err(unwritable)?;
            write_archive(repository, &manifest, &mut encoder, run)?;
            encoder.finish().map_err(unwritable)?;
        }
    }
    counting.flush().map_err(unwritable)?;

    Ok(ExportReport {
        label: label.clone(),
        files: manifest.totals.files,
        bytes: manifest.totals.bytes,
        archive_bytes: counting.bytes,
    })
}

fn write_archive(
    repository: &dyn Repository,
    manifest: &Manifest,
    into: &mut dyn Write,
    run: &Run,
) -> Result<()> {
    let files = repository.files(&manifest.label)?;
    let mut archive = Archive {
        repository,
        files: &*files,
        manifest,
        into,
        piece: vec![0; PIECE],
        run,
    };

    archive.manifest()?;
    for row in &manifest.files {
        archive.file(row)?;
    }
    archive.write(&END)
}

/// An archive that is being written.
struct Archive<'a> {
    repository: &'a dyn Repository,
    files: &'a dyn FileSet,
    manifest: &'a Manifest,
    into: &'a mut dyn Write,
    piece: Vec<u8>,
    run: &'a Run,
}

impl Archive<'_> {
    /// Writes the manifest. Its length stands before it, so it is counted first: it may be long.
    fn manifest(&mut self) -> Result<()> {
        let mut counted = Counting {
            into: &mut io::sink(),
            bytes: 0,
        };
        self.manifest.write(&mut counted).map_err(unwritable)?;
        let size = counted.bytes;

        let header = member::of_manifest(size, self.manifest.finished)?;
        self.header(&header)?;
        self.manifest.write(self.into).map_err(unwritable)?;
        self.pad(size)
    }

    /// Writes a file. The header comes first: if the file cannot be read, the archive ends inside
    /// this member.
    fn file(&mut self, row: &Row) -> Result<()> {
        let header = member::of_file(row, self.manifest.source.owner.as_ref())?;
        self.header(&header)?;

        self.run.check()?;
        let stored = self.repository.open(&self.manifest.label, row)?;
        let stored = paced(stored, self.run);
        self.bytes(row, &*stored)?;
        stored.drop_from_cache();

        self.pad(row.size)?;
        self.run.emit(Event::Copied {
            path: row.path.to_string(),
            bytes: row.size,
        });
        Ok(())
    }

    fn bytes(&mut self, row: &Row, stored: &dyn ReadAt) -> Result<()> {
        let mut hasher = blake3::Hasher::new();
        let mut offset = 0;
        loop {
            self.run.check()?;
            let left = usize::try_from(row.size - offset).unwrap_or(usize::MAX);
            let piece = self.piece.get_mut(..left.min(PIECE)).unwrap_or_default();
            stored
                .read_exact_at(offset, piece)
                .map_err(|error| unreadable(self.files, row, error))?;
            hasher.update(piece);
            offset += piece.len() as u64;

            let is_last = offset == row.size;
            if is_last && Blake3Hash::from(hasher.finalize()) != row.blake3 {
                let why = "its bytes are not those that were stored: the BLAKE3 differs";
                return Err(damaged(self.files, row).because(why));
            }
            self.into.write_all(piece).map_err(unwritable)?;
            self.run.emit(Event::Progress {
                bytes: piece.len() as u64,
            });
            if is_last {
                return Ok(());
            }
        }
    }

    fn header(&mut self, header: &Header) -> Result<()> {
        self.write(header.as_bytes())
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let length = usize::try_from(padding(size)).unwrap_or_default();
        self.write(END.get(..length).unwrap_or_default())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.into.write_all(bytes).map_err(unwritable)
    }
}

fn damaged(files: &dyn FileSet, row: &Row) -> Error {
    Error::new(Kind::StoredCorrupt, "a stored file is damaged")
        .on(files.place_of(&row.path))
        .hint("the archive is not complete: remove it")
        .hint("`kbackup verify --repair` repairs the file from another copy in the repository")
}

fn unreadable(files: &dyn FileSet, row: &Row, error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return damaged(files, row).because("it ends too early");
    }
    Error::new(Kind::Failed, "cannot read a stored file")
        .on(files.place_of(&row.path))
        .because(error)
        .hint("the archive is not complete: remove it")
}

fn unwritable(error: io::Error) -> Error {
    Error::new(Kind::Failed, "cannot write the archive")
        .because(error)
        .hint("the archive is not complete: remove it")
}

/// Counts the bytes that it passes on.
struct Counting<'a> {
    into: &'a mut dyn Write,
    bytes: u64,
}

impl Write for Counting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.into.write(bytes)?;
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.into.flush()
    }
}
