//! Decides which readers may read the page, and to which names the page answers.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};

use crate::error::{Error, Kind, Result};
use crate::settings::options::{AgentOptions, ListenAddress};

const OPEN_TO_ALL: &str = "Everybody who reaches this address can read this page: \
                           it asks for no password. See `--listen-user`.";
const UNENCRYPTED: &str = "The password of this page travels unencrypted. \
                           See `--listen-certificate-file`.";

/// What a reader has to send.
#[derive(Debug)]
pub(super) struct AccessRules {
    /// The header `Authorization` that a reader has to send. `None` if every reader may read.
    wanted: Option<SecretString>,
    /// The names that the page answers to, besides loopback names. `None` if it answers to any
    /// name.
    names: Option<Vec<String>>,
    notice: Option<&'static str>,
}

impl AccessRules {
    /// The rules that the settings ask for.
    ///
    /// # Errors
    /// [`Kind::Usage`] if there is a user without a password, a password without a user, or one
    /// half of a key pair, or if a secret cannot be read.
    pub(super) fn of(agent: &AgentOptions) -> Result<Self> {
        if agent.listen_certificate_file.is_some() != agent.listen_key_file.is_some() {
            return Err(Error::new(
                Kind::Usage,
                "an encrypted page needs both `--listen-certificate-file` and \
                 `--listen-key-file`",
            ));
        }

        let wanted = wanted(agent)?;
        let is_local = match agent.listen {
            ListenAddress::At(address) => address.ip().is_loopback(),
            ListenAddress::Off => true,
        };
        let notice = if is_local {
            None
        } else if wanted.is_none() {
            Some(OPEN_TO_ALL)
        } else if agent.listen_certificate_file.is_none() {
            Some(UNENCRYPTED)
        } else {
            None
        };

        let has_names = is_local || !agent.listen_hosts.is_empty();
        Ok(Self {
            wanted,
            names: has_names.then(|| agent.listen_hosts.clone()),
            notice,
        })
    }

    /// A warning for every reader about how the page is served.
    pub(super) const fn notice(&self) -> Option<&'static str> {
        self.notice
    }

    /// The answer to a reader who may not read. `None` if the reader may.
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
        // Hashes are compared in constant time, and do not reveal what was hashed.
        if blake3::hash(brought) == blake3::hash(wanted.expose_secret().as_bytes()) {
            return None;
        }

        let ask = [(
            header::WWW_AUTHENTICATE,
            "Basic realm=\"kbackup\", charset=\"UTF-8\"",
        )];
        let text = "A user and a password are needed.\n";
        Some((StatusCode::UNAUTHORIZED, ask, text).into_response())
    }

    /// Whether the page answers to the name that the reader used.
    ///
    /// A foreign page can make its own name lead here (DNS rebinding). Then its scripts could read
    /// this page. So the page answers only to names that it knows. A reader that sends no name is
    /// not a browser, and may read.
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

/// The header `Authorization` that a reader has to send.
fn wanted(agent: &AgentOptions) -> Result<Option<SecretString>> {
    let password = agent.listen_password.read()?;

    match (&agent.listen_user, password) {
        (None, None) => Ok(None),
        (Some(user), Some(_)) if user.contains(':') => Err(Error::new(
            Kind::Usage,
            "the user of the page cannot have a colon in its name",
        )),
        (Some(user), Some(password)) => {
            let both = format!("{user}:{}", password.expose_secret());
            Ok(Some(format!("Basic {}", STANDARD.encode(both)).into()))
        }
        (Some(_), None) => Err(
            Error::new(Kind::Usage, "the user of the page needs a password").hint(
                "set `KBACKUP_LISTEN_PASSWORD`, or name a file with `--listen-password-file`",
            ),
        ),
        (None, Some(_)) => Err(
            Error::new(Kind::Usage, "the password of the page needs a user")
                .hint("name it with `--listen-user`"),
        ),
    }
}

fn without_port(host: &str) -> &str {
    // An IPv6 address is in brackets.
    if let Some(rest) = host.strip_prefix('[')
        && let Some((address, _)) = rest.split_once(']')
    {
        return address;
    }

    match host.split_once(':') {
        Some((name, _)) => name,
        None => host,
    }
}

/// Browsers resolve `localhost`, and names that end in `.localhost`, themselves.
fn is_loopback(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    if name == "localhost" || name.ends_with(".localhost") {
        return true;
    }

    match name.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(names: Option<&[&str]>) -> AccessRules {
        AccessRules {
            wanted: None,
            names: names.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
            notice: None,
        }
    }

    fn answers(rules: &AccessRules, host: &str) -> bool {
        let headers = HeaderMap::from_iter([(header::HOST, host.parse().unwrap())]);
        rules.refuses(&"/".parse().unwrap(), &headers).is_none()
    }

    #[test]
    fn the_page_answers_to_its_own_names_only() {
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
                answers(&rules(Some(&["backups.example"])), host),
                is_own,
                "{host}"
            );
            assert!(answers(&rules(None), host), "{host}");
        }

        // A reader that sends no name is not a browser.
        assert!(
            rules(Some(&[]))
                .refuses(&"/".parse().unwrap(), &HeaderMap::new())
                .is_none()
        );
    }
}
