//! From the options for a node to a connection.

use crate::error::{Error, Kind, Result};
use crate::node::{ClientCertificate, Connection, Credentials, TimeLimits};
use crate::settings::options::NodeOptions;

/// The name of the node in messages: its socket, or else its address. Returns `None` if the options
/// name no node.
#[must_use]
pub(crate) fn node_name(options: &NodeOptions) -> Option<String> {
    match (&options.socket, &options.url) {
        (Some(socket), _) => Some(format!("unix:{}", socket.display())),
        (None, Some(url)) => Some(url.0.clone()),
        (None, None) => None,
    }
}

/// The connection that the options describe. Returns `None` if they name no node.
///
/// # Errors
/// [`Kind::Usage`] if a secret cannot be read, if there is a password without a user or a user
/// without a password, or if a client certificate has no key or a key has no certificate.
pub(crate) fn connection(options: &NodeOptions) -> Result<Option<Connection>> {
    let url = match (&options.url, &options.socket) {
        (Some(url), _) => url.0.clone(),
        (None, Some(_)) => "http://localhost".to_owned(),
        (None, None) => return Ok(None),
    };

    Ok(Some(Connection {
        ca_files: options.ca_files.clone(),
        client_certificate: client_certificate(options)?,
        credentials: credentials(options)?,
        server_name: options.server_name.clone(),
        unix_socket: options.socket.clone(),
        limits: TimeLimits {
            answer: options.answer_timeout,
            patience: options.patience,
            ..TimeLimits::default()
        },
        ..Connection::new(url)
    }))
}

fn client_certificate(options: &NodeOptions) -> Result<Option<ClientCertificate>> {
    match (&options.certificate_file, &options.key_file) {
        (Some(certificate), Some(key)) => Ok(Some(ClientCertificate {
            certificate: certificate.clone(),
            key: key.clone(),
        })),
        (None, None) => Ok(None),
        _ => Err(Error::new(
            Kind::Usage,
            "a client certificate needs both `--certificate-file` and `--key-file`",
        )),
    }
}

fn credentials(options: &NodeOptions) -> Result<Option<Credentials>> {
    let password = options.password.read()?;
    let token = options.token.read()?;

    match (&options.user, password, token) {
        (Some(user), Some(password), None) => Ok(Some(Credentials::Basic {
            user: user.clone(),
            password,
        })),
        (None, None, Some(token)) => Ok(Some(Credentials::Bearer(token))),
        (None, None, None) => Ok(None),
        (Some(_), None, _) => Err(Error::new(Kind::Usage, "the user needs a password")
            .hint("set `KBACKUP_PASSWORD`, or name a file with `--password-file`")),
        (None, Some(_), _) => Err(Error::new(Kind::Usage, "the password needs a user")
            .hint("name the user with `--user`")),
        (Some(_), Some(_), Some(_)) => {
            Err(Error::new(Kind::Usage, "both a user and a token are given")
                .hint("remove one of them"))
        }
    }
}
