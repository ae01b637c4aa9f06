//! SIGKILL at any moment of any verb, while the node goes on.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use kbackup::manifest::Label;
use kbackup::proof::Depth;
use kbackup::server::ServerLine;
use kbackup_testnode::{AutoScavenge, AutoScavengeState, Mark, Speed};

use crate::cli::NodeSite;
use crate::torture::subject::{
    assert_complete, assert_everything_released, assert_guarded_or_complete, assert_on_record,
    assert_restores, assert_unlocked, listed, records,
};
use crate::torture::{Chance, amount, seed};

/// Nodes of all versions whose recording holds no restart.
const RECORDINGS: [&str; 14] = [
    "26.1-scavenge",
    "22.10-scavenge",
    "24.10-append",
    "20.10-scavenge",
    "26.1-scavenge-stopped",
    "23.10-scavenge",
    "21.10-append",
    "24.10-scavenge",
    "22.10-scavenge-stopped",
    "26.1-append",
    "21.10-scavenge",
    "23.10-append",
    "24.10-scavenge-stopped",
    "20.10-append",
];
const KILLS_IN_A_ROUND: usize = 12;
/// Each verb as often as its weight. A release without a record is replaced by another verb.
const VERBS: [&str; 12] = [
    "full", "full", "diff", "diff", "diff", "diff", "restore", "restore", "verify", "release",
    "release", "release",
];
const PATIENCE: Duration = Duration::from_secs(60);

/// Counts the runs of each verb.
#[derive(Debug, Default)]
struct Tally {
    killed: BTreeMap<&'static str, usize>,
    survived: BTreeMap<&'static str, usize>,
    /// Kills that left a release record.
    left_records: usize,
    restored: usize,
}

#[test]
fn a_kill_at_any_moment_damages_nothing() {
    let (wanted, mut tally, begun) = (amount(40, 1000), Tally::default(), Instant::now());
    for (round, recording) in RECORDINGS.iter().cycle().enumerate() {
        let done: usize = tally.killed.values().sum();
        if done >= wanted {
            break;
        }
        let chance = Chance::new(seed().wrapping_add(round as u64));
        Round::new(recording, chance).run(KILLS_IN_A_ROUND.min(wanted - done), &mut tally);
        println!("{recording}: {} s: {tally:?}", begun.elapsed().as_secs());
    }
    println!(
        "{wanted} kills in {} s: {tally:?}",
        begun.elapsed().as_secs()
    );
}

struct Round {
    site: NodeSite,
    line: ServerLine,
    chance: Chance,
    /// The duration of each verb without a kill.
    usual: BTreeMap<&'static str, Duration>,
    /// The story so far, for the reader of a failure.
    what: String,
    recording: &'static str,
    targets: usize,
}

enum End {
    Killed,
    Code(i32),
}

impl Round {
    fn new(recording: &'static str, chance: Chance) -> Self {
        let site = NodeSite::new(recording);
        site.node.change_quirks(|quirks| {
            quirks.auto_scavenge = AutoScavenge::Licensed(AutoScavengeState::Waiting);
            quirks.pausing_for = Duration::from_millis(30);
        });

        let line = ServerLine::of_version(recording.split('-').next().unwrap()).unwrap();
        Self {
            site,
            line,
            chance,
            usual: BTreeMap::new(),
            what: recording.to_owned(),
            recording,
            targets: 0,
        }
    }

    fn run(mut self, kills: usize, tally: &mut Tally) {
        let (begin, end) = (self.site.node.step(), self.site.node.recording().live_end());
        let killed = self.site.node.recording().find_mark(Mark::Killed, 0);
        assert!(
            killed.is_none_or(|at| at >= end),
            "{}: the node would go down",
            self.recording
        );

        for verb in ["full", "diff", "verify", "restore"] {
            self.run_undisturbed(verb);
        }
        self.usual.insert("release", self.usual["diff"] / 4);

        self.site.node.hold_at(begin);
        self.site.node.run(Speed::Times(10.0));
        let mut done = 0;
        while done < kills {
            self.site
                .node
                .hold_at(begin + (end - begin) * (done + 1) / kills);

            if self.chance.below(3) == 0 {
                self.start_scavenge();
            }

            let verb = *self.chance.of(&VERBS);
            let has_record = !records(&self.path("state")).is_empty();
            if (verb == "release" && !has_record) || !self.run_and_kill(verb, tally) {
                continue;
            }

            done += 1;
            if done % 5 == 0 {
                let (repository, target) = (self.path("repo"), self.target());
                let labels = listed(&repository, Depth::Quick, &self.what);
                let label = self.chance.of(&labels);
                assert_restores(&repository, label, self.line, &target, &self.what);
                tally.restored += 1;
            }

            if self.chance.below(3) == 0 {
                // The next run gives back what the killed one stopped.
                let verb = *self.chance.of(&["release", "diff"]);
                self.run_undisturbed(verb);
            }
        }

        self.run_undisturbed("release");
        self.run_undisturbed("diff");
        assert_unlocked(&[&self.path("repo/state"), &self.path("state")], &self.what);
        assert_eq!(self.site.node.failure(), None, "{}", self.what);
    }

