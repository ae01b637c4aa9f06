//! Checkpoint files: one signed number in 8 bytes (disk-format §2.1).

use std::path::{Path, PathBuf};

use super::field::i64_at;
use super::{LogPosition, Malformed, Result};

/// Bytes of a checkpoint file; the server reads any other length as a number nobody wrote (O13).
pub const LENGTH: usize = 8;

/// What `truncate.chk`, `epoch.chk` and `proposal.chk` hold where there is nothing to say.
pub const NONE: i64 = -1;

/// The checkpoints beside the chunks (disk-format §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Checkpoint {
    /// W: the end of the last durable record.
    Writer,
    /// C: the end of the last record that the node has worked through; never beyond W.
    Chaser,
    /// E: where the last epoch record stands.
    Epoch,
    /// The highest epoch number proposed; not a position.
    Proposal,
    /// T: where the next start cuts the log off; −1 for "nowhere".
    Truncate,
}

impl Checkpoint {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Writer,
        Self::Chaser,
        Self::Epoch,
        Self::Proposal,
        Self::Truncate,
    ];

    /// The file's name in the db directory.
    #[must_use]
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Writer => "writer.chk",
            Self::Chaser => "chaser.chk",
            Self::Epoch => "epoch.chk",
            Self::Proposal => "proposal.chk",
            Self::Truncate => "truncate.chk",
        }
    }

    /// Its file in a db directory.
    #[must_use]
    pub fn under(self, db: &Path) -> PathBuf {
        db.join(self.file_name())
    }

    /// The checkpoint that is kept in a file of this name.
    #[must_use]
    pub fn of_file(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|checkpoint| checkpoint.file_name() == name)
    }
}

/// Checkpoints with which a node refuses to start and changes no byte that was there, whatever else
/// the directory holds (O15).
pub const START_GUARD: [(Checkpoint, i64); 3] = [
    (Checkpoint::Chaser, i64::MAX),
    (Checkpoint::Writer, i64::MAX - 1),
    (Checkpoint::Truncate, NONE),
];

/// The number in a checkpoint file.
///
/// # Errors
/// Any length but 8 bytes: the server would take an empty `truncate.chk` for 0 and wipe the
/// database (O13).
pub fn decode(bytes: &[u8]) -> Result<i64> {
    match i64_at(bytes, 0) {
        Some(value) if bytes.len() == LENGTH => Ok(value),
        _ => {
            Err(Malformed::new("checkpoint", 0, "8 bytes", format!("{} bytes", bytes.len())).into())
        }
    }
}

/// The bytes of a checkpoint file.
#[must_use]
pub const fn encode(value: i64) -> [u8; LENGTH] {
    value.to_le_bytes()
}

/// The log position in a checkpoint file; none for −1.
///
/// # Errors
/// A length other than 8 bytes, or a negative number other than −1.
pub fn position(bytes: &[u8]) -> Result<Option<LogPosition>> {
    match decode(bytes)? {
        NONE => Ok(None),
        value => {
            let position = LogPosition::from_signed(value);
            position.map(Some).ok_or_else(|| {
                Malformed::new("checkpoint", 0, "a position, or −1 for none", value).into()
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_file_is_not_zero() {
        let error = decode(&[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "checkpoint at byte 0: expected 8 bytes, found 0 bytes"
        );
        assert!(position(&[0; 7]).is_err());
        assert!(position(&[0; 9]).is_err());
    }

    #[test]
    fn only_minus_one_means_none() {
        assert_eq!(position(&encode(NONE)).unwrap(), None);
        assert_eq!(position(&encode(588)).unwrap(), LogPosition::new(588));
        assert!(position(&encode(-2)).is_err());
        assert!(position(&encode(i64::MIN)).is_err());
    }

    #[test]
    fn knows_its_files() {
        for checkpoint in Checkpoint::ALL {
            assert_eq!(
                Checkpoint::of_file(checkpoint.file_name()),
                Some(checkpoint)
            );
        }
        assert_eq!(Checkpoint::of_file("archive.chk"), None);
    }

    proptest! {
        #[test]
        fn reads_back(value: i64) {
            prop_assert_eq!(decode(&encode(value)).unwrap(), value);
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            prop_assert_eq!(decode(&bytes).is_ok(), bytes.len() == LENGTH);
            let _ = position(&bytes);
        }
    }
}
