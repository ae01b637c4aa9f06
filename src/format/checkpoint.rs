//! Checkpoint files: one signed number in 8 bytes (disk-format §2.1). `names` holds their names,
//! and the room `log` reads them.

use super::field::i64_at;
use super::{LogPosition, Malformed, Result};

/// Bytes of a checkpoint file. From any other length the server reads a number that nobody wrote
/// (O13).
pub const LENGTH: usize = 8;

/// The number in `truncate.chk`, `epoch.chk` and `proposal.chk` that stands for "none".
pub const NONE: i64 = -1;

/// The checkpoints beside the chunks (disk-format §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Checkpoint {
    /// W: the end of the last durable record.
    Writer,
    /// C: the end of the last record that the node has processed. It is never beyond W.
    Chaser,
    /// E: the position of the last epoch record.
    Epoch,
    /// The highest epoch number that was proposed. It is not a position.
    Proposal,
    /// T: the position at which the next start cuts the log; −1 if it does not.
    Truncate,
}

impl Checkpoint {
    /// The five checkpoints, in the order of the variants.
    pub const ALL: [Self; 5] = [
        Self::Writer,
        Self::Chaser,
        Self::Epoch,
        Self::Proposal,
        Self::Truncate,
    ];

    /// The value that a server uses if the file is missing (disk-format §2.1).
    #[must_use]
    pub const fn value_if_missing(self) -> i64 {
        match self {
            Self::Writer | Self::Chaser => 0,
            Self::Epoch | Self::Proposal | Self::Truncate => NONE,
        }
    }
}

/// The start guard: with these checkpoints a node refuses to start and changes no byte, whatever
/// else the directory holds (O15).
pub const START_GUARD: [(Checkpoint, i64); 3] = [
    (Checkpoint::Chaser, i64::MAX),
    (Checkpoint::Writer, i64::MAX - 1),
    (Checkpoint::Truncate, NONE),
];

/// The number in a checkpoint file.
///
/// # Errors
/// A length other than 8 bytes. A server reads an empty `truncate.chk` as 0 and wipes the database
/// (O13).
pub fn decode(bytes: &[u8]) -> Result<i64> {
    match i64_at(bytes, 0) {
        Some(value) if bytes.len() == LENGTH => Ok(value),
        _ => {
            let found = format!("{} bytes", bytes.len());
            Err(Malformed::new("checkpoint", 0, "8 bytes", found).into())
        }
    }
}

/// The bytes of a checkpoint file.
#[must_use]
pub const fn encode(value: i64) -> [u8; LENGTH] {
    value.to_le_bytes()
}

/// The log position in a checkpoint file. Returns `None` for −1.
///
/// # Errors
/// A length other than 8 bytes, or a negative number other than −1.
pub fn position(bytes: &[u8]) -> Result<Option<LogPosition>> {
    position_of(decode(bytes)?)
}

/// The log position for the number in a checkpoint. Returns `None` for −1.
///
/// # Errors
/// A negative number other than −1.
pub fn position_of(value: i64) -> Result<Option<LogPosition>> {
    if value == NONE {
        return Ok(None);
    }

    match LogPosition::from_signed(value) {
        Some(position) => Ok(Some(position)),
        None => Err(Malformed::new("checkpoint", 0, "a position, or −1 for none", value).into()),
    }
}

/// The number that a checkpoint holds for a position; −1 for `None`.
#[must_use]
pub fn signed(position: Option<LogPosition>) -> i64 {
    position.map_or(NONE, LogPosition::to_signed)
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