    /// Starts a scavenge by hand, unless one runs already. It goes on from the end of a stopped
    /// scavenge, which then needs no giving back.
    fn start_scavenge(&self) {
        let started = self.site.node.start_scavenge(Some(Duration::from_secs(3)));
        if started.is_ok() {
            self.site.node.quiet(false);
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.site.place.path(name)
    }

    fn target(&mut self) -> PathBuf {
        self.targets += 1;
        self.path(&format!("target-{}", self.targets))
    }

    /// Runs a verb to its end, and asserts that it succeeds.
    fn run_undisturbed(&mut self, verb: &'static str) {
        let begun = Instant::now();
        let labels = listed(&self.path("repo"), Depth::Quick, &self.what);
        let (target, label) = (self.target(), labels.last());
        let line = self.command(verb, label, &target);
        match self.execute(&line, PATIENCE) {
            End::Code(0 | 3) => {}
            End::Code(code) => panic!("{}: {line} ends with {code}: {}", self.what, self.said()),
            End::Killed => panic!("{}: {line} does not end: {}", self.what, self.said()),
        }

        self.usual.insert(verb, begun.elapsed());
        self.what = format!("{}; {verb}", self.what);

        if ["full", "diff", "release"].contains(&verb) {
            assert_everything_released(&self.site.node, &self.path("state"), &self.what);
        }
        if verb == "restore" {
            assert_complete(
                &self.path("repo"),
                label.unwrap(),
                self.line,
                &target,
                &self.what,
            );
            std::fs::remove_dir_all(target).unwrap();
        }
    }

    /// Runs a verb, and kills it at some moment in twice its usual time. Returns false if it ended
    /// before that moment.
    fn run_and_kill(&mut self, verb: &'static str, tally: &mut Tally) -> bool {
        let before = listed(&self.path("repo"), Depth::Quick, &self.what);
        let target = self.target();
        let label = self.chance.of(&before).clone();
        let line = self.command(verb, Some(&label), &target);
        let after = self.usual[verb] * u32::try_from(self.chance.below(2000)).unwrap() / 1000;

        let end = self.execute(&line, after);

        self.what = format!("{}; {verb} {after:?}", self.what);
        let killed = match end {
            End::Killed => true,
            End::Code(0 | 3) => false,
            End::Code(code) => panic!("{}: {line} ends with {code}: {}", self.what, self.said()),
        };
        let runs = if killed {
            &mut tally.killed
        } else {
            &mut tally.survived
        };
        *runs.entry(verb).or_default() += 1;

        let now = listed(&self.path("repo"), Depth::Normal, &self.what);
        assert!(
            now.starts_with(&before),
            "{}: an earlier backup is gone",
            self.what
        );

        assert_on_record(&self.site.node, &self.path("state"), &self.what);
        assert_unlocked(&[&self.path("repo/state"), &self.path("state")], &self.what);

        if killed && !records(&self.path("state")).is_empty() {
            tally.left_records += 1;
        }

        if verb == "restore" {
            assert_guarded_or_complete(&self.path("repo"), &label, self.line, &target, &self.what);
        }
        if !killed && ["full", "diff", "release"].contains(&verb) {
            assert_everything_released(&self.site.node, &self.path("state"), &self.what);
        }

        killed
    }

    fn command(&self, verb: &str, label: Option<&Label>, target: &std::path::Path) -> String {
        match verb {
            "full" | "diff" => self.site.line(&format!("{verb} --repo repo --node URL")),
            "restore" => format!(
                "restore {} --repo repo --to {}",
                label.unwrap(),
                target.display()
            ),
            "verify" => "verify --all --repo repo".to_owned(),
            _ => verb.to_owned(),
        }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.path("said")).unwrap()
    }

    /// Runs a command line, and kills it after some time.
    fn execute(&self, line: &str, after: Duration) -> End {
        let said = std::fs::File::create(self.path("said")).unwrap();
        let mut child = self
            .site
            .place
            .process(line)
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .unwrap();

        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                if status.code() == Some(22) && self.said().contains("lies inside an append") {
                    // A held node may stop at a position where no living node stays.
                    self.site.node.hold_at(self.site.node.step() + 3);
                    return self.execute(line, after);
                }
                return End::Code(status.code().unwrap());
            }

            if begun.elapsed() >= after {
                child.kill().unwrap();
                let status = child.wait().unwrap();
                if let Some(code) = status.code() {
                    return End::Code(code);
                }
                assert_eq!(status.signal(), Some(9), "{}: {}", self.what, self.said());
                return End::Killed;
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }
}
