//! One backup.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use super::{BackupReport, Finding};
use crate::error::{Error, Kind, Result};
use crate::format::{Boundary, Lineage, LogPosition, WriterPosition};
use crate::fs::CopyId;
use crate::log::{self, ChunkSet, LogFile};
use crate::manifest::{FileSet, Label, Manifest, RelativePath, Role, Row};
use crate::parallel;
use crate::proof::{self, Depth, IndexScope, LogEnd, LogStretch};
use crate::repository::Repository;
use crate::run::Run;
use crate::transfer::{Digest, FILES_AT_ONCE, Paced, hash_file, paced};

/// What was learnt of stored files, for all backups that share them.
#[derive(Default)]
pub(super) struct Shared {
    /// What a file hashes to, or why it cannot be read.
    pub(super) hashed: HashMap<CopyId, Hashed>,
    /// Chunks whose records are all right.
    pub(super) scanned: HashSet<CopyId>,
    pub(super) bytes_hashed: u64,
}

type Hashed = std::result::Result<Digest, String>;

/// Verifies the files of one manifest.
pub(super) fn verify(
    repository: &dyn Repository,
    manifest: &Manifest,
    depth: Depth,
    shared: &mut Shared,
    run: &Run,
) -> Result<BackupReport> {
    let stored = repository.files(&manifest.label)?;
    let stored = Paced::new(&*stored, run);
    let mut verification = Verification {
        repository,
        manifest,
        files: &stored,
        run,
        findings: Vec::new(),
        told: HashSet::new(),
        records: 0,
        entries: 0,
    };
    for fault in verification
        .found(None, proof::structure(&stored, manifest, run))?
        .unwrap_or_default()
    {
        verification.tell(fault.path, fault.what);
    }
    if depth > Depth::Quick {
        verification.hash(shared)?;
    }
    match ChunkSet::read(&stored) {
        Ok(chunks) => {
            verification.lineage(&chunks)?;
            if depth > Depth::Quick {
                verification.tail(&chunks)?;
                verification.index(&chunks, depth)?;
                verification.scavenge_state(&chunks)?;
            }
            if depth == Depth::Deep {
                verification.all_records(&chunks, shared)?;
            }
        }
        // Told with the structure.
        Err(error) if is_damage(&error) => {}
        Err(error) => return Err(error),
    }
    let Verification {
        findings,
        records,
        entries,
        ..
    } = verification;
    Ok(BackupReport {
        label: manifest.label.clone(),
        files: manifest.files.len() as u64,
        records,
        entries,
        findings,
        damaged_at_source: manifest.contents.damaged.clone(),
    })
}

/// What the proof calls the source is a backup here.
fn is_damage(error: &Error) -> bool {
    matches!(
        error.kind(),
        Kind::SourceCorrupt | Kind::StoredCorrupt | Kind::Unstable
    )
}

struct Verification<'a> {
    repository: &'a dyn Repository,
    manifest: &'a Manifest,
    files: &'a dyn FileSet,
    run: &'a Run,
    findings: Vec<Finding>,
    told: HashSet<Finding>,
    records: u64,
    entries: u64,
}

