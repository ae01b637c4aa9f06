//! `kbackup completions` and `kbackup manual`.

use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

use super::context::VerbContext;
use crate::error::{Error, Kind, Result};
use crate::fs;
use crate::settings::options::{CompletionsOptions, ManualOptions};
use crate::settings::{ManualPage, completion_script, manual_pages};

#[derive(Serialize)]
struct CompletionsAnswer {
    shell: String,
    script: String,
}

pub(super) fn completions(options: &CompletionsOptions, context: &VerbContext) -> Result<u8> {
    let answer = CompletionsAnswer {
        shell: options.shell.to_string(),
        script: completion_script(options.shell),
    };

    let schema = "kbackup.completions/1";
    context.output.document(schema, &answer, &answer.script)?;
    Ok(context.done())
}

#[derive(Serialize)]
struct ManualAnswer<'a> {
    pages: Vec<ManualPage>,
    directory: Option<&'a Path>,
}

pub(super) fn manual(options: &ManualOptions, context: &VerbContext) -> Result<u8> {
    let mut pages = manual_pages()?;

    let text = if let Some(directory) = &options.into {
        write_pages(&pages, directory)?
    } else {
        let wanted = match &options.verb {
            Some(verb) => format!("kbackup-{verb}.1"),
            None => "kbackup.1".to_owned(),
        };
        pages.retain(|page| page.name == wanted);
        let Some(page) = pages.first() else {
            return Err(Error::new(Kind::Usage, "there is no such verb")
                .hint("run `kbackup --help` to see the verbs"));
        };
        page.text.clone()
    };

    let answer = ManualAnswer {
        pages,
        directory: options.into.as_deref(),
    };
    context
        .output
        .document("kbackup.manual/1", &answer, &text)?;
    Ok(context.done())
}

/// Writes each page into a file, and returns the paths of the files, one in each line.
fn write_pages(pages: &[ManualPage], directory: &Path) -> Result<String> {
    fs::create_directories_durably(directory, 0o755, 0o755)?;

    let mut paths = String::new();
    for page in pages {
        let path = directory.join(&page.name);
        fs::write_durably(&path, page.text.as_bytes(), 0o644)?;
        let _ = writeln!(paths, "{}", path.display());
    }
    Ok(paths)
}
