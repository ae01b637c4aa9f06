//! The real executable, as an operator uses it: its answers, its refusals, and how it ends.

#![expect(clippy::unwrap_used, reason = "a test may end in a panic")]

mod answers;
mod archive;
mod copy;
mod denied;
mod documents;
pub(crate) mod errors;
mod hangs;
pub(crate) mod json;
pub(crate) mod kernel_hangs;
mod load;
mod missing_fields;
mod overlaps;
mod pauses;
mod places;
mod prune;
pub(crate) mod release;
mod scavenging;
mod settings;
mod signals;
mod status;
mod streams;

use std::fmt::Write;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use kbackup_testnode::{Mark, Node, Recording, Server, Synthetic, Version};

use crate::backup::bench::workplace;
use crate::executable;

/// More time than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory for everything that one operator does.
pub(crate) struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            directory: workplace(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().canonicalize().unwrap().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A `kbackup` command in this directory, without this machine's environment.
    pub(crate) fn kbackup(&self, line: &str) -> assert_cmd::Command {
        let mut command = assert_cmd::Command::new(executable::PATH);
        command
            .args(line.split_whitespace())
            .env_clear()
            .envs(executable::ENVIRONMENT)
            .env("KBACKUP_STATE_DIR", self.path("state"));
        command.current_dir(self.path("")).timeout(PATIENCE);
        command
    }

    /// The same, for a process that a test watches.
    pub(crate) fn process(&self, line: &str) -> std::process::Command {
        let mut command = executable::kbackup();
        command
            .args(line.split_whitespace())
            .env("KBACKUP_STATE_DIR", self.path("state"))
            .current_dir(self.path(""));
        command
    }

    /// Runs a command line, and writes down all its output.
    pub(crate) fn transcript(&self, line: &str) -> String {
        transcript(line, &mut self.kbackup(line))
    }

    /// The labels of the backups in the repository `repo`.
    pub(crate) fn listed(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.path("repo/backups")) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// The number of incomplete backups.
    pub(crate) fn unfinished(&self) -> usize {
        std::fs::read_dir(self.path("repo/incoming")).map_or(0, Iterator::count)
    }

    /// The number of release records.
    pub(crate) fn release_records(&self) -> usize {
        let Ok(entries) = std::fs::read_dir(self.path("state")) else {
            return 0;
        };
        entries
            .filter(|entry| {
                entry
                    .as_ref()
                    .unwrap()
                    .path()
                    .extension()
                    .is_some_and(|extension| extension == "json")
            })
            .count()
    }
}

/// A node that stays at a step of its recording, with its API, and a place to work in.
pub(crate) struct NodeSite {
    pub(crate) node: Node,
    pub(crate) server: Server,
    pub(crate) place: Place,
}

impl NodeSite {
    pub(crate) fn new(recording: &str) -> Self {
        let place = Place::new();
        let node = Node::start(Recording::named(recording).unwrap(), place.path("node")).unwrap();
        node.advance_to_mark(Mark::Ready).unwrap();
        let server = node.serve().unwrap();
        Self {
            node,
            server,
            place,
        }
    }

    /// A node of 24 MiB that does not change. A slow run over its many chunks can be interrupted in the
    /// middle.
    pub(crate) fn still() -> Self {
        let place = Place::new();
        Synthetic {
            filter_bytes: 10_000,
            ..Synthetic::of_size(24 << 20, 4 << 20)
        }
        .make(place.path("node"))
        .unwrap();
        let node = Node::still(Version::new(26, 1), place.path("node")).unwrap();
        let server = node.serve().unwrap();
        Self {
            node,
            server,
            place,
        }
    }

    /// The same, with a scavenge that outlasts every test.
    pub(crate) fn scavenging() -> Self {
        let site = Self::still();
        site.node
            .change_quirks(|quirks| quirks.scavenge_duration = Duration::from_secs(3600));
        site.node.start_scavenge(None).unwrap();
        site
    }

    /// A node with a repository that holds a full of it.
    pub(crate) fn backed_up(recording: &str) -> Self {
        let site = Self::new(recording);
        let line = site.line("full --repo repo --node URL");
        site.place.kbackup(&line).assert().code(0);
        site
    }

    pub(crate) fn advance(&self, steps: usize) {
        self.node.advance_to(self.node.step() + steps).unwrap();
    }

    /// Replaces `URL` by the node's address.
    pub(crate) fn line(&self, line: &str) -> String {
        line.replace("URL", &self.server.url())
    }

