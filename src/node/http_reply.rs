//! One HTTP reply of the node: status, headers and body. `client` turns the body into a type of
//! `answers`.

use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName};
use serde::de::DeserializeOwned;

use crate::error::{Error, Kind, Result};

pub(super) const IS_THIS_A_NODE: &str =
    "check that this is the URL of the HTTP side of a KurrentDB or EventStoreDB node";

/// The error for a reply from `place` without a field that the procedure needs.
pub(super) fn lacks(place: &str, field: &str) -> Error {
    Error::new(
        Kind::Failed,
        format!("the reply has no field `{field}`, and kbackup needs it"),
    )
    .on(place)
    .hint("if a proxy stands before the node, check what it removes")
    .hint("otherwise report the server's version: it answers in a way that kbackup does not know")
}

/// The name in serde's message about a missing field.
fn missing_field(message: &str) -> Option<&str> {
    let rest = message.strip_prefix("missing field `")?;
    let (field, _) = rest.split_once('`')?;
    Some(field)
}

/// One complete answer.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// The URL that was asked, for messages.
    pub(super) place: String,
}

impl Reply {
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| self.unusable(&error))
    }

    fn unusable(&self, error: &serde_json::Error) -> Error {
        let text = error.to_string();
        match missing_field(&text) {
            Some(field) => self.lacks(field),
            None => self.nonsense(text),
        }
    }

    /// The error for a reply without a field that the procedure needs.
    pub(super) fn lacks(&self, field: &str) -> Error {
        lacks(&self.place, field)
    }

    pub(super) fn nonsense(&self, why: impl Into<String>) -> Error {
        let content = self.header(&CONTENT_TYPE).unwrap_or("no content type");
        Error::new(
            Kind::Failed,
            format!("the answer makes no sense ({}, {content})", self.status),
        )
        .on(&self.place)
        .because(why.into())
        .hint(IS_THIS_A_NODE)
    }

    /// A header's value, if it is there and is text.
    pub(super) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The id in the answer to a DELETE, a JSON string. Returns `None` if it is empty, or another
    /// text (http-api §1.5).
    pub(super) fn named_scavenge(&self) -> Option<String> {
        let id: Option<String> = serde_json::from_slice(&self.body).ok()?;
        let id = id?;
        if id.is_empty() || self.check_id(&id).is_err() {
            return None;
        }

        Some(id)
    }

    /// Checks the id of a scavenge. kbackup writes it into the release record and has to read it
    /// again, so it accepts no long id and no control characters.
    pub(super) fn check_id(&self, id: &str) -> Result<()> {
        const LONGEST: usize = 200;
        if id.len() <= LONGEST && !id.chars().any(char::is_control) {
            return Ok(());
        }

        Err(self.nonsense(format!(
            "the id of a scavenge has {} bytes, or holds control characters",
            id.len()
        )))
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body)
            .trim()
            .trim_matches('"')
            .to_owned()
    }

    /// The first words of the body, or the reason in a problem document.
    pub(super) fn detail(&self) -> String {
        const LONGEST: usize = 200;

        #[derive(serde::Deserialize)]
        struct Problem {
            detail: String,
        }

        let mut text = match serde_json::from_slice::<Problem>(&self.body) {
            Ok(problem) => problem.detail,
            Err(_) => self.text(),
        };
        text.retain(|character| !character.is_control());
        if text.is_empty() {
            return "it gives no reason".to_owned();
        }

        text.chars().take(LONGEST).collect()
    }
}
