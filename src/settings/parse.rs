use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use clap::builder::{BoolishValueParser, Resettable};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches};

use super::arguments::Arguments;
use super::file::ConfigFile;
use crate::error::{Error, Kind, Result};

/// Where an option's value came from; what comes later is stronger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// The TOML file.
    File,
    /// A variable `KBACKUP_*`.
    Environment,
    /// A flag.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Environment => "environment",
            Self::Flag => "flag",
        })
    }
}

/// One option's value as it was written, fit to be shown, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// As it was written; several values are joined by commas.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

/// Everything the user said, resolved.
#[derive(Debug)]
pub struct Settings {
    /// Verb and options.
    pub arguments: Arguments,
    /// Every option that has a value, by its id (`node_timeout`).
    pub said: BTreeMap<String, Setting>,
    flags: Flags,
}

/// The options that were given as flags, by their ids, with their values as they were written:
/// somebody may have put a password into one.
struct Flags(Vec<(String, Vec<OsString>)>);

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(id, _)| id))
            .finish()
    }
}

impl Settings {
    /// Where an option's value came from.
    #[must_use]
    pub fn origin(&self, option: &str) -> Origin {
        self.said
            .get(option)
            .map_or(Origin::Default, |setting| setting.origin)
    }
}

/// Why there are no settings.
#[derive(Debug)]
pub enum Unresolved {
    /// What clap wants printed: help, version, or a usage error.
    Usage(clap::Error),
    /// What the options or the file say makes no sense.
    Error(Error),
}

impl Unresolved {
    /// The error for somebody who has typed nothing: what clap has to say becomes the cause of
    /// `what`.
    #[must_use]
    pub fn into_error(self, what: &str) -> Error {
        match self {
            Self::Error(error) => error,
            Self::Usage(usage) => Error::new(Kind::Usage, what).because(in_one_line(&usage)),
        }
    }
}

/// What clap has to say, without colours and without the usage.
#[must_use]
pub fn in_one_line(usage: &clap::Error) -> String {
    let text = usage.to_string();
    let lines = text
        .trim_start_matches("error: ")
        .lines()
        .take_while(|line| !line.is_empty())
        .map(str::trim);
    lines.collect::<Vec<_>>().join(" ")
}

impl From<Error> for Unresolved {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<clap::Error> for Unresolved {
    fn from(error: clap::Error) -> Self {
        Self::Usage(error)
    }
}

/// The command line's definition, also for manuals and completions.
#[must_use]
pub fn command() -> Command {
    each_argument(Arguments::command(), |_, argument| {
        match argument.get_action() {
            // `KBACKUP_JSON=1` is as good as `=true`.
            ArgAction::SetTrue => argument.value_parser(BoolishValueParser::new()),
            _ => argument,
        }
    })
}

/// Resolves flags, environment and file.
///
/// Of two options that exclude each other the one from the stronger origin stands, so that
/// `--offline` works beside a file that names the node.
///
/// # Errors
/// What clap says; [`Kind::Usage`] for a configuration file that cannot be read, has unknown keys
/// or wrong values, and for options of the same origin that exclude each other.
pub fn resolve(arguments: impl IntoIterator<Item = OsString>) -> Result<Settings, Unresolved> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let file = match config_path(&arguments) {
        Some(path) => ConfigFile::read(&path)?,
        None => ConfigFile::default(),
    };
    check(&file)?;
    let mut layers = Layers {
        file: &file,
        withdrawn: BTreeSet::new(),
    };
    let mut matches = layers.parse(&arguments)?;
    layers.withdrawn = layers.weaker_of_exclusive(&matches)?;
    if !layers.withdrawn.is_empty() {
        matches = layers.parse(&arguments)?;
    }
    let said = matches
        .subcommand()
        .map(|(verb, chosen)| layers.said(verb, chosen))
        .unwrap_or_default();
    let flags = Flags(
        matches
            .subcommand()
            .map(|(verb, chosen)| layers.flags(verb, chosen))
            .unwrap_or_default(),
    );
    Ok(Settings {
        arguments: Arguments::from_arg_matches(&matches)?,
        said,
        flags,
    })
}

/// What another verb is told by the same flags, environment and file. Flags that it does not know
/// are not for it; the file is read again.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_as(verb: &str, settings: &Settings) -> Result<Settings, Unresolved> {
    let mut command = command();
    // So that the verb knows the options of every verb.
    command.build();
    let known: Vec<&Arg> = command
        .find_subcommand(verb)
        .into_iter()
        .flat_map(Command::get_arguments)
        .collect();
    let mut arguments = vec![OsString::from("kbackup"), OsString::from(verb)];
    for (id, values) in &settings.flags.0 {
        let Some(argument) = known
            .iter()
            .find(|argument| argument.get_id() == id.as_str())
        else {
            continue;
        };
        let Some(long) = argument.get_long() else {
            continue;
        };
        if matches!(argument.get_action(), ArgAction::SetTrue) {
            arguments.push(format!("--{long}").into());
        } else {
            arguments.extend(
                values
                    .iter()
                    .flat_map(|value| [OsString::from(format!("--{long}")), value.clone()]),
            );
        }
    }
    resolve(arguments)
}

