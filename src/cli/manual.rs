//! `kbackup manual`.

use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

use super::context::VerbContext;
use crate::error::Result;
use crate::settings::ManualPage;
use crate::settings::options::ManualOptions;
use crate::verbs::{self, manual::Manual};

#[derive(Serialize)]
struct ManualAnswer<'a> {
    pages: Vec<ManualPage>,
    directory: Option<&'a Path>,
}

pub(super) fn run(options: &ManualOptions, context: &VerbContext) -> Result<u8> {
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
