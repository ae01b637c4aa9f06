//! Reads the TOML configuration file into texts. `file_check` and clap check them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::fs;

type Values = BTreeMap<String, Vec<String>>;

/// The values of a configuration file as texts, by the ids of the options (`node_timeout`).
#[derive(Debug, Default)]
pub(super) struct ConfigFile {
    path: Option<PathBuf>,
    /// The keys above the first table, which are for every verb.
    general: Values,
    /// The tables, by the verbs that they are for.
    tables: BTreeMap<String, Values>,
}

const MAX_BYTES: u64 = 1024 * 1024;

impl ConfigFile {
    pub(super) fn read(path: &Path) -> Result<Self> {
        // A mounted configuration is a symbolic link.
        let target = fs::canonical(path).unwrap_or_else(|_| path.to_owned());
        let bytes = fs::read_small(&target, MAX_BYTES).map_err(|error| {
            Error::from(error)
                .with_kind(Kind::Usage)
                .with_what("cannot read the configuration file")
        })?;

        let (general, tables) = parse(bytes).map_err(|cause| {
            Error::new(Kind::Usage, "the configuration file cannot be used")
                .at(path)
                .because(cause)
        })?;
        Ok(Self {
            path: Some(path.to_owned()),
            general,
            tables,
        })
    }

    /// The values of an option of a verb: those in the verb's table, or else those for every verb.
    pub(super) fn get(&self, verb: &str, option: &str) -> Option<&[String]> {
        let in_table = match self.tables.get(verb) {
            Some(table) => table.get(option),
            None => None,
        };
        let values = in_table.or_else(|| self.general.get(option))?;
        Some(values)
    }

    /// The path of the file. Returns `None` if there is no file.
    pub(super) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The names of all tables.
    pub(super) fn tables(&self) -> impl Iterator<Item = &str> {
        self.tables.keys().map(String::as_str)
    }

    /// Every key with its table and its values.
    pub(super) fn entries(&self) -> Vec<(Option<&str>, &str, &[String])> {
        let mut entries: Vec<(Option<&str>, &str, &[String])> = Vec::new();
        for (key, values) in &self.general {
            entries.push((None, key, values));
        }
        for (table, options) in &self.tables {
            for (key, values) in options {
                entries.push((Some(table), key, values));
            }
        }
        entries
    }
}

fn parse(bytes: Vec<u8>) -> Result<(Values, BTreeMap<String, Values>), String> {
    let text = String::from_utf8(bytes).map_err(|error| error.to_string())?;
    let file: toml::Table = text
        .parse()
        .map_err(|error| describe_without_text(&error, &text))?;

    let mut general = Values::new();
    let mut tables = BTreeMap::new();
    for (name, value) in file {
        let toml::Value::Table(options) = value else {
            general.insert(id(&name), texts(&name, value)?);
            continue;
        };

        let mut table = Values::new();
        for (key, value) in options {
            table.insert(id(&key), texts(&key, value)?);
        }
        tables.insert(name, table);
    }
    Ok((general, tables))
}

/// The message of the TOML parser and the number of the line. The parser's own text quotes the
/// line, which may hold a password.
fn describe_without_text(error: &toml::de::Error, text: &str) -> String {
    let Some(span) = error.span() else {
        return error.message().to_owned();
    };

    let before = text.get(..span.start).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    format!("{} in line {line}", error.message())
}

/// The id of the option that a key names.
fn id(key: &str) -> String {
    key.replace('-', "_")
}

fn texts(key: &str, value: toml::Value) -> Result<Vec<String>, String> {
    let toml::Value::Array(values) = value else {
        return Ok(vec![text(key, value)?]);
    };
    values.into_iter().map(|value| text(key, value)).collect()
}

fn text(key: &str, value: toml::Value) -> Result<String, String> {
    match value {
        toml::Value::String(text) => Ok(text),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Boolean(flag) => Ok(flag.to_string()),
        other => Err(format!("`{key}` cannot be a {}", other.type_str())),
    }
}
