//! Malicious manifests, links and servers, and secrets that must not leak.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may end in a panic"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kbackup::error::{Error, Kind};
use kbackup::event::Silent;
use kbackup::manifest::{Blake3Hash, Label};
use kbackup::node::{Client, Connection, Credentials, Patience, TimeLimits};
use kbackup::proof::Depth;
use kbackup::repository::Repository;
use kbackup::restore;
use kbackup::run::Run;
use kbackup::verify::{Which, verify};
use kbackup_testnode::Synthetic;
use serde_json::{Value, json};

use super::{lossy_text, peak_memory};
use crate::backup::bench::{Bench, small, workplace};
use crate::cli::{NodeSite, Place};
use crate::executable::{self, kbackup};
use crate::http_server::{Answer, Server};
use crate::restore::start::{Start, start};

fn run() -> Run {
    Run::new(Silent)
}

/// Gives a manifest without checksums the right ones. Everybody who can write to the repository
/// can compute them.
fn sealed(manifest: &str) -> String {
    let (before, rest) = manifest.split_once("\"files\":").unwrap();
    let (rows, after) = rest.split_once("],\"finished\"").unwrap();

    let head = format!(
        "{}\"finished\"{}",
        before.strip_prefix('{').unwrap(),
        after.strip_suffix('}').unwrap()
    );

    let head = format!(
        "{{\n  \"format\": 1,{}",
        head.replacen("\"format\":1,", "", 1)
    );

    let body = format!(
        "{head},\n  \"head_checksum\": \"{}\",\n  \"files\": {rows}]",
        Blake3Hash::of(head.as_bytes())
    );

    format!(
        "{body},\n  \"checksum\": \"{}\"\n}}\n",
        Blake3Hash::of(body.as_bytes())
    )
}

/// The totals that the head of a manifest with these rows has to hold.
fn totals(rows: &Value) -> Value {
    let rows = rows.as_array().unwrap();
    let bytes = rows
        .iter()
        .filter_map(|row| row["size"].as_u64())
        .fold(0, u64::saturating_add);
    json!({ "files": rows.len(), "bytes": bytes })
}

/// A repository with one backup, whose manifest can be forged.
struct Forgery {
    bench: Bench,
    label: Label,
    good: Value,
}

impl Forgery {
    fn new() -> Self {
        let bench = Bench::new(&Synthetic {
            completed_chunks: 2,
            ..small()
        });
        let label = bench.full().unwrap().label;
        let text = std::fs::read_to_string(Self::path(&bench, &label)).unwrap();

        // Sorted by name, so that the place of the rows is known.
        let mut fields: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
        for checksum in ["head_checksum", "checksum"] {
            fields.remove(checksum).unwrap();
        }

        let good = json!(fields);
        Self { bench, label, good }
    }

    fn path(bench: &Bench, label: &Label) -> PathBuf {
        Path::new(&bench.repository.place())
            .join("backups")
            .join(label.as_str())
            .join("manifest.json")
    }

    fn write(&self, text: &str) {
        std::fs::write(Self::path(&self.bench, &self.label), text).unwrap();
    }

    fn forge(&self, change: impl FnOnce(&mut Value)) {
        let mut value = self.good.clone();
        change(&mut value);
        value["totals"] = totals(&value["files"]);
        self.write(&sealed(&value.to_string()));
    }

    fn restore(&self, target: &Path) -> Result<(), Error> {
        let request = restore::RestoreRequest {
            label: Some(self.label.clone()),
            targets: vec![restore::RestoreTarget {
                db: target.to_owned(),
                index: None,
            }],
            ..restore::RestoreRequest::default()
        };

        let plan = restore::plan(&self.bench.repository, &request, &run())?;
        let mut report = restore::execute(&self.bench.repository, &plan, &run())?;

        match report.targets.remove(0).outcome {
            restore::TargetOutcome::Failed(error) => Err(error),
            _ => Ok(()),
        }
    }
}

/// Every path below a directory, with its length and its time.
fn names(directory: &Path) -> BTreeMap<PathBuf, (u64, i64)> {
    let mut names = BTreeMap::new();
    for entry in walkdir::WalkDir::new(directory) {
        let entry = entry.unwrap();
        let found = entry.metadata().unwrap();
        names.insert(entry.into_path(), (found.len(), found.mtime()));
    }
    names
}

