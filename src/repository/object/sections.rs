//! Sections: the rows of a group of files as lines of JSON text, and the cells of these files.

use std::collections::HashMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::cells::{Cell, are_continuous};
use super::naming::ObjectName;
use crate::error::{Error, Kind, Result};
use crate::manifest::{Blake3Hash, RelativePath, Row};

/// How many bytes at both ends of a file stand in its row: as long as header and footer of a chunk,
/// twice.
pub(super) const END_BYTES: usize = 256;
/// The most zeros behind the last cell of a file. They are the hole of an active chunk, and no chunk
/// is as long as that.
pub(super) const MAX_HOLE: u64 = 4 << 30;
/// How many rows have their cells in one section.
pub(super) const ROWS_OF_CELLS: usize = 4096;

/// A section as a head names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SectionObject {
    /// The name of the plain text.
    pub(super) name: ObjectName,
    /// Length of the plain text.
    pub(super) size: u64,
    /// Length of the object.
    pub(super) stored: u64,
    /// BLAKE3 of the object.
    pub(super) hash: Blake3Hash,
}

/// The two kinds of section of one group of files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Group {
    /// The path of the first row.
    pub(super) first: RelativePath,
    /// The path of the last row.
    pub(super) last: RelativePath,
    /// How many rows there are.
    pub(super) files: u64,
    /// The rows.
    pub(super) rows: SectionObject,
    /// The cells, of [`ROWS_OF_CELLS`] rows each. `None` in place of a section without a line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) cells: Vec<Option<SectionObject>>,
}

/// A row, and what a reader of rows needs of the file's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredRow {
    pub(super) row: Row,
    /// All bytes of a small file. It has no cells.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "base64_text")]
    pub(super) data: Option<Vec<u8>>,
    /// The first bytes of a file that has cells.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "base64_text")]
    pub(super) first: Option<Vec<u8>>,
    /// The last bytes of a file that has cells.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "base64_text")]
    pub(super) last: Option<Vec<u8>>,
}

/// The cells of one file, as a line is read.
#[derive(Deserialize)]
struct FileCells {
    path: RelativePath,
    cells: Vec<Cell>,
}

/// The cells of one file, as a line is written.
#[derive(Serialize)]
struct FileCellsLine<'a> {
    path: &'a RelativePath,
    cells: &'a [Cell],
}

/// The cells of the files of one section.
pub(super) type CellsByPath = HashMap<RelativePath, Arc<[Cell]>>;

/// The text of a section of rows.
pub(super) fn rows_to_text(rows: &[StoredRow]) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for row in rows {
        add_line(&mut text, row)?;
    }
    Ok(text)
}

/// The text of a section of cells.
pub(super) fn cells_to_text<'a>(
    files: impl IntoIterator<Item = (&'a RelativePath, &'a Arc<[Cell]>)>,
) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for (path, cells) in files {
        add_line(&mut text, &FileCellsLine { path, cells })?;
    }
    Ok(text)
}

/// Reads the text of a section of rows. The error is what is wrong with it.
pub(super) fn rows_of(text: &[u8]) -> std::result::Result<Vec<StoredRow>, String> {
    let mut rows: Vec<StoredRow> = Vec::new();
    for row in lines::<StoredRow>(text) {
        let row = row?;
        if let Some(before) = rows.last()
            && before.row.path >= row.row.path
        {
            return Err(format!("{} is not in its order", row.row.path));
        }
        if let Some(data) = &row.data
            && data.len() as u64 != row.row.size
        {
            let (path, held, size) = (&row.row.path, data.len(), row.row.size);
            return Err(format!("it holds {held} bytes of {path}, not {size}"));
        }
        if row.data.is_none() && row.first.is_none() && row.row.size > MAX_HOLE {
            let (path, size) = (&row.row.path, row.row.size);
            return Err(format!("it names none of the {size} bytes of {path}"));
        }
        rows.push(row);
    }
    Ok(rows)
}

/// Reads the text of a section of cells. The error is what is wrong with it.
pub(super) fn cells_of(text: &[u8]) -> std::result::Result<CellsByPath, String> {
    let mut cells = CellsByPath::new();
    for file in lines::<FileCells>(text) {
        let file = file?;
        if !are_continuous(&file.cells, u64::MAX) {
            return Err(format!("the cells of {} have a gap", file.path));
        }
        cells.insert(file.path, file.cells.into());
    }
    Ok(cells)
}

fn add_line(text: &mut Vec<u8>, line: &impl Serialize) -> Result<()> {
    serde_json::to_writer(&mut *text, line)
        .map_err(|error| Error::new(Kind::Failed, "cannot write a section").because(error))?;
    text.push(b'\n');
    Ok(())
}

fn lines<T: DeserializeOwned>(text: &[u8]) -> impl Iterator<Item = std::result::Result<T, String>> {
    let lines = text.split(|byte| *byte == b'\n');
    lines
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).map_err(|error| error.to_string()))
}

/// Bytes as base64 text.
mod base64_text {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => serializer.serialize_str(&STANDARD.encode(bytes)),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else {
            return Ok(None);
        };
        let bytes = STANDARD.decode(text).map_err(serde::de::Error::custom)?;
        Ok(Some(bytes))
    }
}
