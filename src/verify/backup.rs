//! The verification of one backup: structure, hashes, epochs, the log, the index, and the scavenge
//! state.

use std::collections::HashSet;

use super::from_disk::FromDisk;
use super::known_files::{Hashed, KnownFiles, is_as_stored, is_damage};
use super::report::{VerifiedBackup, VerifyFinding};
use crate::error::Result;
use crate::format::{Boundary, Lineage, LogPosition, WriterPosition};
use crate::log::{self, ChunkSet, LogFile};
use crate::manifest::{FileSet, Manifest, RelativePath, Role, Row};
use crate::parallel;
use crate::proof::{self, Depth, IndexScope, LogEnd, LogStretch};
use crate::repository::Repository;
use crate::run::Run;
use crate::transfer::{FILES_AT_ONCE, Paced};

/// Verifies the files of one manifest.
pub(super) fn verify(
    repository: &dyn Repository,
    manifest: &Manifest,
    depth: Depth,
    known: &KnownFiles,
    run: &Run,
) -> Result<VerifiedBackup> {
    let stored = repository.files(&manifest.label)?;
    let stored = FromDisk::new(&*stored, known);
    let stored = Paced::new(&stored, run);
    let mut verification = Verification {
        repository,
        manifest,
        files: &stored,
        run,
        gone: HashSet::new(),
        findings: Vec::new(),
        known_findings: HashSet::new(),
        records: 0,
        entries: 0,
    };

    verification.structure()?;
    if depth > Depth::Quick {
        verification.hashes(known)?;
    }
    // Without a chunk, almost each check of log and index would find that again.
    if !verification.lacks_chunk() {
        match ChunkSet::read(&stored) {
            Ok(chunks) => verification.log_and_index(&chunks, depth, known)?,
            // The check of the structure has found the same damage.
            Err(error) if is_damage(&error) => {}
            Err(error) => return Err(error),
        }
    }

    Ok(VerifiedBackup {
        label: manifest.label.clone(),
        files: manifest.files.len() as u64,
        records: verification.records,
        entries: verification.entries,
        findings: verification.findings,
        unread: None,
        damaged_at_source: manifest.contents.damaged.clone(),
        twins: repository.twins(manifest)?.into_iter().cloned().collect(),
    })
}

struct Verification<'a> {
    repository: &'a dyn Repository,
    manifest: &'a Manifest,
    files: &'a dyn FileSet,
    run: &'a Run,
    /// The files that are missing. One finding says so, and no other check looks for them.
    gone: HashSet<RelativePath>,
    findings: Vec<VerifyFinding>,
    /// The same findings, to add each only once.
    known_findings: HashSet<VerifyFinding>,
    records: u64,
    entries: u64,
}

