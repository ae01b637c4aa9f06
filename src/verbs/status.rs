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
        .map_err(|error| about_the_agent(error, address, options.agent_user.is_some()))
}

/// The client's errors speak of a node, but here the agent did not answer.
fn about_the_agent(error: Error, address: &RedactedUrl, has_user: bool) -> Error {
    let kind = error.kind();
    let what = error.what().replacen("the node", "the agent", 1);
    let uses_tls = address.0.as_str().starts_with("https:");

    let hint = match kind {
        Kind::Denied if has_user => {
            "compare user and password with `listen-user` in the agent's configuration"
        }
        Kind::Denied => {
            "name the user with `--agent-user`, and a file with `--agent-password-file`"
        }
        Kind::Unreachable | Kind::Transient if uses_tls => {
            "if the cause is the certificate, name its authority with `--agent-ca-file`"
        }
        Kind::Failed => "check that `--agent` is the address of an agent's page",
        Kind::Unreachable | Kind::Transient => return error.with_what(what).without_hints(),
        _ => return error,
    };
    error.with_what(what).without_hints().hint(hint)
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
