//! `kbackup init`: makes a repository.

use serde::Serialize;
use uuid::Uuid;

use super::repository;
use crate::error::Result;
use crate::settings::options::{GeneralOptions, InitOptions};

/// The repository that is there now; `kbackup.init/1` of `docs/json.md`.
#[derive(Serialize)]
pub(crate) struct Initialised {
    /// Where the repository is.
    pub(crate) repository: String,
    /// The id that it got when it was made.
    pub(crate) id: Uuid,
    /// Whether this run made it.
    pub(crate) made: bool,
}

/// Makes a repository, or accepts the one that is there.
///
/// # Errors
/// [`Kind::Refused`](crate::error::Kind::Refused) if the directory holds something else, and if
/// another repository was seen there before.
pub(crate) fn init(options: &InitOptions, general: &GeneralOptions) -> Result<Initialised> {
    let (repository, made) = repository::make(&options.repository, options.another, general)?;
    Ok(Initialised {
        repository: repository.place(),
        id: repository.id(),
        made,
    })
}
