//! `kbackup manual`: the manual pages, made from the one declaration of verbs and options.

use std::fmt::Write;
use std::path::Path;

use clap::{Arg, Command};
use clap_mangen::{Man, roff};
use roff::{Roff, bold, roman};
use serde::Serialize;

use super::Session;
use crate::error::{Error, Kind, Result};
use crate::fs;
use crate::settings::{self, arguments};

/// Exit codes as the guide's table has them.
const EXIT_CODES: &[(&str, &str)] = &[
    ("0", "done"),
    ("3", "done, with warnings; the backup is usable"),
    ("1", "failed: full disk, an unexpected answer"),
    ("2", "command line, environment or configuration is wrong"),
    ("10", "no repository there, or no such backup"),
    (
        "11",
        "another run holds the repository, or works on the node",
    ),
    ("12", "wrong credentials, or permission denied"),
    ("13", "node out of reach"),
    (
        "20",
        "stored data is corrupt (check: a server would not start, or would lose something)",
    ),
    ("21", "the source is corrupt"),
    (
        "22",
        "the node kept changing, or is not fit; or scavenging was kept from it for --max-pause",
    ),
    ("23", "refused for safety"),
    (
        "130, 143",
        "interrupted (SIGINT; SIGTERM, or the --window is closed); clean",
    ),
];

/// Files that every verb may look at.
const FILES: &[(&str, &str)] = &[
    (
        "/etc/kbackup/kbackup.toml",
        "the configuration of the Debian package's units; any other file is named with --config",
    ),
    (
        "/var/lib/kbackup",
        "what nodes are owed while their scavenging is held back, for root; else ~/.local/state/kbackup",
    ),
];

/// Secrets have no flag.
const SECRETS: &[(&str, &str)] = &[
    (
        "KBACKUP_PASSWORD",
        "the password of --user; wins over a file",
    ),
    ("KBACKUP_TOKEN", "a bearer token; wins over a file"),
    (
        "KBACKUP_LISTEN_PASSWORD",
        "the password of --listen-user; wins over a file",
    ),
];

/// What is typed, and what it is for, under the verb's name.
const EXAMPLES: &[(&str, &str, &str)] = &[
    (
        "full",
        "kbackup full --repo /backup/node1 --node http://127.0.0.1:2113",
        "The first backup of a node without TLS:",
    ),
    (
        "full",
        "kbackup full --repo /backup/node1 --offline --db /mnt/snapshot/db --server-version 26.1.0",
        "Of a snapshot of a volume, where no node can be asked:",
    ),
    (
        "diff",
        "kbackup diff --repo /backup/node1 --node https://node1.example:2113 --ca-file ca.crt --user ops --password-file password",
        "What changed since the newest backup, of a node with TLS:",
    ),
    (
        "diff",
        "kbackup diff --config /etc/kbackup/kbackup.toml",
        "The same with everything in a file:",
    ),
    (
        "restore",
        "kbackup restore --repo /backup/node1 --to /var/lib/kurrentdb --dry-run",
        "What the newest backup would bring back:",
    ),
    (
        "restore",
        "kbackup restore 20261121T030000Z-diff --repo /backup/node1 --to /mnt/node1/db --to /mnt/node2/db --ready",
        "An earlier one, for two members, ready at their first start:",
    ),
    (
        "verify",
        "kbackup verify --repo /backup/node1 --all",
        "Prove every backup:",
    ),
    (
        "verify",
        "kbackup verify --repo /backup/node1 --all --repair",
        "Mend what another copy in the repository can mend:",
    ),
    (
        "check",
        "kbackup check /var/lib/kurrentdb --server-version 26.1.0",
        "Would this server start from that directory?",
    ),
    (
        "expire",
        "kbackup expire --repo /backup/node1 --keep-last 24 --keep-daily 7 --keep-weekly 4 --dry-run",
        "What would go, what would stay, and why:",
    ),
    (
        "list",
        "kbackup list --repo /backup/node1",
        "What is there?",
    ),
    (
        "show",
        "kbackup show latest --repo /backup/node1 --files",
        "The newest backup, file by file:",
    ),
    (
        "release",
        "kbackup release --config /etc/kbackup/kbackup.toml",
        "After a kill or a power cut, as ExecStopPost= of a unit:",
    ),
    (
        "status",
        "kbackup status --repo /backup/node1 --max-age 26h --monitoring-plugin",
        "For a monitoring system, without an agent:",
    ),
    (
        "status",
        "kbackup status --agent http://127.0.0.1:2114",
        "What the agent beside the node says:",
    ),
    (
        "agent",
        "kbackup agent --config /etc/kbackup/kbackup.toml",
        "For good, by a schedule and as the node changes:",
    ),
    (
        "agent",
        "kbackup agent --config /etc/kbackup/kbackup.toml --check-config",
        "Is the configuration right?",
    ),
    (
        "completions",
        "kbackup completions bash",
        "What bash has to read, for a file in /usr/share/bash-completion/completions:",
    ),
    (
        "manual",
        "kbackup manual diff",
        "The page of a verb; man -l - shows it:",
    ),
    (
        "manual",
        "kbackup manual --into /usr/local/share/man/man1",
        "All pages:",
    ),
];

