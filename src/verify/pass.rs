//! Notes what a verification has proven, so that one that was interrupted continues where it was,
//! also in another process.
//!
//! A note is one line of JSON at the end of a file. A note that is lost costs a hash.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::which::Which;
use crate::clock::{self, Timestamp, between};
use crate::error::Result;
use crate::format::{Md5Hash, ReadAt};
use crate::fs::{self, File};
use crate::manifest::{Blake3Hash, Label};
use crate::proof::Depth;
use crate::transfer::Digest;

/// What was proven longer ago than this is proven again.
const LONGEST_PASS: Duration = Duration::from_hours(30 * 24);
const MAX_BYTES: u64 = 256 * 1024 * 1024;
const FILE_MODE: u32 = 0o600;

/// The notes of one verification, from its beginning to its end, however often it is interrupted.
#[derive(Default)]
pub struct VerifyPass {
    /// `None` if nothing is noted.
    file: Option<File>,
    known: Mutex<Noted>,
}

/// What was proven in this verification, also by earlier runs, and where the next note goes.
#[derive(Default)]
struct Noted {
    hashed: HashMap<String, Digest>,
    intact: HashSet<Label>,
    end: u64,
}

/// What a verification is about. Notes of another one do not count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifySubject {
    /// The repository.
    pub repository: Uuid,
    /// Which of its backups.
    pub which: Which,
    /// How much is read.
    pub depth: Depth,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Note {
    /// The first line.
    Began {
        at: Timestamp,
        subject: VerifySubject,
    },
    /// A stored file has the bytes of its row.
    Hashed {
        file: String,
        size: u64,
        blake3: Blake3Hash,
        md5: Option<Md5Hash>,
    },
    /// A whole backup is intact.
    Intact { label: Label },
}

impl VerifyPass {
    /// Continues the verification that the file at `path` tells of. If it tells of another one, or
    /// of none, a new one begins.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn resume(path: &Path, subject: &VerifySubject) -> Result<Self> {
        let bytes = match fs::read_small(path, MAX_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => Vec::new(),
            Err(error) => return Err(error.into()),
        };

        let mut lines = bytes.split(|byte| *byte == b'\n').map(parse);
        let mut noted = Noted::default();
        match lines.next().flatten() {
            Some(Note::Began { at, subject: of }) if of == *subject && is_young(at) => {
                for note in lines.flatten() {
                    noted.add(note);
                }
            }
            _ => fs::write_durably(path, &line(&Note::began(subject)), FILE_MODE)?,
        }

        let file = fs::open_or_create(path, FILE_MODE)?;
        noted.end = file.status()?.size;
        // The last line may be cut. Then the next one must not become a part of it.
        if bytes.last().is_some_and(|last| *last != b'\n') {
            file.write_all_at(noted.end, b"\n")?;
            noted.end += 1;
        }

        Ok(Self {
            file: Some(file),
            known: Mutex::new(noted),
        })
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hashes of a stored file, if this verification has found that it has the bytes of its
    /// row.
    pub(super) fn hashed(&self, stored: &dyn ReadAt) -> Option<Digest> {
        let file = stored.stamp()?.bytes_to_text();
        self.noted().hashed.get(&file).copied()
    }

    /// Notes that a stored file has the bytes of its row.
    pub(super) fn note_hashed(&self, stored: &dyn ReadAt, digest: &Digest) {
        if let Some(stamp) = stored.stamp() {
            self.note(Note::Hashed {
                file: stamp.bytes_to_text(),
                size: digest.size,
                blake3: digest.blake3,
                md5: digest.md5,
            });
        }
    }

    /// A stored file does not have the bytes of its row any more.
    pub(super) fn forget_hashed(&self, stored: &dyn ReadAt) {
        if let Some(stamp) = stored.stamp() {
            self.noted().hashed.remove(&stamp.bytes_to_text());
        }
    }

    /// Whether this verification has found that a backup is intact.
    pub(super) fn is_intact(&self, label: &Label) -> bool {
        self.noted().intact.contains(label)
    }

    /// Notes that a backup is intact.
    pub(super) fn note_intact(&self, label: &Label) {
        self.note(Note::Intact {
            label: label.clone(),
        });
    }

    /// From now on, this run verifies also backups that were found intact. Their files need not be
    /// hashed again.
    pub(super) fn look_at_all_backups(&self) {
        self.noted().intact.clear();
    }

    /// The verification is at its end: the next one begins anew.
    pub(super) fn end(&self) {
        if let Some(file) = &self.file {
            // If this fails, the next verification takes over what this one has proven.
            drop(file.set_size(0));
        }
    }

    fn note(&self, note: Note) {
        let Some(file) = &self.file else { return };

        let line = line(&note);
        let mut noted = self.noted();
        // If a note cannot be written, another process hashes its file again.
        if file.write_all_at(noted.end, &line).is_ok() {
            noted.end += line.len() as u64;
        }
        noted.add(note);
    }
}

impl Noted {
    fn add(&mut self, note: Note) {
        match note {
            Note::Began { .. } => {}
            Note::Hashed {
                file,
                size,
                blake3,
                md5,
            } => {
                self.hashed.insert(file, Digest { size, blake3, md5 });
            }
            Note::Intact { label } => {
                self.intact.insert(label);
            }
        }
    }
}

impl Note {
    fn began(subject: &VerifySubject) -> Self {
        Self::Began {
            at: clock::now(),
            subject: subject.clone(),
        }
    }
}

fn is_young(began: Timestamp) -> bool {
    between(began, clock::now()) < LONGEST_PASS
}

/// Returns `None` for a line that is cut.
fn parse(line: &[u8]) -> Option<Note> {
    serde_json::from_slice(line).ok()
}

fn line(note: &Note) -> Vec<u8> {
    // Every field of a note can be written as JSON, so this does not fail.
    let mut line = serde_json::to_vec(note).unwrap_or_default();
    line.push(b'\n');
    line
}
