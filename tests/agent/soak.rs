//! A node that writes, an agent beside it, and random faults: `scripts/soak MINUTES FAULTS`.
//!
//! This is one file, because the faults, the life and the proof share one state.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kbackup::clock::Timestamp;
use kbackup_testnode::log::Log;
use kbackup_testnode::{Credentials, Listen, Node, Server, Synthetic, Version};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::days::Disk;
use super::sidecar::Sidecar;
use crate::cli::Place;

/// The longest time from a fault to the next backup.
const RECOVERY: Duration = Duration::from_secs(150);
const DAY: i64 = 86400;
const CONFIGURATION: &str = "
repo = \"disk/repo\"
node-patience = \"2s\"
user = \"ops\"
password-file = \"password\"
[agent]
diff-schedule = \"30s\"
on-change = \"256KiB or 5s\"
full-schedule = \"4m\"
verify-schedule = \"20s\"
expire-schedule = \"45s\"
max-age = \"40s\"
scavenge-rest = \"20s\"
[verify]
all = true
[expire]
keep-last = 30
";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    NodeDown,
    Scavenge,
    Terminate,
    Kill,
    Unmounted,
    Full,
    ReadOnly,
    ClockForward,
    ClockBack,
    Damage,
    Password,
    SlowNode,
    Stall,
}

const FAULTS: [Fault; 13] = [
    Fault::NodeDown,
    Fault::Scavenge,
    Fault::Terminate,
    Fault::Kill,
    Fault::Unmounted,
    Fault::Full,
    Fault::ReadOnly,
    Fault::ClockForward,
    Fault::ClockBack,
    Fault::Damage,
    Fault::Password,
    Fault::SlowNode,
    Fault::Stall,
];

/// A small random generator. Its seed makes a failed soak repeatable.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    /// Each fault occurs once before one occurs twice.
    fn faults(&mut self, count: usize) -> Vec<Fault> {
        let mut faults = Vec::new();
        while faults.len() < count {
            let mut round = FAULTS.to_vec();
            while !round.is_empty() && faults.len() < count {
                faults.push(round.swap_remove(self.below(round.len())));
            }
        }

        faults
    }
}

/// The acknowledged log positions, with their times by the agent's clock.
#[derive(Default)]
struct Life {
    acknowledged: Mutex<Vec<(i64, u64)>>,
    clock: Mutex<i64>,
    is_over: AtomicBool,
}

struct Soak<'a> {
    place: &'a Place,
    disk: &'a Disk<'a>,
    mount: PathBuf,
    node: Node,
    server: Option<Server>,
    listen: Listen,
    agent: Option<Sidecar>,
    life: Arc<Life>,
    samples: Vec<(f64, u32, u64)>,
    began: Instant,
    damaged: usize,
    password: usize,
}

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .ok()
        .map_or(otherwise, |text| text.parse().unwrap())
}

