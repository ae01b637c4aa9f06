//! The authorities whose certificates kbackup trusts when it talks to a server by TLS: to a node, to
//! an object store, or to a web address that hears of runs.

use std::path::Path;

use crate::error::{Error, Kind, Result};
use crate::fs;

/// A certificate file is a few kilobytes, a bundle of all public authorities some hundred.
const MAX_CERTIFICATE: u64 = 4 * 1024 * 1024;

/// The authorities that this machine trusts. If the machine trusts none, these are the public ones.
#[must_use]
pub(crate) fn machine_authorities() -> Vec<reqwest::Certificate> {
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

/// The authorities in a file that the operator named.
///
/// # Errors
/// `Usage` if the file holds no certificate in PEM.
pub(crate) fn authorities_in(path: &Path) -> Result<Vec<reqwest::Certificate>> {
    let pem = read_pem(path)?;
    let found = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| {
        Error::new(Kind::Usage, "cannot read the authority's certificate")
            .at(path)
            .because(error.without_url())
    })?;

    if found.is_empty() {
        return Err(Error::new(Kind::Usage, "the file holds no certificate")
            .at(path)
            .hint("it must be PEM: `-----BEGIN CERTIFICATE-----`"));
    }
    Ok(found)
}

/// Reads a file in PEM. The file may be a link: `/etc/ssl` and mounted secrets are full of them.
///
/// # Errors
/// `Usage` if it cannot be read, `Denied` if it is somebody else's.
pub(crate) fn read_pem(path: &Path) -> Result<Vec<u8>> {
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
