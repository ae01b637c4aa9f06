//! Writes a manifest as text.

use std::io::{self, Write};

use super::layout::{
    END, FORMAT, FORMAT_OF_LONG_HEADS, HEAD_SEAL, MAX_HEAD_BYTES_OF_FORMAT_1, NO_EPOCHS, ROWS,
    SEAL, USUAL_ROW_BYTES,
};
use crate::format::{Epoch, Lineage};
use crate::manifest::{Blake3Hash, Head, Manifest, Row};
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
        let head = text_of_head(&self.head)?;
        let head_checksum = Blake3Hash::of(head.as_bytes());
        write!(hashing, "{head}{HEAD_SEAL}{head_checksum}{ROWS}")?;

        write_rows(&self.files, &mut hashing)?;
        hashing.write_all(b"\n  ]")?;

        let HashingWriter { into, hasher } = hashing;
        let checksum = Blake3Hash::from(hasher.finalize());
        write!(into, "{SEAL}{checksum}{END}")
    }
}

impl Head {
    /// The oldest format whose readers read this head. They read a shorter head than this program.
    ///
    /// # Errors
    /// Never, for a head that this program made.
    pub fn oldest_format(&self) -> io::Result<u32> {
        let text = text_of_head(self)?;
        if text.len() <= MAX_HEAD_BYTES_OF_FORMAT_1 {
            return Ok(FORMAT);
        }
        Ok(FORMAT_OF_LONG_HEADS)
    }
}

/// The text of a head without its closing brace. There may be very many epochs, so each has one
/// short line.
fn text_of_head(head: &Head) -> io::Result<String> {
    let mut without_epochs = head.clone();
    without_epochs.log.lineage = Lineage::default();
    let text = serde_json::to_string_pretty(&without_epochs)?;
    let text = text.strip_suffix("\n}").unwrap_or(&text);

    let epochs = head.log.lineage.epochs();
    let (Some((before, after)), false) = (text.split_once(NO_EPOCHS), epochs.is_empty()) else {
        return Ok(text.to_owned());
    };

    let mut whole = format!("{before}\n    \"lineage\": [");
    let mut separator = "\n";
    for epoch in epochs {
        whole.push_str(separator);
        whole.push_str(&text_of_epoch(epoch)?);
        separator = ",\n";
    }
    whole.push_str("\n    ]");
    whole.push_str(after);
    Ok(whole)
}

/// An epoch as a list of its fields. Every reader of format 1 takes that for the object with these
/// fields.
fn text_of_epoch(epoch: &Epoch) -> serde_json::Result<String> {
    let id = epoch.id.simple().to_string();
    serde_json::to_string(&(epoch.position, epoch.number, id))
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
