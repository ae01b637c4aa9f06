//! Parses the label of a backup that the user names.

use crate::error::{Error, Kind, Result};
use crate::manifest::Label;

/// Parses a backup's label. Returns `None` for `latest`, which is not the name of one backup.
///
/// # Errors
/// [`Kind::Usage`] if the text is not a label.
pub(super) fn parse(text: &str) -> Result<Option<Label>> {
    if text == "latest" {
        return Ok(None);
    }

    match text.parse::<Label>() {
        Ok(label) => Ok(Some(label)),
        Err(why) => Err(Error::new(Kind::Usage, "cannot use this label")
            .on(text)
            .because(why)
            .hint("run `kbackup list` to see the labels")),
    }
}