#[derive(Serialize)]
struct Page {
    name: String,
    text: String,
}

#[derive(Serialize)]
struct Answer<'a> {
    pages: Vec<Page>,
    directory: Option<&'a Path>,
}

pub(super) fn run(options: &arguments::Manual, session: &Session) -> Result<u8> {
    let mut pages = pages()?;
    let mut text = String::new();
    if let Some(directory) = &options.into {
        fs::create_directories_durably(directory, 0o755, 0o755)?;
        for page in &pages {
            fs::write_durably(&directory.join(&page.name), page.text.as_bytes(), 0o644)?;
            let _ = writeln!(text, "{}", directory.join(&page.name).display());
        }
    } else {
        let wanted = options.verb.as_ref().map_or_else(
            || "kbackup.1".to_owned(),
            |verb| format!("kbackup-{verb}.1"),
        );
        pages.retain(|page| page.name == wanted);
        let page = pages.first().ok_or_else(|| {
            Error::new(Kind::Usage, "no such verb").hint("`kbackup --help` shows the verbs")
        })?;
        text.clone_from(&page.text);
    }
    session.output.document(
        "kbackup.manual/1",
        &Answer {
            pages,
            directory: options.into.as_deref(),
        },
        &text,
    )?;
    Ok(session.done())
}

/// The page of kbackup itself, then one for each verb.
fn pages() -> Result<Vec<Page>> {
    let mut command = settings::command().mut_args(explained);
    for verb in names(&command) {
        command = command.mut_subcommand(&verb, |subcommand| subcommand.mut_args(explained));
    }
    command.build();
    let verbs = names(&command);
    std::iter::once(&command)
        .chain(command.get_subcommands())
        .map(|command| page(command, &verbs))
        .collect::<std::io::Result<_>>()
        .map_err(|error| Error::new(Kind::Failed, "cannot write the manual").because(error))
}

fn names(command: &Command) -> Vec<String> {
    command
        .get_subcommands()
        .map(|verb| verb.get_name().to_owned())
        .collect()
}

/// An option's help also names its variable and its key.
fn explained(argument: Arg) -> Arg {
    let (Some(help), Some(long)) = (
        argument.get_help().map(ToString::to_string),
        argument.get_long().map(str::to_owned),
    ) else {
        return argument;
    };
    let key = if long == "config" {
        String::new()
    } else {
        format!("; key: {long}")
    };
    let variable = argument
        .get_env()
        .map(|name| format!("Variable: {}{key}.", name.to_string_lossy()));
    let help = help.trim_end_matches('.');
    argument.hide_env(true).help(variable.map_or_else(
        || format!("{help}."),
        |variable| format!("{help}. {variable}"),
    ))
}

