//! `kbackup check`: examines a data directory.

use std::path::Path;

use crate::error::{Error, Kind, Result};
use crate::format::names;
use crate::fs;
use crate::manifest::Directories;
use crate::node;
use crate::proof::{self, Depth, Examination, ExamineOptions};
use crate::run::Run;
use crate::server::ServerLine;
use crate::settings::options::CheckOptions;

/// Examines whether a server would start from a data directory. Returns the directories too,
/// without symbolic links.
///
/// # Errors
/// [`Kind::Usage`] if the directory is not the db directory of a server, or the version is unknown.
/// All errors of [`proof::examine`].
pub(crate) fn check(options: &CheckOptions, run: &Run) -> Result<(Directories, Examination)> {
    require_data_directory(&options.directory)?;

    let directory = fs::canonical(&options.directory)?;
    let directories = Directories::new(directory, options.index.clone());
    let version = match &options.server_version {
        Some(version) => Some(line(version)?),
        None => None,
    };

    let examined = ExamineOptions {
        version,
        depth: depth(options),
        in_use: node::probe(&directories, None)?.is_running(),
    };
    let examination = proof::examine(&directories, &examined, run)?;
    Ok((directories, examination))
}

fn require_data_directory(directory: &Path) -> Result<()> {
    let what = match fs::status_of_target(directory)? {
        None => "there is no such directory",
        Some(status) if status.kind != fs::FileKind::Directory => "this is not a directory",
        Some(_) if !holds_server_files(directory)? => {
            "this directory holds neither a chunk nor a checkpoint"
        }
        Some(_) => return Ok(()),
    };

    Err(Error::new(Kind::Usage, what)
        .at(directory)
        .hint("name the db directory of a server"))
}

fn holds_server_files(directory: &Path) -> Result<bool> {
    for entry in fs::list(directory)? {
        let name = entry.name.to_string_lossy();
        if names::looks_like_log_file(&name) {
            return Ok(true);
        }
    }
    Ok(false)
}

const fn depth(options: &CheckOptions) -> Depth {
    match (options.quick, options.deep) {
        (true, _) => Depth::Quick,
        (false, true) => Depth::Deep,
        (false, false) => Depth::Normal,
    }
}

fn line(version: &str) -> Result<ServerLine> {
    ServerLine::of_version(version).ok_or_else(|| {
        Error::new(
            Kind::Usage,
            "kbackup does not know this version of the server",
        )
        .on(version)
        .hint("write the version as `24.10` or `26.1.0`")
    })
}