impl Verification<'_> {
    fn add_finding(&mut self, path: Option<RelativePath>, what: impl Into<String>) {
        let is_gone = path.as_ref().is_some_and(|path| self.gone.contains(path));
        if is_gone {
            return;
        }

        let finding = VerifyFinding {
            path,
            what: what.into(),
        };
        if self.known_findings.insert(finding.clone()) {
            self.findings.push(finding);
        }
    }

    /// Turns damage into a finding. Any other error stays an error.
    fn or_finding<T>(
        &mut self,
        path: Option<&RelativePath>,
        result: Result<T>,
    ) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if is_damage(&error) => {
                self.add_finding(path.cloned(), error.in_words());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Checks names, sizes, headers, footers, and small files.
    fn structure(&mut self) -> Result<()> {
        let structure = proof::structure(self.files, self.manifest, self.run);
        let Some(faults) = self.or_finding(None, structure)? else {
            return Ok(());
        };
        for fault in faults {
            self.add_finding(fault.path, fault.what);
        }
        self.gone = self.missing_files()?;
        Ok(())
    }

    /// The rows that have no file.
    fn missing_files(&self) -> Result<HashSet<RelativePath>> {
        let mut missing = HashSet::new();
        missing.extend(self.manifest.files.iter().map(|row| row.path.clone()));

        let entries = match self.files.files() {
            Ok(entries) => entries,
            // The check of the structure has found that the files cannot be listed.
            Err(error) if is_damage(&error) => return Ok(HashSet::new()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            missing.remove(&entry.path);
        }
        Ok(missing)
    }

    fn lacks_chunk(&self) -> bool {
        let mut rows = self.manifest.files.iter();
        rows.any(|row| row.role == Role::Chunk && self.gone.contains(&row.path))
    }

    /// Compares the hashes of all files with their rows and with the server's own MD5s.
    fn hashes(&mut self, known: &KnownFiles) -> Result<()> {
        let (manifest, repository, run) = (self.manifest, self.repository, self.run);
        let mut wrong = Vec::new();
        parallel::for_each(
            FILES_AT_ONCE,
            &manifest.files,
            |row| -> Result<_> {
                run.check()?;
                let hashed = known.hash(repository, &manifest.label, row, run)?;
                Ok(wrong_with(manifest, row, &hashed))
            },
            |row, found| {
                for what in found {
                    wrong.push((&row.path, what));
                }
            },
        )?;

        // The threads end in any order, but the findings come in the order of the paths.
        wrong.sort_by_key(|(path, _)| *path);
        for (path, what) in wrong {
            self.add_finding(Some(path.clone()), what);
        }
        Ok(())
    }

    /// Runs all checks that need the chunks of the log.
    fn log_and_index(&mut self, chunks: &ChunkSet, depth: Depth, known: &KnownFiles) -> Result<()> {
        self.lineage(chunks)?;
        if depth > Depth::Quick {
            self.tail(chunks)?;
            self.index(chunks, depth)?;
            self.scavenge_state(chunks)?;
        }
        if depth == Depth::Deep {
            self.all_records(chunks, known)?;
        }
        Ok(())
    }

    /// Checks that the epochs in the log are those of the manifest.
    fn lineage(&mut self, chunks: &ChunkSet) -> Result<()> {
        let log = &self.manifest.log;
        let found = match log.stored.epoch {
            Some(epoch) => self.or_finding(None, log::lineage(self.files, chunks, epoch))?,
            None => Some(Lineage::default()),
        };
        if found.is_some_and(|lineage| lineage != log.lineage) {
            self.add_finding(None, "the epochs in the log are not those of the manifest");
        }
        Ok(())
    }

    /// Reads every record of the chunk that the log ends in.
    fn tail(&mut self, chunks: &ChunkSet) -> Result<()> {
        let end = self.manifest.log.position.position();
        let begins_before_end = |file: &&LogFile| file.header().start_position() < end;
        let Some(last) = chunks.in_use().iter().rfind(begins_before_end) else {
            return Ok(());
        };

        let Some(proof) = self.scan(chunks, last, end)? else {
            return Ok(());
        };
        if proof.end != LogEnd::Whole {
            self.add_finding(
                Some(last.path.clone()),
                format!("the log ends at {end}, inside an append"),
            );
        }
        Ok(())
    }

    /// Reads every record of every other chunk. A chunk that backups share is read once.
    fn all_records(&mut self, chunks: &ChunkSet, known: &KnownFiles) -> Result<()> {
        let end = self.manifest.log.position.position();
        for file in chunks.in_use() {
            let file_end = file.header().end_position();
            if file_end >= end {
                continue;
            }

            self.run.check()?;
            let copy = file.open(self.files)?.copy_id();
            if known.is_scanned(copy) {
                continue;
            }
            if self.scan(chunks, file, file_end)?.is_some() {
                known.add_scanned(copy);
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
        let stretch = LogStretch::new(file.path.clone(), file.header().start_position());
        let scanned = proof::scan(
            self.files,
            chunks,
            &[stretch],
            Boundary::ZERO,
            WriterPosition(end),
            self.run,
        );
        let proof = self.or_finding(Some(&file.path), scanned)?;
        self.records += proof.as_ref().map_or(0, |proof| proof.seen.records);
        Ok(proof)
    }

    /// Checks the tables and their filters, and compares table entries with the log. `hashes` has
    /// compared the MD5s of the tables.
    fn index(&mut self, chunks: &ChunkSet, depth: Depth) -> Result<()> {
        let writer = WriterPosition(self.manifest.log.position.position());
        let scope = IndexScope {
            chunks: Some(chunks),
            writer,
            depth,
            hash_tables: false,
        };
        let examined = proof::examine_index(self.files, &scope, self.run);
        let Some(proof) = self.or_finding(None, examined)? else {
            return Ok(());
        };

        self.entries += proof.entries;
        for problem in proof.problems {
            if problem.fault.is_damage() {
                self.add_finding(Some(problem.path), problem.what);
            }
        }
        if let Some(hidden) = proof.hidden
            && hidden.missing > 0
        {
            let what = format!(
                "{} of {} events that the log holds are not in the index, the first at {}, \
                 although the metadata of their streams does not hide them: a restored server \
                 would not show them (O39)",
                hidden.missing, hidden.sampled, hidden.first
            );
            self.add_finding(None, what);
        }
        Ok(())
    }

    /// Checks that the scavenge state knows of no scavenge that the log does not hold.
    fn scavenge_state(&mut self, chunks: &ChunkSet) -> Result<()> {
        let writer = WriterPosition(self.manifest.log.position.position());
        let path = RelativePath::scavenge_state();
        let fault = proof::scavenge_state_fault(self.files, chunks, writer, self.run);
        if let Some(Some(why)) = self.or_finding(Some(&path), fault)? {
            self.add_finding(Some(path), why);
        }
        Ok(())
    }
}

/// What is wrong with a file, by its hashes: they contradict its row, or the server's MD5.
fn wrong_with(manifest: &Manifest, row: &Row, hashed: &Hashed) -> Vec<String> {
    let digest = match hashed {
        Ok(digest) => digest,
        Err(why) => return vec![why.clone()],
    };

    let mut wrong = Vec::new();
    if !is_as_stored(row, digest) {
        wrong.push("its bytes are not those that were stored: the BLAKE3 differs".to_owned());
    }
    let of_chunk = row.chunk.and_then(|chunk| chunk.md5);
    let servers = row.table_md5.or(of_chunk);
    let was_bad_at_source = manifest.contents.damaged.contains(&row.path);
    if !was_bad_at_source && servers.is_some() && servers != digest.md5 {
        wrong.push("it fails the server's own MD5".to_owned());
    }
    wrong
}