fn row(change: impl Fn(&mut Value) + 'static) -> Box<dyn Fn(&mut Value)> {
    Box::new(move |manifest| change(&mut manifest["files"][0]))
}

/// The first row of a chunk.
fn chunk_row(change: impl Fn(&mut Value) + 'static) -> Box<dyn Fn(&mut Value)> {
    Box::new(move |manifest| {
        let rows = manifest["files"].as_array_mut().unwrap();
        change(rows.iter_mut().find(|row| row["role"] == "chunk").unwrap());
    })
}

type Lie = (&'static str, Box<dyn Fn(&mut Value)>);

/// Statements that no manifest may make. kbackup does not read further in such a manifest.
fn lies() -> Vec<Lie> {
    let mut lies: Vec<Lie> = Vec::new();
    for path in [
        "../outside",
        "db/../../outside",
        "db/..",
        "/etc/passwd",
        "db//x",
        "db/./x",
        "db/a\0b",
        "db/a\nb",
        "db/\u{1b}[2Jx",
        "db/a\\b",
        "c:/x",
        "",
        "db",
        "outside/x",
    ] {
        lies.push(("a path", row(move |row| row["path"] = json!(path))));
    }

    lies.push((
        "a long name",
        row(|row| row["path"] = json!(format!("db/{}", "x".repeat(300)))),
    ));
    lies.push((
        "a deep path",
        row(|row| row["path"] = json!(format!("db{}", "/x".repeat(100)))),
    ));

    for value in [
        json!(-1),
        json!(1.5),
        json!(1e300),
        json!("12"),
        json!(null),
        json!([]),
    ] {
        let size = value.clone();
        lies.push(("a size", row(move |row| row["size"] = size.clone())));
        lies.push((
            "a position",
            Box::new(move |manifest| manifest["log"]["position"] = value.clone()),
        ));
    }

    lies.push((
        "a position beyond 2^63",
        Box::new(|manifest| manifest["log"]["position"] = json!(u64::MAX)),
    ));
    lies.push(("a mode", row(|row| row["mode"] = json!(1_u64 << 40))));
    lies.push((
        "a time",
        row(|row| row["modified"] = json!("999999-01-01T00:00:00Z")),
    ));
    lies.push(("a hash", row(|row| row["blake3"] = json!("00"))));
    lies.push(("a role", row(|row| row["role"] = json!("device"))));
    lies.push((
        "a label",
        Box::new(|manifest| manifest["label"] = json!("../../x")),
    ));
    lies.push((
        "another label",
        Box::new(|manifest| manifest["label"] = json!("20200101T000000Z-full")),
    ));
    lies.push((
        "a parent",
        Box::new(|manifest| manifest["parent"] = json!("/")),
    ));
    lies.push((
        "a damaged path",
        Box::new(|manifest| manifest["contents"]["damaged"] = json!(["db/../x"])),
    ));

    lies.push((
        "two rows",
        Box::new(|manifest| {
            let row = manifest["files"][0].clone();
            manifest["files"].as_array_mut().unwrap().push(row);
        }),
    ));
    lies.push((
        "names that differ in case",
        Box::new(|manifest| {
            let rows = manifest["files"].as_array_mut().unwrap();
            let chunk = rows.iter().find(|row| row["role"] == "chunk").unwrap();
            let upper_case = chunk["path"].as_str().unwrap().replace("chunk", "CHUNK");

            let mut row = chunk.clone();
            row["path"] = json!(upper_case);
            rows.push(row);
        }),
    ));

    lies
}

/// A sequence number that leaves no number for the next backup stops that backup. The error says
/// what to do.
#[test]
fn a_forged_sequence_number_is_not_reported_as_another_run() {
    let forgery = Forgery::new();
    forgery.forge(|manifest| manifest["sequence"] = u64::MAX.into());

    let error = forgery.bench.take().unwrap_err();
    assert_eq!(error.kind(), Kind::StoredCorrupt, "{error}");
    let hints = error.hints().concat();
    assert!(
        error.what().contains("sequence number")
            && hints.contains(&format!("`backups/{}`", forgery.label)),
        "{error} {hints}"
    );

    let (place, label) = (
        PathBuf::from(forgery.bench.repository.place()),
        forgery.label.as_str(),
    );
    std::fs::rename(
        place.join("backups").join(label),
        forgery.bench.path("forged"),
    )
    .unwrap();

    forgery.bench.take().unwrap();
}

#[test]
fn a_forged_manifest_is_refused_everywhere() {
    let forgery = Forgery::new();
    for (what, lie) in lies() {
        forgery.forge(lie);

        let place = forgery.bench.path("");
        let before = names(&place);
        let error = forgery
            .bench
            .repository
            .manifest(&forgery.label)
            .unwrap_err();
        assert_eq!(error.kind(), Kind::StoredCorrupt, "{what}: {error}");
        assert!(
            !error.causes().is_empty() && error.causes().iter().all(|cause| cause.len() < 1500),
            "{what}: {error:?}"
        );

        let listed = forgery.bench.repository.list().unwrap();
        assert_eq!(listed.len(), 1, "{what}");
        let error = forgery.restore(&forgery.bench.path("target")).unwrap_err();
        assert_eq!(error.kind(), Kind::StoredCorrupt, "{what}: {error}");
        assert_eq!(names(&place), before, "{what}: something was written");

        let report = verify(
            &forgery.bench.repository,
            &Which::All,
            Depth::Normal,
            &run(),
        )
        .unwrap();
        assert!(!report.is_sound(), "{what}");
    }
    // The next backup succeeds, and it reuses nothing of the forged one.

    let summary = forgery.bench.take().unwrap();
    assert_eq!((summary.parent, summary.files_linked), (None, 0));
}

/// kbackup can read these rows, but no restore may follow them.
#[test]
fn a_row_that_contradicts_its_path_is_not_restored() {
    let forgery = Forgery::new();
    let renamed = |path: &'static str| chunk_row(move |row| row["path"] = json!(path));
    let lies: Vec<Lie> = vec![
        (
            "a checkpoint that calls itself a chunk",
            Box::new(|manifest| {
                let rows = manifest["files"].as_array_mut().unwrap();
                rows.iter_mut()
                    .find(|row| row["path"] == "db/writer.chk")
                    .unwrap()["role"] = json!("chunk");
            }),
        ),
        ("a file that no server has", renamed("db/authorized_keys")),
        (
            "the guard file of a restore",
            renamed("db/kbackup-restore.json"),
        ),
        (
            "an index inside of the db directory",
            renamed("db/index/indexmap"),
        ),
        (
            "a file where a directory is needed",
            renamed("index/stream-existence"),
        ),
        (
            "a size beyond every disk",
            chunk_row(|row| row["size"] = json!(u64::MAX)),
        ),
        (
            "a size that overflows in sums",
            Box::new(|manifest| {
                for row in manifest["files"].as_array_mut().unwrap() {
                    row["size"] = json!(1_u64 << 63);
                }
            }),
        ),
    ];

    for (what, lie) in lies {
        forgery.forge(lie);
        let manifest = forgery.bench.repository.manifest(&forgery.label).unwrap();

        let target = forgery.bench.path("target");
        let error = forgery.restore(&target).unwrap_err();
        let expected = if what.starts_with("a size") {
            Kind::Refused
        } else {
            Kind::StoredCorrupt
        };
        assert_eq!(
            error.kind(),
            expected,
            "{what}: {error} {:?}",
            error.causes()
        );
        assert!(
            !target.exists() || start(&target, &manifest) == Start::Refused,
            "{what}"
        );

        let report = verify(&forgery.bench.repository, &Which::All, Depth::Quick, &run()).unwrap();
        assert!(!report.is_sound(), "{what}");
        if target.exists() {
            std::fs::remove_dir_all(&target).unwrap();
        }
    }
}

/// The output of a process, its exit code, its peak memory in bytes, and its duration.
struct Ended {
    code: Option<i32>,
    said: String,
    peak: u64,
    took: Duration,
}

fn watched(command: &mut Command) -> Ended {
    let begun = Instant::now();
    let output = workplace();
    let (out, err) = (output.path().join("out"), output.path().join("err"));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&out).unwrap())
        .stderr(std::fs::File::create(&err).unwrap())
        .spawn()
        .unwrap();

    let mut peak = 0;
    let code = loop {
        peak = peak.max(peak_memory(child.id()).unwrap_or(0));
        if let Some(ended) = child.try_wait().unwrap() {
            break ended.code();
        }
        if begun.elapsed() > Duration::from_secs(super::amount(60, 900) as u64) {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(1));
    };

    Ended {
        code,
        said: lossy_text(&out) + &lossy_text(&err),
        peak,
        took: begun.elapsed(),
    }
}

