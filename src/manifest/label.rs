//! The names of backups: the time and the kind, `20261121T060000Z-diff`.

use std::fmt;
use std::str::FromStr;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

const TIME_PATTERN: &str = "%Y%m%dT%H%M%SZ";

/// How a backup got its bytes. Both kinds are complete: each backup can be restored and deleted
/// alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackupKind {
    /// Every byte was read again.
    Full,
    /// The backup reuses what it could prove unchanged since its parent, the newest backup of the
    /// branch.
    Diff,
}

impl fmt::Display for BackupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::Diff => "diff",
        })
    }
}

/// The name of a backup: `20261121T060000Z-diff`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(String);

impl Label {
    /// The label of a backup of this kind. It holds `time` in whole seconds.
    #[must_use]
    pub fn new(time: Timestamp, kind: BackupKind) -> Self {
        Self(format!("{}-{kind}", time.strftime(TIME_PATTERN)))
    }

    /// The time in the label.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        let (time, _) = self.0.split_once('-').unwrap_or((self.as_str(), ""));
        // A label always begins with a time: `new` and `from_str` see to that.
        time_of(time).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// The label of a backup of the same kind, one second later.
    #[must_use]
    pub fn a_second_later(&self) -> Self {
        let second = std::time::Duration::from_secs(1);
        let later = self.time().checked_add(second);
        let kind = match self.0.ends_with("full") {
            true => BackupKind::Full,
            false => BackupKind::Diff,
        };
        Self::new(later.unwrap_or(Timestamp::UNIX_EPOCH), kind)
    }

    /// The label as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if is_label(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "{text:?} is not a label such as `20261121T060000Z-diff`"
        ))
    }
}

fn is_label(text: &str) -> bool {
    let Some((time, kind)) = text.split_once('-') else {
        return false;
    };
    let is_time = time.len() == 16 && DateTime::strptime(TIME_PATTERN, time).is_ok();
    is_time && (kind == "full" || kind == "diff")
}

fn time_of(text: &str) -> Option<Timestamp> {
    let time = DateTime::strptime(TIME_PATTERN, text).ok()?;
    let in_utc = time.to_zoned(TimeZone::UTC).ok()?;
    Some(in_utc.timestamp())
}

impl TryFrom<String> for Label {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Label> for String {
    fn from(label: Label) -> Self {
        label.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_read_back() {
        let label = Label::new("2026-11-21T06:00:00Z".parse().unwrap(), BackupKind::Diff);
        assert_eq!(label.as_str(), "20261121T060000Z-diff");
        assert_eq!(label.as_str().parse::<Label>().unwrap(), label);
    }

    #[test]
    fn other_names_are_no_labels() {
        for text in [
            "",
            "latest",
            "../x",
            "20261121T060000Z",
            "20261121T060000Z-",
            "20261121T060000Z-diff/..",
            "20261321T060000Z-full",
        ] {
            assert!(text.parse::<Label>().is_err(), "{text}");
        }
    }
}
