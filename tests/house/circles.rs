//! No circle between the files of one room: a file never uses a file that uses it, directly or
//! through others.
//!
//! A `mod.rs` is the face of its folder: it declares and re-exports, and its files may name its
//! types. So paths to a `mod.rs` count only if they lead through it to the file that holds the
//! item.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A module's path below the crate, such as `["backup", "capture"]`.
type Module = Vec<String>;

#[test]
fn no_circle_within_a_room() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = files(&source);
    let reexports: BTreeMap<&Module, BTreeMap<String, Module>> = files
        .iter()
        .map(|(module, text)| (module, reexports(module, text, &files)))
        .collect();

    let mut uses: BTreeMap<&Module, BTreeSet<Module>> = BTreeMap::new();
    for (module, text) in &files {
        let mut used = BTreeSet::new();
        for path in paths(module, text) {
            let Some(target) = file_of(&path, &files, &reexports) else {
                continue;
            };
            let is_other_file_of_the_room = target != *module && target.first() == module.first();
            if is_other_file_of_the_room && !is_face(&target, &files) {
                used.insert(target);
            }
        }
        uses.insert(module, used);
    }

    let circles: Vec<String> = uses
        .keys()
        .filter(|module| !is_face(module, &files))
        .filter_map(|module| circle_through(module, &uses))
        .collect();
    assert!(circles.is_empty(), "{}", circles.join("\n"));
}

/// Every module with a file of its own, and its code without comments and tests.
fn files(source: &Path) -> BTreeMap<Module, String> {
    let mut files = BTreeMap::new();
    for entry in walkdir::WalkDir::new(source) {
        let entry = entry.unwrap();
        let path = entry.path().strip_prefix(source).unwrap();
        let is_code = path.extension().is_some_and(|extension| extension == "rs");
        if !is_code || path.ends_with("tests.rs") {
            continue;
        }

        let mut module: Module = path
            .with_extension("")
            .iter()
            .map(|part| part.to_str().unwrap().to_owned())
            .collect();
        if module.last().is_some_and(|last| last == "mod") {
            module.pop();
        }
        files.insert(module, code_of(entry.path()));
    }
    files
}

