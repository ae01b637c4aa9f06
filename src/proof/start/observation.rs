//! What one server does about one fact.

use crate::proof::finding::Effect;
use crate::server::Evidence;

/// Something that a server of one line does. `examine` merges the observations of all lines into
/// findings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StartObservation {
    /// A stable name.
    pub(super) code: &'static str,
    pub(super) file: Option<String>,
    pub(super) what: String,
    pub(super) effect: Effect,
    pub(super) evidence: Evidence,
    pub(super) hint: Option<String>,
    /// Whether this proves that the bytes are not what a server wrote.
    pub(super) damage: bool,
}

impl StartObservation {
    pub(super) fn new(
        code: &'static str,
        what: impl Into<String>,
        effect: Effect,
        evidence: Evidence,
    ) -> Self {
        Self {
            code,
            file: None,
            what: what.into(),
            effect,
            evidence,
            hint: None,
            damage: false,
        }
    }

    /// The server does not start.
    pub(super) fn refusal(code: &'static str, what: impl Into<String>, evidence: Evidence) -> Self {
        Self::new(code, what, Effect::Refuses, evidence)
    }

    pub(super) fn on(mut self, place: &str) -> Self {
        self.file = Some(place.to_owned());
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn damage(mut self) -> Self {
        self.damage = true;
        self
    }
}
