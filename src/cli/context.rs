//! What every verb needs beside its own options.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use super::output::Output;
use crate::error::{Error, Kind, Result};
use crate::run::Run;
use crate::settings::options::GeneralOptions;

/// The exit code of a successful run with warnings.
pub(super) const WITH_WARNINGS: u8 = 3;

/// The run of a verb, and where its answer goes.
pub(super) struct VerbContext {
    pub run: Arc<Run>,
    pub output: Output,
    pub general: GeneralOptions,
    /// `--timings`: show how long each step took.
    pub timings: bool,
}

impl VerbContext {
    /// The exit code of a successful run: 0, or 3 with warnings.
    pub(super) fn done(&self) -> u8 {
        if self.run.warnings().is_empty() {
            0
        } else {
            WITH_WARNINGS
        }
    }

    /// The answer as JSON, with the warnings of the run and, if they are wanted, its timings.
    pub(super) fn with_warnings(&self, answer: &impl Serialize) -> Result<Value> {
        let mut value = serde_json::to_value(answer)
            .map_err(|error| Error::new(Kind::Failed, "cannot write the answer").because(error))?;
        let Some(fields) = value.as_object_mut() else {
            return Ok(value);
        };

        fields.insert("warnings".to_owned(), self.run.warnings().into());
        if self.timings {
            let timings = self.run.timings();
            fields.insert(
                "timings".to_owned(),
                json!({ "steps": timings.steps(), "activities": timings.activities() }),
            );
        }
        Ok(value)
    }
}