fn code_of(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    code.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Whether a module is a folder with files in it.
fn is_face(module: &Module, files: &BTreeMap<Module, String>) -> bool {
    files
        .keys()
        .any(|other| other.len() > module.len() && other.starts_with(module))
}

/// The items that a module hands on from its files, and where they are.
fn reexports(
    module: &Module,
    text: &str,
    files: &BTreeMap<Module, String>,
) -> BTreeMap<String, Module> {
    let mut found = BTreeMap::new();
    for line in statements(text, "use ") {
        // `use branch::Parentage` in a face means its own file, as `use self::branch::Parentage`
        // does.
        for path in leaves(&line) {
            let Some(absolute) = absolute(module, &path, files) else {
                continue;
            };
            if let Some((item, place)) = absolute.split_last() {
                found.insert(item.clone(), place.to_vec());
            }
        }
    }
    found
}

/// All paths that a file names, from the crate down.
fn paths(module: &Module, text: &str) -> Vec<Module> {
    let mut found = Vec::new();
    for start in ["super::", "self::", "crate::"] {
        for (at, _) in text.match_indices(start) {
            // `super::super::x` is read from its first `super`.
            if text
                .get(..at)
                .is_some_and(|before| before.ends_with("super::"))
            {
                continue;
            }
            let rest = text.get(at..).unwrap();
            for leaf in leaves(rest) {
                found.extend(absolute(module, &leaf, &BTreeMap::new()));
            }
        }
    }
    found
}

/// The statements that begin with a word, each up to its semicolon, without the word.
fn statements(text: &str, word: &str) -> Vec<String> {
    text.match_indices(word)
        .filter_map(|(at, _)| text.get(at + word.len()..))
        .filter_map(|rest| rest.split(';').next())
        .map(str::to_owned)
        .collect()
}

/// The paths of a use tree: `a::{b, c::D}` gives `a::b` and `a::c::D`. Reading ends where the tree
/// does.
fn leaves(text: &str) -> Vec<Module> {
    let mut found = Vec::new();
    read_tree(&mut text.chars().peekable(), &[], &mut found);
    found
}

fn read_tree(
    text: &mut std::iter::Peekable<std::str::Chars<'_>>,
    before: &[String],
    found: &mut Vec<Module>,
) {
    let mut path = before.to_vec();
    loop {
        while text.peek().is_some_and(|next| next.is_whitespace()) {
            text.next();
        }

        let mut name = String::new();
        while let Some(next) = text
            .peek()
            .filter(|next| next.is_alphanumeric() || **next == '_')
        {
            name.push(*next);
            text.next();
        }
        if !name.is_empty() {
            path.push(name);
        }

        match text.peek() {
            Some(':') => {
                text.next();
                if text.next() != Some(':') {
                    break;
                }
            }
            Some('{') => {
                text.next();
                while text.peek().is_some_and(|next| *next != '}') {
                    read_tree(text, &path, found);
                    skip_rest_of_leaf(text);
                }
                text.next();
                return;
            }
            _ => break,
        }
    }
    found.push(path);
}

/// Reads over ` as name` and the comma behind a leaf.
fn skip_rest_of_leaf(text: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    while let Some(next) = text.peek() {
        match next {
            '}' => return,
            ',' => {
                text.next();
                return;
            }
            _ => {
                text.next();
            }
        }
    }
}

/// A path from the crate down; none for one that leaves the crate.
fn absolute(module: &Module, path: &Module, files: &BTreeMap<Module, String>) -> Option<Module> {
    let mut place = module.clone();
    let mut rest = path.as_slice();
    match path.first()?.as_str() {
        "crate" => {
            place.clear();
            rest = rest.get(1..)?;
        }
        "self" => rest = rest.get(1..)?,
        "super" => {
            while rest.first().is_some_and(|first| first == "super") {
                place.pop();
                rest = rest.get(1..)?;
            }
        }
        first => {
            let mut own = module.clone();
            own.push(first.to_owned());
            if !files.contains_key(&own) {
                return None;
            }
        }
    }
    place.extend(rest.iter().cloned());
    Some(place)
}

/// The file that holds what a path names, through the re-exports of the faces on its way.
fn file_of(
    path: &Module,
    files: &BTreeMap<Module, String>,
    reexports: &BTreeMap<&Module, BTreeMap<String, Module>>,
) -> Option<Module> {
    for length in (1..=path.len()).rev() {
        let module: Module = path.iter().take(length).cloned().collect();
        if !files.contains_key(&module) {
            continue;
        }

        let handed_on = path
            .get(length)
            .and_then(|item| reexports.get(&module)?.get(item));
        return match handed_on {
            Some(place) if files.contains_key(place) => Some(place.clone()),
            _ => Some(module),
        };
    }
    None
}

/// The circle that leads from a module back to it, in words; each circle is told by its first
/// module alone.
fn circle_through(start: &Module, uses: &BTreeMap<&Module, BTreeSet<Module>>) -> Option<String> {
    let mut ways: Vec<Vec<&Module>> = vec![vec![start]];
    let mut visited = BTreeSet::new();
    while let Some(way) = ways.pop() {
        for next in uses.get(way.last()?)? {
            if next == start {
                let names: Vec<String> = way.iter().map(|module| module.join("/")).collect();
                let is_first = way.iter().min() == Some(&start);
                return is_first.then(|| format!("{} -> {}", names.join(" -> "), start.join("/")));
            }
            if visited.insert(next) {
                let mut longer = way.clone();
                longer.push(next);
                ways.push(longer);
            }
        }
    }
    None
}

#[test]
fn a_use_tree_is_read_whole() {
    let tree = "super::{a::{B, c::D as E}, f}; the rest";
    let read: Vec<String> = leaves(tree).iter().map(|path| path.join("::")).collect();
    assert_eq!(read, ["super::a::B", "super::a::c::D", "super::f"]);
}