/// Whether the answer, and so an error too, is wanted as JSON; for what goes wrong before the
/// arguments are understood.
pub fn wants_json(arguments: &[OsString]) -> bool {
    is_switched_on(arguments, "--json", "KBACKUP_JSON")
}

/// The same of the exit codes of a monitoring plugin.
pub fn wants_plugin(arguments: &[OsString]) -> bool {
    is_switched_on(
        arguments,
        "--monitoring-plugin",
        "KBACKUP_MONITORING_PLUGIN",
    )
}

fn is_switched_on(arguments: &[OsString], flag: &str, variable: &str) -> bool {
    arguments
        .iter()
        .take_while(|argument| *argument != "--")
        .any(|argument| argument == flag)
        || std::env::var(variable).is_ok_and(|value| {
            matches!(
                value.to_ascii_lowercase().as_str(),
                "1" | "true" | "yes" | "on" | "y" | "t"
            )
        })
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
    std::env::var_os("KBACKUP_CONFIG")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
}

/// Changes the arguments of the command itself (verb "") and of every verb.
fn each_argument(command: Command, change: impl Fn(&str, Arg) -> Arg) -> Command {
    let verbs: Vec<String> = command
        .get_subcommands()
        .map(|verb| verb.get_name().to_owned())
        .collect();
    let command = command.mut_args(|argument| change("", argument));
    verbs.into_iter().fold(command, |command, verb| {
        command.mut_subcommand(&verb, |subcommand| {
            subcommand.mut_args(|argument| change(&verb, argument))
        })
    })
}

/// What stands below the flags.
struct Layers<'a> {
    file: &'a ConfigFile,
    /// Options that are not taken from environment and file: a stronger one excludes them.
    withdrawn: BTreeSet<String>,
}

impl Layers<'_> {
    /// What the file says becomes the option's default, so that flags and environment win over it
    /// and clap checks it like any other value.
    fn parse(&self, arguments: &[OsString]) -> Result<ArgMatches, clap::Error> {
        let command = each_argument(command(), |verb, argument| {
            let id = argument.get_id().as_str().to_owned();
            let empty = argument
                .get_env()
                .is_some_and(|name| std::env::var_os(name).is_some_and(|value| value.is_empty()));
            let withdrawn = self.withdrawn.contains(&id);
            let argument = if empty || withdrawn {
                argument.env(Resettable::Reset)
            } else {
                argument
            };
            // Clap would not see conflicts with the file, and would see too many with the
            // environment.
            let argument = argument.conflicts_with(Resettable::Reset);
            match self.file.get(verb, &id) {
                Some(values) if !withdrawn => {
                    argument.required(false).default_values(values.to_vec())
                }
                _ => argument,
            }
        });
        command.try_get_matches_from(arguments)
    }

    fn weaker_of_exclusive(&self, matches: &ArgMatches) -> Result<BTreeSet<String>> {
        let mut weaker = BTreeSet::new();
        let (Some((verb, chosen)), mut command) = (matches.subcommand(), command()) else {
            return Ok(weaker);
        };
        command.build();
        let Some(verb_command) = command.find_subcommand(verb) else {
            return Ok(weaker);
        };
        for one in verb_command
            .get_arguments()
            .filter(|argument| is_said(chosen, argument))
        {
            for other in verb_command
                .get_arg_conflicts_with(one)
                .into_iter()
                .filter(|argument| is_said(chosen, argument))
            {
                let origins = [one, other]
                    .map(|argument| self.origin(verb, chosen, argument.get_id().as_str()));
                let [first, second] = origins;
                if first == Origin::Default || second == Origin::Default {
                    continue;
                }
                if first == second {
                    return Err(self.exclusive(one, other, first));
                }
                weaker.insert(
                    if first < second { one } else { other }
                        .get_id()
                        .to_string(),
                );
            }
        }
        Ok(weaker)
    }

    fn exclusive(&self, one: &Arg, other: &Arg, origin: Origin) -> Error {
        let name = |argument: &Arg| match (origin, argument.get_long(), argument.get_env()) {
            (Origin::Environment, _, Some(variable)) => variable.to_string_lossy().into_owned(),
            (Origin::File, Some(long), _) => long.to_owned(),
            (_, Some(long), _) => format!("--{long}"),
            (..) => argument.get_id().as_str().to_uppercase(),
        };
        let error = Error::new(
            Kind::Usage,
            format!("`{}` and `{}` exclude each other", name(one), name(other)),
        );
        match (origin, self.file.path()) {
            (Origin::File, Some(path)) => error.at(path),
            _ => error,
        }
        .hint("leave one of them out")
    }

    fn origin(&self, verb: &str, matches: &ArgMatches, id: &str) -> Origin {
        match matches.value_source(id) {
            Some(ValueSource::CommandLine) => Origin::Flag,
            Some(ValueSource::EnvVariable) => Origin::Environment,
            _ if !self.withdrawn.contains(id) && self.file.get(verb, id).is_some() => Origin::File,
            _ => Origin::Default,
        }
    }

    fn flags(&self, verb: &str, matches: &ArgMatches) -> Vec<(String, Vec<OsString>)> {
        let ids = self
            .said(verb, matches)
            .into_iter()
            .filter(|(_, setting)| setting.origin == Origin::Flag)
            .map(|(id, _)| id);
        // A configuration file that the environment names is found there again.
        ids.filter_map(|id| {
            let values = matches
                .try_get_raw(&id)
                .ok()
                .flatten()?
                .map(ToOwned::to_owned)
                .collect();
            Some((id, values))
        })
        .collect()
    }

    fn said(&self, verb: &str, matches: &ArgMatches) -> BTreeMap<String, Setting> {
        let command = command();
        let of_verb = command
            .find_subcommand(verb)
            .into_iter()
            .flat_map(Command::get_arguments);
        let values = command
            .get_arguments()
            .chain(of_verb)
            .filter_map(|argument| {
                let id = argument.get_id().as_str();
                Some((
                    id,
                    argument.is_hide_env_values_set(),
                    matches.try_get_raw(id).ok().flatten()?,
                ))
            });
        values
            .map(|(id, is_private, values)| {
                let shown = |value: &str| {
                    if is_private {
                        "***".to_owned()
                    } else {
                        shown(value)
                    }
                };
                let value = values
                    .map(|value| shown(&value.to_string_lossy()))
                    .collect::<Vec<_>>()
                    .join(",");
                (
                    id.to_owned(),
                    Setting {
                        value,
                        origin: self.origin(verb, matches, id),
                    },
                )
            })
            .collect()
    }
}

