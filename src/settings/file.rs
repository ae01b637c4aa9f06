use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::fs;

/// The keys of a configuration file: option ids (`node_timeout`) to their values as text, those for
/// every verb and those of one.
#[derive(Debug, Default)]
pub(super) struct ConfigFile {
    path: Option<PathBuf>,
    general: BTreeMap<String, Vec<String>>,
    verbs: BTreeMap<String, BTreeMap<String, Vec<String>>>,
}

const MAX_BYTES: u64 = 1024 * 1024;

impl ConfigFile {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let wrong = |cause: String| {
            Error::new(Kind::Usage, "the configuration file cannot be used")
                .at(path)
                .because(cause)
        };
        // Mounted configuration is a link.
        let place = fs::canonical(path).unwrap_or_else(|_| path.to_owned());
        let bytes = fs::read_small(&place, MAX_BYTES)
            .map_err(|error| Error::from(error).with_kind(Kind::Usage))?;
        let text = String::from_utf8(bytes).map_err(|error| wrong(error.to_string()))?;
        let table: toml::Table = text
            .parse()
            .map_err(|error| wrong(without_text(&error, &text)))?;
        let mut file = Self {
            path: Some(path.to_owned()),
            ..Self::default()
        };
        for (key, value) in table {
            match value {
                toml::Value::Table(options) => {
                    let options = options
                        .into_iter()
                        .map(|(key, value)| Ok((id(&key), texts(&key, value).map_err(wrong)?)));
                    file.verbs.insert(key, options.collect::<Result<_>>()?);
                }
                value => {
                    file.general
                        .insert(id(&key), texts(&key, value).map_err(wrong)?);
                }
            }
        }
        Ok(file)
    }

    /// The value for an option of a verb.
    pub(super) fn get(&self, verb: &str, option: &str) -> Option<&[String]> {
        self.verbs
            .get(verb)
            .and_then(|options| options.get(option))
            .or_else(|| self.general.get(option))
            .map(Vec::as_slice)
    }

    /// Where it was read; none where there is no file.
    pub(super) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The names of its tables.
    pub(super) fn verbs(&self) -> impl Iterator<Item = &str> {
        self.verbs.keys().map(String::as_str)
    }

    /// Every key with its values, and the verb it is for.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Option<&str>, &str, &[String])> {
        let general = self
            .general
            .iter()
            .map(|(key, values)| (None, key.as_str(), values.as_slice()));
        let verbs = self.verbs.iter().flat_map(|(verb, options)| {
            options
                .iter()
                .map(|(key, values)| (Some(verb.as_str()), key.as_str(), values.as_slice()))
        });
        general.chain(verbs)
    }
}

/// The parser's own text shows the line, and the line may hold what somebody took for a place for a
/// password.
fn without_text(error: &toml::de::Error, text: &str) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map_or_else(String::new, |before| {
        format!(" in line {}", before.matches('\n').count() + 1)
    });
    format!("{}{line}", error.message())
}

fn id(key: &str) -> String {
    key.replace('-', "_")
}

fn texts(key: &str, value: toml::Value) -> Result<Vec<String>, String> {
    let text = |value: toml::Value| match value {
        toml::Value::String(text) => Ok(text),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Boolean(flag) => Ok(flag.to_string()),
        other => Err(format!("`{key}` cannot be a {}", other.type_str())),
    };
    match value {
        toml::Value::Array(values) => values.into_iter().map(text).collect(),
        value => Ok(vec![text(value)?]),
    }
}