#[test]
#[ignore = "it takes as long as it is told; scripts/soak runs it"]
fn a_node_lives_with_its_agent_through_bad_days() {
    let (minutes, count, seed) = (
        setting("KBACKUP_SOAK_MINUTES", 10),
        setting("KBACKUP_SOAK_FAULTS", 20),
        setting("KBACKUP_SOAK_SEED", 1),
    );

    let report = PathBuf::from(std::env::var("KBACKUP_SOAK_REPORT").unwrap());

    let place = Place::new();
    let mount = place.path("disk");
    let Some(disk) = Disk::new(&mount, 400) else {
        return;
    };

    Synthetic {
        filter_bytes: 10_000,
        ..Synthetic::of_size(6 << 20, 1 << 20)
    }
    .make(place.path("node"))
    .unwrap();

    let node = Node::still(Version::new(26, 1), place.path("node")).unwrap();
    node.change_quirks(|quirks| {
        quirks.credentials = Some(Credentials::operator("ops", "password-0"));
    });
    let server = node.serve().unwrap();
    let listen = Listen {
        address: server.address(),
        unix_socket: None,
    };

    place.write("kbackup.toml", CONFIGURATION);
    place.write("password", "password-0\n");
    place.write("clock", "0");

    let life = Arc::new(Life::default());
    let writer = std::thread::spawn({
        let (life, directory) = (Arc::clone(&life), place.path("node"));
        move || live(&life, &directory)
    });

    let (began, agent) = (Instant::now(), None);
    let (life_, server) = (Arc::clone(&life), Some(server));
    let mut soak = Soak {
        place: &place,
        disk: &disk,
        mount: mount.clone(),
        node,
        server,
        listen,
        agent,
        life: life_,
        samples: Vec::new(),
        began,
        damaged: 0,
        password: 0,
    };

    soak.start();
    soak.wait_for_backup("the beginning");

    let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let slot = Duration::from_secs(minutes * 60) / u32::try_from(count).unwrap();
    let mut told = Vec::new();
    for (number, fault) in chance
        .faults(usize::try_from(count).unwrap())
        .into_iter()
        .enumerate()
    {
        let slot_ends = began + slot * u32::try_from(number + 1).unwrap();
        soak.rest(slot * u32::try_from(10 + chance.below(20)).unwrap() / 100);

        println!("{:6.0} s  {fault:?}", began.elapsed().as_secs_f64());
        let at = began.elapsed().as_secs_f64();
        soak.inject(fault, &mut chance);
        let recovery = soak.wait_for_backup(&format!("{fault:?}"));
        told.push(json!({
            "fault": format!("{fault:?}"),
            "at_seconds": at.round(),
            "backup_again_after_seconds": (recovery.as_secs_f64() * 10.0).round() / 10.0,
        }));

        soak.rest(slot_ends.saturating_duration_since(Instant::now()));
    }

    life.is_over.store(true, Ordering::SeqCst);
    writer.join().unwrap();

    let status = soak.agent().shows("everything in a backup", |status| {
        status["exposure"]["bytes"] == 0 && status["running"].is_null()
    });
    let runs = outcomes(&status);

    let log = soak.agent.take().unwrap().ends_well();
    let idle = soak.idle();
    assert_eq!(place.release_records(), 0, "a release record is left");
    assert!(!soak.node.owes_scavenge());

    let proven = soak.prove();
    let memory = memory(&soak.samples);
    let answer = json!({
        "minutes": minutes, "seed": seed, "seconds": began.elapsed().as_secs(), "faults": told, "runs": runs,
        "restore_points": proven, "files_damaged": soak.damaged, "release_records": 0,
        "resident_kib": memory, "idle": idle, "log_lines_of_the_last_process": log.lines().count(),
    });

    std::fs::write(
        report.with_extension("json"),
        serde_json::to_string_pretty(&answer).unwrap(),
    )
    .unwrap();
    std::fs::write(report.with_extension("txt"), text(&answer)).unwrap();
    println!("{}", text(&answer));

    let most = answer["resident_kib"]["max"].as_u64().unwrap();
    assert!(most < 64 << 10, "{most} KiB resident");
}

/// Appends, and records the acknowledged position with its time.
fn live(life: &Life, directory: &Path) {
    let mut seed = 0;
    while !life.is_over.load(Ordering::SeqCst) {
        seed += 1;
        let writer = Synthetic::append_seeded(directory, 6_000, seed).unwrap();
        let now = Timestamp::now().as_second() + *life.clock.lock().unwrap();
        life.acknowledged.lock().unwrap().push((now, writer));
        std::thread::sleep(Duration::from_millis(150));
    }
}

