//! `kbackup init`.

use super::context::VerbContext;
use crate::error::Result;
use crate::settings::options::InitOptions;
use crate::verbs::init;

pub(super) fn run(options: &InitOptions, context: &VerbContext) -> Result<u8> {
    let initialised = init::init(options, &context.general)?;

    let place = &initialised.repository;
    let text = if initialised.made {
        format!("made a repository in `{place}`\n")
    } else {
        format!("`{place}` is a repository already\n")
    };
    context
        .output
        .answer("kbackup.init/1", &initialised, &text)?;
    Ok(context.done())
}