    pub(crate) fn transcript(&self, line: &str) -> String {
        self.place.transcript(&self.line(line))
    }

    /// Starts a process that runs beside the test.
    fn start(&self, line: &str) -> Child {
        self.place
            .process(&self.line(line))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

fn wait_until(what: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !what() {
        assert!(Instant::now() < end, "the condition does not become true");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn transcript(line: &str, command: &mut assert_cmd::Command) -> String {
    let output = command.output().unwrap();
    let mut text = format!(
        "$ kbackup {line}\nexit: {}\n",
        output.status.code().unwrap()
    );
    for (name, stream) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
        if !stream.is_empty() {
            let _ = write!(
                text,
                "--- {name}\n{}",
                String::from_utf8(stream.clone()).unwrap()
            );
        }
    }
    text
}

/// Runs `check` under filters for everything that differs from run to run.
pub(crate) fn stable(place: &Place, check: impl FnOnce()) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);

    let root = place.path("").display().to_string();
    settings.add_filter(root.trim_end_matches('/'), "[PLACE]");
    settings.add_filter(r"\d{8}T\d{6}Z-", "[TIME]-");
    settings.add_filter(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "[TIME]");
    settings.add_filter(r"127\.0\.0\.1:\d+", "[NODE]");
    settings.add_filter(
        r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        "[ID]",
    );

    settings.add_filter(r"after \d+ s", "after [SECONDS] s");
    settings.add_filter(r"given back after=.*", "given back after=[LENGTH]");
    settings.add_filter(r#""seconds": \d+"#, r#""seconds": "[SECONDS]""#);
    settings.add_filter(r"process \d+", "process [PID]");
    settings.add_filter(r"\d+ seconds?( ago| old)", "[AGE]$1");
    settings.add_filter(r"[\d.]+ \w+ free", "[FREE] free");
    settings.add_filter(r"by \S+ on \S+, process", "by [USER] on [HOST], process");
    settings.add_filter(r"\b\d+ s( +1 )", "[AGE]$1");
    settings.add_filter(r"/(dev/shm|tmp)/\.tmp\w+", "[ELSEWHERE]");

    settings.add_filter(r"\d{4}-\d\d-\d\d \d\d:\d\d", "[TIME]");
    settings.add_filter(
        r#""(bytes_needed|bytes_free|user|group)": \d+"#,
        r#""$1": "[NUMBER]""#,
    );
    settings.add_filter(r#""(user|group)_name": "[^"]*""#, r#""$1_name": "[NAME]""#);
    settings.add_filter(r#""set": (true|false)"#, r#""set": "[WHETHER]""#);
    settings.add_filter(r"owner: \d+:\d+", "owner: [OWNER]");
    settings.add_filter(
        r"space: .* needed, .* free",
        "space: [NEEDED] needed, [FREE] free",
    );

    // Other tests prove how much a backup reads.
    settings.add_filter(
        r"read (from the source +)?[\d.]+ (\w?i?B)( of the node)?",
        "read $1[BYTES]$3",
    );
    settings.add_filter(r#""bytes_read": \d+"#, r#""bytes_read": "[BYTES]""#);

    // The freed bytes depend on the file system. Other tests prove them.
    settings.add_filter(r"(frees?|freed) [\d.]+ (\w?i?B)", "$1 [BYTES]");
    settings.add_filter(r"goes +[\d.]+ (\w?i?B) *", "goes  [BYTES]");
    settings.add_filter(r"stays  +", "stays  ");
    settings.add_filter(r"FREES +WHY", "FREES  WHY");
    settings.add_filter(r#""(frees|freed)": \d+"#, r#""$1": "[BYTES]""#);

    settings.add_filter(r"attempt=\d+ of=\d+", "attempt=[N] of=[M]");
    settings.add_filter(r"\(kbackup-[0-9a-f]+\)", "([TEST])");

    // The tests see this line only without root.
    settings.add_filter(
        r"\[TIME\] +INFO \d+ process(es)? of other users could not be looked at\n",
        "",
    );

    settings.bind(check);
}

/// Snapshots of transcripts, each under its own name.
macro_rules! snapshots {
    ($place:expr, $($name:literal: $transcript:expr,)*) => {
        $crate::cli::stable(&$place, || {
            $(insta::assert_snapshot!($name, $transcript);)*
        })
    };
}
pub(crate) use snapshots;
