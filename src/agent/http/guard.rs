//! Who may read, and under which name.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};

use crate::error::{Error, Kind, Result};
use crate::settings::options::{AgentOptions, ListenAddress};

/// What a reader has to bring.
#[derive(Debug)]
pub(in crate::agent) struct Guard {
    /// The header `Authorization` that is wanted; none: everybody may read.
    wanted: Option<SecretString>,
    /// The names it answers to; none: to any.
    names: Option<Vec<String>>,
    notice: Option<&'static str>,
}

impl Guard {
    /// What the settings ask for.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a user without a password or the other way round, a secret that cannot
    /// be read, and half a key pair.
    pub(in crate::agent) fn of(agent: &AgentOptions) -> Result<Self> {
        let password = agent.listen_password.read()?;
        let wanted = match (&agent.listen_user, password) {
            (None, None) => None,
            (Some(user), Some(_)) if user.contains(':') => {
                return Err(Error::new(
                    Kind::Usage,
                    "the user of the page cannot have a colon in its name",
                ));
            }
            (Some(user), Some(password)) => {
                let both = format!("{user}:{}", password.expose_secret());
                Some(format!("Basic {}", STANDARD.encode(both)).into())
            }
            (Some(_), None) => {
                return Err(Error::new(Kind::Usage, "the user of the page needs a password")
                    .hint("set `KBACKUP_LISTEN_PASSWORD`, or name a file with `--listen-password-file`"));
            }
            (None, Some(_)) => {
                return Err(
                    Error::new(Kind::Usage, "the password of the page needs a user")
                        .hint("name it with `--listen-user`"),
                );
            }
        };
        if agent.listen_certificate_file.is_some() != agent.listen_key_file.is_some() {
            return Err(Error::new(
                Kind::Usage,
                "to encrypt the page takes both `--listen-certificate-file` and `--listen-key-file`",
            ));
        }
        let is_local = match agent.listen {
            ListenAddress::At(address) => address.ip().is_loopback(),
            ListenAddress::Off => true,
        };
        let notice = match (is_local, &wanted, &agent.listen_certificate_file) {
            (false, None, _) => Some(
                "Everybody who reaches this address can read this page: it asks for no password. See `--listen-user`.",
            ),
            (false, Some(_), None) => Some(
                "The password of this page travels unencrypted. See `--listen-certificate-file`.",
            ),
            _ => None,
        };
        let names =
            (is_local || !agent.listen_hosts.is_empty()).then(|| agent.listen_hosts.clone());
        Ok(Self {
            wanted,
            names,
            notice,
        })
    }

    /// What everybody who sees the page should know of how it is served.
    pub(in crate::agent) const fn notice(&self) -> Option<&'static str> {
        self.notice
    }

    /// The answer to who may not read; none for who may.
    pub(super) fn refuses(&self, uri: &Uri, headers: &HeaderMap) -> Option<Response> {
        if !self.answers_to(uri, headers) {
            let text = "This is not a name of this page. `--listen-host` adds one.\n";
            return Some((StatusCode::MISDIRECTED_REQUEST, text).into_response());
        }
        let wanted = self.wanted.as_ref()?;
        let brought = headers
            .get(header::AUTHORIZATION)
            .map(HeaderValue::as_bytes)
            .unwrap_or_default();
        // Hashes are compared in constant time, and tell nothing of what was hashed.
        if blake3::hash(brought) == blake3::hash(wanted.expose_secret().as_bytes()) {
            return None;
        }
        let ask = [(
            header::WWW_AUTHENTICATE,
            "Basic realm=\"kbackup\", charset=\"UTF-8\"",
        )];
        Some(
            (
                StatusCode::UNAUTHORIZED,
                ask,
                "A user and a password are needed.\n",
            )
                .into_response(),
        )
    }

    /// A page of somebody else's whose name was made to lead here would be read by that page: only
    /// names that lead here by themselves are answered to. What sends no name is no browser.
    fn answers_to(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let Some(names) = &self.names else {
            return true;
        };
        let host = match (headers.get(header::HOST), uri.authority()) {
            (Some(host), _) => host.to_str().unwrap_or_default().to_owned(),
            (None, Some(authority)) => authority.to_string(),
            (None, None) => return true,
        };
        let name = without_port(&host).to_ascii_lowercase();
        is_loopback(&name) || names.iter().any(|known| known.eq_ignore_ascii_case(&name))
    }
}

fn without_port(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    }
}

/// Browsers resolve `localhost` and what ends with it themselves.
fn is_loopback(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name == "localhost"
        || name.ends_with(".localhost")
        || name
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(names: Option<&[&str]>) -> Guard {
        Guard {
            wanted: None,
            names: names.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
            notice: None,
        }
    }

    fn answers(guard: &Guard, host: &str) -> bool {
        let headers = HeaderMap::from_iter([(header::HOST, host.parse().unwrap())]);
        guard.refuses(&"/".parse().unwrap(), &headers).is_none()
    }

    #[test]
    fn only_its_own_names_are_answered_to() {
        for (host, is_own) in [
            ("localhost:2114", true),
            ("LOCALHOST", true),
            ("kbackup.localhost:2114", true),
            ("127.0.0.1:2114", true),
            ("127.9.9.9", true),
            ("[::1]:2114", true),
            ("backups.example", true),
            ("Backups.example:443", true),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example:2114", false),
            ("192.168.0.1:2114", false),
            ("", false),
        ] {
            assert_eq!(
                answers(&guard(Some(&["backups.example"])), host),
                is_own,
                "{host}"
            );
            assert!(answers(&guard(None), host), "{host}");
        }
        assert!(
            guard(Some(&[]))
                .refuses(&"/".parse().unwrap(), &HeaderMap::new())
                .is_none()
        );
    }
}
