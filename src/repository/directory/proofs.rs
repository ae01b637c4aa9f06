//! What runs have proven of the files in `incoming/ID/` that a later run can resume, kept in the
//! file `proofs` beside them. So the later run need not read these files again.
//!
//! A proof counts only while its file is the same: inode, length and times. kbackup adds it after
//! the file was synced without an error and has its name. The file `proofs` itself is not synced: a
//! loss of power may take its last lines, or leave anything in them. Each line has a checksum, and a
//! file without a proof is read again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::layout::FILE_MODE;
use crate::error::{Error, Kind, Result};
use crate::fs::{self, IoError, Stamp};
use crate::manifest::RelativePath;
use crate::repository::ProvenCopy;

/// The name of the file.
pub(super) const PROOFS: &str = "proofs";
/// The length up to which the file is read: enough for a million lines without epochs.
const MAX_BYTES: u64 = 1 << 30;

/// One line of the file, behind its checksum.
#[derive(Serialize, Deserialize)]
struct KeptProof {
    path: RelativePath,
    /// The state of the file, as [`Stamp::to_text`] has it.
    state: String,
    proof: ProvenCopy,
}

/// The proofs that an interrupted run kept.
#[derive(Debug, Default)]
pub(super) struct KeptProofs {
    proofs: HashMap<RelativePath, (String, ProvenCopy)>,
}

impl KeptProofs {
    /// Reads the proofs of a run. A proof that cannot be read counts as lost.
    pub(super) fn read(top: &Path) -> Self {
        let mut kept = Self::default();
        let read = fs::read_small(&top.join(PROOFS), MAX_BYTES);
        let Ok(bytes) = read else {
            return kept;
        };

        for line in bytes.split(|byte| *byte == b'\n') {
            if let Some(line) = decode(line) {
                kept.proofs.insert(line.path, (line.state, line.proof));
            }
        }
        kept
    }

    /// What was proven of a file that now has this stamp.
    pub(super) fn find(&self, path: &RelativePath, stamp: Stamp) -> Option<&ProvenCopy> {
        let (state, proof) = self.proofs.get(path)?;
        (*state == stamp.to_text()).then_some(proof)
    }
}

/// The file `proofs` of the present run.
#[derive(Debug)]
pub(super) struct ProofsFile {
    place: PathBuf,
    /// The file, once there is a proof, and its length.
    file: Mutex<Option<(fs::File, u64)>>,
}

impl ProofsFile {
    pub(super) fn new(top: &Path) -> Self {
        Self {
            place: top.join(PROOFS),
            file: Mutex::default(),
        }
    }

    /// Adds lines of [`encode`].
    pub(super) fn append(&self, lines: &str) -> Result<(), IoError> {
        // A failed write ends the run, so the length is right after every success.
        let mut open = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, length) = match open.take() {
            Some(open) => open,
            None => (fs::create_new(&self.place, FILE_MODE)?, 0),
        };

        file.write_all_at(length, lines.as_bytes())?;
        *open = Some((file, length + lines.len() as u64));
        Ok(())
    }

    /// Removes the file. It is no part of a backup.
    pub(super) fn remove(&self) -> Result<(), IoError> {
        fs::remove_file(&self.place)
    }
}

/// The line of a proof of a file that has this stamp.
pub(super) fn encode(path: &RelativePath, stamp: Stamp, proof: ProvenCopy) -> Result<String> {
    let line = KeptProof {
        path: path.clone(),
        state: stamp.to_text(),
        proof,
    };
    let text = serde_json::to_string(&line).map_err(|error| {
        Error::new(Kind::Failed, "cannot write the proof of a stored file")
            .on(path)
            .because(error)
    })?;
    Ok(format!("{} {text}\n", blake3::hash(text.as_bytes())))
}

fn decode(line: &[u8]) -> Option<KeptProof> {
    let line = std::str::from_utf8(line).ok()?;
    let (checksum, text) = line.split_once(' ')?;
    if *checksum != *blake3::hash(text.as_bytes()).to_hex() {
        return None;
    }
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Md5Hash;
    use crate::manifest::Blake3Hash;

    fn proof(number: u64) -> ProvenCopy {
        ProvenCopy {
            size: number,
            blake3: Blake3Hash::of(&number.to_le_bytes()),
            md5: Md5Hash([7; 16]),
            records: None,
        }
    }

    fn at(path: &str) -> RelativePath {
        path.parse().unwrap()
    }

    #[test]
    fn the_last_proof_of_a_path_counts_while_the_file_is_the_same() {
        let place = tempfile::tempdir().unwrap();
        let path = at("db/chunk-000000.000000");
        let (stamp, other) = (Stamp::of_content([1; 32]), Stamp::of_content([2; 32]));
        let file = ProofsFile::new(place.path());
        for (stamp, number) in [(other, 1), (stamp, 2)] {
            let line = encode(&path, stamp, proof(number)).unwrap();
            file.append(&line).unwrap();
        }

        let kept = KeptProofs::read(place.path());
        assert_eq!(kept.find(&path, stamp), Some(&proof(2)));
        assert_eq!(kept.find(&path, other), None);
        assert_eq!(kept.find(&at("index/table"), stamp), None);

        file.remove().unwrap();
        let kept = KeptProofs::read(place.path());
        assert_eq!(kept.find(&path, stamp), None);
    }

    #[test]
    fn a_damaged_line_is_a_lost_proof() {
        let place = tempfile::tempdir().unwrap();
        let stamp = Stamp::of_content([1; 32]);
        let paths = [at("index/one"), at("index/two"), at("index/three")];
        let file = ProofsFile::new(place.path());
        for path in &paths {
            file.append(&encode(path, stamp, proof(9)).unwrap())
                .unwrap();
        }

        let whole = fs::read_small(&place.path().join(PROOFS), MAX_BYTES).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write_durably(&place.path().join(PROOFS), &bytes, FILE_MODE).unwrap();
            let kept = KeptProofs::read(place.path());
            let found = paths.iter().filter_map(|path| kept.find(path, stamp));
            let found: Vec<_> = found.collect();
            assert!(found.iter().all(|found| **found == proof(9)), "{at}");
            assert!((1..3).contains(&found.len()), "{at}");
        }

        fs::write_durably(
            &place.path().join(PROOFS),
            &whole[..whole.len() - 9],
            FILE_MODE,
        )
        .unwrap();
        let kept = KeptProofs::read(place.path());
        assert_eq!(kept.find(&paths[1], stamp), Some(&proof(9)));
        assert_eq!(kept.find(&paths[2], stamp), None);
    }
}
