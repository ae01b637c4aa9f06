//! The definition of the command line, as clap holds it.

use clap::builder::BoolishValueParser;
use clap::{Arg, ArgAction, Command, CommandFactory};

use super::options::Arguments;

/// The definition of the command line. Manual pages and completion scripts are made from it.
#[must_use]
pub fn command() -> Command {
    map_arguments(Arguments::command(), |_, argument| {
        match argument.get_action() {
            // `KBACKUP_JSON=1` means the same as `KBACKUP_JSON=true`.
            ArgAction::SetTrue => argument.value_parser(BoolishValueParser::new()),
            _ => argument,
        }
    })
}

/// Changes the arguments of the command itself, for which `change` gets the verb "", and of every
/// verb.
pub(super) fn map_arguments(command: Command, change: impl Fn(&str, Arg) -> Arg) -> Command {
    let verbs = verb_names(&command);
    let mut command = command.mut_args(|argument| change("", argument));

    for verb in verbs {
        command = command.mut_subcommand(&verb, |subcommand| {
            subcommand.mut_args(|argument| change(&verb, argument))
        });
    }
    command
}

/// The names of all verbs.
pub(super) fn verb_names(command: &Command) -> Vec<String> {
    let verbs = command.get_subcommands();
    verbs.map(|verb| verb.get_name().to_owned()).collect()
}
