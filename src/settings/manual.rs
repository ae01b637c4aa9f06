//! The manual pages, made from the declarations of verbs and options.

mod texts;

use clap::{Arg, Command};
use clap_mangen::{Man, roff};
use roff::{Roff, bold, roman};
use serde::Serialize;

use self::texts::{CONFIGURATION, EXAMPLES, EXIT_CODES, FILES, SECRETS};
use super::command::{command, map_arguments, verb_names};
use crate::error::{Error, Kind, Result};

/// One page, as `man` reads it.
#[derive(Serialize)]
pub(crate) struct ManualPage {
    /// The name of its file: `kbackup-diff.1`.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// The page of kbackup itself, then a page for each verb.
///
/// # Errors
/// [`Kind::Failed`] if a page cannot be rendered.
pub(crate) fn manual_pages() -> Result<Vec<ManualPage>> {
    let mut command = map_arguments(command(), |_, argument| explained(argument));
    command.build();
    let verbs = verb_names(&command);

    std::iter::once(&command)
        .chain(command.get_subcommands())
        .map(|command| page(command, &verbs))
        .collect::<std::io::Result<_>>()
        .map_err(|error| Error::new(Kind::Failed, "cannot write the manual").because(error))
}

/// Adds the variable and the key of an option to its help.
fn explained(argument: Arg) -> Arg {
    let (Some(help), Some(long)) = (argument.get_help(), argument.get_long()) else {
        return argument;
    };
    let mut text = format!("{}.", help.to_string().trim_end_matches('.'));

    if let Some(variable) = argument.get_env() {
        text += &format!(" Variable: {}", variable.to_string_lossy());
        // A file cannot name another file.
        if long != "config" {
            text += &format!("; key: {long}");
        }
        text.push('.');
    }
    argument.hide_env(true).help(text)
}

fn page(command: &Command, verbs: &[String]) -> std::io::Result<ManualPage> {
    let name = command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
        .to_owned();

    // The date of the build would change every page, and without any date the source would take its
    // place.
    let man = Man::new(command.clone())
        .title(name.to_uppercase())
        .date(" ")
        .source(concat!("kbackup ", env!("CARGO_PKG_VERSION")))
        .manual("kbackup manual");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;

    let mut rest = Roff::new();
    if command.has_subcommands() {
        verbs_section(&mut rest, command);
        rest.control("SH", ["CONFIGURATION"])
            .text([roman(CONFIGURATION)]);
    }
    entries(&mut rest, "ENVIRONMENT", SECRETS);
    entries(&mut rest, "FILES", FILES);
    entries(&mut rest, "EXIT STATUS", EXIT_CODES);
    examples_section(&mut rest, command);
    see_also_section(&mut rest, &name, verbs);
    rest.to_writer(&mut text)?;

    Ok(ManualPage {
        name: format!("{name}.1"),
        text: String::from_utf8_lossy(&text).into_owned(),
    })
}

/// The verbs with their short texts; their own pages say more.
fn verbs_section(roff: &mut Roff, command: &Command) {
    let mut verbs = Vec::new();
    for verb in command.get_subcommands() {
        let about = verb.get_about().map(ToString::to_string);
        let name = format!("kbackup-{}(1)", verb.get_name());
        verbs.push((name, about.unwrap_or_default()));
    }
    entries(roff, "VERBS", &verbs);
}

/// The examples of a verb, or all examples.
fn examples_section(roff: &mut Roff, command: &Command) {
    let is_shown = |verb: &str| verb == command.get_name() || command.has_subcommands();
    let examples = EXAMPLES.iter().filter(|example| is_shown(example.verb));

    for (number, example) in examples.enumerate() {
        if number == 0 {
            roff.control("SH", ["EXAMPLES"]);
        } else {
            roff.control("PP", []);
        }
        roff.text([roman(example.purpose)])
            .control("PP", [])
            .control("RS", ["4"])
            .text([bold(example.line)])
            .control("RE", []);
    }
}

fn see_also_section(roff: &mut Roff, name: &str, verbs: &[String]) {
    let mut pages = vec!["kbackup".to_owned()];
    pages.extend(verbs.iter().map(|verb| format!("kbackup-{verb}")));

    let others: Vec<String> = pages
        .iter()
        .filter(|page| *page != name)
        .map(|page| format!("{page}(1)"))
        .collect();
    roff.control("SH", ["SEE ALSO"])
        .text([roman(others.join(", "))]);
}

/// A section of terms and their meanings.
fn entries(roff: &mut Roff, heading: &str, entries: &[(impl AsRef<str>, impl AsRef<str>)]) {
    roff.control("SH", [heading]);
    for (term, meaning) in entries {
        roff.control("TP", [])
            .text([bold(term.as_ref())])
            .text([roman(meaning.as_ref())]);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_verb_has_a_page_with_every_option_its_variable_and_its_key() {
        let pages = manual_pages().unwrap();
        let mut command = command();
        command.build();

        for verb in command.get_subcommands() {
            let name = format!("kbackup-{}.1", verb.get_name());
            // roff writes a hyphen that stays a hyphen as `\-`.
            let text = pages
                .iter()
                .find(|page| page.name == name)
                .unwrap()
                .text
                .replace("\\-", "-");

            for argument in verb
                .get_arguments()
                .filter(|argument| argument.get_env().is_some())
            {
                let long = argument.get_long().unwrap();
                let variable = argument.get_env().unwrap().to_str().unwrap();
                let key = if long == "config" {
                    String::new()
                } else {
                    format!("; key: {long}")
                };

                assert!(text.contains(&format!("--{long}")), "{name}: --{long}");
                let explanation = format!("Variable: {variable}{key}.");
                assert!(text.contains(&explanation), "{name}: {variable}");
            }
        }
    }

    #[test]
    fn examples_are_understood_and_no_verb_is_without_one() {
        for example in EXAMPLES {
            // An option that a file may hold is not missing on the line.
            let in_file = example.line.contains(" --config ");
            let command = command().mut_subcommand(example.verb, |command| {
                command.mut_args(|argument| {
                    if in_file {
                        argument.required(false)
                    } else {
                        argument
                    }
                })
            });

            // What stands behind a redirection is for the shell.
            let mut words = example.line.split_whitespace();
            let words = words.by_ref().take_while(|word| ![">", "<"].contains(word));
            let matches = command.try_get_matches_from(words).unwrap();
            assert_eq!(
                matches.subcommand_name(),
                Some(example.verb),
                "{}",
                example.line
            );
        }

        let shown: BTreeSet<&str> = EXAMPLES.iter().map(|example| example.verb).collect();
        let missing: Vec<String> = verb_names(&command())
            .into_iter()
            .filter(|verb| !shown.contains(verb.as_str()))
            .collect();
        assert!(missing.is_empty(), "no example of {missing:?}");
    }

    #[test]
    fn exit_codes_are_those_of_the_guide() {
        let guide = include_str!("../../docs/guide.md").replace('`', "");
        for (code, meaning) in EXIT_CODES {
            assert!(
                guide.contains(&format!("| {code} | {meaning} |")),
                "{code}: {meaning}"
            );
        }

        let table = guide
            .split("## Exit codes")
            .nth(1)
            .unwrap()
            .split("\n\n")
            .nth(1)
            .unwrap();
        assert_eq!(table.lines().count(), EXIT_CODES.len() + 2);
    }
}
