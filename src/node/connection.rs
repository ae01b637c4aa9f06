//! How to reach a node: its URL, the TLS settings, the credentials and the time limits.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use crate::error::{Error, Kind, Result};

/// How to reach a node, and as whom.
#[derive(Clone)]
pub struct Connection {
    /// `http://host:port` or `https://host:port` of one node, never of a load balancer.
    pub url: String,
    /// PEM files of the authorities to trust. If any is named, no others are trusted.
    pub ca_files: Vec<PathBuf>,
    /// A certificate to show to the node.
    pub client_certificate: Option<ClientCertificate>,
    /// The DNS name to expect in the node's certificate, if it is not the one in the URL.
    pub server_name: Option<String>,
    /// Trust any certificate. For tests only: an attacker on the network could read the password.
    pub insecure_skip_verify: bool,
    /// The user or token that kbackup shows to the node.
    pub credentials: Option<Credentials>,
    /// The node's unix socket, used instead of the URL's host; every caller there is the system
    /// account (http-api §4).
    pub unix_socket: Option<PathBuf>,
    /// How long to wait for answers.
    pub limits: TimeLimits,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // kbackup refuses a URL with a password, but only when it uses the URL. A log may show it
        // before.
        let url = match self.url.rsplit_once('@') {
            Some((_, host)) => host,
            None => &self.url,
        };

        f.debug_struct("Connection")
            .field("url", &url)
            .field("ca_files", &self.ca_files)
            .field("client_certificate", &self.client_certificate)
            .field("server_name", &self.server_name)
            .field("insecure_skip_verify", &self.insecure_skip_verify)
            .field("credentials", &self.credentials)
            .field("unix_socket", &self.unix_socket)
            .field("limits", &self.limits)
            .finish()
    }
}

/// The certificate that kbackup shows to the node, and its key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// How kbackup logs in. `Debug` never shows the secret.
#[derive(Clone)]
pub enum Credentials {
    /// A user of the database; `ops` may do all that kbackup needs (http-api §0.5).
    Basic {
        /// The user's name.
        user: String,
        /// The user's password.
        password: SecretString,
    },
    /// A token of the OAuth plugin.
    Bearer(SecretString),
}

impl PartialEq for Credentials {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Basic { user, password },
                Self::Basic {
                    user: other_user,
                    password: other_password,
                },
            ) => user == other_user && password.expose_secret() == other_password.expose_secret(),
            (Self::Bearer(token), Self::Bearer(other)) => {
                token.expose_secret() == other.expose_secret()
            }
            _ => false,
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic { user, .. } => write!(f, "Basic {{ user: {user:?}, password: *** }}"),
            Self::Bearer(_) => f.write_str("Bearer(***)"),
        }
    }
}

/// How long a call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimits {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// From the question to the end of the answer. The node itself gives up after 10 s (http-api
    /// §0.2).
    pub answer: Duration,
    /// For all attempts of one question together.
    pub patience: Duration,
}

impl Default for TimeLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(15),
            patience: Duration::from_secs(30),
        }
    }
}

impl Connection {
    /// A connection to `url`, without credentials, with the usual authorities and limits.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            ca_files: Vec::new(),
            client_certificate: None,
            server_name: None,
            insecure_skip_verify: false,
            credentials: None,
            unix_socket: None,
            limits: TimeLimits::default(),
        }
    }

    /// The URL without path, query and password.
    ///
    /// # Errors
    /// [`Kind::Usage`] if the text is not a plain `http://` or `https://` URL, or holds a user or a
    /// password.
    pub(super) fn base(&self) -> Result<Url> {
        let url = Url::parse(&self.url)
            .map_err(|error| usage("the node's URL cannot be read").because(error))?;
        // The text of the URL may hold a password: no error here may repeat it.
        if !url.username().is_empty() || url.password().is_some() {
            return Err(usage("the node's URL holds a user or a password").hint(
                "give the user by `--user` and the password by `--password-file`; \
                     a URL is shown in logs",
            ));
        }

        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(usage(
                "the node's URL is neither `http://` nor `https://` with a host",
            ));
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(usage("the node's URL has a path or a query"));
        }
        Ok(url)
    }
}

fn usage(what: &str) -> Error {
    Error::new(Kind::Usage, what).hint("write it as `https://host:2113`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_plain_urls_only() {
        for good in [
            "http://127.0.0.1:2113",
            "https://node.example",
            "http://[::1]:2113/",
        ] {
            assert!(Connection::new(good).base().is_ok(), "{good}");
        }

        for bad in [
            "",
            "node:2113",
            "ftp://node",
            "http://node/admin",
            "http://node/?a=b",
            "esdb://node:2113",
        ] {
            let error = Connection::new(bad).base().unwrap_err();
            assert_eq!(error.kind(), Kind::Usage, "{bad}");
        }
    }

    #[test]
    fn never_shows_a_secret() {
        for url in [
            "http://admin:hunter2@node:2113",
            "http://:hunter2@node",
            "http://admin:hunter2@ node",
        ] {
            let error = Connection::new(url).base().unwrap_err();
            assert!(
                !format!("{error} {error:?} {:?}", Connection::new(url)).contains("hunter2"),
                "{error:?}"
            );
        }

        let mut connection = Connection::new("http://node:2113");
        for credentials in [
            Credentials::Basic {
                user: "ops".to_owned(),
                password: "hunter2".into(),
            },
            Credentials::Bearer("hunter2".into()),
        ] {
            connection.credentials = Some(credentials);
            assert!(!format!("{connection:?}").contains("hunter2"));
        }
    }
}
