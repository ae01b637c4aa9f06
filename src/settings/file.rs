use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, Kind, Result};
use crate::fs;

/// The keys of a configuration file: option ids (`node_timeout`) to their values as text, those for every verb and those of one.
#[derive(Debug, Default)]
pub(super) struct ConfigFile {
    general: BTreeMap<String, Vec<String>>,
    verbs: BTreeMap<String, BTreeMap<String, Vec<String>>>,
}

const MAX_BYTES: u64 = 1024 * 1024;

impl ConfigFile {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let wrong = |cause: String| Error::new(Kind::Usage, "the configuration file cannot be used").at(path).because(cause);
        let bytes = fs::read_small(path, MAX_BYTES).map_err(|error| Error::from(error).with_kind(Kind::Usage))?;
        let text = String::from_utf8(bytes).map_err(|error| wrong(error.to_string()))?;
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| wrong(error.to_string()))?;
        let mut file = Self::default();
        for (key, value) in table {
            match value {
                toml::Value::Table(options) => {
                    let options = options.into_iter().map(|(key, value)| Ok((id(&key), texts(&key, value).map_err(wrong)?)));
                    file.verbs.insert(key, options.collect::<Result<_>>()?);
                }
                value => {
                    file.general.insert(id(&key), texts(&key, value).map_err(wrong)?);
                }
            }
        }
        Ok(file)
    }

    /// The value for an option of a verb.
    pub(super) fn get(&self, verb: &str, option: &str) -> Option<&[String]> {
        self.verbs.get(verb).and_then(|options| options.get(option)).or_else(|| self.general.get(option)).map(Vec::as_slice)
    }

    /// Every key, with the verb it is for.
    pub(super) fn keys(&self) -> impl Iterator<Item = (Option<&str>, &str)> {
        let general = self.general.keys().map(|key| (None, key.as_str()));
        general.chain(self.verbs.iter().flat_map(|(verb, options)| options.keys().map(|key| (Some(verb.as_str()), key.as_str()))))
    }
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
