//! The certificate and the key of the page. A renewed pair is used without a restart.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tracing::warn;

use crate::error::{Error, Kind, Result};
use crate::fs;

const MAX_PEM: u64 = 1024 * 1024;

/// Reads certificate and key once.
///
/// # Errors
/// [`Kind::Usage`] if they cannot be read or used.
pub(in crate::agent) fn check(certificate: &Path, key: &Path) -> Result<()> {
    KeyPairCache::default().current(certificate, key)?;
    Ok(())
}

/// The newest certificate and key that could be used.
#[derive(Default)]
pub(super) struct KeyPairCache {
    known: Option<KeyPair>,
    /// Why the newest pair cannot be used.
    problem: Option<String>,
}

/// A pair of files, and what was made of it.
struct KeyPair {
    files: [Vec<u8>; 2],
    server: Arc<ServerConfig>,
}

impl KeyPairCache {
    /// The pair that the files hold now. If it cannot be used, the pair before, because a renewal
    /// may be half done.
    pub(super) fn current(&mut self, certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>> {
        let error = match self.renewed(certificate, key) {
            Ok(server) => {
                self.problem = None;
                return Ok(server);
            }
            Err(error) => error,
        };
        let Some(known) = &self.known else {
            return Err(error);
        };

        let problem = error.in_words();
        if self.problem.as_ref() != Some(&problem) {
            warn!("the page's new certificate cannot be used, the old one stays: {problem}");
        }
        self.problem = Some(problem);
        Ok(Arc::clone(&known.server))
    }

    fn renewed(&mut self, certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>> {
        let files = [read(certificate)?, read(key)?];
        if let Some(known) = &self.known
            && known.files == files
        {
            return Ok(Arc::clone(&known.server));
        }

        let [chain, secret] = &files;
        let mut certificates = Vec::new();
        for der in CertificateDer::pem_slice_iter(chain) {
            let der = der.map_err(|error| cannot_encrypt(certificate, error.to_string()))?;
            certificates.push(der.into_owned());
        }
        let secret = PrivateKeyDer::from_pem_slice(secret)
            .map_err(|error| cannot_encrypt(key, error.to_string()))?;
        let server = server(certificates, secret)
            .map_err(|error| cannot_encrypt(certificate, error.to_string()))?;

        let server = Arc::new(server);
        self.known = Some(KeyPair {
            files,
            server: Arc::clone(&server),
        });
        Ok(server)
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    // Mounted secrets are symbolic links.
    let place = fs::canonical(path).unwrap_or_else(|_| path.to_owned());

    fs::read_small(&place, MAX_PEM).map_err(|error| Error::from(error).with_kind(Kind::Usage))
}

fn server(
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> std::result::Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];

    Ok(server)
}

fn cannot_encrypt(path: &Path, why: String) -> Error {
    Error::new(Kind::Usage, "the page cannot be encrypted")
        .at(path)
        .because(why)
}