/// The good manifest with so many rows that they take this many bytes.
fn with_many_rows(good: &Value, bytes: usize) -> String {
    let mut row = good["files"][0].clone();
    let (mut text, mut number) = (String::new(), 0);
    while text.len() < bytes {
        row["path"] = json!(format!("db/{number}"));
        let _ = write!(text, "{row},");
        number += 1;
    }

    let mut manifest = good.clone();
    manifest["files"] = json!("ROWS");
    let rows = format!("[{}]", text.trim_end_matches(','));
    manifest.to_string().replace("\"ROWS\"", &rows)
}

#[test]
fn a_huge_manifest_takes_bounded_memory() {
    let forgery = Forgery::new();
    let megabytes = super::amount(3, 480);
    let bytes = megabytes << 20;
    let good = serde_json::to_string(&forgery.good).unwrap();
    let with = |extra: &str| good.replacen('{', &format!("{{{extra},"), 1);
    type Monster<'a> = (&'a str, Box<dyn Fn() -> String + 'a>, Option<i32>);
    let monsters: Vec<Monster<'_>> = vec![
        (
            "rows",
            Box::new(|| sealed(&with_many_rows(&forgery.good, bytes))),
            None,
        ),
        (
            "nesting",
            Box::new(|| {
                sealed(&with(&format!(
                    "\"x\": {}{}",
                    "[".repeat(bytes / 2),
                    "]".repeat(bytes / 2)
                )))
            }),
            None,
        ),
        (
            "a string",
            Box::new(|| sealed(&with(&format!("\"x\": \"{}\"", "x".repeat(bytes))))),
            None,
        ),
        (
            "a string where a number belongs",
            Box::new(|| {
                sealed(&good.replacen(
                    "\"branch\":1",
                    &format!(
                        "\"branch\":\"{}\"",
                        "\u{1b}".repeat(10) + &"x".repeat(bytes)
                    ),
                    1,
                ))
            }),
            None,
        ),
        (
            "a path",
            Box::new(|| {
                sealed(&good.replacen(
                    "\"db/chaser.chk\"",
                    &format!("\"db/{}\"", "x".repeat(bytes)),
                    1,
                ))
            }),
            Some(20),
        ),
        (
            "damaged paths",
            Box::new(|| {
                sealed(&good.replacen(
                    "\"damaged\":[]",
                    &format!("\"damaged\":[{}\"db/a\"]", "\"db/a\",".repeat(bytes / 7)),
                    1,
                ))
            }),
            Some(20),
        ),
    ];

    for (what, monster, code) in monsters {
        forgery.write(&monster());
        for verb in ["list", "show", "verify"] {
            let mut command = kbackup();
            let ended = watched(
                command
                    .args([verb, "--repo"])
                    .arg(forgery.bench.repository.place()),
            );

            println!(
                "{what}, {megabytes} MiB, {verb}: {} MiB, {:?}",
                ended.peak >> 20,
                ended.took
            );
            assert!(ended.code.is_some(), "{what}: {verb} does not end");
            // A list reads only the head of each manifest.

            let code = code.filter(|_| verb != "list" || what != "a path");
            assert!(
                code.is_none() || ended.code == code,
                "{what}: {verb} ends with {:?}: {:.500}",
                ended.code,
                ended.said
            );
            assert!(
                ended.peak < (64 << 20) + 6 * bytes as u64,
                "{what}: {verb} took {} MiB",
                ended.peak >> 20
            );
            assert!(
                code.is_none() || ended.said.len() < 10_000,
                "{what}: {verb} says {} bytes",
                ended.said.len()
            );
            assert!(
                !ended.said.contains('\u{1b}'),
                "{what}: {verb} prints control characters"
            );
        }
    }

    // kbackup does not even read ten gigabytes.
    forgery.write("{");
    std::fs::File::options()
        .write(true)
        .open(Forgery::path(&forgery.bench, &forgery.label))
        .unwrap()
        .set_len(10 << 30)
        .unwrap();

    for verb in ["list", "show", "verify", "restore"] {
        let mut command = kbackup();
        command
            .args([verb, "--repo"])
            .arg(forgery.bench.repository.place());
        if verb == "restore" {
            command.arg("--to").arg(forgery.bench.path("target"));
        }

        let ended = watched(&mut command);
        assert_eq!(ended.code, Some(20), "{verb}: {}", ended.said);
        assert!(
            ended.peak < 64 << 20,
            "{verb} took {} MiB",
            ended.peak >> 20
        );
    }
}

