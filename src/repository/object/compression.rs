//! How hard blobs are compressed.

use std::str::FromStr;

use super::encoding::{self, Encoding};
use crate::error::{Error, Kind, Result};

/// How blobs are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// They are stored as they are.
    None,
    /// kbackup chooses.
    #[default]
    Auto,
    /// With this level of zstd.
    Level(i32),
}

/// zstd's level if kbackup chooses.
const USUAL_LEVEL: i32 = 3;

/// The levels of zstd whose memory stays small.
const LEVELS: std::ops::RangeInclusive<i32> = 1..=19;

impl FromStr for Compression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "none" => return Ok(Self::None),
            "auto" => return Ok(Self::Auto),
            _ => {}
        }
        match text.parse() {
            Ok(level) if LEVELS.contains(&level) => Ok(Self::Level(level)),
            _ => Err(Error::new(
                Kind::Usage,
                "the compression is `none`, `auto`, or a level of zstd from 1 to 19",
            )),
        }
    }
}

impl Compression {
    /// Encodes the bytes of a blob.
    pub(super) fn encode(self, plain: &[u8]) -> Result<(Encoding, Vec<u8>)> {
        let level = match self {
            Self::None => None,
            Self::Auto => Some(USUAL_LEVEL),
            Self::Level(level) => Some(level),
        };
        encoding::encode(plain, level)
            .map_err(|error| Error::new(Kind::Failed, "cannot compress").because(error))
    }
}