impl Verification<'_> {
    fn tell(&mut self, path: Option<RelativePath>, what: impl Into<String>) {
        let finding = Finding {
            path,
            what: what.into(),
        };
        if self.told.insert(finding.clone()) {
            self.findings.push(finding);
        }
    }

    /// Turns damage into a finding; what else the storage reports stays an error.
    fn found<T>(&mut self, path: Option<&RelativePath>, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if is_damage(&error) => {
                self.tell(path.cloned(), error.in_words());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The hashes of all files, against their rows and the server's own.
    fn hash(&mut self, shared: &mut Shared) -> Result<()> {
        let (manifest, repository, run) = (self.manifest, self.repository, self.run);
        let known = Mutex::new(shared);
        let mut wrong = Vec::new();
        parallel::for_each(
            FILES_AT_ONCE,
            &manifest.files,
            |row| -> Result<_> {
                run.check()?;
                let hashed = hash_row(repository, &manifest.label, row, &known, run)?;
                Ok(wrong_with(manifest, row, &hashed))
            },
            |row, found| wrong.extend(found.into_iter().map(|what| (&row.path, what))),
        )?;
        // Whichever was hashed first.
        wrong.sort_by_key(|(path, _)| *path);
        wrong
            .into_iter()
            .for_each(|(path, what)| self.tell(Some(path.clone()), what));
        Ok(())
    }

    /// The epochs in the log are those of the manifest.
    fn lineage(&mut self, chunks: &ChunkSet) -> Result<()> {
        let log = &self.manifest.log;
        let found = match log.stored.epoch {
            Some(epoch) => self.found(None, log::lineage(self.files, chunks, epoch))?,
            None => Some(Lineage::default()),
        };
        if found.is_some_and(|lineage| lineage != log.lineage) {
            self.tell(None, "the epochs in the log are not those of the manifest");
        }
        Ok(())
    }

    /// Every record of the chunk that the log ends in.
    fn tail(&mut self, chunks: &ChunkSet) -> Result<()> {
        let end = self.manifest.log.position.position();
        let last = chunks
            .in_use()
            .iter()
            .rev()
            .find(|file| file.file.header.start_position() < end);
        let Some(last) = last else { return Ok(()) };
        let proof = self.scan(chunks, last, end)?;
        if let Some(proof) = proof
            && proof.end != LogEnd::Whole
        {
            self.tell(
                Some(last.path.clone()),
                format!("the log's end at {end} is inside of an append"),
            );
        }
        Ok(())
    }

    /// Every record of every other chunk; of those that backups share, once.
    fn all_records(&mut self, chunks: &ChunkSet, shared: &mut Shared) -> Result<()> {
        let end = self.manifest.log.position.position();
        for file in chunks
            .in_use()
            .iter()
            .filter(|file| file.file.header.end_position() < end)
        {
            self.run.check()?;
            let key = file.open(self.files)?.copy_id();
            if key.is_some_and(|key| shared.scanned.contains(&key)) {
                continue;
            }
            if self
                .scan(chunks, file, file.file.header.end_position())?
                .is_some()
            {
                shared.scanned.extend(key);
            }
        }
        Ok(())
    }

    fn scan(
        &mut self,
        chunks: &ChunkSet,
        file: &LogFile,
        end: LogPosition,
    ) -> Result<Option<proof::LogProof>> {
        let stretch = LogStretch::new(file.path.clone(), file.file.header.start_position());
        let scanned = proof::scan(
            self.files,
            chunks,
            &[stretch],
            Boundary::ZERO,
            WriterPosition(end),
            self.run,
        );
        let proof = self.found(Some(&file.path), scanned)?;
        self.records += proof.as_ref().map_or(0, |proof| proof.seen.records);
        Ok(proof)
    }

    /// The tables, their filters, and their entries against the log. Their MD5s were computed with
    /// the other hashes.
    fn index(&mut self, chunks: &ChunkSet, depth: Depth) -> Result<()> {
        let writer = WriterPosition(self.manifest.log.position.position());
        let scope = IndexScope {
            chunks: Some(chunks),
            writer,
            depth,
            hash_tables: false,
        };
        let examined = proof::examine_index(self.files, &scope, self.run);
        let Some(proof) = self.found(None, examined)? else {
            return Ok(());
        };
        self.entries += proof.entries;
        for problem in proof.problems {
            self.tell(Some(problem.path), problem.what);
        }
        if let Some(hidden) = proof.hidden.filter(|hidden| !hidden.explained) {
            let what = format!(
                "{} of {} events that the log holds are not in the index, the first at {}: a restored server would not show them (O39)",
                hidden.missing, hidden.sampled, hidden.first
            );
            self.tell(None, what);
        }
        Ok(())
    }

    /// The scavenge state knows of no scavenge that the log does not hold.
    fn scavenge_state(&mut self, chunks: &ChunkSet) -> Result<()> {
        let writer = WriterPosition(self.manifest.log.position.position());
        for row in self
            .manifest
            .files
            .iter()
            .filter(|row| row.role == Role::ScavengeState)
        {
            let foreign = proof::foreign_scavenge(self.files, &row.path, chunks, writer, self.run);
            if let Some(why) = self.found(Some(&row.path), foreign)?.flatten() {
                self.tell(
                    Some(row.path.clone()),
                    format!(
                        "{why}: the next scavenge would remove events that were written since (O34)"
                    ),
                );
            }
        }
        Ok(())
    }
}

/// What a stored file hashes to. Damage, an unreadable block among it, is no error.
fn hash_row(
    repository: &dyn Repository,
    label: &Label,
    row: &Row,
    shared: &Mutex<&mut Shared>,
    run: &Run,
) -> Result<Hashed> {
    let source = match repository.open(label, row) {
        Ok(source) => paced(source, run),
        Err(error) if is_damage(&error) => return Ok(Err(error.in_words())),
        Err(error) => return Err(error),
    };
    let key = source.copy_id();
    if let Some(key) = key
        && let Ok(shared) = shared.lock()
        && let Some(known) = shared.hashed.get(&key)
    {
        return Ok(known.clone());
    }
    let has_md5 = matches!(row.role, Role::Chunk | Role::Table);
    let hashed = match hash_file(&*source, has_md5, run) {
        Ok(digest) => Ok(digest),
        Err(error) if error.kind() == Kind::Failed => Err(error.in_words()),
        Err(error) => return Err(error),
    };
    if let Ok(mut shared) = shared.lock() {
        shared.bytes_hashed = shared.bytes_hashed.saturating_add(row.size);
        if let Some(key) = key {
            shared.hashed.insert(key, hashed.clone());
        }
    }
    Ok(hashed)
}

/// Whether a stored file has the bytes of its row.
pub(super) fn is_intact(
    repository: &dyn Repository,
    label: &Label,
    row: &Row,
    shared: &mut Shared,
    run: &Run,
) -> Result<bool> {
    let hashed = hash_row(repository, label, row, &Mutex::new(shared), run)?;
    Ok(hashed.is_ok_and(|digest| is_as_stored(row, &digest)))
}

fn is_as_stored(row: &Row, digest: &Digest) -> bool {
    digest.size == row.size && digest.blake3 == row.blake3
}

/// What a file's hashes contradict.
fn wrong_with(manifest: &Manifest, row: &Row, hashed: &Hashed) -> Vec<String> {
    let digest = match hashed {
        Ok(digest) => digest,
        Err(why) => return vec![why.clone()],
    };
    let mut wrong = Vec::new();
    if !is_as_stored(row, digest) {
        wrong.push("its bytes are not those that were stored: the BLAKE3 differs".to_owned());
    }
    let servers = row
        .table_md5
        .or_else(|| row.chunk.and_then(|chunk| chunk.md5));
    let known = manifest.contents.damaged.contains(&row.path);
    if !known && servers.is_some() && servers != digest.md5 {
        wrong.push("it fails the server's own MD5".to_owned());
    }
    wrong
}
