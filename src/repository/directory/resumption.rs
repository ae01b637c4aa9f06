//! Resumes single files that interrupted runs left: moves what is proven into the incoming backup,
//! and continues what is not whole. Also keeps the beginning of a file for the next run.

use std::sync::atomic::Ordering;

use super::draft::Draft;
use super::incoming::DirectoryIncoming;
use super::leftovers::{self, Candidate};
use crate::clock;
use crate::error::{Kind, Result};
use crate::event::Event;
use crate::format::Md5Hash;
use crate::fs::{self, ReadAt};
use crate::manifest::RelativePath;
use crate::repository::{Ingest, ProvenCopy, Resumed, Stored};
use crate::transfer::Follower;

/// The beginning of a file is kept in multiples of this, in bytes: the rest is then written at
/// offsets that go past the page cache.
const GRAIN: u64 = 4096;

impl DirectoryIncoming<'_> {
    /// Moves a file that an interrupted run left into this set, if it is proven. Returns `None`, and
    /// removes the file, if it differs from the source's.
    pub(super) fn resume_one(
        &self,
        path: &RelativePath,
        found: &Candidate<'_>,
        md5: Md5Hash,
        follow: &mut Follower<'_>,
    ) -> Result<Option<Resumed>> {
        let captured = clock::now();
        let proof = match found.proof {
            Some(proof) if proof.md5 == md5 && (follow.is_none() || proof.records.is_some()) => {
                self.run.emit(Event::Progress { bytes: proof.size });
                proof.clone()
            }
            _ => match self.prove(path, &found.file, md5, follow)? {
                Some(proof) => proof,
                None => return Ok(None),
            },
        };

        let place = self.place(path)?;
        self.noted(fs::rename(found.file.path(), &place))?;
        self.own().insert(path.clone(), true);
        Ok(Some(Resumed {
            stored: Stored {
                size: proof.size,
                blake3: proof.blake3,
                md5: Some(proof.md5),
                begun: 0,
                captured,
                stamp: None,
            },
            records: proof.records,
        }))
    }

    /// Keeps the beginning of a file whose copy was interrupted, if the server's MD5 can prove the
    /// file when a later run has finished it.
    pub(super) fn keep_begun(&self, draft: &Draft, md5: Option<Md5Hash>, stored: u64) {
        let length = stored - stored % GRAIN;
        let Some(md5) = md5 else {
            return;
        };

        if length > 0 && self.noted(draft.keep_begun(md5, length)).is_ok() {
            self.keeps_begun.store(true, Ordering::SeqCst);
        }
    }

    /// A draft for a file of the source, and how many of its bytes an interrupted run has copied.
    pub(super) fn draft_for(
        &self,
        path: &RelativePath,
        ingest: &Ingest<'_>,
    ) -> Result<(Draft, u64)> {
        let begun = match ingest.md5 {
            Some(md5) if !ingest.reads_every_byte => self.leftovers.open_begun(path, md5),
            _ => None,
        };
        let Some(begun) = begun.filter(|begun| begun.size() <= ingest.length) else {
            return Ok((self.draft(path)?, 0));
        };

        let draft = self.noted(Draft::of_begun(&begun, self.place(path)?))?;
        // Its bytes were synced before it got its name. They are synced once more, so that they are
        // then read from the disk.
        self.noted(draft.file.settle())?;
        self.run.note(format!(
            "{path}: kbackup continues at byte {}, where an interrupted run ended",
            begun.size()
        ));
        Ok((draft, begun.size()))
    }

    /// Reads a file that an interrupted run left, and proves it. Returns `None`, and removes the
    /// file, if it differs from the source's.
    fn prove(
        &self,
        path: &RelativePath,
        found: &fs::File,
        md5: Md5Hash,
        follow: &mut Follower<'_>,
    ) -> Result<Option<ProvenCopy>> {
        // Its bytes were synced before it got this name. They are synced once more and then read
        // from the disk, so that the hash is that of the bytes on the disk.
        self.noted(found.settle())?;

        // The follower saw the bytes of a file that turned out wrong, so it follows no other one.
        let error = match leftovers::prove(found, md5, follow.take(), self.run) {
            Ok(digest) => {
                return Ok(Some(ProvenCopy {
                    size: digest.size,
                    blake3: digest.blake3,
                    md5,
                    records: None,
                }));
            }
            Err(error) if matches!(error.kind(), Kind::Interrupted(_)) => return Err(error),
            Err(error) => error,
        };

        self.run.note(format!(
            "{path}: kbackup does not resume what an interrupted run left of it: {error}"
        ));
        self.noted(fs::remove_file(found.path()))?;
        Ok(None)
    }
}
