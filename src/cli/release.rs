//! `kbackup release`.

use std::fmt::Write;

use super::context::VerbContext;
use crate::error::Result;
use crate::settings::options::ReleaseOptions;
use crate::verbs::release::{self, Released};

pub(super) fn run(options: &ReleaseOptions, context: &VerbContext) -> Result<u8> {
    let released = release::release(options, &context.general, &context.run)?;

    context.output.answer(
        "kbackup.release/1",
        &context.with_warnings(&released)?,
        &text(&released),
    )?;
    Ok(context.done())
}

fn text(released: &Released) -> String {
    if released.nodes.is_empty() {
        return format!(
            "nothing has to be given back: no release record in `{}`\n",
            released.records.display()
        );
    }

    let mut text = String::new();
    for node in &released.nodes {
        let state = match (node.in_use, released.released) {
            (true, _) => "a running backup will give it back",
            (false, false) => "has to be given back",
            (false, true) => "given back",
        };
        let _ = writeln!(text, "{}: {}: {state}", node.node, node.what());
    }
    text
}