fn page(command: &Command, verbs: &[String]) -> std::io::Result<Page> {
    let name = command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
        .to_owned();
    // A date of its own would change with every build; an empty one would not be written, and what
    // follows would take its place.
    let source = concat!("kbackup ", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone())
        .title(name.to_uppercase())
        .date(" ")
        .source(source)
        .manual("kbackup manual");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    let mut rest = Roff::new();
    if command.has_subcommands() {
        // With the texts as they are declared: the pages of the verbs have the rest.
        entries(
            &mut rest,
            "VERBS",
            command.get_subcommands().map(|verb| {
                (
                    format!("kbackup-{}(1)", verb.get_name()),
                    verb.get_about()
                        .map(ToString::to_string)
                        .unwrap_or_default(),
                )
            }),
        );
        rest.control("SH", ["CONFIGURATION"]).text([roman(
            "Every option is a flag, a variable, and a key of the TOML file that --config names. A flag wins over the environment, the environment over \
             the file. Several values: repeat the flag, put commas into the variable, an array into the file. Keys above the first table are for every \
             verb; a table such as [restore] holds those of one verb. Unknown keys are refused.",
        )]);
    }
    entries(&mut rest, "ENVIRONMENT", SECRETS.iter().copied());
    entries(&mut rest, "FILES", FILES.iter().copied());
    entries(&mut rest, "EXIT STATUS", EXIT_CODES.iter().copied());
    let examples: Vec<_> = EXAMPLES
        .iter()
        .filter(|(verb, ..)| *verb == command.get_name() || command.has_subcommands())
        .collect();
    if !examples.is_empty() {
        rest.control("SH", ["EXAMPLES"]);
    }
    for (number, (_, line, purpose)) in examples.into_iter().enumerate() {
        if number > 0 {
            rest.control("PP", []);
        }
        rest.text([roman(*purpose)]);
        rest.control("PP", [])
            .control("RS", ["4"])
            .text([bold(*line)])
            .control("RE", []);
    }
    let others = verbs.iter().map(|verb| format!("kbackup-{verb}(1)"));
    let others: Vec<String> = std::iter::once("kbackup(1)".to_owned())
        .chain(others)
        .filter(|other| *other != format!("{name}(1)"))
        .collect();
    rest.control("SH", ["SEE ALSO"])
        .text([roman(others.join(", "))]);
    rest.to_writer(&mut text)?;
    Ok(Page {
        name: format!("{name}.1"),
        text: String::from_utf8_lossy(&text).into_owned(),
    })
}

/// A section of terms and what they mean.
fn entries(
    roff: &mut Roff,
    heading: &str,
    entries: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
) {
    roff.control("SH", [heading]);
    for (term, meaning) in entries {
        roff.control("TP", [])
            .text([bold(term.into())])
            .text([roman(meaning.into())]);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_verb_has_a_page_with_every_option_its_variable_and_its_key() {
        let pages = pages().unwrap();
        let mut command = settings::command();
        command.build();
        for verb in command.get_subcommands() {
            let name = format!("kbackup-{}.1", verb.get_name());
            // A hyphen is written as one that stays a hyphen.
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
                let (long, variable) = (
                    argument.get_long().unwrap(),
                    argument.get_env().unwrap().to_str().unwrap(),
                );
                assert!(text.contains(&format!("--{long}")), "{name}: --{long}");
                let key = if long == "config" {
                    String::new()
                } else {
                    format!("; key: {long}")
                };
                assert!(
                    text.contains(&format!("Variable: {variable}{key}.")),
                    "{name}: {variable}"
                );
            }
        }
    }

    #[test]
    fn examples_are_understood_and_no_verb_is_without_one() {
        for (verb, line, _) in EXAMPLES {
            // What a file may say is not missing on the line.
            let in_file = line.contains(" --config ");
            let command = settings::command().mut_subcommand(verb, |command| {
                command.mut_args(|argument| {
                    if in_file {
                        argument.required(false)
                    } else {
                        argument
                    }
                })
            });
            let matches = command
                .try_get_matches_from(line.split_whitespace())
                .unwrap();
            assert_eq!(matches.subcommand_name(), Some(*verb), "{line}");
        }
        let shown: BTreeSet<&str> = EXAMPLES.iter().map(|(verb, ..)| *verb).collect();
        let missing: Vec<String> = names(&settings::command())
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