#[test]
fn a_manifest_sends_no_control_characters_to_the_terminal() {
    let forgery = Forgery::new();
    forgery.forge(|manifest| {
        manifest["source"]["server_version"] = json!("26.1\u{1b}]0;owned\u{7}\u{9b}2J");
    });

    let output = kbackup()
        .args(["show", "--repo"])
        .arg(forgery.bench.repository.place())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("26.1"), "{said}");

    assert!(
        !said
            .chars()
            .any(|character| character.is_control() && character != '\n'),
        "{said:?}"
    );
}

/// What an attacker puts in the place of a file or a directory.
const PLANTS: [&str; 5] = [
    "pipe",
    "link to a file",
    "link to a directory",
    "socket",
    "directory",
];

fn plant(what: &str, path: &Path, outside: &Path) {
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.is_dir()) {
        std::fs::rename(path, outside.join("moved")).unwrap();
    } else {
        let _ = std::fs::remove_file(path);
    }

    match what {
        "pipe" => assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
        "link to a file" => symlink(outside.join("precious"), path).unwrap(),
        "link to a directory" => symlink(outside.join("directory"), path).unwrap(),
        "socket" => drop(std::os::unix::net::UnixListener::bind(path).unwrap()),
        _ => std::fs::create_dir(path).unwrap(),
    }
}

