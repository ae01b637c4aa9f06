//! `kbackup status`: asks an agent how the node stands.

use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::error::Result;
use crate::node::{Client, Connection, Credentials, Patience, TimeLimits};
use crate::run::Run;
use crate::settings::options::{RedactedUrl, StatusOptions};

/// An agent answers at once, or something is wrong with it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the agent at `address` for its status, which the agent's room defines.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage) if the password cannot be read. All errors of the
/// client.
pub(crate) fn ask_agent<Status: DeserializeOwned>(
    address: &RedactedUrl,
    options: &StatusOptions,
    run: &Run,
) -> Result<Status> {
    let password = options.agent_password.read()?;
    let credentials = match (&options.agent_user, password) {
        (Some(user), Some(password)) => Some(Credentials::Basic {
            user: user.clone(),
            password,
        }),
        _ => None,
    };

    let connection = Connection {
        ca_files: options.agent_ca_files.clone(),
        credentials,
        limits: TimeLimits {
            answer: PATIENCE,
            patience: PATIENCE,
            ..TimeLimits::default()
        },
        ..Connection::new(address.0.as_str())
    };
    Client::new(&connection)?.read("/status.json", Patience::of(run))
}
