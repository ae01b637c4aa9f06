//! The executable over `object+file://`, as an operator uses it, and killed at any request and at any
//! moment.

use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use kbackup::manifest::Label;
use kbackup::repository::{Location, Repository};
use kbackup_testnode::Synthetic;

use super::{assert_sound, labels};
use crate::backup::bench::{Bench, small};
use crate::cli::NodeSite;
use crate::executable;
use crate::torture::subject::{argument, is_well, kbackup, text};
use crate::torture::{Chance, amount, seed};

/// A directory that is used like an object store, below the place of a test.
fn url(directory: &Path) -> String {
    std::fs::create_dir_all(directory).unwrap();
    format!("object+file://{}", directory.display())
}

fn opened(url: &str) -> Option<Box<dyn Repository>> {
    let location = Location::parse(Path::new(url)).unwrap();
    location.open_if_there().unwrap()
}

fn listed(url: &str) -> Vec<Label> {
    opened(url).map_or_else(Vec::new, |repository| labels(&*repository))
}

fn assert_restores(bench: &Bench, url: &str, label: &Label, what: &str) {
    let target = bench.path("restored");
    let restore = ["restore", label.as_str(), "--repo", url, "--to"];
    let line = [&restore[..], &[argument(&target)]].concat();
    let output = kbackup(&line, None);
    assert!(is_well(&output), "{what}: {}", text(&output));
    let output = kbackup(&["check", argument(&target), "--deep"], None);
    assert!(is_well(&output), "{what}: {}", text(&output));
    std::fs::remove_dir_all(target).unwrap();
}

#[test]
fn every_verb_works_on_objects() {
    let site = NodeSite::new("26.1-append");
    let url = url(&site.place.path("objects"));
    let run = |line: &str| {
        let line = site.line(&line.replace("REPO", &url));
        let output = site.place.kbackup(&line).output().unwrap();
        assert!(
            matches!(output.status.code(), Some(0 | 3)),
            "{line}: {:?} {}",
            output.status,
            text(&output)
        );
        String::from_utf8(output.stdout).unwrap()
    };

    run("init --repo REPO");
    run("full --repo REPO --node URL");
    site.advance(600);
    run("diff --repo REPO --node URL");
    run("diff --repo REPO --node URL --json");
    let labels = listed(&url);
    assert_eq!(labels.len(), 3);
    let text = run("list --repo REPO");
    labels
        .iter()
        .for_each(|label| assert!(text.contains(label.as_str())));
    let json: serde_json::Value = serde_json::from_str(&run("list --repo REPO --json")).unwrap();
    assert_eq!(json["backups"].as_array().unwrap().len(), 3);
    assert!(run("show --repo REPO").contains(labels[2].as_str()));
    run("show --repo REPO --files");
    run("verify --repo REPO --all --deep");
    for label in &labels {
        run(&format!(
            "restore {label} --repo REPO --to restored-{label}"
        ));
        run(&format!("check restored-{label} --deep"));
    }

    run("expire --repo REPO --keep-last 1 --dry-run");
    assert_eq!(listed(&url).len(), 3);
    run("expire --repo REPO --keep-last 1 --confirm");
    assert_eq!(listed(&url), labels[2..]);
    run("verify --repo REPO --all --deep");
    run("diff --repo REPO --node URL");
    assert_sound(&*opened(&url).unwrap(), "the end");
}

#[test]
fn a_process_that_is_killed_at_any_request_is_never_listed_incomplete() {
    let bench = Bench::new(&Synthetic {
        completed_chunks: 2,
        ..small()
    });
    let mut chance = Chance::new(seed());
    let mut deaths = 0;
    for (verb, effect) in [
        ("full", "abort"),
        ("full", "abort-after"),
        ("diff", "abort"),
        ("diff", "abort-after"),
    ] {
        let url = url(&bench.path(&format!("{verb}-{effect}")));
        let line = [
            verb,
            "--offline",
            "--db",
            argument(&bench.db),
            "--repo",
            &url,
        ];
        let next_diff_works = |before: &[Label], what: &str| {
            let init = kbackup(&["init", "--repo", &url], None);
            assert!(is_well(&init), "{what}: {}", text(&init));
            let diff = [
                "diff",
                "--offline",
                "--db",
                argument(&bench.db),
                "--repo",
                &url,
            ];
            let output = kbackup(&diff, None);
            assert!(is_well(&output), "{what}: {}", text(&output));
            let after = listed(&url);
            assert!(
                after.starts_with(before) && after.len() == before.len() + 1,
                "{what}"
            );
        };

        let (mut count, mut alive, mut before) = (1, false, Vec::new());
        while !alive {
            let what = format!("{verb} {effect} {count}");
            let fault = format!("request::{count}:{effect}");
            alive = is_well(&kbackup(&line, Some(&fault)));
            deaths += usize::from(!alive);

            let after = listed(&url);
            assert!(
                after.starts_with(&before),
                "{what}: an earlier backup is gone"
            );
            assert!(after.len() <= before.len() + 1, "{what}: {after:?}");
            if after.len() > before.len() || chance.below(4) == 0 {
                opened(&url)
                    .iter()
                    .for_each(|found| assert_sound(&**found, &what));
            }
            before = after;
            if !alive && chance.below(4) == 0 {
                next_diff_works(&before, &what);
                before = listed(&url);
            }
            count = chance.next_moment(count, 12);
        }
        assert!(count > 2, "no request was seen");
        next_diff_works(&before, "end");
        let newest = listed(&url).pop().unwrap();
        assert_restores(&bench, &url, &newest, "end");
        assert_sound(&*opened(&url).unwrap(), "end");
    }
    println!("{deaths} deaths at a request");
}

