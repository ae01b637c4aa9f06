//! Writes a manifest as text.

use std::io::{self, Write};

use super::layout::{END, HEAD_SEAL, ROWS, SEAL, USUAL_ROW_BYTES};
use crate::manifest::{Blake3Hash, Manifest, Row};
use crate::parallel;

impl Manifest {
    /// Writes the text of `manifest.json`. Its last field is a checksum of all bytes before it.
    ///
    /// # Errors
    /// What `into` reports.
    pub fn write(&self, into: &mut dyn Write) -> io::Result<()> {
        let mut hashing = HashingWriter {
            into,
            hasher: blake3::Hasher::new(),
        };

        // The rows belong to the same JSON object, so the head goes without its closing brace.
        let head = serde_json::to_string_pretty(&self.head)?;
        let head = head.strip_suffix("\n}").unwrap_or(&head);
        let head_checksum = Blake3Hash::of(head.as_bytes());
        write!(hashing, "{head}{HEAD_SEAL}{head_checksum}{ROWS}")?;

        write_rows(&self.files, &mut hashing)?;
        hashing.write_all(b"\n  ]")?;

        let HashingWriter { into, hasher } = hashing;
        let checksum = Blake3Hash::from(hasher.finalize());
        write!(into, "{SEAL}{checksum}{END}")
    }
}

fn write_rows(rows: &[Row], into: &mut HashingWriter<'_>) -> io::Result<()> {
    let mut separator = "\n    ";
    for rows in rows.chunks(parallel::AT_ONCE) {
        let mut text = Vec::with_capacity(rows.len() * USUAL_ROW_BYTES);
        for row in parallel::map(rows, text_of_row)? {
            text.extend_from_slice(separator.as_bytes());
            text.extend_from_slice(&row);
            separator = ",\n    ";
        }
        into.write_all(&text)?;
    }
    Ok(())
}

fn text_of_row(row: &Row) -> serde_json::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(USUAL_ROW_BYTES);
    serde_json::to_writer(&mut text, row)?;
    Ok(text)
}

/// A writer that hashes everything that it passes on.
struct HashingWriter<'a> {
    into: &'a mut dyn Write,
    hasher: blake3::Hasher,
}

impl Write for HashingWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.into.write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.into.flush()
    }
}
