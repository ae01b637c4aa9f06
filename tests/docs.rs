//! The names, fields, options and links in the documents, compared with the program.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kbackup_testnode::Synthetic;
use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn document(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

/// The path and the text of README and of everything in `docs/`.
fn documents() -> Vec<(PathBuf, String)> {
    let pages = std::fs::read_dir(root().join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let paths = pages
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .chain([root().join("README.md")]);
    paths
        .map(|path| (path.clone(), std::fs::read_to_string(path).unwrap()))
        .collect()
}

/// The text of a real backup's manifest.
fn manifest() -> String {
    let directory = tempfile::tempdir().unwrap();
    let node = directory.path().join("node");
    let made = Synthetic {
        filter_bytes: 10_000,
        table_entries: 200,
        ..Synthetic::of_size(1 << 20, 256 << 10)
    }
    .make(&node)
    .unwrap();

    let repository = directory.path().join("repository");
    let words =
        "kbackup full --offline --new-repository --accept-same-disk --log error --state-dir";
    let arguments = words.split_whitespace().map(Into::into);
    let paths = [
        directory.path().join("state").into_os_string(),
        "--repo".into(),
        repository.clone().into_os_string(),
        "--db".into(),
        made.db.into_os_string(),
    ];
    assert_eq!(kbackup::cli::run(arguments.into_iter().chain(paths)), 0);

    let backup = std::fs::read_dir(repository.join("backups"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    std::fs::read_to_string(backup.path().join("manifest.json")).unwrap()
}

fn field_names(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                names.insert(name.clone());
                field_names(value, names);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| field_names(value, names)),
        _ => {}
    }
}

#[test]
fn every_field_of_a_manifest_is_explained() {
    let text = manifest();
    let mut names = BTreeSet::new();
    field_names(&serde_json::from_str(&text).unwrap(), &mut names);
    assert!(names.len() > 50, "{names:?}");
    let page = document("docs/manifest.md");
    let explains =
        |name: &str| page.contains(&format!("`{name}`")) || page.contains(&format!(".{name}`"));
    let missing: Vec<_> = names.iter().filter(|name| !explains(name)).collect();
    assert!(
        missing.is_empty(),
        "docs/manifest.md does not explain {missing:?}"
    );
    let (body, checksum) = text.split_once(",\n  \"checksum\": \"").unwrap();
    assert!(
        checksum.starts_with(&blake3::hash(body.as_bytes()).to_string()),
        "the page contradicts the checksum"
    );
}

#[test]
fn every_named_option_exists() {
    let command = kbackup::settings::command();
    let verbs = command
        .get_subcommands()
        .flat_map(clap::Command::get_arguments);
    let (mut options, mut variables) = (
        BTreeSet::from(["help".to_owned(), "version".to_owned()]),
        BTreeSet::new(),
    );

    for argument in verbs.chain(command.get_arguments()) {
        options.extend(argument.get_long().map(str::to_owned));
        variables.extend(
            argument
                .get_env()
                .map(|name| name.to_string_lossy().into_owned()),
        );
    }

    // Secrets have no flag.
    variables.extend(
        [
            "KBACKUP_PASSWORD",
            "KBACKUP_TOKEN",
            "KBACKUP_LISTEN_PASSWORD",
        ]
        .map(str::to_owned),
    );

    // These are options of other programs.
    let others = [
        "release",
        "locked",
        "target",
        "team",
        "package",
        "strip-components",
    ];

    let mut wrong = Vec::new();
    for page in ["README.md", "docs/guide.md", "docs/agent.md"] {
        let text = document(page);
        wrong.extend(
            words(&text, "--")
                .filter(|name| !options.contains(*name) && !others.contains(name))
                .map(|name| format!("{page}: --{name}")),
        );
        let named = words(&text, "KBACKUP_").map(|name| format!("KBACKUP_{name}"));
        wrong.extend(
            named
                .filter(|name| !variables.contains(name))
                .map(|name| format!("{page}: {name}")),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The names that follow each `mark`.
fn words<'a>(text: &'a str, mark: &str) -> impl Iterator<Item = &'a str> {
    let end = |rest: &str| {
        rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-' && letter != '_')
            .unwrap_or(rest.len())
    };
    text.split(mark)
        .skip(1)
        .map(move |rest| rest.get(..end(rest)).unwrap_or(rest))
        .filter(|name| name.starts_with(|letter: char| letter.is_ascii_alphabetic()))
}

#[test]
fn every_link_has_a_target() {
    let mut wrong = Vec::new();
    for (path, text) in documents() {
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split_once(')').map(|(link, _)| link))
        {
            if link.starts_with("https://") {
                continue;
            }

            let (file, heading) = link
                .split_once('#')
                .map_or((link, None), |(file, heading)| (file, Some(heading)));

            let target = if file.is_empty() {
                path.clone()
            } else {
                path.parent().unwrap().join(file)
            };
            if !target.exists() || heading.is_some_and(|heading| !has_heading(&target, heading)) {
                wrong.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// True if a page has a heading with this anchor.
fn has_heading(page: &Path, anchor: &str) -> bool {
    let text = std::fs::read_to_string(page).unwrap();
    text.lines()
        .filter(|line| line.starts_with('#'))
        .any(|line| {
            let letters = line.trim_start_matches('#').trim().to_lowercase();
            let kept = letters
                .chars()
                .filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
            kept.map(|letter| if letter == ' ' { '-' } else { letter })
                .eq(anchor.chars())
        })
}

/// Messages that do not stand in the source as a whole: the operating system says the first, and
/// the program puts the second together.
const ELSEWHERE: [&str; 2] = ["Permission denied", "there is no db directory"];

#[test]
fn every_message_that_the_guide_explains_is_the_programs_own() {
    let source = source_text();
    let guide = document("docs/guide.md");

    let mut unknown = Vec::new();
    let mut explained = 0;
    for part in guide.split("**`").skip(1) {
        let Some((message, _)) = part.split_once("`**") else {
            continue;
        };
        explained += 1;

        if !ELSEWHERE.contains(&message) && !source.contains(message) {
            unknown.push(message);
        }
    }

    assert!(explained > 15, "{explained}");
    assert!(unknown.is_empty(), "not in src: {unknown:#?}");
}

/// The program's source, with string literals that go over several lines joined.
fn source_text() -> String {
    let mut text = String::new();
    for entry in walkdir::WalkDir::new(root().join("src")) {
        let entry = entry.unwrap();
        if entry.file_type().is_file() {
            text += &std::fs::read_to_string(entry.path()).unwrap();
        }
    }

    let mut joined = String::new();
    for piece in text.split("\\\n") {
        joined += if joined.is_empty() {
            piece
        } else {
            piece.trim_start()
        };
    }
    joined
}