#[test]
fn planted_links_and_pipes_are_neither_followed_nor_waited_for() {
    let bench = Bench::new(&Synthetic {
        completed_chunks: 1,
        active_bytes: 5000,
        ..small()
    });
    let label = bench.full().unwrap().label;
    let backup = format!("repository/backups/{label}");
    let places = [
        "repository/kbackup.json".to_owned(),
        "repository/backups".to_owned(),
        backup.clone(),
        format!("{backup}/manifest.json"),
        format!("{backup}/db"),
        format!("{backup}/db/chunk-000000.000000"),
        format!("{backup}/index/indexmap"),
        "repository/incoming".to_owned(),
        "repository/incoming/x".to_owned(),
        "repository/state".to_owned(),
        "repository/state/lock".to_owned(),
        format!("repository/state/verified-{label}"),
        "db/chunk-000000.000000".to_owned(),
        "db/chunk-000001.000000".to_owned(),
        "db/writer.chk".to_owned(),
        "db/epoch.chk".to_owned(),
        "db/index".to_owned(),
        "db/index/indexmap".to_owned(),
        "target".to_owned(),
        "target/chunk-000000.000000".to_owned(),
        "target/index".to_owned(),
        "state".to_owned(),
    ];

    let verbs = [
        "list --repo repository",
        "verify --repo repository --all",
        "restore --repo repository --to target",
        "diff --repo repository --offline --db db",
        "check db",
        "release",
    ];

    let everything = super::amount(0, 1) == 1;
    for (index, place) in places.iter().enumerate() {
        for (number, what) in PLANTS.iter().enumerate() {
            // The short form plants a pipe and one other thing at each place.
            if !everything && number != 0 && number != 1 + index % 4 {
                continue;
            }

            let copy = workplace();
            let top = copy.path().join("top");
            crate::backup::bench::copy_tree(&bench.path(""), &top);
            let outside = copy.path().join("outside");
            std::fs::create_dir_all(outside.join("directory")).unwrap();
            std::fs::write(outside.join("precious"), b"precious").unwrap();
            std::fs::write(outside.join("directory/precious"), b"precious").unwrap();
            std::fs::create_dir_all(top.join(place).parent().unwrap()).unwrap();
            plant(what, &top.join(place), &outside);

            let before = names(&outside);

            for verb in verbs {
                // The operator may name a link. Only the entries below it may not be links.
                let leads_out =
                    *what == "link to a directory" && ["target", "state"].contains(&place.as_str());
                let mut command = kbackup();
                command
                    .current_dir(&top)
                    .env("KBACKUP_STATE_DIR", top.join("state"))
                    .args(verb.split(' '));
                let ended = watched(&mut command);
                let scene = format!(
                    "{what} at {place}, {verb}: {:?} after {:?}\n{}",
                    ended.code, ended.took, ended.said
                );

                assert!(ended.code.is_some_and(|code| code != 101), "{scene}");
                assert!(ended.took < Duration::from_secs(60), "{scene}");
                assert!(
                    ended.code == Some(0)
                        || ended.code == Some(3)
                        || ended.said.contains("error: ")
                        || ended.code == Some(20),
                    "{scene}"
                );

                if !leads_out {
                    assert_eq!(names(&outside), before, "{scene}");
                }
                assert_eq!(
                    std::fs::read(outside.join("precious")).unwrap(),
                    b"precious",
                    "{scene}"
                );
            }
        }
    }
}

