//! TLS: the authorities that kbackup trusts, and the certificate that it shows to the node.

use std::path::Path;

use reqwest::Url;

use super::Connection;
use crate::error::{Error, Kind, Result};
use crate::fs;

/// A certificate file is a few kilobytes, a bundle of all public authorities some hundred.
const MAX_CERTIFICATE: u64 = 4 * 1024 * 1024;

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
        let pem = read_pem(path)?;
        let found = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| {
            usage("cannot read the authority's certificate")
                .at(path)
                .because(error.without_url())
        })?;
        if found.is_empty() {
            return Err(usage("the file holds no certificate")
                .at(path)
                .hint("it must be PEM: `-----BEGIN CERTIFICATE-----`"));
        }
        trusted.extend(found);
    }

    Ok(trusted)
}

/// The authorities that this machine trusts. If the machine trusts none, these are the public ones.
#[must_use]
pub fn machine_authorities() -> Vec<reqwest::Certificate> {
    // Like other programs, kbackup leaves out certificates that cannot be read.
    let native = rustls_native_certs::load_native_certs();
    let trusted = readable(&native.certs);
    if trusted.is_empty() {
        return readable(webpki_root_certs::TLS_SERVER_ROOT_CERTS);
    }

    trusted
}

fn readable<C: AsRef<[u8]>>(certificates: &[C]) -> Vec<reqwest::Certificate> {
    let mut readable = Vec::with_capacity(certificates.len());
    for certificate in certificates {
        if let Ok(certificate) = reqwest::Certificate::from_der(certificate.as_ref()) {
            readable.push(certificate);
        }
    }
    readable
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
        Err(_) => Err(usage("the client certificate and its key cannot be used")
            .at(&files.certificate)
            .hint("both must be PEM, the key without a password (PKCS#8, PKCS#1 or SEC1)")),
    }
}

/// The file may be a link: `/etc/ssl` and mounted secrets are full of them.
fn read_pem(path: &Path) -> Result<Vec<u8>> {
    let read = fs::canonical(path).and_then(|path| fs::read_small(&path, MAX_CERTIFICATE));
    read.map_err(|error| {
        let error = Error::from(error);
        if error.kind() == Kind::Failed {
            error.with_kind(Kind::Usage)
        } else {
            error
        }
    })
}

fn usage(what: &str) -> Error {
    Error::new(Kind::Usage, what)
}
