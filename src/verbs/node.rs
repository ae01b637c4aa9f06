//! From what the user said of the node to a connection. Secrets come from files or the environment,
//! never from arguments.

use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::Secrets;
use crate::error::{Error, Kind, Result};
use crate::fs;
use crate::node::{ClientCertificate, Connection, Credentials, TimeLimits};
use crate::settings::Origin;
use crate::settings::arguments::{General, Node};

const MAX_SECRET: u64 = 64 * 1024;

/// How the settings name the node: by its socket, or its address; none where they name no node.
#[must_use]
pub fn name(node: &Node) -> Option<String> {
    let socket = node
        .node_socket
        .as_ref()
        .map(|socket| format!("unix:{}", socket.display()));
    socket.or_else(|| node.node.as_ref().map(|url| url.0.clone()))
}

/// The connection that the settings describe; none where they name no node.
///
/// # Errors
/// [`Kind::Usage`] for secrets that are missing, in excess, or cannot be read.
pub fn connection(node: &Node, secrets: Secrets) -> Result<Option<Connection>> {
    let url = match (&node.node, &node.node_socket) {
        (Some(url), _) => url.0.clone(),
        (None, Some(_)) => "http://localhost".to_owned(),
        (None, None) => return Ok(None),
    };
    let client_certificate = match (&node.certificate_file, &node.key_file) {
        (Some(certificate), Some(key)) => Some(ClientCertificate {
            certificate: certificate.clone(),
            key: key.clone(),
        }),
        (None, None) => None,
        _ => {
            return Err(Error::new(
                Kind::Usage,
                "a client certificate needs both `--certificate-file` and `--key-file`",
            ));
        }
    };
    Ok(Some(Connection {
        ca_files: node.ca_file.clone(),
        client_certificate,
        credentials: credentials(node, secrets)?,
        server_name: node.node_server_name.clone(),
        unix_socket: node.node_socket.clone(),
        limits: TimeLimits {
            answer: node.node_timeout.0,
            patience: node.node_patience.0,
            ..TimeLimits::default()
        },
        ..Connection::new(url)
    }))
}

fn credentials(node: &Node, secrets: Secrets) -> Result<Option<Credentials>> {
    let password = secret(
        node.password_file.as_deref(),
        secrets.password_file,
        "KBACKUP_PASSWORD",
    )?;
    let token = secret(
        node.token_file.as_deref(),
        secrets.token_file,
        "KBACKUP_TOKEN",
    )?;
    match (&node.user, password, token) {
        (Some(user), Some(password), None) => Ok(Some(Credentials::Basic {
            user: user.clone(),
            password,
        })),
        (Some(_), None, _) => Err(Error::new(Kind::Usage, "a user needs a password")
            .hint("set `KBACKUP_PASSWORD`, or name a file with `--password-file`")),
        (None, None, Some(token)) => Ok(Some(Credentials::Bearer(token))),
        (None, None, None) => Ok(None),
        (None, Some(_), _) => {
            Err(Error::new(Kind::Usage, "a password needs a user").hint("name it with `--user`"))
        }
        (Some(_), Some(_), Some(_)) => {
            Err(Error::new(Kind::Usage, "both a user and a token are given")
                .hint("remove one of them"))
        }
    }
}

/// The first line of a file, or a variable, which wins over a file that the configuration file
/// names.
///
/// # Errors
/// [`Kind::Usage`] where it cannot be read, or is empty.
pub fn secret(file: Option<&Path>, origin: Origin, variable: &str) -> Result<Option<SecretString>> {
    let value = std::env::var(variable)
        .ok()
        .filter(|value| !value.is_empty());
    let file = file.filter(|_| origin != Origin::File || value.is_none());
    let text = match (file, value) {
        (Some(path), _) => {
            // Mounted secrets are links.
            let place = fs::canonical(path).unwrap_or_else(|_| path.to_owned());
            let bytes = fs::read_small(&place, MAX_SECRET)
                .map_err(|error| Error::from(error).with_kind(Kind::Usage))?;
            String::from_utf8(bytes)
                .map_err(|_| Error::new(Kind::Usage, "the file is not UTF-8 text").at(path))?
        }
        (None, Some(value)) => value,
        (None, None) => return Ok(None),
    };
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        let place = file.map_or_else(|| variable.to_owned(), |path| path.display().to_string());
        return Err(Error::new(Kind::Usage, "the secret is empty").on(place));
    }
    Ok(Some(line.to_owned().into()))
}

/// Where debts are remembered on this machine.
///
/// # Errors
/// [`Kind::Usage`] where there is no home to derive it from.
pub fn state_directory(general: &General) -> Result<PathBuf> {
    if let Some(directory) = &general.state_dir {
        return Ok(directory.clone());
    }
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/kbackup"));
    }
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let home = variable("XDG_STATE_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".local/state")));
    home.map(|home| home.join("kbackup")).ok_or_else(|| {
        Error::new(Kind::Usage, "no state directory is known").hint("name one with `--state-dir`")
    })
}
