//! `verify`.

use crate::error::{Error, Kind, Result};
use crate::manifest::Label;
use crate::proof::Depth;
use crate::settings::arguments;
use crate::verify::Which;

/// Which backups are meant.
///
/// # Errors
/// [`Kind::Usage`] for a label that is none.
pub fn which(options: &arguments::Verify) -> Result<Which> {
    let named = options
        .labels
        .iter()
        .map(|text| label(text))
        .collect::<Result<Option<Vec<_>>>>()?;
    Ok(match named {
        _ if options.all => Which::All,
        Some(labels) if !labels.is_empty() => Which::Named(labels),
        _ => Which::Newest,
    })
}

/// How much is to be read.
#[must_use]
pub const fn depth(options: &arguments::Verify) -> Depth {
    match (options.quick, options.deep) {
        (true, _) => Depth::Quick,
        (false, true) => Depth::Deep,
        (false, false) => Depth::Normal,
    }
}

/// A backup's label; none for `latest`.
///
/// # Errors
/// [`Kind::Usage`] for a label that is none.
pub fn label(text: &str) -> Result<Option<Label>> {
    if text == "latest" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|why: String| {
        Error::new(Kind::Usage, "no such label")
            .because(why)
            .hint("`kbackup list` shows the labels")
    })
}
