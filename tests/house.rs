//! Who may use whom: the table of `docs/architecture.md`, held against the code.

mod circles;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Each room, and the rooms it may use. A room that is not listed may not exist.
const HOUSE: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("schedule", &["clock"]),
    ("fs", &["parallel"]),
    ("users", &["fs"]),
    ("error", &["fs", "users"]),
    ("trust", &["error", "fs"]),
    ("pulse", &[]),
    ("pace", &["pulse"]),
    ("parallel", &[]),
    ("timings", &[]),
    ("md5", &[]),
    ("server", &[]),
    ("event", &["clock"]),
    (
        "run",
        &["timings", "clock", "error", "event", "pace", "pulse"],
    ),
    ("signals", &["error"]),
    ("format", &["error", "fs"]),
    (
        "transfer",
        &[
            "timings", "error", "event", "run", "pace", "format", "fs", "clock", "manifest", "md5",
        ],
    ),
    ("manifest", &["parallel", "clock", "error", "format", "fs"]),
    (
        "log",
        &[
            "server", "parallel", "clock", "error", "event", "run", "format", "fs", "manifest",
            "transfer",
        ],
    ),
    (
        "proof",
        &[
            "server", "log", "clock", "error", "event", "run", "format", "fs", "manifest",
            "transfer",
        ],
    ),
    (
        "repository",
        &[
            "log", "parallel", "timings", "trust", "users", "clock", "error", "event", "run",
            "format", "fs", "manifest", "md5", "transfer", "proof",
        ],
    ),
    (
        "node",
        &[
            "log", "clock", "error", "event", "run", "format", "fs", "manifest", "server", "trust",
        ],
    ),
    (
        "verify",
        &[
            "log",
            "parallel",
            "clock",
            "error",
            "event",
            "run",
            "format",
            "fs",
            "manifest",
            "transfer",
            "proof",
            "repository",
        ],
    ),
    (
        "expire",
        &[
            "clock",
            "error",
            "event",
            "run",
            "manifest",
            "proof",
            "repository",
        ],
    ),
    ("prune", &["error", "event", "repository", "run"]),
    (
        "archive",
        &[
            "clock",
            "copy",
            "proof",
            "error",
            "event",
            "run",
            "format",
            "manifest",
            "transfer",
            "repository",
        ],
    ),
    (
        "copy",
        &[
            "log",
            "parallel",
            "error",
            "event",
            "run",
            "format",
            "manifest",
            "transfer",
            "proof",
            "repository",
        ],
    ),
    (
        "restore",
        &[
            "server",
            "log",
            "timings",
            "parallel",
            "clock",
            "error",
            "event",
            "run",
            "format",
            "fs",
            "manifest",
            "transfer",
            "proof",
            "repository",
            "node",
        ],
    ),
    (
        "backup",
        &[
            "server",
            "log",
            "parallel",
            "users",
            "clock",
            "error",
            "event",
            "run",
            "format",
            "fs",
            "manifest",
            "transfer",
            "proof",
            "repository",
            "node",
        ],
    ),
    ("settings", &["clock", "schedule", "error", "fs", "pace"]),
    (
        "verbs",
        &[
            "server",
            "users",
            "clock",
            "error",
            "event",
            "run",
            "format",
            "fs",
            "manifest",
            "proof",
            "repository",
            "node",
            "verify",
            "restore",
            "copy",
            "archive",
            "backup",
            "expire",
            "prune",
            "settings",
        ],
    ),
    (
        "agent",
        &[
            "log",
            "trust",
            "clock",
            "schedule",
            "error",
            "event",
            "run",
            "fs",
            "format",
            "manifest",
            "proof",
            "repository",
            "node",
            "verify",
            "expire",
            "backup",
            "settings",
            "signals",
            "verbs",
        ],
    ),
    (
        "cli",
        &[
            "clock", "timings", "error", "event", "run", "fs", "signals", "manifest", "proof",
            "verify", "restore", "copy", "archive", "backup", "expire", "prune", "settings",
            "verbs", "agent",
        ],
    ),
];

