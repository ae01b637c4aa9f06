//! Heads, sections, journals and the catalog as somebody writes them who knows the format
//! (`docs/object-format.md`) and means harm: every hash and checksum fits, and what they say is a
//! lie. Nothing of kbackup writes these objects.

use kbackup::error::Kind;
use kbackup::event::Silent;
use kbackup::manifest::Label;
use kbackup::proof::Depth;
use kbackup::repository::{ObjectRepository, Repository};
use kbackup::run::Run;
use kbackup::verify::{Which, verify};
use serde_json::{Value, json};

use super::{Objects, bench, restored, two_backups};
use crate::backup::bench::Bench;
use crate::torture::{Chance, amount, seed};

/// The JSON text of a head, a catalog or a journal.
fn unsealed(object: &[u8]) -> Value {
    let text = zstd::stream::decode_all(object).unwrap();
    serde_json::from_slice(&text[65..]).unwrap()
}

fn sealed(text: &str) -> Vec<u8> {
    let sealed = format!("{}\n{text}", blake3::hash(text.as_bytes()).to_hex());
    zstd::bulk::compress(sealed.as_bytes(), 1).unwrap()
}

/// The key of an object that is named by its bytes.
fn key_of(kind: &str, name: &str) -> String {
    let first: String = name.chars().take(2).collect();
    format!("{kind}/0/{first}/{name}")
}

/// Somebody who writes objects.
struct Forger {
    objects: Objects,
    naming_key: [u8; 32],
}

impl Forger {
    fn new(objects: &Objects) -> Self {
        let description: Value = serde_json::from_slice(&objects["repository"]).unwrap();
        let key = description["naming_key"].as_str().unwrap();
        Self {
            objects: objects.clone(),
            naming_key: *blake3::Hash::from_hex(key).unwrap().as_bytes(),
        }
    }

    fn head(&self, key: &str) -> Value {
        unsealed(&self.objects[key])
    }

    /// The lines of a section.
    fn section(&self, object: &Value) -> Vec<Value> {
        let name = object["name"].as_str().unwrap_or("none");
        let key = key_of("sections", name);
        let Some(stored) = self.objects.get(&key) else {
            return Vec::new();
        };
        let text = zstd::stream::decode_all(&stored[..]).unwrap();
        let lines = text
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    /// Writes a section under the name that it must have.
    fn put_section(&mut self, lines: &[String]) -> Value {
        let text = lines
            .iter()
            .map(|line| format!("{line}\n"))
            .collect::<String>();
        let name = blake3::keyed_hash(&self.naming_key, text.as_bytes()).to_hex();
        let stored = zstd::bulk::compress(text.as_bytes(), 1).unwrap();
        let object = json!({
            "name": name.as_str(),
            "size": text.len(),
            "stored": stored.len(),
            "hash": blake3::hash(&stored).to_hex().as_str(),
        });
        self.objects.insert(key_of("sections", &name), stored);
        object
    }

    fn put_blob(&mut self, plain: &[u8], stored: Vec<u8>) -> String {
        let name = blake3::keyed_hash(&self.naming_key, plain).to_hex();
        self.objects.insert(key_of("data", &name), stored);
        name.to_string()
    }
}

/// A node of a JSON tree, chosen by chance.
fn any_node<'a>(value: &'a mut Value, chance: &mut Chance) -> &'a mut Value {
    let inner = match value {
        Value::Array(list) => list.len(),
        Value::Object(map) => map.len(),
        _ => 0,
    };
    if inner == 0 || chance.below(8) == 0 {
        return value;
    }
    let at = chance.place(inner);
    match value {
        Value::Array(list) => any_node(&mut list[at], chance),
        Value::Object(map) => any_node(map.values_mut().nth(at).unwrap(), chance),
        other => other,
    }
}

fn repeated(list: &[Value], times: usize) -> Vec<Value> {
    let mut longer = Vec::new();
    for _ in 0..times {
        longer.extend_from_slice(list);
    }
    longer
}

/// Makes a lie of a node.
fn lie(node: &mut Value, chance: &mut Chance) {
    let longer = |value: &Value, times: usize| match value {
        Value::Array(list) => Value::Array(repeated(list, times)),
        Value::String(text) => Value::String(text.repeat(times)),
        other => Value::Array(vec![other.clone(); times]),
    };
    *node = match chance.below(15) {
        0 => json!(u64::MAX),
        1 => json!(1_u64 << 62),
        2 => json!(i64::MIN),
        3 => json!(0),
        4 => json!(chance.below(1 << 40)),
        5 => Value::Null,
        6 => json!(*chance.of(&[
            "",
            "../../../etc/passwd",
            "/etc/passwd",
            "db/../../x",
            "db/a/b/c"
        ])),
        7 => json!("ff".repeat(32)),
        8 => (0..100).fold(json!([]), |inner, _| json!([inner])),
        9 => longer(node, 2),
        10 => longer(node, 3000),
        11 => json!({}),
        12 => match node.as_u64() {
            Some(number) => json!(number.wrapping_add(1)),
            None => json!([]),
        },
        13 => match node.as_u64() {
            Some(number) => json!(number.saturating_sub(1)),
            None => json!("zstd"),
        },
        _ => json!(*chance.of(&["plain", "zstd", "chunk", "full", "db/chunk-000000.000000"])),
    };
}