impl Soak<'_> {
    fn agent(&self) -> &Sidecar {
        self.agent.as_ref().unwrap()
    }

    fn start(&mut self) {
        let mut command = self.place.process(&format!(
            "agent --config kbackup.toml --node http://{}",
            self.listen.address
        ));
        command.env("KBACKUP_CLOCK", self.place.path("clock"));
        self.agent = Some(Sidecar::start(command));
    }

    fn sample(&mut self) {
        let Some(agent) = &self.agent else { return };
        if let Some(resident) = resident(agent.id()) {
            self.samples
                .push((self.began.elapsed().as_secs_f64(), agent.id(), resident));
        }
    }

    fn rest(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.sample();
            std::thread::sleep(
                Duration::from_secs(1).min(end.saturating_duration_since(Instant::now())),
            );
        }
    }

    fn move_clock(&self, seconds: i64) {
        let mut offset = self.life.clock.lock().unwrap();
        *offset += seconds;
        std::fs::write(self.place.path("clock"), offset.to_string()).unwrap();
    }

    fn inject(&mut self, fault: Fault, chance: &mut Chance) {
        let lasts = Duration::from_secs(u64::try_from(4 + chance.below(6)).unwrap());

        match fault {
            Fault::NodeDown => {
                self.server = None;
                self.rest(lasts);
                self.node.restart();
                self.server = Some(self.node.serve_on(&self.listen).unwrap());
            }
            // A scavenge may run already: an earlier fault ended with giving it back.
            Fault::Scavenge => drop(self.node.start_scavenge(Some(Duration::from_secs(25)))),
            Fault::Terminate => {
                self.agent.take().unwrap().ends_well();
                self.start();
            }
            Fault::Kill => {
                drop(self.node.start_scavenge(Some(Duration::from_secs(60))));
                self.rest(lasts);
                // A sidecar that is dropped is killed.
                self.agent = None;
                self.start();
            }
            Fault::Unmounted => {
                assert!(self.disk.mount("size=8m"));
                self.rest(lasts);
                assert!(
                    !self.mount.join("repo").exists(),
                    "the agent made a new repository on the wrong disk"
                );
                self.disk.unmount();
            }
            Fault::Full => {
                let filler = self.mount.join("filler");
                let _full = std::io::copy(
                    &mut std::io::repeat(1),
                    &mut std::fs::File::create(&filler).unwrap(),
                );
                self.rest(lasts);
                std::fs::remove_file(filler).unwrap();
            }
            Fault::ReadOnly => {
                // The file system is busy while a file is open for writing.
                while !self.disk.try_remount("ro") {
                    std::thread::sleep(Duration::from_millis(20));
                }
                self.rest(lasts);
                self.disk.remount("rw");
            }
            Fault::ClockForward => self.move_clock(DAY),
            Fault::ClockBack => self.move_clock(-DAY),
            Fault::Damage => self.damage(),
            Fault::Password => {
                self.password += 1;
                let password = format!("password-{}", self.password);
                self.node.change_quirks(|quirks| {
                    quirks.credentials = Some(Credentials::operator("ops", &password));
                });
                self.rest(lasts);
                self.place.write("password", &password);
            }
            Fault::SlowNode => {
                self.node
                    .change_quirks(|quirks| quirks.delay = Duration::from_millis(400));
                self.rest(lasts);
                self.node
                    .change_quirks(|quirks| quirks.delay = Duration::ZERO);
            }
            Fault::Stall => {
                self.agent().signal(Signal::STOP);
                self.rest(lasts);
                self.agent().signal(Signal::CONT);
            }
        }
    }

    /// Damages bytes of the first chunk, in all backups that share them.
    fn damage(&mut self) {
        let Some(newest) = self.labels().pop() else {
            return;
        };

        let path = self
            .mount
            .join("repo/backups")
            .join(newest)
            .join("db/chunk-000000.000000");

        let mut permissions = std::fs::metadata(&path).unwrap().permissions();
        #[expect(
            clippy::permissions_set_readonly_false,
            reason = "in a place of its own"
        )]
        permissions.set_readonly(false);
        std::fs::set_permissions(&path, permissions).unwrap();

        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"rotten", 300_000).unwrap();
        self.damaged += 1;
    }

    fn labels(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.mount.join("repo/backups")) else {
            return Vec::new();
        };
        let mut labels: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        labels.sort();
        labels
    }

    /// Waits for a good backup that began after now. Returns how long that took.
    fn wait_for_backup(&mut self, what: &str) -> Duration {
        let began = Instant::now();
        let acknowledged = self.life.acknowledged.lock().unwrap().last().copied();
        let written = acknowledged.map_or(0, |(_, writer)| writer);
        loop {
            let status = self.agent().status();
            let is_good = |point: &Value| {
                let writer = point["writer"].as_u64();
                writer.is_some_and(|writer| writer >= written) && point["is_sound"] == true
            };
            let points = status["repository"]["points"].as_array();
            let has_good = points.is_some_and(|points| points.iter().any(is_good));
            if has_good && status["agent"]["owed"].is_null() {
                return began.elapsed();
            }

            assert!(
                began.elapsed() < RECOVERY,
                "no backup after {what}: {}\n{}",
                status["verdict"],
                self.agent().log()
            );
            self.rest(Duration::from_millis(500));
        }
    }

    /// Measures what an agent uses beside a node that writes nothing.
    fn idle(&mut self) -> Value {
        let line = format!(
            "agent --config kbackup.toml --node http://{} --diff-schedule 1h",
            self.listen.address
        );
        let mut command = self.place.process(&format!(
            "{line} --verify-schedule 7d --full-schedule off --expire-schedule off"
        ));
        command.env("KBACKUP_CLOCK", self.place.path("clock"));

        let agent = Sidecar::start(command);
        agent.shows("rest", |status| {
            status["running"].is_null() && status["repository"]["points"].is_array()
        });

        std::thread::sleep(Duration::from_secs(5));
        let before = agent.processor();
        std::thread::sleep(Duration::from_mins(1));
        let used = agent.processor().saturating_sub(before);

        let resident = resident(agent.id());
        agent.ends_well();
        json!({"seconds": 60, "processor_milliseconds": used.as_millis(), "resident_kib": resident})
    }

    /// The second in which a backup began, by the agent's clock.
    fn started(&self, label: &str) -> i64 {
        let shown = self
            .place
            .kbackup(&format!("show {label} --repo disk/repo --json"))
            .output()
            .unwrap();
        let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
        let started = shown.get("started").and_then(Value::as_str).unwrap();
        started.parse::<Timestamp>().unwrap().as_second()
    }

    /// Restores every backup, and checks that it holds exactly the events that were acknowledged
    /// before it began.
    fn prove(&self) -> Value {
        let repaired = self
            .place
            .kbackup("verify --all --repair --repo disk/repo")
            .output()
            .unwrap();
        let code = repaired.status.code();
        assert!(
            matches!(code, Some(0 | 3)),
            "{}{}",
            String::from_utf8_lossy(&repaired.stdout),
            String::from_utf8_lossy(&repaired.stderr)
        );

        let whole = Log::read(&self.place.path("node/db")).unwrap();
        let acknowledged = self.life.acknowledged.lock().unwrap().clone();
        let target = self.place.path("restored");
        let (labels, mut bytes) = (self.labels(), 0);

        for label in &labels {
            self.place
                .kbackup(&format!("restore {label} --repo disk/repo --to restored"))
                .assert()
                .code(0);
            self.place.kbackup("check restored --deep").assert().code(0);

            // Not the label's time: a label is always later than the one before it, so it may be a
            // second ahead of the clock.
            let started = self.started(label);
            let mut before = 0;
            for (at, writer) in &acknowledged {
                if *at < started && started - *at < DAY / 2 {
                    before = before.max(*writer);
                }
            }

            let log = Log::read(&target).unwrap();
            let end = log.records.last().map_or(0, |record| record.end);
            assert!(
                end >= before,
                "{label} ends at {end}, and {before} was acknowledged before it began"
            );

            assert_eq!(
                log.records,
                whole.records[..log.records.len()],
                "{label}: events of another branch"
            );

            bytes += log.writer;
            std::fs::remove_dir_all(&target).unwrap();
        }

        json!({"restored_and_checked": labels.len(), "log_bytes": bytes, "repair_exit_code": code})
    }
}

