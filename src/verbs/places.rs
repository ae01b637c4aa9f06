//! Checks the places that each backup of an agent uses, without the node: what a run would refuse at
//! night, `--check-config` refuses at noon, in the same words.

use std::path::{Path, PathBuf};

use super::{overlap, repository};
use crate::error::Result;
use crate::manifest::Directories;
use crate::node;
use crate::run::Run;
use crate::settings::options::{AgentOptions, GeneralOptions, SourceDirectories};

/// Checks the directories that the operator named: the state directory, those of the node, and the
/// repository. Those that only the node names are checked by each run.
///
/// # Errors
/// [`crate::error::Kind::Usage`] if a directory of the node is missing or is not a server's.
/// [`crate::error::Kind::Refused`] if two of the places overlap. What a backup says of its
/// repository.
pub(crate) fn check(agent: &AgentOptions, general: &GeneralOptions, run: &Run) -> Result<()> {
    let state = general.state_directory()?;
    node::check_state_directory(&state)?;

    let named = of_node(&agent.directories, run)?;
    let named: Vec<&Path> = named.iter().map(PathBuf::as_path).collect();
    overlap::refuse_repository(&agent.repository, &named)?;
    overlap::refuse_new_state(&state, &named)?;

    repository::check(&agent.repository, agent.new_repository, general)
}

/// The node's directories that the operator named, after a check.
fn of_node(named: &SourceDirectories, run: &Run) -> Result<Vec<PathBuf>> {
    match (&named.db, &named.index) {
        (Some(db), index) => {
            let directories = Directories::new(db, index.clone());
            let Directories { db, index: found } = node::check_directories(&directories, run)?;
            if index.is_some() {
                node::check_index_directory(&found, run)?;
            }
            Ok(vec![db, found])
        }
        (None, Some(index)) => Ok(vec![node::check_index_directory(index, run)?]),
        (None, None) => Ok(Vec::new()),
    }
}
