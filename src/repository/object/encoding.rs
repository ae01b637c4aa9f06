//! How plain bytes become the bytes of an object, and back: as they are, or as one zstd frame.

use std::io;

use serde::{Deserialize, Serialize};

/// How an object holds its plain bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Encoding {
    /// As they are.
    Plain,
    /// In one zstd frame.
    Zstd,
}

/// The least part of its length that a blob must lose, as one in so many. Less is not worth the
/// time of every reader.
const LEAST_WIN: usize = 20;

/// Encodes the bytes of a blob. `level` is zstd's; `None` stores them as they are.
pub(super) fn encode(plain: &[u8], level: Option<i32>) -> io::Result<(Encoding, Vec<u8>)> {
    if let Some(level) = level {
        let frame = zstd::bulk::compress(plain, level)?;
        if frame.len() + plain.len() / LEAST_WIN < plain.len() {
            return Ok((Encoding::Zstd, frame));
        }
    }
    Ok((Encoding::Plain, plain.to_vec()))
}

/// The plain bytes of an object. They must be exactly `length` bytes, so that a damaged frame
/// cannot use up the memory.
///
/// # Errors
/// `InvalidData` if it does not decode to that many bytes.
pub(super) fn decode(encoding: Encoding, stored: Vec<u8>, length: usize) -> io::Result<Vec<u8>> {
    let plain = match encoding {
        Encoding::Plain => stored,
        Encoding::Zstd => zstd::bulk::decompress(&stored, length)?,
    };
    if plain.len() == length {
        return Ok(plain);
    }

    let what = format!("it holds {} bytes, not {length}", plain.len());
    Err(io::Error::new(io::ErrorKind::InvalidData, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_shrink_is_stored_as_it_is() {
        let noise: Vec<u8> = (0..4096_u32)
            .flat_map(|number| blake3::hash(&number.to_le_bytes()).as_bytes()[..4].to_vec())
            .collect();
        let (encoding, stored) = encode(&noise, Some(3)).unwrap();
        assert_eq!((encoding, &stored), (Encoding::Plain, &noise));

        let text = b"the same again and again, ".repeat(1000);
        let (encoding, stored) = encode(&text, Some(3)).unwrap();
        assert!(encoding == Encoding::Zstd && stored.len() < text.len() / 10);
        assert_eq!(decode(encoding, stored, text.len()).unwrap(), text);

        let (encoding, stored) = encode(&text, None).unwrap();
        assert_eq!((encoding, &stored), (Encoding::Plain, &text));
    }

    #[test]
    fn another_length_is_an_error() {
        let text = b"the same again and again, ".repeat(1000);
        let (encoding, stored) = encode(&text, Some(1)).unwrap();
        for length in [0, text.len() - 1, text.len() + 1] {
            assert!(
                decode(encoding, stored.clone(), length).is_err(),
                "{length}"
            );
            assert!(decode(Encoding::Plain, text.clone(), length).is_err());
        }
        assert!(
            decode(encoding, text.clone(), text.len()).is_err(),
            "no frame"
        );
    }
}