/// Lies about the cells of one file, with everything else as it was.
fn lie_about_cells(line: &mut Value, chance: &mut Chance) {
    let Some(cells) = line["cells"].as_array_mut() else {
        return;
    };
    if cells.is_empty() {
        return;
    }
    let at = chance.place(cells.len());
    match chance.below(8) {
        0 => drop(cells.remove(at)),
        1 => cells.insert(at, cells[at].clone()),
        2 => cells[at][1] = json!(cells[at][1].as_u64().unwrap() + 5000),
        3 => cells[at][0] = json!(cells[at][0].as_u64().unwrap() + 1),
        4 => cells[at][1] = json!(u64::MAX),
        5 => cells[at][5] = json!("zstd"),
        6 => cells.reverse(),
        _ => {
            // One more cell behind the end of the file.
            let mut more = cells[at].clone();
            let last = cells.last().unwrap();
            more[0] = json!(last[0].as_u64().unwrap() + last[1].as_u64().unwrap());
            cells.push(more);
        }
    }
}

/// Writes a head whose sections or whose own text lie.
fn forge(forger: &mut Forger, chance: &mut Chance) -> String {
    let heads = super::head_keys(&forger.objects);
    let key = chance.of(&heads).clone();
    let mut head = forger.head(&key);
    // Lies may have been told of it before.
    let groups = head["sections"].as_array().map_or(0, Vec::len);
    let group = chance.place(groups);
    if groups == 0 || forger.section(&head["sections"][group]["rows"]).is_empty() {
        return "nothing more".to_owned();
    }

    let what = match chance.below(6) {
        0 | 1 => {
            lie(any_node(&mut head, chance), chance);
            "the head"
        }
        2 | 3 => {
            let mut lines = forger.section(&head["sections"][group]["rows"]);
            let at = chance.place(lines.len());
            match chance.below(6) {
                0 => lines.swap(0, at),
                1 => lines.push(lines[at].clone()),
                2 => drop(lines.remove(at)),
                3 => {
                    lines[at]["row"]["size"] =
                        json!(*chance.of(&[0, 1, 1_u64 << 33, 1 << 50, u64::MAX]));
                }
                _ => lie(any_node(&mut lines[at], chance), chance),
            }
            let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
            head["sections"][group]["rows"] = forger.put_section(&lines);
            if chance.below(2) == 0 {
                head["sections"][group]["files"] = json!(lines.len());
            }
            "rows"
        }
        4 => {
            let object = head["sections"][group]["cells"][0].clone();
            let mut lines = forger.section(&object);
            if !lines.is_empty() {
                let at = chance.place(lines.len());
                match chance.below(3) {
                    0 => lie(any_node(&mut lines[at], chance), chance),
                    _ => lie_about_cells(&mut lines[at], chance),
                }
                let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
                head["sections"][group]["cells"][0] = forger.put_section(&lines);
            }
            "cells"
        }
        _ => {
            // The sections of another group, once more or in place of this one.
            let other = head["sections"][chance.place(groups)].clone();
            let list = head["sections"].as_array_mut().unwrap();
            match chance.below(3) {
                0 => list[group] = other,
                1 => list.extend(vec![other; 2000]),
                _ => drop(list.remove(group)),
            }
            "groups"
        }
    };
    forger
        .objects
        .insert(key.clone(), sealed(&head.to_string()));
    format!("{what} of {key}")
}

/// Lets every verb loose on the objects. Errors have the kinds that a reader expects.
fn survive(bench: &Bench, objects: &Objects, what: &str) {
    let Ok(repository) = ObjectRepository::of_objects(objects) else {
        return;
    };
    let is_expected = |kind| {
        [
            Kind::StoredCorrupt,
            Kind::Refused,
            Kind::NotFound,
            Kind::Locked,
            Kind::Usage,
        ]
        .contains(&kind)
    };
    let run = Run::new(Silent);
    let listed = repository.list().unwrap();
    let labels: Vec<Label> = listed.into_iter().map(|listed| listed.label).collect();
    verify(&repository, &Which::All, Depth::Deep, &run).unwrap();
    for label in &labels {
        if let Err(error) = restored(bench, &repository, label) {
            assert!(
                is_expected(error.kind()),
                "{what}: {:?} {error} {:?}",
                error.kind(),
                error.causes()
            );
        }
        if let Err(error) = repository.would_free(&[label]) {
            assert!(is_expected(error.kind()), "{what}: {error}");
        }
    }
    if let Err(error) = bench.take_to(&repository) {
        assert!(
            is_expected(error.kind()),
            "{what}: {:?} {error} {:?}",
            error.kind(),
            error.causes()
        );
    }
}

