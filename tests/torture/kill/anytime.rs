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
    assert_complete, assert_guarded_or_complete, assert_nothing_owed, assert_on_record,
    assert_restores, assert_unlocked, listed, records,
};
use crate::torture::{Chance, amount, seed};

/// Nodes of all versions that live through what they recorded without a restart.
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
/// By weight; a release while nothing is owed is another chance for something else.
const VERBS: [&str; 12] = [
    "full", "full", "diff", "diff", "diff", "diff", "restore", "restore", "verify", "release",
    "release", "release",
];
const PATIENCE: Duration = Duration::from_secs(60);

/// What was done to each verb.
#[derive(Debug, Default)]
struct Tally {
    killed: BTreeMap<&'static str, usize>,
    survived: BTreeMap<&'static str, usize>,
    /// Kills that left something on record.
    owed: usize,
    restored: usize,
}

#[test]
fn a_kill_at_any_moment_harms_nothing() {
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
    /// How long each verb takes here when it is left alone.
    usual: BTreeMap<&'static str, Duration>,
    /// What has been done, for whoever reads a failure.
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
        assert!(
            self.site
                .node
                .recording()
                .find_mark(Mark::Killed, 0)
                .is_none_or(|at| at >= end),
            "{}: it would go down",
            self.recording
        );
        for verb in ["full", "diff", "verify", "restore"] {
            self.left_alone(verb);
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
                self.somebody_scavenges();
            }
            let verb = *self.chance.of(&VERBS);
            let owed = !records(&self.path("state")).is_empty();
            if (verb == "release" && !owed) || !self.strike(verb, tally) {
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
                // What runs next gives back what is owed.
                let verb = *self.chance.of(&["release", "diff"]);
                self.left_alone(verb);
            }
        }
        self.left_alone("release");
        self.left_alone("diff");
        assert_unlocked(&[&self.path("repo/state"), &self.path("state")], &self.what);
        assert_eq!(self.site.node.failure(), None, "{}", self.what);
    }

    /// Somebody else starts a scavenge, unless one runs already. It goes on where a stopped one
    /// ended, which is then no longer owed.
    fn somebody_scavenges(&self) {
        if self
            .site
            .node
            .start_scavenge(Some(Duration::from_secs(3)))
            .is_ok()
        {
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

    /// A verb that nobody kills does what it was asked.
    fn left_alone(&mut self, verb: &'static str) {
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
            assert_nothing_owed(&self.site.node, &self.path("state"), &self.what);
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

    /// Runs a verb, and kills it at some moment in twice its usual time; false where it had ended
    /// before.
    fn strike(&mut self, verb: &'static str, tally: &mut Tally) -> bool {
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
        *if killed {
            &mut tally.killed
        } else {
            &mut tally.survived
        }
        .entry(verb)
        .or_default() += 1;

        let now = listed(&self.path("repo"), Depth::Normal, &self.what);
        assert!(
            now.starts_with(&before),
            "{}: an earlier backup is gone",
            self.what
        );
        assert_on_record(&self.site.node, &self.path("state"), &self.what);
        assert_unlocked(&[&self.path("repo/state"), &self.path("state")], &self.what);
        if killed && !records(&self.path("state")).is_empty() {
            tally.owed += 1;
        }
        if verb == "restore" {
            assert_guarded_or_complete(&self.path("repo"), &label, self.line, &target, &self.what);
        }
        if !killed && ["full", "diff", "release"].contains(&verb) {
            assert_nothing_owed(&self.site.node, &self.path("state"), &self.what);
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

    /// Runs it, and kills it after a while.
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
                    // A node that is held rests where no living one does.
                    self.site.node.hold_at(self.site.node.step() + 3);
                    return self.execute(line, after);
                }
                return End::Code(status.code().unwrap());
            }
            if begun.elapsed() >= after {
                child.kill().unwrap();
                let status = child.wait().unwrap();
                return status.code().map_or_else(
                    || {
                        assert_eq!(status.signal(), Some(9), "{}: {}", self.what, self.said());
                        End::Killed
                    },
                    End::Code,
                );
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }
}
