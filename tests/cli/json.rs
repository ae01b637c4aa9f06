//! The program prints exactly what `docs/json.md` promises, field by field and type by type.

use std::collections::{BTreeMap, BTreeSet};

use kbackup_testnode::Synthetic;
use serde_json::Value;

use super::{NodeSite, Place};

struct Field {
    types: Vec<String>,
    optional: bool,
}

/// The fields of one schema.
type Fields = BTreeMap<String, Field>;

fn contract() -> BTreeMap<String, Fields> {
    let page = std::fs::read_to_string(
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/json.md"),
    )
    .unwrap();

    let mut schemas: BTreeMap<String, Fields> = BTreeMap::new();
    let mut schema = String::new();
    for line in page.lines() {
        if let Some(name) = line
            .strip_prefix("## `")
            .and_then(|rest| rest.strip_suffix('`'))
        {
            schema = name.to_owned();
            schemas.insert(schema.clone(), Fields::new());
        }

        let Some(row) = line.strip_prefix("| `") else {
            continue;
        };
        let (path, rest) = row.split_once("` | ").unwrap();
        let (words, _) = rest.split_once(" |").unwrap();
        let mut types = Vec::new();
        let mut optional = false;
        for word in words.split(", ") {
            if word == "optional" {
                optional = true;
            } else {
                types.push(word.to_owned());
            }
        }

        schemas
            .get_mut(&schema)
            .unwrap()
            .insert(path.to_owned(), Field { types, optional });
    }

    schemas
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

/// Compares a value with the promise for its path, and records the paths that were seen.
fn compare(value: &Value, path: &str, fields: &Fields, seen: &mut BTreeSet<String>) {
    if let Some(field) = fields.get(path) {
        seen.insert(path.to_owned());
        assert!(
            field.types.iter().any(|name| name == type_of(value)),
            "`{path}` is {value}"
        );
    } else {
        assert!(
            matches!(value, Value::Array(_) | Value::Object(_)),
            "the page does not name `{path}`"
        );
    }

    match value {
        Value::Array(values) => {
            for value in values {
                compare(value, &format!("{path}[]"), fields, seen);
            }
        }
        Value::Object(object) => {
            let start = if path.is_empty() {
                String::new()
            } else {
                format!("{path}.")
            };
            let mut inside = Vec::new();
            for (name, field) in fields {
                match name.strip_prefix(&start) {
                    Some(name) if !name.is_empty() => inside.push((name, field.optional)),
                    _ => {}
                }
            }
            if inside.is_empty() {
                return;
            }

            for (name, _) in inside.iter().filter(|(_, optional)| !optional) {
                let key = name.split(['.', '[']).next().unwrap();
                let parent_is_optional = fields
                    .get(&format!("{start}{key}"))
                    .is_some_and(|field| field.optional);
                assert!(
                    parent_is_optional || object.contains_key(key),
                    "`{start}{key}` is missing in {value}"
                );
            }

            for (key, value) in object {
                compare(value, &format!("{start}{key}"), fields, seen);
            }
        }
        _ => {}
    }
}

struct Contract {
    schemas: BTreeMap<String, Fields>,
    seen: BTreeMap<String, BTreeSet<String>>,
}

impl Contract {
    fn check(&mut self, place: &Place, line: &str, schema: &str) {
        self.check_command(&mut place.kbackup(line), line, schema);
    }

    fn check_command(&mut self, command: &mut assert_cmd::Command, line: &str, schema: &str) {
        let output = command.arg("--json").output().unwrap();
        let mut value: Value = serde_json::from_slice(&output.stdout).unwrap();
        let name = value.as_object_mut().unwrap().remove("schema").unwrap();
        assert_eq!(name, schema, "{line}: {value}");
        if schema == "kbackup.backup/1" {
            self.seen.entry(schema.to_owned()).or_default();
            return;
        }
        self.compare(&value, schema);
    }

    fn compare(&mut self, value: &Value, schema: &str) {
        compare(
            value,
            "",
            self.schemas.get(schema).unwrap(),
            self.seen.entry(schema.to_owned()).or_default(),
        );
    }
}

/// Asserts that messages of one schema keep the page's promise, and that each promised field is in
/// one of them.
pub(crate) fn assert_as_promised(messages: &[Value], schema: &str) {
    let fields = contract().remove(schema).unwrap();

    let mut seen = BTreeSet::new();
    for message in messages {
        let mut message = message.clone();
        assert_eq!(
            message.as_object_mut().unwrap().remove("schema"),
            Some(schema.into())
        );
        compare(&message, "", &fields, &mut seen);
    }

    // A list of texts may be empty in all of them.
    let missing: Vec<_> = fields
        .keys()
        .filter(|path| !path.ends_with("[]") && !seen.contains(*path))
        .collect();

    assert!(
        missing.is_empty(),
        "{schema}: {missing:?} is in none of {messages:#?}"
    );
}

#[test]
fn the_program_prints_what_the_page_promises() {
    let mut contract = Contract {
        schemas: contract(),
        seen: BTreeMap::new(),
    };
    let site = NodeSite::new("26.1-append");
    let place = &site.place;
    contract.check(place, "init --repo repo", "kbackup.init/1");
    contract.check(
        place,
        &site.line("full --repo repo --node URL --dry-run"),
        "kbackup.forecast/1",
    );
    contract.check(
        place,
        &site.line("full --repo repo --node URL"),
        "kbackup.summary/1",
    );
    site.advance(600);
    contract.check(
        place,
        &site.line("diff --repo repo --node URL --dry-run"),
        "kbackup.forecast/1",
    );
    contract.check(
        place,
        &site.line("diff --repo repo --node URL"),
        "kbackup.summary/1",
    );
    let objects = format!("object+file://{}", place.path("objects").display());
    contract.check(place, &format!("init --repo {objects}"), "kbackup.init/1");
    contract.check(
        place,
        &site.line(&format!("full --repo {objects} --node URL")),
        "kbackup.summary/1",
    );
    contract.check(place, "list --repo repo", "kbackup.list/1");
    contract.check(place, "show --repo repo", "kbackup.backup/1");
    contract.check(place, "verify --repo repo --all --deep", "kbackup.verify/1");
    contract.check(place, "list --repo repo", "kbackup.list/1");
    contract.check(
        place,
        "restore --repo repo --to restored --dry-run",
        "kbackup.restore-plan/1",
    );
    contract.check(
        place,
        "restore --repo repo --to restored",
        "kbackup.restore/1",
    );
    contract.check(
        place,
        "restore --repo repo --to restored --unless-restored",
        "kbackup.restore-nothing/1",
    );
    contract.check(place, "check restored --deep", "kbackup.check/1");
    contract.check(
        place,
        "copy --from repo --to second --dry-run",
        "kbackup.copy-plan/1",
    );
    contract.check(place, "copy --from repo --to second", "kbackup.copy/1");
    contract.check(
        place,
        "copy --from repo --to second --all",
        "kbackup.copy/1",
    );
    contract.check(
        place,
        "copy --from repo --to second --all --dry-run",
        "kbackup.copy-plan/1",
    );
    let exported = place.kbackup("export --repo repo").output().unwrap();
    for _ in 0..2 {
        let line = "import --repo third";
        let mut command = place.kbackup(line);
        command.write_stdin(exported.stdout.as_slice());
        contract.check_command(&mut command, line, "kbackup.import/1");
    }
    contract.check(place, "release", "kbackup.release/1");
    contract.check(
        place,
        &site.line("agent --repo repo --node URL --check-config"),
        "kbackup.agent-configuration/1",
    );
    contract.check(place, "completions bash", "kbackup.completions/1");
    contract.check(place, "manual", "kbackup.manual/1");
    contract.check(place, "manual --into pages", "kbackup.manual/1");
    contract.check(place, "list --repo missing", "kbackup.error/1");
    contract.check(place, "list", "kbackup.error/1");
    contract.check(place, "check node/db", "kbackup.check/1");
    let label = place.listed().pop().unwrap();
    super::errors::flip(
        &place
            .path("repo/backups")
            .join(&label)
            .join("db/chunk-000000.000000"),
        100_000,
    );
    contract.check(place, "verify --repo repo", "kbackup.verify/1");
    contract.check(place, "verify --repo repo --repair", "kbackup.repair/1");
    contract.check(
        place,
        &format!("restore {label} --repo repo --to damaged"),
        "kbackup.restore/1",
    );
    contract.check(
        place,
        &format!("restore {label} --repo repo --to damaged --dry-run"),
        "kbackup.restore-plan/1",
    );
    contract.check(place, "check damaged", "kbackup.check/1");
    contract.check(
        place,
        &site.line("full --repo repo --node URL"),
        "kbackup.summary/1",
    );
    contract.check(
        place,
        "verify --repo repo --all --repair --dry-run",
        "kbackup.repair-plan/1",
    );
    contract.check(
        place,
        "verify --repo repo --all --repair",
        "kbackup.repair/1",
    );
    contract.check(
        place,
        &site.line("full --repo repo --node URL"),
        "kbackup.summary/1",
    );
    contract.check(
        place,
        "expire --repo repo --keep-last 1 --keep-daily 3 --dry-run",
        "kbackup.expire-plan/1",
    );
    contract.check(
        place,
        "expire --repo repo --keep-last 1 --confirm",
        "kbackup.expire/1",
    );
    let objects = format!("object+file://{}", place.path("pruned").display());
    place
        .kbackup(&format!("copy --from repo --to {objects} --new-repository"))
        .assert()
        .code(0);
    let line = format!("prune --repo {objects}");
    contract.check(place, &format!("{line} --dry-run"), "kbackup.prune-plan/1");
    contract.check(place, &format!("{line} --confirm"), "kbackup.prune/1");
    let debt = r#"{"format":1,"node":{"url":"http://127.0.0.1:1","unix_socket":null,"endpoint":"node:2113","instance":null},
        "scavenge":{"id":"one","threads":1,"throttle_percent":100,"since":"2026-11-21T06:00:00Z"},"auto_scavenge":null,"process":1}"#;
    place.write("state/node.json", debt);
    contract.check(place, "release --dry-run", "kbackup.release/1");
    contract.check(
        place,
        "release --dry-run --node http://127.0.0.1:2",
        "kbackup.release/1",
    );

    let damaged = Place::new();
    let made = Synthetic {
        filter_bytes: 1 << 20,
        ..Synthetic::of_size(3 << 20, 1 << 20)
    }
    .make(damaged.path("node"))
    .unwrap();
    super::errors::flip(&made.db.join("chunk-000000.000000"), 5000);
    contract.check(
        &damaged,
        "full --repo repo --offline --db node/db",
        "kbackup.error/1",
    );
    contract.check(&damaged, "list --repo repo", "kbackup.list/1");
    contract.check(
        &damaged,
        "full --repo repo --offline --db node/db --accept-damaged",
        "kbackup.summary/1",
    );
    contract.check(&damaged, "verify --repo repo", "kbackup.verify/1");
    contract.check(
        &damaged,
        "check node/db --server-version 26.1",
        "kbackup.check/1",
    );

    // A hook message goes to hooks. The tests of hooks compare it.
    contract.schemas.remove("kbackup.hook/1");
    contract.check(place, "status --repo repo", "kbackup.status/1");
    for state in crate::agent::states().into_values() {
        contract.compare(
            &serde_json::to_value(state.status()).unwrap(),
            "kbackup.status/1",
        );
    }

    for (schema, fields) in &contract.schemas {
        let seen = contract.seen.get(schema);
        assert!(seen.is_some(), "{schema} is never printed");
        // A list of texts may be empty in all of them.
        for (path, _) in fields
            .iter()
            .filter(|(path, field)| !field.optional && !path.ends_with("[]"))
        {
            assert!(
                seen.unwrap().contains(path),
                "{schema}: `{path}` is never printed"
            );
        }
    }
}
