//! The settings of an object store that are not in its URL.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// How an object store is reached, and how objects are kept there. Credentials are not among these
/// settings: they come from the provider's own variables, files and services.
#[derive(Debug, Clone, Default)]
pub(in crate::repository) struct StoreOptions {
    /// The address of the store, such as `https://s3.example.com`, if it is not the provider's own.
    pub(in crate::repository) endpoint: Option<String>,
    /// The region of the bucket (S3).
    pub(in crate::repository) region: Option<String>,
    /// The file with the only authorities to trust, instead of those of the machine.
    pub(in crate::repository) ca_file: Option<PathBuf>,
    /// Where the bucket's name stands in a request (S3).
    pub(in crate::repository) addressing: Addressing,
    /// Whether an address without TLS is accepted.
    pub(in crate::repository) allow_http: bool,
    /// The class, or the tier, of objects that are kept long and read seldom.
    pub(in crate::repository) storage_class: Option<String>,
    /// How the store encrypts what it keeps (S3).
    pub(in crate::repository) encryption: Option<ServerSideEncryption>,
    /// Whether the one who asks pays for requests (S3).
    pub(in crate::repository) requester_pays: bool,
    /// How long kbackup waits.
    pub(in crate::repository) limits: Limits,
    /// The environment variables that count.
    pub(in crate::repository) environment: Environment,
}

/// Where the bucket's name stands in a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::repository) enum Addressing {
    /// In the path if an endpoint is named, else in the host's name, as Amazon wants it.
    #[default]
    Usual,
    /// In the path: `https://HOST/BUCKET/KEY`.
    Path,
    /// In the host's name: `https://BUCKET.HOST/KEY`.
    VirtualHost,
}

/// How the store encrypts what it keeps. The store has the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::repository) enum ServerSideEncryption {
    /// With keys of the store (`AES256`).
    Aes256,
    /// With a key of the provider's key service (`aws:kms`); `None` is the account's own key.
    Kms(Option<String>),
}

/// How long kbackup waits for a store.
#[derive(Debug, Clone, Copy)]
pub(in crate::repository) struct Limits {
    /// For a connection.
    pub(in crate::repository) connect: Duration,
    /// For the beginning of an answer, and for each next piece of it. An upload has more time, by
    /// its size.
    pub(in crate::repository) answer: Duration,
    /// For an answer that helps, over all attempts of one request.
    pub(in crate::repository) patience: Duration,
    /// The same, as long as the store has not answered once: then the address may be wrong.
    pub(in crate::repository) first_patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            patience: Duration::from_secs(60),
            first_patience: Duration::from_secs(10),
        }
    }
}

/// Environment variables: those of this process or, in tests, others. They hold secrets, so no
/// message shows their values.
#[derive(Clone)]
pub(in crate::repository) struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The value of a variable; `None` if it is not set, or empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let value = self.0.get(name)?;
        (!value.is_empty()).then_some(value)
    }
}

impl Default for Environment {
    /// The environment of this process.
    fn default() -> Self {
        let mut variables = BTreeMap::new();
        for (name, value) in std::env::vars_os() {
            if let (Ok(name), Ok(value)) = (name.into_string(), value.into_string()) {
                variables.insert(name, value);
            }
        }
        Self(variables)
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        Self(variables.into_iter().collect())
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
