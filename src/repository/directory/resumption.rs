//! Resumes single files that interrupted runs left: moves what is proven into the incoming backup.

use super::incoming::DirectoryIncoming;
use super::leftovers::{self, Candidate};
use crate::clock;
use crate::error::{Kind, Result};
use crate::event::Event;
use crate::format::Md5Hash;
use crate::fs;
use crate::manifest::RelativePath;
use crate::repository::{ProvenCopy, Resumed, Stored};
use crate::transfer::Follower;

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
                captured,
                stamp: None,
            },
            records: proof.records,
        }))
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