fn resident(process: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?
        .trim()
        .strip_suffix(" kB")?
        .parse()
        .ok()
}

fn outcomes(status: &Value) -> BTreeMap<String, usize> {
    let mut outcomes = BTreeMap::new();
    for record in status["history"].as_array().unwrap() {
        let kind = record["kind"]
            .as_str()
            .map_or_else(String::new, |kind| format!(" ({kind})"));
        let key = format!(
            "{} {}{kind}",
            record["job"].as_str().unwrap(),
            record["outcome"].as_str().unwrap()
        );
        *outcomes.entry(key).or_default() += 1;
    }

    outcomes
}

/// Minimum, median and maximum of all values and of each third. For the process that lived longest,
/// also the median of each half.
fn memory(samples: &[(f64, u32, u64)]) -> Value {
    let row = |samples: &[u64]| {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable();
        json!({"min": sorted.first(), "median": sorted.get(sorted.len() / 2), "max": sorted.last()})
    };

    let all: Vec<u64> = samples.iter().map(|(_, _, resident)| *resident).collect();
    let thirds: Vec<Value> = all.chunks(all.len().div_ceil(3).max(1)).map(row).collect();

    let mut processes: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for (_, process, resident) in samples {
        processes.entry(*process).or_default().push(*resident);
    }
    let longest = processes
        .values()
        .max_by_key(|samples| samples.len())
        .cloned()
        .unwrap_or_default();

    let (first, second) = longest.split_at(longest.len() / 2);

    let mut answer = row(&all);
    answer["thirds"] = thirds.into();
    answer["longest_process"] =
        json!({"seconds": longest.len(), "first_half": row(first), "second_half": row(second)});
    answer
}

fn text(answer: &Value) -> String {
    let mut text = format!(
        "{} minutes, {} faults, seed {}\n\n",
        answer["minutes"],
        answer["faults"].as_array().unwrap().len(),
        answer["seed"]
    );

    for fault in answer["faults"].as_array().unwrap() {
        let name = fault["fault"].as_str().unwrap();
        let _ = writeln!(
            text,
            "{:>6} s  {name:<13} a backup again after {} s",
            fault["at_seconds"].to_string(),
            fault["backup_again_after_seconds"]
        );
    }

    let _ = writeln!(text, "\nruns: {}", answer["runs"]);
    let _ = writeln!(text, "restore points: {}", answer["restore_points"]);
    let _ = writeln!(text, "resident memory (KiB): {}", answer["resident_kib"]);
    let _ = writeln!(text, "idle: {}", answer["idle"]);
    text
}
