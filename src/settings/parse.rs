use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, CommandFactory, FromArgMatches};

use super::arguments::Arguments;
use super::file::ConfigFile;
use crate::error::{Error, Kind, Result};

/// Where an option's value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A flag.
    Flag,
    /// A variable `KBACKUP_*`.
    Environment,
    /// The TOML file.
    File,
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::File => "file",
            Self::Default => "default",
        })
    }
}

/// Option ids (`node_timeout`) and where their values came from.
pub type Origins = BTreeMap<String, Origin>;

/// Everything the user said, resolved.
#[derive(Debug)]
pub struct Settings {
    /// Verb and options.
    pub arguments: Arguments,
    /// Where they came from.
    pub origins: Origins,
}

/// The command line's definition, also for manuals and completions.
#[must_use]
pub fn command() -> Command {
    Arguments::command()
}

/// Resolves flags, environment and file. `Err(Ok(…))` holds what clap wants printed: help, version, or a usage error.
///
/// # Errors
/// [`Kind::Usage`] for a configuration file that cannot be read or has unknown keys.
pub fn resolve(arguments: impl IntoIterator<Item = OsString>) -> Result<Settings, Result<clap::Error, Error>> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let file = match config_path(&arguments) {
        Some(path) => ConfigFile::read(&path).map_err(Err)?,
        None => ConfigFile::default(),
    };
    refuse_unknown_keys(&file).map_err(Err)?;
    let matches = with_defaults(command(), &file).try_get_matches_from(arguments).map_err(Ok)?;
    let parsed = Arguments::from_arg_matches(&matches).map_err(Ok)?;
    let mut origins = Origins::new();
    if let Some((verb, chosen)) = matches.subcommand() {
        collect_origins(verb, chosen, &file, &mut origins);
    }
    Ok(Settings { arguments: parsed, origins })
}

/// `--config` has to be known before the rest can be parsed.
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
    std::env::var_os("KBACKUP_CONFIG").map(PathBuf::from)
}

/// What the file says becomes the option's default, so that flags and environment win over it and clap checks it like any other value.
fn with_defaults(command: Command, file: &ConfigFile) -> Command {
    let verbs: Vec<String> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    let command = command.mut_args(|argument| with_default(argument, file, ""));
    verbs.into_iter().fold(command, |command, verb| {
        command.mut_subcommand(&verb, |subcommand| subcommand.mut_args(|argument| with_default(argument, file, &verb)))
    })
}

fn with_default(argument: Arg, file: &ConfigFile, verb: &str) -> Arg {
    match file.get(verb, argument.get_id().as_str()) {
        Some(values) => argument.required(false).default_values(values.to_vec()),
        None => argument,
    }
}

fn refuse_unknown_keys(file: &ConfigFile) -> Result<()> {
    let command = command();
    for (verb, key) in file.keys() {
        let knows = |command: &Command| command.get_arguments().any(|argument| argument.get_id() == key);
        let mut verbs = command.get_subcommands().filter(|subcommand| verb.is_none_or(|verb| subcommand.get_name() == verb));
        let known = verbs.any(knows) || (verb.is_none() && knows(&command));
        if !known {
            let place =
                verb.map_or_else(|| "the configuration file".to_owned(), |verb| format!("the configuration file's table `[{verb}]`"));
            return Err(Error::new(Kind::Usage, format!("{place} has an unknown key"))
                .on(key.replace('_', "-"))
                .hint("the keys are the long options without `--`; see `kbackup --help`"));
        }
    }
    Ok(())
}

fn collect_origins(verb: &str, matches: &ArgMatches, file: &ConfigFile, origins: &mut Origins) {
    for id in matches.ids() {
        let origin = match matches.value_source(id.as_str()) {
            Some(ValueSource::CommandLine) => Origin::Flag,
            Some(ValueSource::EnvVariable) => Origin::Environment,
            _ if file.get(verb, id.as_str()).is_some() => Origin::File,
            _ => Origin::Default,
        };
        origins.insert(id.as_str().to_owned(), origin);
    }
}
