//! `kbackup completions`: what a shell has to read to complete verbs and options.

use serde::Serialize;

use super::Session;
use crate::error::Result;
use crate::settings::{self, arguments};

#[derive(Serialize)]
struct Answer {
    shell: String,
    script: String,
}

pub(super) fn run(options: &arguments::Completions, session: &Session) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(
        options.shell,
        &mut settings::command(),
        "kbackup",
        &mut script,
    );
    let answer = Answer {
        shell: options.shell.to_string(),
        script: String::from_utf8_lossy(&script).into_owned(),
    };
    session
        .output
        .document("kbackup.completions/1", &answer, &answer.script)?;
    Ok(session.done())
}
