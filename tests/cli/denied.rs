//! Files that belong to another user: the exit code is 12, the message says whose they are, and
//! nobody calls them damaged or absent.
//!
//! Root ignores permission bits, so the command runs as another user. That needs root.

#![expect(clippy::print_stdout, reason = "a test says what it leaves out")]

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{NodeSite, Place};
use crate::executable;

/// A user without a name and without rights.
const SOMEBODY: u32 = 54_321;

/// A repository of another user, with three backups. The manifest of one of them is root's.
struct Foreign {
    site: NodeSite,
    program: PathBuf,
    /// Oldest first. The second one is root's.
    labels: Vec<String>,
}

impl Foreign {
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED: only root can run a command as another user");
            return None;
        }

        let site = NodeSite::new("24.10-append");
        let place = &site.place;
        for _ in 0..3 {
            place
                .kbackup(&site.line("full --repo repo --node URL"))
                .assert()
                .code(0);
        }
        let labels = place.listed();

        // The other user must be able to reach the executable and the node's files.
        let program = place.path("kbackup");
        std::fs::copy(executable::PATH, &program).unwrap();
        std::fs::create_dir(place.path("own-state")).unwrap();
        for directory in ["repo", "own-state"] {
            give(&place.path(directory), SOMEBODY);
        }
        set_modes(&place.path("node"), 0o755, 0o644);
        set_mode(&place.path(""), 0o755);
        let foreign = Self {
            site,
            program,
            labels,
        };
        give(&foreign.manifest(1), 0);
        set_mode(&foreign.manifest(1), 0o600);
        Some(foreign)
    }

    fn place(&self) -> &Place {
        &self.site.place
    }

    fn manifest(&self, number: usize) -> PathBuf {
        let label = self.labels.get(number).unwrap();
        self.place()
            .path("repo/backups")
            .join(label)
            .join("manifest.json")
    }

    /// Runs a command as the other user. Returns the exit code, and everything that it printed.
    fn run(&self, line: &str) -> (i32, String) {
        let output = Command::new(&self.program)
            .args(self.site.line(line).split_whitespace())
            .env_clear()
            .envs(executable::ENVIRONMENT)
            .env("KBACKUP_STATE_DIR", self.place().path("own-state"))
            .current_dir(self.place().path(""))
            .uid(SOMEBODY)
            .gid(SOMEBODY)
            .output()
            .unwrap();
        let text = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
        (output.status.code().unwrap(), text.concat())
    }

    /// Asserts that a command ends with 12 and says whose file it is.
    fn assert_denied(&self, line: &str) -> String {
        let (code, text) = self.run(line);
        assert_eq!(code, 12, "{line}: {text}");
        assert!(text.contains("belongs to root"), "{line}: {text}");
        assert!(!text.contains("damaged"), "{line}: {text}");
        assert!(!text.contains("DAMAGED"), "{line}: {text}");
        text
    }
}

fn give(path: &Path, user: u32) {
    for entry in walkdir::WalkDir::new(path) {
        chown(entry.unwrap().path(), Some(user), Some(user)).unwrap();
    }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn set_modes(top: &Path, directories: u32, files: u32) {
    for entry in walkdir::WalkDir::new(top) {
        let entry = entry.unwrap();
        let is_directory = entry.file_type().is_dir();
        set_mode(entry.path(), if is_directory { directories } else { files });
    }
}

#[test]
fn a_manifest_of_another_user_is_neither_damaged_nor_absent() {
    let Some(foreign) = Foreign::new() else {
        return;
    };
    let before = foreign.place().listed();

    for line in [
        "diff --repo repo --offline --db node/db",
        "full --repo repo --offline --db node/db",
        "expire --repo repo --keep-last 1 --confirm",
        "list --repo repo",
        &format!("show {} --repo repo", foreign.labels[1]),
        &format!("verify {} --repo repo", foreign.labels[1]),
    ] {
        foreign.assert_denied(line);
    }
    assert_eq!(foreign.place().listed(), before);

    let (code, text) = foreign.run("status --repo repo");
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("belongs to root"), "{text}");
    assert!(!text.contains("damaged"), "{text}");

    // Once the file is back, everything goes on where it was.
    give(&foreign.manifest(1), SOMEBODY);
    let (code, text) = foreign.run("list --repo repo");
    assert_eq!(code, 0, "{text}");
}

#[test]
fn the_newest_backup_of_another_user_is_not_passed_over_by_a_restore() {
    let Some(foreign) = Foreign::new() else {
        return;
    };
    give(&foreign.manifest(2), 0);
    set_mode(&foreign.manifest(2), 0o600);

    let (code, text) = foreign.run("restore --repo repo --to own-state/restored");
    assert_eq!(code, 12, "{text}");
    assert!(text.contains("belongs to root"), "{text}");
    assert!(text.contains(&foreign.labels[2]), "{text}");
    assert!(!foreign.place().path("own-state/restored").exists());
    foreign.assert_denied("verify --repo repo");
    foreign.assert_denied("show --repo repo");
}

#[test]
fn a_verification_goes_on_after_a_backup_that_it_cannot_read() {
    let Some(foreign) = Foreign::new() else {
        return;
    };

    let text = foreign.assert_denied("verify --repo repo --all");
    for number in [0, 2] {
        let intact = format!("{}: intact", foreign.labels[number]);
        assert!(text.contains(&intact), "{text}");
    }
    let unread = format!("{}: NOT READ", foreign.labels[1]);
    assert!(text.contains(&unread), "{text}");

    // Damage that is certain counts more.
    let chunk = foreign.manifest(2).with_file_name("db/chunk-000000.000000");
    super::errors::flip(&chunk, 1000);
    let (code, text) = foreign.run("verify --repo repo --all");
    assert_eq!(code, 20, "{text}");
    assert!(text.contains(&unread), "{text}");
}

/// A file that root alone may read, inside a backup.
#[test]
fn a_chunk_of_another_user_is_not_damaged() {
    let Some(foreign) = Foreign::new() else {
        return;
    };
    give(&foreign.manifest(1), SOMEBODY);
    let chunk = foreign.manifest(1).with_file_name("db/chunk-000000.000000");
    give(&chunk, 0);
    set_mode(&chunk, 0o600);

    let text = foreign.assert_denied("verify --repo repo --all");
    let unread = format!("{}: NOT READ", foreign.labels[1]);
    assert!(text.contains(&unread), "{text}");
}

/// What root writes into somebody else's repository, that user can read.
#[test]
fn a_verification_by_root_does_not_lock_the_owner_out() {
    let Some(foreign) = Foreign::new() else {
        return;
    };
    give(&foreign.manifest(1), SOMEBODY);
    foreign
        .place()
        .kbackup("verify --repo repo --all")
        .assert()
        .code(0);

    let (code, text) = foreign.run("list --repo repo");
    assert_eq!(code, 0, "{text}");
    let (code, text) = foreign.run("expire --repo repo --keep-last 2 --confirm");
    assert_eq!(code, 0, "{text}");
}
