//! The answer to "is this node safe now?". [`super::assessment`] gives it.

use std::cmp::Reverse;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How safe a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// What the node wrote is in a good backup, or will be soon.
    Safe,
    /// The node is backed up, but something needs the operator.
    Attention,
    /// The loss of the node would lose too much, or everything.
    Danger,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Safe => "safe",
            Self::Attention => "attention",
            Self::Danger => "danger",
        })
    }
}

/// The answer, with its reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The answer in one word.
    pub level: Level,
    /// The answer in one sentence.
    pub sentence: String,
    /// Everything that is wrong, the worst first. The sentence names the first.
    pub concerns: Vec<Concern>,
}

impl Verdict {
    /// The verdict on these concerns. `all_is_well` is its sentence if there are none.
    pub(super) fn of(mut concerns: Vec<Concern>, all_is_well: String) -> Self {
        // The sort is stable: concerns of one level keep their order.
        concerns.sort_by_key(|concern| Reverse(concern.level));

        let Some(worst) = concerns.first() else {
            return Self {
                level: Level::Safe,
                sentence: all_is_well,
                concerns,
            };
        };

        let what = &worst.what;
        Self {
            level: worst.level,
            sentence: match worst.level {
                Level::Danger => format!("This node is not safe: {what}"),
                Level::Attention | Level::Safe => {
                    format!("This node is backed up, but look at this: {what}")
                }
            },
            concerns,
        }
    }

    /// Adds a concern. It may change the level and the sentence.
    pub fn add(&mut self, concern: Concern) {
        let mut concerns = std::mem::take(&mut self.concerns);
        concerns.push(concern);

        *self = Self::of(concerns, std::mem::take(&mut self.sentence));
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concern {
    /// How bad it is.
    pub level: Level,
    /// What is wrong.
    pub what: String,
    /// What the operator can do.
    pub hints: Vec<String>,
}

impl Concern {
    pub(super) fn danger(what: String) -> Self {
        Self {
            level: Level::Danger,
            what,
            hints: Vec::new(),
        }
    }

    pub(super) fn attention(what: String) -> Self {
        Self {
            level: Level::Attention,
            what,
            hints: Vec::new(),
        }
    }

    pub(super) fn hint(mut self, hint: &str) -> Self {
        self.hints.push(hint.to_owned());
        self
    }

    pub(super) fn hints(mut self, hints: &[String]) -> Self {
        self.hints.extend_from_slice(hints);
        self
    }
}

/// A length of time in its largest unit, such as `3 hours`.
#[must_use]
pub fn roughly(length: Duration) -> String {
    let seconds = length.as_secs();
    let (count, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7200 => (seconds / 60, "minute"),
        7200..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86400, "day"),
    };

    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}