/// A flag that says `false` says nothing.
fn is_said(matches: &ArgMatches, argument: &Arg) -> bool {
    let id = argument.get_id().as_str();
    match argument.get_action() {
        ArgAction::SetTrue => matches.get_flag(id),
        ArgAction::Set | ArgAction::Append => matches.contains_id(id),
        _ => false,
    }
}

/// A URL may hold a password; that is refused later, and must not be shown before.
fn shown(value: &str) -> String {
    match (value.split_once("://"), value.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://***@{host}"),
        (None, Some(_)) if value.contains(':') => "***".to_owned(),
        _ => value.to_owned(),
    }
}

/// Every key of the file has to be an option, and every value one of its values, whatever verb runs
/// now.
fn check(file: &ConfigFile) -> Result<()> {
    let Some(path) = file.path() else {
        return Ok(());
    };
    let command = command();
    let unknown = |what: String| {
        Err(Error::new(Kind::Usage, what)
            .at(path)
            .hint("a key is a long option without `--`, a table the name of a verb; options of every verb stand above the tables"))
    };
    for verb in file.verbs() {
        if command.find_subcommand(verb).is_none() {
            return unknown(format!(
                "the configuration file has an unknown table `[{verb}]`"
            ));
        }
    }
    for (verb, key, values) in file.entries() {
        let name = key.replace('_', "-");
        let commands = command
            .get_subcommands()
            .filter(|subcommand| verb.is_none_or(|verb| subcommand.get_name() == verb));
        let mut commands = commands.chain(verb.is_none().then_some(&command));
        let is_it = |argument: &&Arg| {
            argument.get_id() == key && argument.get_long().is_some() && key != "config"
        };
        let Some(argument) = commands.find_map(|command| command.get_arguments().find(is_it))
        else {
            let table = verb.map_or_else(String::new, |verb| format!(" in its table `[{verb}]`"));
            return unknown(format!(
                "the configuration file has an unknown key `{name}`{table}"
            ));
        };
        check_values(argument, values).map_err(|why| {
            Error::new(
                Kind::Usage,
                format!("the configuration file has a wrong value for `{name}`"),
            )
            .at(path)
            .because(why)
        })?;
    }
    Ok(())
}

fn check_values(argument: &Arg, values: &[String]) -> Result<(), String> {
    if !matches!(argument.get_action(), ArgAction::Append) && values.len() != 1 {
        return Err("it takes one value, not a list".to_owned());
    }
    let alone = argument
        .clone()
        .global(false)
        .required(false)
        .env(Resettable::Reset)
        .conflicts_with(Resettable::Reset);
    let command = Command::new("file")
        .no_binary_name(true)
        .arg(alone.default_values(values.to_vec()));
    command
        .try_get_matches_from(std::iter::empty::<OsString>())
        .map(drop)
        .map_err(|error| in_one_line(&error))
}
