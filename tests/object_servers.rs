//! Real object stores for tests. `scripts/object-servers run COMMAND` starts them, and says by
//! environment variables where they are. A test that needs one which is not there says `SKIPPED`.
//!
//! The tests of `src/repository/object/store` use this file, too.

#[path = "object_servers/google.rs"]
mod google;

use std::io::Write;
use std::net::TcpStream;
use std::process;
use std::time::{SystemTime, UNIX_EPOCH};

/// The account of azurite, and its key, which is the same everywhere.
const AZURE_ACCOUNT: &str = "devstoreaccount1";
const AZURE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A part of a real object store that no other test uses.
pub(crate) struct ObjectServer {
    /// The URL of a repository that does not exist yet.
    pub(crate) url: String,
    /// The address of the store.
    pub(crate) endpoint: String,
    /// The variables that hold the credentials.
    pub(crate) environment: Vec<(String, String)>,
}

/// `SeaweedFS`, with the bucket `kbackup-test`.
pub(crate) fn s3() -> Option<ObjectServer> {
    s3_as("kbackup", "kbackup-secret")
}

/// The same, for another user: `reader` may read and list, `writer` may write.
pub(crate) fn s3_as(key: &str, secret: &str) -> Option<ObjectServer> {
    let endpoint = endpoint("KBACKUP_TEST_S3", "SeaweedFS")?;
    Some(ObjectServer {
        url: format!("s3://kbackup-test/{}", unique()),
        endpoint,
        environment: variables(&[
            ("AWS_ACCESS_KEY_ID", key),
            ("AWS_SECRET_ACCESS_KEY", secret),
        ]),
    })
}

/// azurite, with the container `kbackup-test`.
pub(crate) fn azure() -> Option<ObjectServer> {
    let endpoint = endpoint("KBACKUP_TEST_AZURE", "azurite")?;
    Some(ObjectServer {
        url: format!("az://kbackup-test/{}", unique()),
        endpoint: format!("{endpoint}/{AZURE_ACCOUNT}"),
        environment: variables(&[
            ("AZURE_STORAGE_ACCOUNT", AZURE_ACCOUNT),
            ("AZURE_STORAGE_KEY", AZURE_KEY),
        ]),
    })
}

/// A store that speaks like Google's, with the bucket `kbackup-test`. It is a stub of this process,
/// and each call starts a new one.
pub(crate) fn google() -> Option<ObjectServer> {
    Some(ObjectServer {
        url: format!("gs://kbackup-test/{}", unique()),
        endpoint: google::start().ok()?,
        environment: variables(&[("GOOGLE_BEARER_TOKEN", "any")]),
    })
}

fn endpoint(variable: &str, server: &str) -> Option<String> {
    match std::env::var(variable) {
        Ok(endpoint) if !endpoint.is_empty() => Some(endpoint),
        _ => {
            let what = format!("no {server} runs here; `scripts/object-servers run` starts it");
            // Past the capture of tests that pass: somebody should see it.
            let _ = writeln!(std::io::stdout().lock(), "SKIPPED: {what}");
            None
        }
    }
}

/// A name that no other test has, now or in an earlier run on the same servers.
fn unique() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    format!("{}-{}", process::id(), now.unwrap_or_default().as_nanos())
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn each_object_server_that_was_started_answers() {
    for server in [s3(), azure(), google()].into_iter().flatten() {
        let address = server.endpoint.strip_prefix("http://").unwrap();
        let address = address.split('/').next().unwrap();
        TcpStream::connect(address).unwrap();

        assert!(server.url.contains("://kbackup-test/"));
        assert!(!server.environment.is_empty());
    }
}
