//! From flags, environment and configuration file to [`Settings`].

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use clap::{Arg, ArgAction, FromArgMatches};

use super::file::ConfigFile;
use super::layers::Layers;
use super::options::{Arguments, GeneralOptions, Verb};
use super::origin::{Origins, Setting};
use super::{Unresolved, command, file_check};

/// Everything that the user configured, resolved.
#[derive(Debug)]
pub struct Settings {
    /// The verb with its options.
    pub verb: Verb,
    /// The options that every verb understands.
    pub general: GeneralOptions,
    /// Every option that has a value, by the option's id (`node_timeout`).
    pub values: BTreeMap<String, Setting>,
    flags: Flags,
}

/// The options that were given as flags: their ids and their values as they were written. `Debug`
/// shows the ids alone, because a value may hold a password.
pub(super) struct Flags(pub Vec<(String, Vec<OsString>)>);

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = self.0.iter().map(|(id, _)| id);
        f.debug_list().entries(ids).finish()
    }
}

/// Resolves flags, environment and configuration file.
///
/// If two options exclude each other, the one with the stronger origin counts, so that `--offline`
/// works beside a file that names the node.
///
/// # Errors
/// [`Unresolved::Usage`] with what clap wants to print. [`Kind::Usage`] if the configuration file
/// cannot be read or has unknown keys or wrong values, and if options of the same origin exclude
/// each other.
///
/// [`Kind::Usage`]: crate::error::Kind::Usage
pub fn resolve(arguments: impl IntoIterator<Item = OsString>) -> Result<Settings, Unresolved> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();

    let file = match config_path(&arguments) {
        Some(path) => ConfigFile::read(&path)?,
        None => ConfigFile::default(),
    };
    file_check::check(&file)?;

    // Options that a stronger one excludes are known only after a first pass.
    let mut layers = Layers {
        file: &file,
        withdrawn: BTreeSet::new(),
    };
    let mut matches = layers.parse(&arguments)?;
    layers.withdrawn = layers.weaker_of_exclusive(&matches)?;
    if !layers.withdrawn.is_empty() {
        matches = layers.parse(&arguments)?;
    }

    let (values, flags) = match matches.subcommand() {
        Some((verb, chosen)) => (layers.values(verb, chosen), layers.flags(verb, chosen)),
        None => (BTreeMap::new(), Vec::new()),
    };

    let Arguments { verb, general } = Arguments::from_arg_matches(&matches)?;
    Ok(Settings {
        verb: verb.into_options(Origins(&values)),
        general: general.into(),
        values,
        flags: Flags(flags),
    })
}

/// Resolves the same flags, environment and configuration file for another verb. The agent gets the
/// options of its jobs this way. Flags that the verb does not know are left out. The configuration
/// file is read again.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_as(verb: &str, settings: &Settings) -> Result<Settings, Unresolved> {
    let mut command = command();
    // Only a built command adds the general options to its verbs.
    command.build();

    let known: Vec<&Arg> = match command.find_subcommand(verb) {
        Some(subcommand) => subcommand.get_arguments().collect(),
        None => Vec::new(),
    };

    let mut arguments = vec![OsString::from("kbackup"), OsString::from(verb)];
    for (id, values) in &settings.flags.0 {
        let Some(argument) = known.iter().find(|known| known.get_id() == id.as_str()) else {
            continue;
        };
        let Some(long) = argument.get_long() else {
            continue;
        };

        let flag = OsString::from(format!("--{long}"));
        // A switch has no value on the command line, but clap holds one for it.
        if matches!(argument.get_action(), ArgAction::SetTrue) {
            arguments.push(flag);
            continue;
        }
        for value in values {
            arguments.extend([flag.clone(), value.clone()]);
        }
    }

    resolve(arguments)
}

/// The path of the configuration file. It has to be known before the other arguments can be parsed.
fn config_path(arguments: &[OsString]) -> Option<PathBuf> {
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--") => break,
            Some("--config") => return arguments.next().map(PathBuf::from),
            Some(text) => {
                if let Some(path) = text.strip_prefix("--config=") {
                    return Some(path.into());
                }
            }
            None => {}
        }
    }

    match std::env::var_os("KBACKUP_CONFIG") {
        Some(path) if !path.is_empty() => Some(path.into()),
        _ => None,
    }
}
