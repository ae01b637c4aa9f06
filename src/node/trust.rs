//! TLS: the authorities that kbackup trusts for a node, and the certificate that it shows to the
//! node.

use reqwest::Url;

use super::Connection;
use crate::error::{Error, Kind, Result};
use crate::trust::{authorities_in, machine_authorities, read_pem};

/// The authorities to trust: only the named ones or, if none is named, those of the machine.
pub(super) fn authorities(
    connection: &Connection,
    base: &Url,
) -> Result<Vec<reqwest::Certificate>> {
    if base.scheme() != "https" || connection.insecure_skip_verify {
        return Ok(Vec::new());
    }
    if connection.ca_files.is_empty() {
        return Ok(machine_authorities());
    }

    let mut trusted = Vec::new();
    for path in &connection.ca_files {
        trusted.extend(authorities_in(path)?);
    }

    Ok(trusted)
}

/// The client certificate with its key, if one is named.
pub(super) fn identity(connection: &Connection) -> Result<Option<reqwest::Identity>> {
    let Some(files) = &connection.client_certificate else {
        return Ok(None);
    };

    let mut pem = read_pem(&files.certificate)?;
    pem.push(b'\n');
    pem.extend(read_pem(&files.key)?);

    match reqwest::Identity::from_pem(&pem) {
        Ok(identity) => Ok(Some(identity)),
        // The cause could quote the key.
        Err(_) => Err(Error::new(
            Kind::Usage,
            "the client certificate and its key cannot be used",
        )
        .at(&files.certificate)
        .hint("both must be PEM, the key without a password (PKCS#8, PKCS#1 or SEC1)")),
    }
}
