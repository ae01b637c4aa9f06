//! `kbackup manual`: chooses a manual page, or writes all pages into a directory.

use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::fs;
use crate::settings::options::ManualOptions;
use crate::settings::{ManualPage, manual_pages};

/// The pages that were asked for.
pub(crate) struct Manual {
    /// One page, or all pages if they were written.
    pub(crate) pages: Vec<ManualPage>,
    /// The files that were written.
    pub(crate) written: Vec<PathBuf>,
}

/// Makes the page that was asked for, or writes all pages into a directory.
///
/// # Errors
/// [`Kind::Usage`] if there is no such verb. All errors of writing a file.
pub(crate) fn manual(options: &ManualOptions) -> Result<Manual> {
    let mut pages = manual_pages()?;
    if let Some(directory) = &options.into {
        let written = write(&pages, directory)?;
        return Ok(Manual { pages, written });
    }

    let wanted = match &options.verb {
        Some(verb) => format!("kbackup-{verb}.1"),
        None => "kbackup.1".to_owned(),
    };
    pages.retain(|page| page.name == wanted);
    if pages.is_empty() {
        return Err(Error::new(Kind::Usage, "there is no such verb")
            .hint("run `kbackup --help` to see the verbs"));
    }
    Ok(Manual {
        pages,
        written: Vec::new(),
    })
}

fn write(pages: &[ManualPage], directory: &Path) -> Result<Vec<PathBuf>> {
    fs::create_directories_durably(directory, 0o755, 0o755)?;

    let mut paths = Vec::new();
    for page in pages {
        let path = directory.join(&page.name);
        fs::write_durably(&path, page.text.as_bytes(), 0o644)?;
        paths.push(path);
    }
    Ok(paths)
}
