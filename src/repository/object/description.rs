//! The description of an object repository.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::layout::DESCRIPTION;
use super::naming::NamingKey;
use super::store::{Preconditions, Store};
use crate::clock::{self, Timestamp};
use crate::error::{Error, Kind, Result};

/// The format of a repository that this program makes, and the newest that it reads.
const FORMAT: u32 = 1;
pub(super) const MAX_BYTES: u64 = 1 << 20;
/// Length of a cell.
const CELL_BYTES: u64 = 16 << 20;
/// Files of at most this many bytes stand in their row.
const ROW_BYTES: u64 = 64 << 10;
/// The longest and the shortest cell that is accepted.
const CELLS: std::ops::RangeInclusive<u64> = 1024..=(64 << 20);

/// What an object repository says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Description {
    format: u32,
    pub(super) id: Uuid,
    created: Timestamp,
    tool: String,
    pub(super) cell_bytes: u64,
    pub(super) row_bytes: u64,
    pub(super) naming_key: NamingKey,
    pub(super) preconditions: Preconditions,
    /// A later kbackup may encrypt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    encryption: Option<serde_json::Value>,
}

/// The part of the text that every format has.
#[derive(Deserialize)]
struct AnyFormat {
    format: u32,
}

impl Description {
    /// The description of a new repository.
    pub(super) fn new(preconditions: Preconditions) -> Self {
        Self {
            format: FORMAT,
            id: clock::identifier(),
            created: clock::now(),
            tool: format!("kbackup {}", env!("CARGO_PKG_VERSION")),
            cell_bytes: CELL_BYTES,
            row_bytes: ROW_BYTES,
            naming_key: NamingKey::random(),
            preconditions,
            encryption: None,
        }
    }

    /// The text of the object.
    pub(super) fn to_text(&self) -> Result<Vec<u8>> {
        let mut text = serde_json::to_vec_pretty(self).map_err(|error| {
            Error::new(Kind::Failed, "cannot write the description").because(error)
        })?;
        text.push(b'\n');
        Ok(text)
    }

    /// Reads the description. Returns `None` if there is no repository.
    ///
    /// # Errors
    /// `StoredCorrupt` if it is damaged, `Refused` if a newer kbackup made the repository.
    pub(super) fn read(store: &Store) -> Result<Option<Self>> {
        let Some(text) = store.get(DESCRIPTION, MAX_BYTES)? else {
            return Ok(None);
        };
        Self::from_text(&text)
            .map(Some)
            .map_err(|error| error.on(format!("{}/{DESCRIPTION}", store.place())))
    }

    fn from_text(text: &[u8]) -> Result<Self> {
        let corrupt = |why: String| {
            Error::new(
                Kind::StoredCorrupt,
                "the description of the repository is damaged",
            )
            .because(why)
        };
        let any: AnyFormat =
            serde_json::from_slice(text).map_err(|error| corrupt(error.to_string()))?;
        if any.format > FORMAT {
            let what = format!(
                "the repository has format {}, this program knows {FORMAT}",
                any.format
            );
            return Err(Error::new(Kind::Refused, what).hint("use the newer kbackup that made it"));
        }

        let description: Self =
            serde_json::from_slice(text).map_err(|error| corrupt(error.to_string()))?;
        if description.encryption.is_some() {
            return Err(Error::new(
                Kind::Refused,
                "the repository is encrypted, and this program does not know how",
            )
            .hint("use the newer kbackup that made it"));
        }
        let cells = description.cell_bytes;
        if !cells.is_power_of_two() || !CELLS.contains(&cells) || description.row_bytes > cells {
            return Err(corrupt(format!("no repository has cells of {cells} bytes")));
        }
        Ok(description)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HONOURED: Preconditions = Preconditions {
        create: true,
        update: true,
    };

    #[test]
    fn a_description_reads_back() {
        let description = Description::new(HONOURED);
        let read = Description::from_text(&description.to_text().unwrap()).unwrap();
        assert_eq!(
            (read.id, read.naming_key),
            (description.id, description.naming_key)
        );
    }

    #[test]
    fn what_is_not_known_is_refused_and_other_fields_do_not_matter() {
        let text = String::from_utf8(Description::new(HONOURED).to_text().unwrap()).unwrap();
        let with = |field: &str| text.replacen('{', &format!("{{{field},"), 1);
        let kind = |text: &str| {
            Description::from_text(text.as_bytes())
                .err()
                .map(|error| error.kind())
        };

        assert_eq!(kind(&with("\"colour\": \"red\"")), None);
        assert_eq!(kind(&with("\"encryption\": {}")), Some(Kind::Refused));
        assert_eq!(
            kind(&text.replace("\"format\": 1", "\"format\": 2")),
            Some(Kind::Refused)
        );
        for (good, bad) in [
            ("16777216", "16777215"),
            ("16777216", "512"),
            ("16777216", "0"),
        ] {
            assert_eq!(
                kind(&text.replace(good, bad)),
                Some(Kind::StoredCorrupt),
                "{bad}"
            );
        }
        assert_eq!(kind("{}"), Some(Kind::StoredCorrupt));
    }
}