#[test]
fn heads_and_sections_that_lie_do_no_harm() {
    let bench = bench();
    let objects = two_backups(&bench);
    for sample in 0..amount(80, 20_000) {
        let seed = seed().wrapping_add(sample as u64);
        let mut chance = Chance::new(seed);
        let mut forger = Forger::new(&objects);
        let mut what = format!("seed {seed}:");
        for _ in 0..=chance.below(2) {
            what = format!("{what} {}", forge(&mut forger, &mut chance));
        }
        survive(&bench, &forger.objects, &what);
    }
}

#[test]
fn journals_that_lie_do_no_harm() {
    let bench = bench();
    let objects = two_backups(&bench);
    let (path, size, end) = {
        let forger = Forger::new(&objects);
        let head = forger.head("backups/0000000002");
        let rows = forger.section(&head["sections"][0]["rows"]);
        let chunk = rows[0]["row"].clone();
        (chunk["path"].clone(), chunk["size"].clone(), chunk)
    };
    let mode = end["mode"].clone();
    let hash = "00".repeat(32);
    let cell = |offset: u64, length: u64| json!([offset, length, hash, 10, hash, "zstd"]);
    let cells = [
        json!([]),
        json!([cell(u64::MAX, u64::MAX)]),
        json!([cell(60_000, 10), cell(0, 10), cell(70_000, 10)]),
        json!([cell(0, u64::MAX), cell(1, u64::MAX)]),
        json!([cell(0, 10), cell(0, 1_u64 << 40)]),
    ];
    let file = std::fs::read(bench.db.join("chunk-000000.000000")).unwrap();
    let md5: String = file[file.len() - 16..]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    for cells in cells {
        for size in [size.clone(), json!(16), json!(u64::MAX), json!(1_u64 << 50)] {
            for data in [Value::Null, json!([1, 2, 3])] {
                let mut forger = Forger::new(&super::empty());
                let entries = json!([{
                    "path": path, "size": size, "mode": mode, "blake3": hash, "md5": md5,
                    "data": data, "cells": cells,
                }]);
                let key = "journal/00000000-0000-0000-0000-000000000001/000000";
                forger
                    .objects
                    .insert(key.to_owned(), sealed(&entries.to_string()));
                let what = entries.to_string();
                survive(&bench, &forger.objects, &what);

                let repository = ObjectRepository::of_objects(&forger.objects).unwrap();
                bench.full_to(&repository).unwrap();
                super::assert_sound(&repository, &what);
            }
        }
    }
}

/// Objects that decode to much more than they hold.
#[test]
fn a_bomb_is_damage() {
    let bench = bench();
    let objects = two_backups(&bench);
    // 300 MiB of zeros, without and with their length in the frame.
    let zeros = std::io::repeat(0);
    let mut bomb = Vec::new();
    zstd::stream::copy_encode(std::io::Read::take(zeros, 300 << 20), &mut bomb, 1).unwrap();
    assert!(bomb.len() < 1 << 20);

    for key in objects.keys().filter(|key| *key != "repository") {
        let kind = key.split('/').next().unwrap_or_default();
        if kind == "data" && !key.ends_with('0') {
            continue;
        }
        let mut harmed = objects.clone();
        harmed.insert(key.clone(), bomb.clone());
        survive(&bench, &harmed, key);
    }

    // A blob whose cell says that it is a frame.
    let mut forger = Forger::new(&objects);
    let mut head = forger.head("backups/0000000002");
    let mut lines = forger.section(&head["sections"][0]["cells"][0]);
    let name = forger.put_blob(b"", bomb.clone());
    for length in [1_u64, 65_536, 1 << 28] {
        lines[0]["cells"][0] = json!([0, length, name, bomb.len(), "00".repeat(32), "zstd"]);
        let text: Vec<String> = lines.iter().map(Value::to_string).collect();
        head["sections"][0]["cells"][0] = forger.put_section(&text);
        let sealed = sealed(&head.to_string());
        forger
            .objects
            .insert("backups/0000000002".to_owned(), sealed);
        survive(&bench, &forger.objects, "a blob");
    }
}
