//! Checks a whole configuration file, whatever verb runs now: every key has to be an option, and
//! every value has to be a value of that option.

use std::ffi::OsString;
use std::path::Path;

use clap::builder::Resettable;
use clap::{Arg, ArgAction, Command};

use super::command::command;
use super::file::ConfigFile;
use super::usage::in_one_line;
use crate::error::{Error, Kind, Result};

/// Checks the keys and values of a configuration file.
///
/// # Errors
/// [`Kind::Usage`] for an unknown table or key, and for a wrong value.
pub(super) fn check(file: &ConfigFile) -> Result<()> {
    let Some(path) = file.path() else {
        return Ok(());
    };
    let command = command();

    for table in file.tables() {
        if command.find_subcommand(table).is_none() {
            let what = format!("the configuration file has an unknown table `[{table}]`");
            return Err(unknown(what, path));
        }
    }

    for (table, key, values) in file.entries() {
        let name = key.replace('_', "-");

        let Some(argument) = find_argument(&command, table, key) else {
            let place = match table {
                Some(table) => format!(" in the table `[{table}]`"),
                None => String::new(),
            };
            let what = format!("the configuration file has an unknown key `{name}`{place}");
            return Err(unknown(what, path));
        };

        if let Err(why) = check_values(argument, values) {
            let what = format!("the configuration file has a wrong value for `{name}`");
            return Err(Error::new(Kind::Usage, what).at(path).because(why));
        }
    }
    Ok(())
}

fn unknown(what: String, path: &Path) -> Error {
    Error::new(Kind::Usage, what).at(path).hint(
        "use the long name of an option without `--` as a key, and the name of a verb as a table; \
         options for every verb belong above the first table",
    )
}

/// The option that a key names. A key above the tables may belong to any verb.
fn find_argument<'a>(command: &'a Command, table: Option<&str>, key: &str) -> Option<&'a Arg> {
    // A file cannot name another file, and a positional argument has no key.
    let is_option = |argument: &&Arg| {
        argument.get_id() == key && argument.get_long().is_some() && key != "config"
    };

    for subcommand in command.get_subcommands() {
        if table.is_some_and(|table| table != subcommand.get_name()) {
            continue;
        }
        if let Some(argument) = subcommand.get_arguments().find(is_option) {
            return Some(argument);
        }
    }

    match table {
        Some(_) => None,
        None => command.get_arguments().find(is_option),
    }
}

fn check_values(argument: &Arg, values: &[String]) -> Result<(), String> {
    if !matches!(argument.get_action(), ArgAction::Append) && values.len() != 1 {
        return Err("this option takes one value, not a list".to_owned());
    }

    // clap checks default values too, so the values become those of a command with one argument.
    let alone = argument
        .clone()
        .global(false)
        .required(false)
        .env(Resettable::Reset)
        .conflicts_with(Resettable::Reset)
        .default_values(values.to_vec());
    let command = Command::new("file").no_binary_name(true).arg(alone);

    match command.try_get_matches_from(std::iter::empty::<OsString>()) {
        Ok(_) => Ok(()),
        Err(error) => Err(in_one_line(&error)),
    }
}
