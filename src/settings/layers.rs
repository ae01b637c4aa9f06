//! The layers of settings: flags above environment above configuration file above defaults.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use clap::builder::Resettable;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches};

use super::command::{command, map_arguments};
use super::file::ConfigFile;
use super::{Origin, Setting};
use crate::error::{Error, Kind, Result};

/// The layers below the flags.
pub(super) struct Layers<'a> {
    pub file: &'a ConfigFile,
    /// Options that are ignored in environment and file, because a stronger option excludes them.
    pub withdrawn: BTreeSet<String>,
}

impl Layers<'_> {
    /// Parses the arguments. A value of the file becomes the default of its option, so that flags
    /// and environment win over it and clap checks it like any other value.
    pub(super) fn parse(&self, arguments: &[OsString]) -> Result<ArgMatches, clap::Error> {
        let command = map_arguments(command(), |verb, argument| self.layered(verb, argument));
        command.try_get_matches_from(arguments)
    }

    fn layered(&self, verb: &str, argument: Arg) -> Arg {
        let id = argument.get_id().as_str().to_owned();
        let is_withdrawn = self.withdrawn.contains(&id);

        // clap would not see conflicts with the file, and would see too many with the environment.
        let mut argument = argument.conflicts_with(Resettable::Reset);

        if is_withdrawn || has_empty_variable(&argument) {
            argument = argument.env(Resettable::Reset);
        }

        match self.file.get(verb, &id) {
            Some(values) if !is_withdrawn => {
                argument.required(false).default_values(values.to_vec())
            }
            _ => argument,
        }
    }

    /// The options to withdraw: of each two that exclude each other, the one with the weaker
    /// origin.
    ///
    /// # Errors
    /// [`Kind::Usage`] if both have the same origin.
    pub(super) fn weaker_of_exclusive(&self, matches: &ArgMatches) -> Result<BTreeSet<String>> {
        let mut weaker = BTreeSet::new();

        let mut command = command();
        command.build();
        let Some((verb, chosen)) = matches.subcommand() else {
            return Ok(weaker);
        };
        let Some(verb_command) = command.find_subcommand(verb) else {
            return Ok(weaker);
        };

        for one in verb_command.get_arguments() {
            for other in verb_command.get_arg_conflicts_with(one) {
                if !is_set(chosen, one) || !is_set(chosen, other) {
                    continue;
                }

                let first = self.origin(verb, chosen, one.get_id().as_str());
                let second = self.origin(verb, chosen, other.get_id().as_str());
                if first == Origin::Default || second == Origin::Default {
                    continue;
                }
                if first == second {
                    return Err(self.exclusive(one, other, first));
                }

                let loser = if first < second { one } else { other };
                weaker.insert(loser.get_id().to_string());
            }
        }
        Ok(weaker)
    }

    fn exclusive(&self, one: &Arg, other: &Arg, origin: Origin) -> Error {
        let what = format!(
            "`{}` and `{}` exclude each other",
            name_in(origin, one),
            name_in(origin, other)
        );
        let error = Error::new(Kind::Usage, what).hint("remove one of them");

        match (origin, self.file.path()) {
            (Origin::File, Some(path)) => error.at(path),
            _ => error,
        }
    }

    fn origin(&self, verb: &str, matches: &ArgMatches, id: &str) -> Origin {
        match matches.value_source(id) {
            Some(ValueSource::CommandLine) => Origin::Flag,
            Some(ValueSource::EnvVariable) => Origin::Environment,
            _ if !self.withdrawn.contains(id) && self.file.get(verb, id).is_some() => Origin::File,
            _ => Origin::Default,
        }
    }

    /// The options that were given as flags, with their values as they were written.
    pub(super) fn flags(&self, verb: &str, matches: &ArgMatches) -> Vec<(String, Vec<OsString>)> {
        let mut flags = Vec::new();
        for (id, setting) in self.values(verb, matches) {
            // The next resolution reads the environment itself.
            if setting.origin != Origin::Flag {
                continue;
            }
            if let Ok(Some(values)) = matches.try_get_raw(&id) {
                flags.push((id, values.map(ToOwned::to_owned).collect()));
            }
        }
        flags
    }

    /// Every option that has a value, without secrets.
    pub(super) fn values(&self, verb: &str, matches: &ArgMatches) -> BTreeMap<String, Setting> {
        let command = command();
        let mut arguments: Vec<&Arg> = command.get_arguments().collect();
        if let Some(subcommand) = command.find_subcommand(verb) {
            arguments.extend(subcommand.get_arguments());
        }

        let mut settings = BTreeMap::new();
        for argument in arguments {
            let id = argument.get_id().as_str();
            let Ok(Some(values)) = matches.try_get_raw(id) else {
                continue;
            };

            let shown: Vec<String> = values
                .map(|value| shown(argument, &value.to_string_lossy()))
                .collect();
            let setting = Setting {
                value: shown.join(","),
                origin: self.origin(verb, matches, id),
            };
            settings.insert(id.to_owned(), setting);
        }
        settings
    }
}

fn has_empty_variable(argument: &Arg) -> bool {
    let Some(variable) = argument.get_env() else {
        return false;
    };
    std::env::var_os(variable).is_some_and(|value| value.is_empty())
}

/// Whether the option has a value. A flag with the value `false` counts as not set.
fn is_set(matches: &ArgMatches, argument: &Arg) -> bool {
    let id = argument.get_id().as_str();
    match argument.get_action() {
        ArgAction::SetTrue => matches.get_flag(id),
        ArgAction::Set | ArgAction::Append => matches.contains_id(id),
        _ => false,
    }
}

/// The name by which the user wrote an option.
fn name_in(origin: Origin, argument: &Arg) -> String {
    match (origin, argument.get_long(), argument.get_env()) {
        (Origin::Environment, _, Some(variable)) => variable.to_string_lossy().into_owned(),
        (Origin::File, Some(long), _) => long.to_owned(),
        (_, Some(long), _) => format!("--{long}"),
        (..) => argument.get_id().as_str().to_uppercase(),
    }
}

/// The value as a log may show it. A URL can hold a password: a verb refuses that later, and
/// nothing may show it before.
fn shown(argument: &Arg, value: &str) -> String {
    if argument.is_hide_env_values_set() {
        return "***".to_owned();
    }

    match (value.split_once("://"), value.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://***@{host}"),
        (None, Some(_)) if value.contains(':') => "***".to_owned(),
        _ => value.to_owned(),
    }
}