fn brief(url: &str) -> Connection {
    let limits = TimeLimits {
        connect: Duration::from_secs(1),
        answer: Duration::from_millis(700),
        patience: Duration::from_millis(1500),
    };
    Connection {
        limits,
        ..Connection::new(url)
    }
}

#[test]
fn an_answer_of_the_node_takes_bounded_time_and_memory() {
    let long = "x".repeat(5 << 20);
    let header = |name: &str, value: &str| {
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{name}: {value}\r\n")
    };
    let raw = |head: String, body: &[u8]| {
        Answer::Raw(
            [
                head.as_bytes(),
                format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes(),
                body,
            ]
            .concat(),
        )
    };

    let bomb = Command::new("sh")
        .args(["-c", "head -c 100000000 /dev/zero | gzip -c"])
        .output()
        .unwrap()
        .stdout;
    assert!(bomb.len() > 1000 && bomb.len() < 1 << 20);

    let answers: Vec<(&str, Answer, Kind)> = vec![
        ("drip", Answer::Drip, Kind::Unreachable),
        ("headers", Answer::Headers, Kind::Unreachable),
        ("endless", Answer::Endless, Kind::Failed),
        (
            "a gzip bomb",
            raw(header("Content-Encoding", "gzip"), &bomb),
            Kind::Failed,
        ),
        (
            "a length beyond 2^63",
            Answer::Raw((header("Content-Length", "99999999999999999999") + "\r\n{}").into_bytes()),
            Kind::Unreachable,
        ),
        ("nesting", Answer::json("[".repeat(1 << 20)), Kind::Failed),
        (
            "nesting of an object",
            Answer::json(format!("{{\"dbVersion\":{}", "[".repeat(1 << 20))),
            Kind::Failed,
        ),
        (
            "no UTF-8",
            raw(header("X", "y"), b"{\"dbVersion\":\"\xff\xfe\"}"),
            Kind::Failed,
        ),
        (
            "a long string where none belongs",
            Answer::json(format!("\"\u{1b}[2J{long}\"")),
            Kind::Failed,
        ),
        (
            "a long reason",
            Answer::text(500, &format!("\u{1b}[2J{long}")),
            Kind::Failed,
        ),
        (
            "chunks without end",
            Answer::Raw(
                (header("Transfer-Encoding", "chunked") + "\r\nffffffffffffffff\r\n").into_bytes(),
            ),
            Kind::Unreachable,
        ),
    ];

    for (what, answer, kind) in answers {
        let server = Server::start(move |_| answer.clone());
        let begun = Instant::now();
        let error = Client::new(&brief(&server.url))
            .unwrap()
            .info(Patience::of(&run()))
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{what}: {error} {:?}", error.causes());

        assert!(
            begun.elapsed() < Duration::from_secs(6),
            "{what} took {:?}",
            begun.elapsed()
        );

        let text = format!("{error} {:?} {:?}", error.causes().join(" "), error.hints());
        assert!(text.len() < 3000, "{what}: {} bytes of words", text.len());
        assert!(
            !error.causes().iter().any(|cause| cause.contains('\u{1b}')),
            "{what}: {text:?}"
        );
    }
}