/// To add a server version is to change the room `server` and tests: no other room names a line.
#[test]
fn only_the_room_of_servers_names_their_versions() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();

    for entry in walkdir::WalkDir::new(&source) {
        let entry = entry.unwrap();
        let path = entry.path().strip_prefix(&source).unwrap();
        if !entry.file_type().is_file() || path.starts_with("server") {
            continue;
        }

        let text = std::fs::read_to_string(entry.path()).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        if code.contains("ServerLine::V") {
            wrong.push(path.display().to_string());
        }
    }

    assert!(wrong.is_empty(), "{wrong:?} name a server line");
}

/// Paths of the server's files are built from `format/names.rs`. A message may mention a name, but a
/// literal that is only a name, or a path to it, is a second place for the name.
#[test]
fn the_names_of_the_servers_files_are_in_one_file() {
    const NAMES: [&str; 14] = [
        "writer.chk",
        "chaser.chk",
        "epoch.chk",
        "proposal.chk",
        "truncate.chk",
        "kurrent.ddb.wal",
        "kurrent.sock",
        "eventstore.sock",
        "stream-existence",
        "stream-existence/streamExistenceFilter.chk",
        "stream-existence/streamExistenceFilter.dat",
        "scavenging/scavenging.db",
        "chunk-",
        ".bloomfilter",
    ];
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();

    for entry in walkdir::WalkDir::new(&source) {
        let entry = entry.unwrap();
        let path = entry.path().strip_prefix(&source).unwrap();
        let is_test = path.file_name().is_some_and(|name| name == "tests.rs");
        if !entry.file_type().is_file() || is_test || path == Path::new("format/names.rs") {
            continue;
        }

        let text = std::fs::read_to_string(entry.path()).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for name in NAMES {
            let spelled = [
                format!("\"{name}\""),
                format!("\"db/{name}\""),
                format!("\"index/{name}\""),
            ];
            if spelled.iter().any(|spelled| code.contains(spelled)) {
                wrong.push(format!("{} spells `{name}`", path.display()));
            }
        }
    }

    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_points_upwards() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let rooms: BTreeMap<&str, BTreeSet<&str>> = HOUSE
        .iter()
        .map(|(room, below)| (*room, below.iter().copied().collect()))
        .collect();

    let mut wrong = Vec::new();
    for entry in walkdir::WalkDir::new(&source)
        .into_iter()
        .map(Result::unwrap)
        .filter(|entry| entry.file_type().is_file())
    {
        let path = entry.path().strip_prefix(&source).unwrap();
        let room = path
            .components()
            .next()
            .unwrap()
            .as_os_str()
            .to_str()
            .unwrap()
            .trim_end_matches(".rs");

        if room == "lib" || room == "main" {
            continue;
        }

        let Some(below) = rooms.get(room) else {
            wrong.push(format!(
                "{}: the house has no room `{room}`",
                path.display()
            ));
            continue;
        };

        let text = std::fs::read_to_string(entry.path()).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for used in code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .flat_map(rooms_named)
        {
            if used != room && !below.contains(used) {
                wrong.push(format!("{}: `{room}` uses `{used}`", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// One folder holds the retries, the counts and the words for failures of object stores.
#[test]
fn only_the_client_of_object_stores_knows_their_library() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in walkdir::WalkDir::new(&source) {
        let entry = entry.unwrap();
        let path = entry.path().strip_prefix(&source).unwrap();
        if !entry.file_type().is_file() || path.starts_with("repository/object/store") {
            continue;
        }

        let text = std::fs::read_to_string(entry.path()).unwrap();
        let is_named = text.contains("object_store::");
        assert!(!is_named, "{} names object_store", path.display());
    }
}

#[test]
fn only_settings_knows_clap() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in walkdir::WalkDir::new(&source) {
        let entry = entry.unwrap();
        let path = entry.path().strip_prefix(&source).unwrap();
        if !entry.file_type().is_file() || path.starts_with("settings") {
            continue;
        }

        let text = std::fs::read_to_string(entry.path()).unwrap();
        assert!(!text.contains("clap"), "{} names clap", path.display());
    }
}

fn rooms_named(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::")
        .skip(1)
        .filter_map(|rest| {
            rest.split(|character: char| {
                !character.is_ascii_lowercase() && !character.is_ascii_digit()
            })
            .next()
        })
        .filter(|name| !name.is_empty())
}
