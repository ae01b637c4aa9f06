//! From settings to what the core does: one file per verb, for whoever runs it, the command line or
//! the agent. Nothing is printed here.

pub mod backup;
pub mod expire;
pub mod log;
pub mod node;
pub mod priority;
pub mod verify;
pub mod window;

use crate::settings::arguments::General;
use crate::settings::{Origin, Settings};

/// What every verb is told, whatever its own options are.
#[derive(Debug, Clone)]
pub struct Common {
    /// The options that every verb understands.
    pub general: General,
    /// Where the files with secrets were named.
    pub secrets: Secrets,
}

/// Where the names of the files with secrets came from: the environment's password and token win
/// over files that only the configuration file names.
#[derive(Debug, Clone, Copy)]
pub struct Secrets {
    password_file: Origin,
    token_file: Origin,
}

impl Common {
    /// What these settings say to every verb.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        let secrets = Secrets {
            password_file: settings.origin("password_file"),
            token_file: settings.origin("token_file"),
        };
        Self {
            general: settings.arguments.general.clone(),
            secrets,
        }
    }
}
