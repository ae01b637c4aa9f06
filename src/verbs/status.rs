//! `kbackup status`: asks an agent for the status of its node.

use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::error::{Error, Kind, Result};
use crate::node::{Client, Connection, Credentials, Patience, TimeLimits};
use crate::run::Run;
use crate::settings::options::{RedactedUrl, StatusOptions};

/// An agent answers at once, or something is wrong with it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the agent at `address` for its status, which the agent's room defines.
///
/// # Errors
/// [`Kind::Usage`] if the password cannot be read, or if the user has none. All errors of the
/// client.
pub(crate) fn ask_agent<Status: DeserializeOwned>(
    address: &RedactedUrl,
    options: &StatusOptions,
    run: &Run,
) -> Result<Status> {
    let connection = Connection {
        ca_files: options.agent_ca_files.clone(),
        credentials: credentials(options)?,
        limits: TimeLimits {
            answer: PATIENCE,
            patience: PATIENCE,
            ..TimeLimits::default()
        },
        ..Connection::new(address.0.as_str())
    };
    Client::new(&connection)?
        .read("/status.json", Patience::of(run))
        .map_err(|error| about_the_agent(error, options.agent_user.is_some()))
}

/// The client's errors speak of a node, but here the agent did not answer.
fn about_the_agent(error: Error, has_user: bool) -> Error {
    match error.kind() {
        Kind::Unreachable | Kind::Transient => error
            .with_what("the agent cannot be reached")
            .without_hints(),
        Kind::Denied if has_user => error
            .with_what("the agent does not accept this user or this password")
            .without_hints()
            .hint("compare them with `listen-user` and its password in the agent's configuration"),
        Kind::Denied => error
            .with_what("the agent asks for a user and a password")
            .without_hints()
            .hint("name the user with `--agent-user`, and a file with `--agent-password-file`"),
        Kind::Failed => {
            let what = error.what().replacen("the node", "the agent", 1);
            error
                .with_what(what)
                .without_hints()
                .hint("check that `--agent` is the address of an agent's page")
        }
        _ => error,
    }
}

/// The user of the page and the password. A password without a user is not used.
fn credentials(options: &StatusOptions) -> Result<Option<Credentials>> {
    let Some(user) = &options.agent_user else {
        return Ok(None);
    };

    match options.agent_password.read()? {
        Some(password) => Ok(Some(Credentials::Basic {
            user: user.clone(),
            password,
        })),
        None => Err(
            Error::new(Kind::Usage, "the user of the agent's page needs a password")
                .hint("set `KBACKUP_AGENT_PASSWORD`, or name a file with `--agent-password-file`"),
        ),
    }
}