/// The next run reads the release record again. A very long id would make the record unreadable.
#[test]
fn an_overlong_scavenge_id_is_refused() {
    let server =
        Server::start(|_| Answer::json(format!("{{\"scavengeId\":\"{}\"}}", "x".repeat(100_000))));
    let client = Client::new(&brief(&server.url)).unwrap();
    let error = client.current_scavenge(Patience::of(&run())).unwrap_err();
    assert_eq!(error.kind(), Kind::Failed, "{error}");
}

#[test]
fn credentials_are_sent_to_no_other_host() {
    for location in [
        "http://ELSEWHERE/info",
        "//ELSEWHERE/info",
        "http://user:pass@ELSEWHERE/",
        "http://127.0.0.1@ELSEWHERE/",
    ] {
        let elsewhere = Server::start(|_| Answer::json("{}"));
        let location = location.replace("ELSEWHERE", elsewhere.url.trim_start_matches("http://"));
        let server = Server::start(move |_| Answer::status(302).with_header("Location", &location));

        let credentials = Some(Credentials::Basic {
            user: "ops".to_owned(),
            password: "hunter2".into(),
        });

        let error = Client::new(&Connection {
            credentials,
            ..brief(&server.url)
        })
        .unwrap()
        .info(Patience::of(&run()))
        .unwrap_err();
        assert_eq!(error.kind(), Kind::Refused);

        assert!(elsewhere.heard().is_empty());
        let text = format!("{error:?}");
        assert!(
            !text.contains("hunter2") && !text.contains("user:pass"),
            "{text}"
        );
    }
}

/// Each secret in clear text and in base64.
const SECRETS: [&str; 4] = [
    "correct-hunter2",
    "wrong-hunter2",
    "b3BzOmNvcnJlY3QtaHVudGVyMg",
    "b3BzOndyb25nLWh1bnRlcjI",
];

#[test]
fn secrets_appear_in_no_output_and_no_file() {
    let site = NodeSite::new("26.1-append");
    site.node.change_quirks(|quirks| {
        quirks.credentials = Some(kbackup_testnode::Credentials::operator(
            "ops",
            "correct-hunter2",
        ));
    });
    let place: &Place = &site.place;

    std::fs::create_dir(place.path("secrets")).unwrap();
    for name in ["correct", "wrong"] {
        place.write(&format!("secrets/{name}"), &format!("{name}-hunter2\n"));
        // An orchestrator mounts its secrets as links.
        symlink(place.path(&format!("secrets/{name}")), place.path(name)).unwrap();
    }

    let login = "--node URL --user ops --password-file correct";
    let lines = [
        (format!("full --repo repo {login}"), 0),
        (format!("diff --repo repo {login}"), 0),
        ("diff --repo repo --node URL --user ops --password-file wrong".to_owned(), 12),
        ("diff --repo repo --node URL --token-file wrong".to_owned(), 12),
        (format!("full --repo repo {login} --node-server-name elsewhere.invalid --db missing"), 2),
        ("full --repo repo --node http://127.0.0.1:1 --node-patience 1s --user ops --password-file correct".to_owned(), 13),
        ("full --repo repo --node http://ops:correct-hunter2@127.0.0.1:1".to_owned(), 2),
        ("full --repo repo --node http://correct-hunter2@127.0.0.1:1".to_owned(), 2),
        ("full --repo repo --node https://ops:correct-hunter2@[bad".to_owned(), 2),
        ("list --repo repo".to_owned(), 0),
        ("show --repo repo --files".to_owned(), 0),
        ("verify --repo repo --all".to_owned(), 0),
        ("restore --repo repo --to target".to_owned(), 0),
        ("check target".to_owned(), 0),
        (format!("release {login}"), 0),
        ("release --node http://ops:correct-hunter2@127.0.0.1:1".to_owned(), 2),
    ];

    let mut codes = Vec::new();
    for (index, (line, code)) in lines.iter().enumerate() {
        for how in ["--log debug", "--log debug --log-format json --json"] {
            if how.contains("json") && line.starts_with("restore") {
                std::fs::remove_dir_all(place.path("target")).unwrap();
            }
            let output = place
                .kbackup(&site.line(&format!("{line} {how}")))
                .output()
                .unwrap();
            let said = format!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );

            for secret in SECRETS {
                assert!(!said.contains(secret), "{line} {how}: {said}");
            }

            codes.push((
                index,
                output.status.code() == Some(*code)
                    || (*code == 0 && output.status.code() == Some(3)),
            ));
            assert!(
                codes.last().unwrap().1 || *code == 2,
                "{line} {how} ends with {:?}: {said}",
                output.status.code()
            );
        }
    }

    for directory in ["repo", "state", "target"] {
        for entry in walkdir::WalkDir::new(place.path(directory)) {
            let Ok(entry) = entry else { continue };
            if !entry.file_type().is_file() {
                continue;
            }

            let bytes = std::fs::read(entry.path()).unwrap();
            for secret in SECRETS {
                assert!(
                    !bytes
                        .windows(secret.len())
                        .any(|window| window == secret.as_bytes()),
                    "{}",
                    entry.path().display()
                );
            }
        }
    }

    let settings = kbackup::settings::resolve(
        [
            "kbackup",
            "full",
            "--repo",
            "repo",
            "--node",
            "http://ops:correct-hunter2@node:2113",
        ]
        .map(Into::into),
    );
    let shown = settings.map_or_else(|_| String::new(), |settings| format!("{settings:?}"));
    assert!(
        shown.contains("node:2113") && !shown.contains("hunter2"),
        "{shown}"
    );
}

