//! The text of heads, of the catalog and of journals as an object: one zstd frame with a line that
//! holds the BLAKE3 of the JSON text behind it. So damage shows before the text is believed.

use std::io::Read;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Kind, Result};
use crate::manifest::Blake3Hash;

/// The longest text that is read: the head of a log with a million epochs fits.
const MAX_BYTES: u64 = 256 << 20;
/// The longest object that is read.
pub(super) const MAX_STORED_BYTES: u64 = 64 << 20;
/// zstd's level. These texts are small, and are read more often than written.
const LEVEL: i32 = 3;
/// Hexadecimal digits of the hash.
const DIGITS: usize = 64;

/// The bytes of the object.
pub(super) fn seal(value: &impl Serialize) -> Result<Vec<u8>> {
    let text = serde_json::to_vec(value).map_err(cannot_write)?;
    let mut sealed = format!("{}\n", Blake3Hash::of(&text)).into_bytes();
    sealed.extend_from_slice(&text);
    zstd::bulk::compress(&sealed, LEVEL).map_err(cannot_write)
}

/// Reads what [`seal`] made. The error is why it cannot be believed.
pub(super) fn unseal<T: DeserializeOwned>(object: &[u8]) -> std::result::Result<T, String> {
    let text = unsealed(object)?;
    serde_json::from_slice(&text).map_err(|error| error.to_string())
}

/// The proven text of an object.
pub(super) fn unsealed(object: &[u8]) -> std::result::Result<Vec<u8>, String> {
    let mut sealed = Vec::new();
    let decoder = zstd::stream::read::Decoder::new(object).map_err(|error| error.to_string())?;
    decoder
        .take(MAX_BYTES + 1)
        .read_to_end(&mut sealed)
        .map_err(|error| error.to_string())?;
    if sealed.len() as u64 > MAX_BYTES {
        return Err(format!("it has more than {MAX_BYTES} bytes"));
    }

    if sealed.get(DIGITS) != Some(&b'\n') {
        return Err("it does not begin with a checksum".to_owned());
    }
    // In place: a second copy of a long text would need its memory twice.
    let digits: Vec<u8> = sealed.drain(..=DIGITS).take(DIGITS).collect();
    let expected = std::str::from_utf8(&digits)
        .ok()
        .and_then(|digits| digits.parse().ok());
    if expected != Some(Blake3Hash::of(&sealed)) {
        return Err("its checksum does not fit".to_owned());
    }
    Ok(sealed)
}

fn cannot_write(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(Kind::Failed, "cannot write a text of the repository").because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_reads_back_and_damage_shows() {
        let text = vec!["a".repeat(1000), "b".to_owned()];
        let sealed = seal(&text).unwrap();
        assert_eq!(unseal::<Vec<String>>(&sealed).unwrap(), text);

        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            let read = unseal::<Vec<String>>(&damaged);
            assert!(read.is_err() || read.unwrap() == text, "byte {at}");
        }
        for length in 0..sealed.len() {
            assert!(
                unseal::<Vec<String>>(&sealed[..length]).is_err(),
                "{length} bytes"
            );
        }
        assert!(unseal::<Vec<String>>(b"").is_err());
    }
}
