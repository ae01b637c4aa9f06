//! `kbackup completions`.

use serde::Serialize;

use super::context::VerbContext;
use crate::error::Result;
use crate::settings::completion_script;
use crate::settings::options::CompletionsOptions;

#[derive(Serialize)]
struct CompletionsAnswer {
    shell: String,
    script: String,
}

pub(super) fn run(options: &CompletionsOptions, context: &VerbContext) -> Result<u8> {
    let answer = CompletionsAnswer {
        shell: options.shell.to_string(),
        script: completion_script(options.shell),
    };

    let schema = "kbackup.completions/1";
    context.output.document(schema, &answer, &answer.script)?;
    Ok(context.done())
}
