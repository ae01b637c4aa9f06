//! What a store answers if it does not do what it was asked.

use std::time::Duration;

use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use jiff::fmt::rfc2822;

use crate::clock;

/// The text of an answer is of a stranger, and goes into a message.
const LONGEST_MESSAGE: usize = 300;

/// An answer other than success.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// The store's own name for what is wrong, such as `NoSuchBucket`.
    pub(super) code: Option<String>,
    pub(super) message: Option<String>,
    /// The region of the bucket, if the request went to another one.
    pub(super) region: Option<String>,
    /// How long the store wants to be left alone.
    pub(super) retry_after: Option<Duration>,
    /// How far the store's clock is ahead of this machine's, in seconds.
    pub(super) clock_difference: Option<i64>,
}

impl Answer {
    pub(super) fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let body = String::from_utf8_lossy(body);
        let region = header(headers, "x-amz-bucket-region");
        let seconds = headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok());

        Self {
            status,
            code: header(headers, "x-ms-error-code").or_else(|| element(&body, "Code")),
            message: element(&body, "Message"),
            region: region.or_else(|| element(&body, "Region")),
            retry_after: seconds
                .and_then(|text| text.trim().parse().ok())
                .map(Duration::from_secs),
            clock_difference: clock_difference(headers),
        }
    }

    /// The code; nothing if the store gives none.
    pub(super) fn code(&self) -> &str {
        self.code.as_deref().unwrap_or_default()
    }

    /// Whether the message has these words, where one code stands for two things.
    pub(super) fn says(&self, words: &str) -> bool {
        let message = self.message.as_deref().unwrap_or_default();
        message.contains(words)
    }

    /// The answer in one line.
    pub(super) fn in_words(&self) -> String {
        let mut words = format!("the store answers {}", self.status);
        if let Some(code) = &self.code {
            words.push_str(", ");
            words.push_str(code);
        }
        if let Some(message) = &self.message {
            words.push_str(": ");
            words.push_str(message);
        }
        words
    }
}

/// How far the store's clock is ahead of this machine's, in seconds. `None` if it tells no time.
pub(super) fn clock_difference(headers: &HeaderMap) -> Option<i64> {
    let date = headers.get(DATE)?.to_str().ok()?;
    let zoned = rfc2822::parse(date).ok()?;
    let theirs: Timestamp = zoned.timestamp();
    Some(theirs.as_second() - clock::now().as_second())
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().and_then(one_line)
}

/// The text of the first element of that name. The answers are small and flat, so this needs no
/// parser of XML.
fn element(body: &str, name: &str) -> Option<String> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    one_line(text)
}

/// The first line, without control characters, and not too long.
fn one_line(text: &str) -> Option<String> {
    let line = text.trim().lines().next()?;
    let plain = line.chars().filter(|character| !character.is_control());
    let text: String = plain.take(LONGEST_MESSAGE).collect();
    (!text.is_empty()).then_some(text)
}
