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
    let mut text = String::new();
    if released.nodes.is_empty() {
        let records = released.records.display();
        let is_open = released.untouched.iter().any(|left| left.may_be_of_node);
        let _ = match (is_open, released.untouched.is_empty()) {
            (true, _) => writeln!(
                text,
                "nothing was given back, and a release record in `{records}` may be this node's:"
            ),
            (false, true) => writeln!(
                text,
                "nothing has to be given back: no release record in `{records}`"
            ),
            (false, false) => writeln!(
                text,
                "nothing has to be given back: no release record of this node in `{records}`"
            ),
        };
    }

    for node in &released.nodes {
        let is_left = node.in_use && !released.forced;
        let state = match (is_left, released.released) {
            (true, _) => "a running backup will give it back",
            (false, false) => "has to be given back",
            (false, true) => "given back",
        };
        let _ = writeln!(text, "{}: {}: {state}", node.node, node.what());
    }

    for untouched in &released.untouched {
        let what = match (&untouched.node, &untouched.what) {
            (Some(node), Some(what)) => format!("{node}: {what}"),
            _ => untouched.record.clone(),
        };
        let _ = writeln!(text, "{what}: not touched: {}", untouched.why);
    }
    text
}