fn mode(path: &Path) -> u32 {
    let found = std::fs::symlink_metadata(path).unwrap();
    found.permissions().mode() & 0o7777
}

#[test]
fn files_are_as_private_as_their_purpose_allows() {
    for umask in ["000", "027", "077"] {
        let site = NodeSite::new("26.1-append");
        let place = &site.place;
        let run = |line: &str| {
            let line = site.line(line);
            let mut command = Command::new("sh");
            command.args([
                "-c",
                &format!("umask {umask}; exec \"$0\" $1"),
                executable::PATH,
                &line,
            ]);
            let output = command
                .env_clear()
                .envs(executable::ENVIRONMENT)
                .env("KBACKUP_STATE_DIR", place.path("state"))
                .current_dir(place.path(""))
                .output()
                .unwrap();
            assert!(
                matches!(output.status.code(), Some(0 | 3)),
                "{line}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        };

        run("full --repo above/repo --node URL");
        run("diff --repo above/repo --node URL");
        run("verify --repo above/repo");
        run("restore --repo above/repo --to new/target");

        for directory in ["above/repo", "state"] {
            for entry in walkdir::WalkDir::new(place.path(directory)) {
                let entry = entry.unwrap();
                let (path, found) = (entry.path(), mode(entry.path()));
                // A file of the server keeps its mode, for a restore by hand. The directories
                // around it let only their owner in.
                let servers = path
                    .components()
                    .any(|part| part.as_os_str() == "db" || part.as_os_str() == "index")
                    && entry.file_type().is_file();
                let expected = if entry.file_type().is_dir() {
                    found == 0o700
                } else {
                    servers || found == 0o600
                };

                assert!(expected, "umask {umask}: {} has {found:o}", path.display());
                assert_eq!(
                    found & 0o7022,
                    0,
                    "umask {umask}: {} has {found:o}",
                    path.display()
                );
            }
        }

        for entry in walkdir::WalkDir::new(place.path("new/target")) {
            let entry = entry.unwrap();
            let found = mode(entry.path());
            let allowed = if entry.file_type().is_dir() {
                0o750
            } else {
                0o644
            };

            assert_eq!(
                found & !allowed,
                0,
                "umask {umask}: {} has {found:o}",
                entry.path().display()
            );
            assert_ne!(
                found & 0o400,
                0,
                "umask {umask}: the owner cannot read {}",
                entry.path().display()
            );
        }
    }
}
