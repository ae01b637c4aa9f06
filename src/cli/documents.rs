//! `kbackup completions` and `kbackup manual`.

use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

use super::context::VerbContext;
use crate::error::Result;
use crate::settings::options::{CompletionsOptions, ManualOptions};
use crate::settings::{ManualPage, completion_script};
use crate::verbs::{self, manual::Manual};

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
    let Manual { pages, written } = verbs::manual::manual(options)?;

    let mut text = String::new();
    if options.into.is_some() {
        for path in written {
            let _ = writeln!(text, "{}", path.display());
        }
    } else {
        text.extend(pages.iter().map(|page| page.text.as_str()));
    }

    let answer = ManualAnswer {
        pages,
        directory: options.into.as_deref(),
    };
    context
        .output
        .document("kbackup.manual/1", &answer, &text)?;
    Ok(context.done())
}
