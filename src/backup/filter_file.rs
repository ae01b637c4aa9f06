//! The bloom filters of index tables. A server starts without them, only slower (O18), so a filter
//! that it would reject, or that would hide streams from it, is left out.

use super::capture::{Capture, CopyRequest, StoredFile};
use super::source_files::open_if_present;
use crate::error::{Kind, Result};
use crate::format::names::TableId;
use crate::format::{InContext, bloom};
use crate::fs;
use crate::manifest::{RelativePath, Role};
use crate::proof;

/// Opens the filter of a table. Servers before 21.10 write none.
pub(super) fn open(
    capture: &Capture<'_>,
    table: TableId,
) -> Result<Option<(RelativePath, fs::File)>> {
    let path = RelativePath::table_filter(table);
    let file = open_if_present(capture.source, &path)?;
    Ok(file.map(|file| (path, file)))
}

/// Copies the filter of a table, and compares it with the table, which is captured already. Returns
/// `None` if there is none that a server would use, or if it lacks streams of the table.
pub(super) fn copy(capture: &Capture<'_>, table: TableId) -> Result<Option<StoredFile>> {
    let Some((path, file)) = open(capture, table)? else {
        return Ok(None);
    };
    if !is_usable(capture, &file)? {
        return Ok(None);
    }

    let request = CopyRequest::whole(Role::TableFilter, &file);
    let stored = capture.copy(&path, &request, None)?;
    let gap = proof::table_filter_gap(&capture.files(), table);
    if let Ok(None) = gap {
        return Ok(Some(stored));
    }

    capture.incoming.remove(&path)?;
    if let Some(gap) = gap? {
        capture.run.warn(format!(
            "{}: {}; this backup leaves it out, and the server does without it",
            gap.path, gap.what
        ));
    }
    Ok(None)
}

/// Whether a filter of the source is one that a server would use. Warns if it is not: such a filter
/// is not worth a failed backup.
pub(super) fn is_usable(capture: &Capture<'_>, file: &fs::File) -> Result<bool> {
    match bloom::inspect(file).in_source(file.path()) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == Kind::SourceCorrupt => {
            capture.run.warn(format!(
                "{}; this backup leaves it out, and the server makes another one",
                error.in_words()
            ));
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