#[test]
fn a_kill_at_any_moment_leaves_whole_backups() {
    let bench = Bench::new(&Synthetic {
        completed_chunks: 2,
        ..small()
    });
    let url = url(&bench.path("objects"));
    let line = |verb| {
        let line = [
            verb,
            "--offline",
            "--db",
            argument(&bench.db),
            "--repo",
            &url,
        ];
        line.map(str::to_owned)
    };
    let begun = Instant::now();
    let first = executable::kbackup().args(line("full")).output().unwrap();
    assert!(is_well(&first), "{}", text(&first));
    let usual = begun.elapsed();

    let mut chance = Chance::new(seed());
    let (mut kills, mut what) = (0, String::new());
    let wanted = amount(12, 500);
    while kills < wanted {
        let before = listed(&url);
        let verb = *chance.of(&["full", "diff", "diff", "expire"]);
        let line = match verb {
            "expire" => ["expire", "--keep-last", "3", "--confirm", "--repo", &url]
                .map(str::to_owned)
                .to_vec(),
            verb => line(verb).to_vec(),
        };
        let after = usual * u32::try_from(chance.below(1200)).unwrap() / 1000;
        what = format!("{what}; {verb} {after:?}");
        let mut child = executable::kbackup()
            .args(&line)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Any moment is a right one, so this depends on no time.
        std::thread::sleep(after);
        let is_over = child.try_wait().unwrap().is_some();
        child.kill().unwrap();
        child.wait().unwrap();
        kills += usize::from(!is_over);

        let now = listed(&url);
        match verb {
            "expire" => assert!(before.ends_with(&now) && !now.is_empty(), "{what}: {now:?}"),
            _ => assert!(now.starts_with(&before), "{what}: {now:?}"),
        }
        if chance.below(4) == 0 {
            assert_sound(&*opened(&url).unwrap(), &what);
        }
        bench.append(500 + chance.below(3000));
    }
    assert!(
        kbackup(
            &[
                "diff",
                "--offline",
                "--db",
                argument(&bench.db),
                "--repo",
                &url
            ],
            None
        )
        .status
        .success()
    );
    assert_sound(&*opened(&url).unwrap(), &what);
    let newest = listed(&url).pop().unwrap();
    assert_restores(&bench, &url, &newest, &what);
}

/// Objects that decode to gigabytes. The process has an address space of less.
#[test]
fn a_bomb_does_not_use_up_the_memory() {
    let bench = Bench::new(&small());
    let directory = bench.path("objects");
    let url = url(&directory);
    let full = [
        "full",
        "--offline",
        "--db",
        argument(&bench.db),
        "--repo",
        &url,
    ];
    for _ in 0..2 {
        assert!(is_well(&kbackup(&full, None)));
    }

    let mut bomb = Vec::new();
    let zeros = std::io::Read::take(std::io::repeat(0), 3 << 30);
    zstd::stream::copy_encode(zeros, &mut bomb, 1).unwrap();
    let mut objects: Vec<_> = walkdir::WalkDir::new(&directory)
        .into_iter()
        .map(|entry| entry.unwrap().into_path())
        .filter(|path| path.is_file() && !path.ends_with("repository"))
        .collect();
    objects.sort();
    let limited = |line: &[&str]| {
        let mut command = std::process::Command::new("sh");
        command
            .env_clear()
            .envs(executable::ENVIRONMENT)
            .env("MALLOC_ARENA_MAX", "2")
            .args([
                "-c",
                "ulimit -v 2500000; exec \"$@\"",
                "sh",
                executable::PATH,
            ])
            .args(line);
        command.output().unwrap()
    };

    let list = ["list", "--repo", &url];
    let verify = ["verify", "--all", "--repo", &url];
    for (harmed, line) in [
        ("sections", &verify[..]),
        ("sections", &full),
        ("data", &verify),
        ("backups", &list),
        ("catalog", &list),
    ] {
        let mut kept = Vec::new();
        for path in &objects {
            let name = path.strip_prefix(&directory).unwrap().to_str().unwrap();
            if name.starts_with(harmed) {
                kept.push((path, std::fs::read(path).unwrap()));
                std::fs::write(path, &bomb).unwrap();
            }
        }
        assert!(!kept.is_empty(), "{harmed}");

        let output = limited(line);
        assert!(
            matches!(output.status.code(), Some(0 | 3 | 20)),
            "{harmed}: {line:?}: {:?} {}",
            output.status,
            text(&output)
        );
        for (path, bytes) in kept {
            std::fs::write(path, bytes).unwrap();
        }
    }
}
