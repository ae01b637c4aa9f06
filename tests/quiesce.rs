//! Scavenges are kept away from a copy, and given back whatever happens.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may end in a panic"
)]

use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kbackup::error::{Kind, Signal};
use kbackup::event::{Event, Observer, Silent};
use kbackup::log::{ChunkSet, Inspected, lineage};
use kbackup::manifest::{Directories, FileSet, Quiet};
use kbackup::node::{
    Client, Connection, CurrentScavenge, NodeFiles, NodeScavenging, Patience, QuiesceCheck,
    QuiesceSettings, QuiescedOnline, ReleaseMode, ReleaseRecords, Session, TimeLimits,
    look_at_scavenging, plan_release, quiesce,
};
use kbackup::run::Run;
use kbackup_testnode::{AutoScavenge, AutoScavengeState, Checkpoint, Mark, Node};

use crate::recorded_node::{RECORDINGS, RecordedNode};
use crate::timing::assert_soon;

mod manners;

struct Setting {
    recorded: RecordedNode,
    records: ReleaseRecords,
}

impl Deref for Setting {
    type Target = RecordedNode;

    fn deref(&self) -> &RecordedNode {
        &self.recorded
    }
}

impl Setting {
    fn new(recording: &str) -> Self {
        let recorded = RecordedNode::start(recording);
        let records = ReleaseRecords::open(&recorded.directory.path().join("state")).unwrap();
        Self { recorded, records }
    }

    fn licensed(recording: &str, state: AutoScavengeState) -> Self {
        let setting = Self::new(recording);
        setting
            .node
            .change_quirks(|quirks| quirks.auto_scavenge = AutoScavenge::Licensed(state));
        setting
    }

    fn client(&self) -> Client {
        self.recorded.client(limits())
    }

    fn session(&self) -> Session {
        self.recorded.session(limits())
    }

    fn quiesce<'a>(&'a self, session: &'a Session) -> kbackup::error::Result<QuiescedOnline<'a>> {
        quiesce(session, &self.records, &self.files(), settings(), &self.run)
    }

    fn files(&self) -> NodeFiles {
        NodeFiles {
            db: Some(self.node.db()),
            database: Some(self.database()),
            former_endpoint: None,
        }
    }

    /// The id of the first epoch in the node's log.
    fn database(&self) -> uuid::Uuid {
        database_of(&self.node)
    }

    /// The paths of all requests that change something.
    fn changes(&self) -> Vec<String> {
        let mut requests = self.node.requests();
        requests.retain(|request| request.method != "GET");
        requests.into_iter().map(|request| request.path).collect()
    }

    /// The paths of all POST requests with this part in them.
    fn posts(&self, part: &str) -> Vec<String> {
        let mut requests = self.node.requests();
        requests.retain(|request| request.method == "POST" && request.path.contains(part));
        requests.into_iter().map(|request| request.path).collect()
    }

    fn records(&self) -> usize {
        self.records.list().unwrap().readable.len()
    }

    /// The state directory as a crash leaves it: the records without the locks.
    fn after_crash(&self) -> ReleaseRecords {
        let (from, to) = (
            self.directory.path().join("state"),
            self.directory.path().join("crashed"),
        );
        std::fs::create_dir(&to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name().to_str().unwrap().ends_with(".json") {
                std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
        ReleaseRecords::open(&to).unwrap()
    }

    fn release(&self, records: &ReleaseRecords) -> kbackup::error::Result<()> {
        plan_release(records, None, ReleaseMode::default())
            .unwrap()
            .execute(records, |_| Ok(self.client()), &self.run)
    }
}

/// The id of the first epoch in a node's log.
fn database_of(node: &Node) -> uuid::Uuid {
    let directories = Directories::new(node.db(), Some(node.index()));
    let entries = directories.files().unwrap();
    let chunks = ChunkSet::among(&directories, &entries, &Inspected::default()).unwrap();
    let last = node.checkpoint(Checkpoint::Epoch).unwrap();
    let last = kbackup::format::LogPosition::from_signed(last).unwrap();
    let lineage = lineage(&directories, &chunks, last).unwrap();
    lineage.first().unwrap().id
}

fn limits() -> TimeLimits {
    TimeLimits {
        connect: Duration::from_secs(2),
        answer: Duration::from_secs(2),
        patience: Duration::from_secs(3),
    }
}

fn settings() -> QuiesceSettings {
    QuiesceSettings {
        pause_within: Duration::from_secs(5),
        stop_within: Duration::from_secs(5),
        ..QuiesceSettings::default()
    }
}

#[test]
fn does_not_change_an_idle_node() {
    for recording in RECORDINGS {
        let setting = Setting::new(recording);
        let session = setting.session();
        let quiet = setting.quiesce(&session).unwrap();
        assert_eq!(
            quiet.check_undisturbed().unwrap(),
            QuiesceCheck::Undisturbed,
            "{recording}"
        );

        let scavenging = quiet.scavenging();
        let old = recording.starts_with("20.10") || recording.starts_with("21.10");
        assert_eq!(
            scavenging.quiet,
            if old {
                Quiet::Inferred
            } else {
                Quiet::Confirmed
            },
            "{recording}"
        );
        assert_eq!(
            (scavenging.stopped, scavenging.auto_paused),
            (None, false),
            "{recording}"
        );

        quiet.release().unwrap();
        assert!(
            setting.posts("").is_empty(),
            "{recording}: {:?}",
            setting.posts("")
        );
        assert_eq!(setting.records(), 0, "{recording}");
    }
}

#[test]
fn stops_a_scavenge_and_gives_it_back() {
    for recording in RECORDINGS {
        let setting = Setting::new(recording);
        let session = setting.session();
        let scavenge = setting.node.start_scavenge(None).unwrap().to_string();
        let quiet = setting.quiesce(&session).unwrap();
        assert_eq!(setting.node.current_scavenge(), None, "{recording}");
        assert_eq!(
            quiet.scavenging().stopped.as_deref(),
            Some(scavenge.as_str()),
            "{recording}"
        );
        assert_eq!(
            quiet
                .release_record()
                .unwrap()
                .scavenge
                .as_ref()
                .unwrap()
                .id,
            scavenge,
            "{recording}"
        );
        assert_eq!(
            quiet.check_undisturbed().unwrap(),
            QuiesceCheck::Undisturbed,
            "{recording}"
        );
        assert_eq!(setting.records(), 1, "{recording}");

        quiet.release().unwrap();
        assert!(!setting.node.owes_scavenge(), "{recording}");

        let old = recording.starts_with("20.10") || recording.starts_with("21.10");
        let expected = if old {
            "/admin/scavenge?threads=1"
        } else {
            "/admin/scavenge?syncOnly=true&threads=1&throttlePercent=100"
        };
        assert_eq!(setting.posts("/admin/scavenge"), [expected], "{recording}");
        assert_eq!(setting.records(), 0, "{recording}");
    }
}

#[test]
fn needs_no_answer_to_a_delete() {
    for (recording, answers_408) in RECORDINGS
        .into_iter()
        .map(|recording| (recording, true))
        .chain([("22.10-append", false), ("26.1-append", false)])
    {
        let setting = Setting::new(recording);
        setting.node.change_quirks(|quirks| {
            quirks.drop_delete_answers = !answers_408;
            quirks.delete_answers_408 = answers_408;
            quirks.cancel_delay = Duration::from_millis(150);
        });
        let session = setting.session();
        setting.node.start_scavenge(None).unwrap();
        let quiet = setting.quiesce(&session).unwrap();
        assert_eq!(
            setting.node.current_scavenge(),
            None,
            "{recording}: `current` was not awaited"
        );

        quiet.release().unwrap();
        assert!(!setting.node.owes_scavenge(), "{recording}");
    }
}

#[test]
fn does_not_restart_a_scavenge_while_another_runs() {
    let setting = Setting::new("24.10-append");
    let session = setting.session();
    let scavenge = setting
        .node
        .start_scavenge(Some(Duration::from_millis(500)))
        .unwrap();
    let quiet = setting.quiesce(&session).unwrap();
    assert_eq!(quiet.scavenging().stopped, Some(scavenge.to_string()));

    std::mem::forget(quiet);

    // The scavenge was stopped after all, and somebody else let it finish.
    setting
        .node
        .change_quirks(|quirks| quirks.scavenge_duration = Duration::from_secs(60));
    let records = setting.after_crash();
    let running = setting.node.start_scavenge(None).unwrap();
    setting.release(&records).unwrap();
    assert!(
        setting.posts("/admin/scavenge").is_empty(),
        "one runs already"
    );
    assert_eq!(setting.node.current_scavenge(), Some(running));
    assert!(records.list().unwrap().readable.is_empty());
}

#[test]
fn pauses_auto_scavenge_first_and_resumes_it_last() {
    for proxied in [false, true] {
        let setting = Setting::licensed("26.1-append", AutoScavengeState::Waiting);
        setting
            .node
            .change_quirks(|quirks| quirks.auto_scavenge_proxied = proxied);
        let session = setting.session();
        let scavenge = setting.node.start_scavenge(None).unwrap();
        let quiet = setting.quiesce(&session).unwrap();
        assert_eq!(
            setting.node.auto_scavenge(),
            Some(AutoScavengeState::Paused)
        );
        assert!(quiet.scavenging().auto_paused);
        assert_eq!(
            quiet.check_undisturbed().unwrap(),
            QuiesceCheck::Undisturbed
        );

        quiet.release().unwrap();
        assert_ne!(
            setting.node.auto_scavenge(),
            Some(AutoScavengeState::Paused)
        );

        let asked = setting.changes();
        let delete = format!("/admin/scavenge/{scavenge}");
        let paused = asked
            .iter()
            .position(|path| path == "/auto-scavenge/pause")
            .unwrap();
        let stopped = asked.iter().position(|path| *path == delete).unwrap();
        let given = asked
            .iter()
            .position(|path| path.starts_with("/admin/scavenge?"))
            .unwrap();
        let resumed = asked
            .iter()
            .position(|path| path == "/auto-scavenge/resume")
            .unwrap();
        assert!(
            paused < stopped && stopped < given && given < resumed,
            "{asked:?}"
        );
        assert_eq!(setting.records(), 0);
    }
}

#[test]
fn leaves_its_own_scavenge_to_auto_scavenge() {
    let setting = Setting::licensed("26.1-append", AutoScavengeState::InProgress);
    let session = setting.session();
    setting.node.start_scavenge(None).unwrap();
    let quiet = setting.quiesce(&session).unwrap();
    assert_eq!(setting.node.current_scavenge(), None);
    assert_eq!(
        quiet.scavenging().stopped,
        None,
        "the pause stopped it, and the resume starts it again"
    );

    quiet.release().unwrap();
    let asked = setting.changes();
    assert_eq!(asked, ["/auto-scavenge/pause", "/auto-scavenge/resume"]);
}

#[test]
fn waits_for_a_leader_and_not_for_a_crashed_plugin() {
    let setting = Setting::new("26.1-append");
    setting
        .node
        .change_quirks(|quirks| quirks.auto_scavenge = AutoScavenge::NoLeader);
    let session = setting.session();
    let node = setting.node.clone();
    let election = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        node.change_quirks(|quirks| {
            quirks.auto_scavenge = AutoScavenge::Licensed(AutoScavengeState::Waiting);
        });
    });
    let quiet = setting.quiesce(&session).unwrap();
    election.join().unwrap();
    assert!(quiet.scavenging().auto_paused);

    quiet.release().unwrap();
    setting
        .node
        .change_quirks(|quirks| quirks.auto_scavenge = AutoScavenge::Broken);
    let quiet = setting.quiesce(&session).unwrap();
    assert!(!quiet.scavenging().auto_paused);

    quiet.release().unwrap();
    setting
        .node
        .change_quirks(|quirks| quirks.auto_scavenge = AutoScavenge::NoLeader);
    let short = QuiesceSettings {
        pause_within: Duration::from_millis(300),
        ..settings()
    };
    assert_eq!(
        quiesce(
            &session,
            &setting.records,
            &NodeFiles::default(),
            short,
            &setting.run
        )
        .map(drop)
        .unwrap_err()
        .kind(),
        Kind::Failed
    );
}

#[test]
fn never_resumes_an_auto_scavenge_that_was_already_paused() {
    for state in [
        AutoScavengeState::Paused,
        AutoScavengeState::Pausing,
        AutoScavengeState::NotConfigured,
    ] {
        let setting = Setting::licensed("26.1-append", state);
        let session = setting.session();
        let quiet = setting.quiesce(&session).unwrap();
        assert!(!quiet.scavenging().auto_paused);
        assert_eq!(
            quiet.scavenging().was_paused_by_others(),
            state != AutoScavengeState::NotConfigured,
            "{state:?}"
        );
        quiet.release().unwrap();
        assert!(setting.posts("/auto-scavenge").is_empty(), "{state:?}");
    }
}

#[test]
fn notices_a_disturbance() {
    for recording in RECORDINGS {
        let setting = Setting::new(recording);
        let session = setting.session();
        let mut quiet = setting.quiesce(&session).unwrap();
        setting.node.start_scavenge(None).unwrap();
        let disturbed = |quiet: &QuiescedOnline<'_>| {
            matches!(
                quiet.check_undisturbed().unwrap(),
                QuiesceCheck::Disturbed(_)
            )
        };
        assert!(disturbed(&quiet), "{recording}: it runs");

        quiet.quiesce_again().unwrap();
        assert!(!disturbed(&quiet), "{recording}");

        setting
            .node
            .start_scavenge(Some(Duration::from_millis(10)))
            .unwrap();
        std::thread::sleep(Duration::from_millis(50));
        assert!(
            disturbed(&quiet),
            "{recording}: it ran from beginning to end between two looks"
        );

        quiet.release().unwrap();
    }

    let setting = Setting::licensed("26.1-append", AutoScavengeState::Waiting);
    let session = setting.session();
    let quiet = setting.quiesce(&session).unwrap();
    setting
        .client()
        .resume_auto_scavenge(Patience::of(&setting.run))
        .unwrap();
    let QuiesceCheck::Disturbed(why) = quiet.check_undisturbed().unwrap() else {
        panic!("somebody resumed it")
    };
    assert!(why.contains("resumed"), "{why}");
}

#[test]
fn notices_a_restart() {
    let setting = Setting::new("26.1-kill");
    let session = setting.session();
    let quiet = setting.quiesce(&session).unwrap();
    setting.node.advance_to_mark(Mark::Killed).unwrap();
    setting.node.advance_to_mark(Mark::Ready).unwrap();
    let QuiesceCheck::Disturbed(why) = quiet.check_undisturbed().unwrap() else {
        panic!("the node was restarted")
    };
    assert!(why.contains("restarted"), "{why}");
    quiet.release().unwrap();
}

#[test]
fn a_crash_is_repaired_from_the_record_alone() {
    let setting = Setting::licensed("26.1-append", AutoScavengeState::Waiting);
    let session = setting.session();
    let scavenge = setting.node.start_scavenge(None).unwrap();
    std::mem::forget(setting.quiesce(&session).unwrap());
    let records = setting.after_crash();
    let plan = plan_release(&records, None, ReleaseMode::default()).unwrap();
    let nodes = plan.nodes();
    assert_eq!(nodes.len(), 1);
    assert_eq!(nodes[0].scavenge, Some(scavenge.to_string()));
    assert!(nodes[0].auto_scavenge && !nodes[0].in_use);
    assert_eq!(nodes[0].node, setting.server.url());
    assert!(
        plan_release(&records, Some("http://other:2113"), ReleaseMode::default())
            .unwrap()
            .nodes()
            .is_empty()
    );
    assert_eq!(
        plan_release(
            &records,
            Some(&setting.server.address().to_string()),
            ReleaseMode::default()
        )
        .unwrap()
        .nodes()
        .len(),
        1
    );

    setting.release(&records).unwrap();
    assert_eq!(
        setting.node.auto_scavenge(),
        Some(AutoScavengeState::Waiting)
    );
    assert!(!setting.node.owes_scavenge());
    assert!(records.list().unwrap().readable.is_empty());

    // A second time, also by an old copy of the record, nothing happens.
    setting.node.forget_requests();
    setting.release(&records).unwrap();
    setting
        .release(&ReleaseRecords::open(&setting.directory.path().join("crashed")).unwrap())
        .unwrap();
    assert!(setting.posts("").is_empty());
}

/// Writes the record of a run that died this many minutes ago, after or before it told a scavenge
/// to stop.
fn on_record(setting: &Setting, scavenge: &str, minutes: i64, told: bool) {
    let session = setting.session();
    let mut held = setting
        .records
        .hold(&session, &setting.files(), &setting.run)
        .unwrap();
    held.record_scavenge(scavenge, 1, 100, None).unwrap();
    if told {
        held.record_stop_request().unwrap();
    }
    drop(held);

    let state = setting.directory.path().join("state");
    for entry in std::fs::read_dir(state).unwrap().map(Result::unwrap) {
        if entry.file_name().to_str().unwrap().ends_with(".json") {
            let mut record: serde_json::Value =
                serde_json::from_slice(&std::fs::read(entry.path()).unwrap()).unwrap();
            let since: kbackup::clock::Timestamp = record["scavenge"]["since"]
                .as_str()
                .unwrap()
                .parse()
                .unwrap();
            record["scavenge"]["since"] = (since
                - Duration::from_secs(60) * u32::try_from(minutes).unwrap())
            .to_string()
            .into();
            std::fs::write(entry.path(), record.to_string()).unwrap();
        }
    }
}

#[test]
fn the_record_of_a_scavenge_that_was_never_told_to_stop_expires() {
    let setting = Setting::new("26.1-append");
    setting
        .node
        .change_quirks(|quirks| quirks.scavenge_duration = Duration::from_secs(3600));
    let scavenge = setting.node.start_scavenge(None).unwrap();

    // It may have been told a moment ago, and stop later on.
    on_record(&setting, &scavenge.to_string(), 1, false);
    let error = setting.release(&setting.records).unwrap_err();
    assert!(
        error
            .what()
            .contains("does not know whether it was told to stop"),
        "{error}"
    );
    assert_eq!(setting.records(), 1);

    // A scavenge that was told to stop will stop, however long it takes.
    on_record(&setting, &scavenge.to_string(), 60, true);
    let error = setting.release(&setting.records).unwrap_err();
    assert!(
        error.what().contains("was told to stop and still runs"),
        "{error}"
    );
    assert_eq!(setting.records(), 1);

    for entry in std::fs::read_dir(setting.directory.path().join("state"))
        .unwrap()
        .map(Result::unwrap)
    {
        std::fs::remove_file(entry.path()).unwrap();
    }
    on_record(&setting, &scavenge.to_string(), 6, false);
    setting.node.forget_requests();
    setting.release(&setting.records).unwrap();
    assert_eq!(setting.records(), 0);
    assert_eq!(
        setting.node.current_scavenge(),
        Some(scavenge),
        "it goes on"
    );
    assert!(
        setting
            .node
            .requests()
            .iter()
            .all(|request| request.method == "GET")
    );
}

/// The request to stop had arrived. A scavenge that stops while kbackup watches is given back, and
/// so is one that stops later.
#[test]
fn a_scavenge_that_stops_late_is_given_back() {
    let setting = Setting::new("26.1-append");
    setting.node.change_quirks(|quirks| {
        quirks.scavenge_duration = Duration::from_secs(3600);
        quirks.cancel_delay = Duration::from_millis(1500);
    });
    let scavenge = setting.node.start_scavenge(None).unwrap().to_string();
    on_record(&setting, &scavenge, 6, false);
    setting
        .client()
        .stop_scavenge(&scavenge, Patience::of(&setting.run))
        .unwrap();
    assert!(setting.node.current_scavenge().is_some());
    setting.release(&setting.records).unwrap();
    assert_eq!(setting.posts("/admin/scavenge").len(), 1);
    assert!(!setting.node.owes_scavenge());
}

#[test]
fn temporary_files_of_killed_runs_are_removed() {
    let setting = Setting::new("26.1-append");
    let plant = |name: &str, age: u64| {
        let path = setting.directory.path().join("state").join(name);
        std::fs::File::create(&path)
            .unwrap()
            .set_modified(std::time::SystemTime::now() - Duration::from_secs(age))
            .unwrap();
        path
    };
    let (old, young) = (plant(".aB3xY9.tmp", 7200), plant(".cD4zW8.tmp", 60));
    setting
        .quiesce(&setting.session())
        .unwrap()
        .release()
        .unwrap();

    assert!(
        !old.exists() && young.exists(),
        "what is young may be another run's"
    );
}

#[test]
fn giving_back_twice_is_harmless() {
    let setting = Setting::licensed("26.1-append", AutoScavengeState::Waiting);
    setting
        .node
        .change_quirks(|quirks| quirks.scavenge_duration = Duration::from_secs(60));
    let session = setting.session();
    setting.node.start_scavenge(None).unwrap();
    let quiet = setting.quiesce(&session).unwrap();
    let copy = setting.after_crash();
    quiet.release().unwrap();
    let running = setting.node.current_scavenge();
    assert!(running.is_some());
    setting.node.forget_requests();
    setting.release(&copy).unwrap();
    assert!(setting.posts("").is_empty(), "{:?}", setting.posts(""));
    assert_eq!(setting.node.current_scavenge(), running);
    assert!(copy.list().unwrap().readable.is_empty());
}

#[test]
fn the_next_run_gives_back_what_a_crash_left() {
    let setting = Setting::licensed("26.1-append", AutoScavengeState::Waiting);
    let session = setting.session();
    setting.node.start_scavenge(None).unwrap();
    std::mem::forget(setting.quiesce(&session).unwrap());
    let records = setting.after_crash();
    let quiet = quiesce(
        &session,
        &records,
        &NodeFiles::default(),
        settings(),
        &setting.run,
    )
    .unwrap();
    assert!(
        quiet.scavenging().auto_paused,
        "the log of this backup says paused as well"
    );
    quiet.release().unwrap();
    assert_eq!(
        setting.node.auto_scavenge(),
        Some(AutoScavengeState::Waiting)
    );
    assert!(!setting.node.owes_scavenge());
}

#[test]
fn a_restarted_node_gets_its_scavenge_back() {
    let setting = Setting::new("26.1-kill");
    let session = setting.session();
    setting.node.start_scavenge(None).unwrap();
    let quiet = setting.quiesce(&session).unwrap();
    setting.node.advance_to_mark(Mark::Killed).unwrap();
    setting.node.advance_to_mark(Mark::Ready).unwrap();
    quiet.release().unwrap();
    assert_eq!(setting.posts("/admin/scavenge").len(), 1);
}

#[test]
fn another_node_is_never_given_anything() {
    let (one, other) = (Setting::new("26.1-append"), Setting::new("26.1-append"));
    let session = one.session();
    one.node.start_scavenge(None).unwrap();
    std::mem::forget(one.quiesce(&session).unwrap());
    let records = one.after_crash();
    let error = plan_release(&records, None, ReleaseMode::default())
        .unwrap()
        .execute(&records, |_| Ok(other.client()), &one.run)
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(other.posts("").is_empty());
    assert_eq!(
        records.list().unwrap().readable.len(),
        1,
        "it stays on record"
    );
}

#[test]
fn one_run_at_a_time_quiesces_a_node() {
    let setting = Setting::licensed("26.1-append", AutoScavengeState::Waiting);
    let session = setting.session();
    let quiet = setting.quiesce(&session).unwrap();
    let error = setting.quiesce(&session).map(drop).unwrap_err();
    assert_eq!(error.kind(), Kind::Locked);
    assert!(
        plan_release(&setting.records, None, ReleaseMode::default())
            .unwrap()
            .nodes()[0]
            .in_use
    );
    setting.release(&setting.records).unwrap();
    assert_eq!(
        setting.node.auto_scavenge(),
        Some(AutoScavengeState::Paused),
        "a run at work is left alone"
    );
    quiet.release().unwrap();
    setting.quiesce(&session).unwrap().release().unwrap();
}

#[test]
fn gives_back_after_errors_panics_and_interruptions() {
    let setting = Setting::licensed("26.1-append", AutoScavengeState::Waiting);
    let session = setting.session();

    setting.node.start_scavenge(None).unwrap();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _quiet = setting.quiesce(&session).unwrap();
        panic!("on purpose");
    }));
    assert!(outcome.is_err());
    assert_eq!(
        (setting.node.auto_scavenge(), setting.records()),
        (Some(AutoScavengeState::Waiting), 0)
    );
    assert_eq!(setting.posts("/admin/scavenge").len(), 1);

    assert_soon(Duration::from_secs(2), interrupted_while_a_scavenge_stops);
}

/// Interrupts a run while it waits for a scavenge to stop. Returns how long the run went on.
fn interrupted_while_a_scavenge_stops() -> Duration {
    let setting = Arc::new(Setting::licensed("26.1-append", AutoScavengeState::Waiting));
    let session = setting.session();
    setting
        .node
        .change_quirks(|quirks| quirks.cancel_delay = Duration::from_millis(1500));
    setting.node.start_scavenge(None).unwrap();
    let interrupted = Arc::clone(&setting);
    let waker = std::thread::spawn(move || {
        let is_stopping = || {
            let requests = interrupted.node.requests();
            requests.iter().any(|request| request.method == "DELETE")
        };
        while !is_stopping() {
            std::thread::sleep(Duration::from_millis(5));
        }

        // In the middle of the scavenge's 1.5 s.
        std::thread::sleep(Duration::from_millis(600));
        interrupted.run.interrupt(Signal::Interrupt);
        Instant::now()
    });
    let error = setting.quiesce(&session).map(drop).unwrap_err();
    assert_eq!(
        error.kind(),
        Kind::Interrupted(kbackup::error::Cause::Signal(Signal::Interrupt))
    );
    let took = waker.join().unwrap().elapsed();
    assert_eq!(
        (setting.node.auto_scavenge(), setting.records()),
        (Some(AutoScavengeState::Waiting), 0)
    );
    took
}

#[test]
fn keeps_the_record_if_the_node_is_gone() {
    let setting = Setting::licensed("26.1-append", AutoScavengeState::Waiting);
    let session = setting.session();
    let quiet = setting.quiesce(&session).unwrap();
    setting
        .node
        .change_quirks(|quirks| quirks.never_answer = true);
    setting.run.interrupt(Signal::Terminate);
    let begun = Instant::now();
    let error = quiet.release().unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable, "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(8));
    assert_eq!(setting.records(), 1);

    setting
        .node
        .change_quirks(|quirks| quirks.never_answer = false);
    let run = Run::new(Silent);
    plan_release(&setting.records, None, ReleaseMode::default())
        .unwrap()
        .execute(&setting.records, |_| Ok(setting.client()), &run)
        .unwrap();
    assert_eq!(
        (setting.node.auto_scavenge(), setting.records()),
        (Some(AutoScavengeState::Waiting), 0)
    );
}

#[test]
fn refuses_a_node_without_admin_api() {
    for recording in RECORDINGS {
        let setting = Setting::new(recording);
        setting
            .node
            .change_quirks(|quirks| quirks.admin_ui_disabled = true);
        let session = setting.session();
        let error = setting.quiesce(&session).map(drop).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{recording}");
        assert!(error.hints()[0].contains("--no-quiesce"));

        let quiet = quiesce(
            &session,
            &setting.records,
            &NodeFiles::default(),
            QuiesceSettings {
                quiesce: false,
                ..settings()
            },
            &setting.run,
        )
        .unwrap();
        assert_eq!(
            quiet.check_undisturbed().unwrap(),
            QuiesceCheck::Undisturbed
        );
        assert_eq!(quiet.scavenging().quiet, Quiet::NotAsked);

        quiet.release().unwrap();
    }
}

#[test]
fn gives_up_if_scavenging_does_not_stop() {
    let setting = Setting::licensed("26.1-append", AutoScavengeState::InProgress);
    setting
        .node
        .change_quirks(|quirks| quirks.pausing_for = Duration::from_secs(2));
    let session = setting.session();
    let short = QuiesceSettings {
        pause_within: Duration::from_millis(300),
        ..settings()
    };
    let error = quiesce(
        &session,
        &setting.records,
        &NodeFiles::default(),
        short,
        &setting.run,
    )
    .map(drop)
    .unwrap_err();
    assert_eq!(error.kind(), Kind::Unstable);
    assert!(
        !setting.posts("/auto-scavenge/resume").is_empty(),
        "it was resumed once it had paused"
    );
    assert_eq!(setting.records(), 0);

    let setting = Setting::new("26.1-append");
    setting
        .node
        .change_quirks(|quirks| quirks.cancel_delay = Duration::from_secs(60));
    setting.node.start_scavenge(None).unwrap();
    let session = setting.session();
    let short = QuiesceSettings {
        stop_within: Duration::from_millis(500),
        ..settings()
    };
    let error = quiesce(
        &session,
        &setting.records,
        &NodeFiles::default(),
        short,
        &setting.run,
    )
    .map(drop)
    .unwrap_err();
    assert_eq!(error.kind(), Kind::Unstable);
    assert_eq!(
        setting.records(),
        1,
        "it was told to stop, and has to be given back once it has"
    );
}

#[test]
fn the_record_is_private_and_holds_no_secret() {
    let setting = Setting::licensed("26.1-append", AutoScavengeState::Waiting);
    let credentials = kbackup::node::Credentials::Basic {
        user: "ops".to_owned(),
        password: "hunter2".into(),
    };
    let connection = Connection {
        limits: limits(),
        credentials: Some(credentials),
        ..Connection::new(setting.server.url())
    };
    let session = Session::open(Client::new(&connection).unwrap(), &setting.run).unwrap();
    let quiet = setting.quiesce(&session).unwrap();
    let state = setting.directory.path().join("state");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);

    for entry in std::fs::read_dir(&state).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{path:?}");
        assert!(!std::fs::read_to_string(&path).unwrap().contains("hunter2"));
    }
    assert!(!format!("{session:?}").contains("hunter2"));

    quiet.release().unwrap();
}

#[test]
fn reports_a_record_that_cannot_be_read() {
    let setting = Setting::new("26.1-append");
    let path = setting.directory.path().join("state").join("x.json");
    for (text, kind) in [
        ("", Kind::StoredCorrupt),
        ("{\"format\": 1}", Kind::StoredCorrupt),
        ("{\"format\": 99}", Kind::Refused),
    ] {
        std::fs::write(&path, text).unwrap();
        let listing = setting.records.list().unwrap();
        assert_eq!(listing.unreadable.len(), 1, "{text}");
        assert_eq!(listing.unreadable[0].path, path, "{text}");
        assert_eq!(listing.unreadable[0].error.kind(), kind, "{text}");
    }
}

#[test]
fn asks_old_servers_without_stopping_anything() {
    for recording in ["20.10-append", "21.10-append"] {
        let setting = Setting::new(recording);
        let client = setting.client();
        let patience = Patience::of(&setting.run);
        assert_eq!(
            client.current_scavenge_of_old_server(patience).unwrap(),
            CurrentScavenge::Idle
        );

        let scavenge = setting.node.start_scavenge(None).unwrap();
        assert_eq!(
            client.current_scavenge_of_old_server(patience).unwrap(),
            CurrentScavenge::Running(scavenge.to_string())
        );
        assert_eq!(
            setting.node.current_scavenge(),
            Some(scavenge),
            "it still runs"
        );
    }
}

#[test]
fn looks_at_scavenging_and_changes_nothing() {
    for recording in RECORDINGS {
        let setting = Setting::new(recording);
        let (client, patience) = (setting.client(), Patience::of(&setting.run));
        let look = || look_at_scavenging(&client, patience).unwrap();
        assert_eq!(
            look(),
            NodeScavenging {
                current: CurrentScavenge::Idle,
                auto: Some(kbackup::node::AutoScavenge::Absent)
            },
            "{recording}"
        );

        let scavenge = setting.node.start_scavenge(None).unwrap();
        assert_eq!(
            look().current,
            CurrentScavenge::Running(scavenge.to_string()),
            "{recording}"
        );
        assert_eq!(
            setting.node.current_scavenge(),
            Some(scavenge),
            "{recording}: it still runs"
        );

        setting
            .node
            .change_quirks(|quirks| quirks.admin_ui_disabled = true);
        assert_eq!(
            look().current,
            CurrentScavenge::AdminDisabled,
            "{recording}"
        );
        assert!(
            setting.posts("").is_empty() && setting.records() == 0,
            "{recording}"
        );
    }

    use kbackup::node::AutoScavenge as Auto;

    for (state, seen) in [
        (AutoScavengeState::Waiting, Auto::Waiting),
        (AutoScavengeState::InProgress, Auto::InProgress),
        (AutoScavengeState::Paused, Auto::Paused),
    ] {
        let setting = Setting::licensed("26.1-append", state);
        assert_eq!(
            look_at_scavenging(&setting.client(), Patience::of(&setting.run))
                .unwrap()
                .auto,
            Some(seen)
        );
        assert_eq!(setting.node.auto_scavenge(), Some(state));
    }

    let setting = Setting::new("26.1-append");
    setting
        .node
        .change_quirks(|quirks| quirks.auto_scavenge = AutoScavenge::NoLeader);
    let seen = look_at_scavenging(&setting.client(), Patience::of(&setting.run)).unwrap();
    assert_eq!(
        seen,
        NodeScavenging {
            current: CurrentScavenge::Idle,
            auto: None
        }
    );
}

/// What was taken and is not back yet, and how long each pause was.
#[derive(Clone, Default)]
struct Pauses(Arc<std::sync::Mutex<PausesSeen>>);

#[derive(Default)]
struct PausesSeen {
    taken: std::collections::BTreeSet<&'static str>,
    lengths: Vec<(&'static str, Duration)>,
}

impl Observer for Pauses {
    fn observe(&self, event: &Event) {
        let mut seen = self.0.lock().unwrap();
        match event {
            Event::Taken { what, .. } => assert!(seen.taken.insert(what), "{what} was taken twice"),
            Event::GivenBack { what, after } | Event::NothingToGiveBack { what, after } => {
                assert!(
                    seen.taken.remove(what),
                    "{what} was given back and never taken"
                );
                seen.lengths.push((what, *after));
            }
            _ => {}
        }
    }
}

impl Pauses {
    fn lengths(&self) -> Vec<(&'static str, Duration)> {
        let mut seen = self.0.lock().unwrap();
        assert!(seen.taken.is_empty(), "{:?}", seen.taken);
        std::mem::take(&mut seen.lengths)
    }
}

#[test]
fn every_pause_can_be_measured() {
    const PAUSE: Duration = Duration::from_millis(1200);

    let pauses = Pauses::default();
    let mut setting = Setting::licensed("26.1-append", AutoScavengeState::Waiting);
    setting
        .node
        .change_quirks(|quirks| quirks.scavenge_duration = Duration::from_secs(3600));
    setting.recorded.run = Run::new(pauses.clone());
    let session = setting.session();
    let assert_both = |least: Duration| {
        let lengths = pauses.lengths();
        assert_eq!(
            lengths.iter().map(|(what, _)| *what).collect::<Vec<_>>(),
            ["scavenge", "auto-scavenge"]
        );
        assert!(
            lengths
                .iter()
                .all(|(_, after)| *after >= least && *after < Duration::from_secs(30)),
            "{lengths:?}"
        );
    };
    setting.node.start_scavenge(None).unwrap();

    // Released, dropped, and dropped while it was being taken.
    for how in 0..3 {
        if how == 2 {
            setting
                .node
                .change_quirks(|quirks| quirks.cancel_delay = PAUSE);
            let short = QuiesceSettings {
                stop_within: Duration::from_millis(200),
                ..settings()
            };
            assert_eq!(
                quiesce(
                    &session,
                    &setting.records,
                    &NodeFiles::default(),
                    short,
                    &setting.run
                )
                .map(drop)
                .unwrap_err()
                .kind(),
                Kind::Unstable
            );
            assert_both(Duration::from_millis(200));

            continue;
        }

        let quiet = setting.quiesce(&session).unwrap();
        std::thread::sleep(PAUSE);
        if how == 0 {
            quiet.release().unwrap();
        } else {
            drop(quiet);
        }
        assert_both(PAUSE);
    }

    setting
        .node
        .change_quirks(|quirks| quirks.cancel_delay = Duration::ZERO);

    // A run that was killed: the next one gives back, and `release` does.
    for by_release in [false, true] {
        let killed = setting.quiesce(&session).unwrap();
        std::mem::forget(killed);
        if !by_release {
            pauses.0.lock().unwrap().taken.clear();
        }
        drop(setting.after_crash());
        std::fs::remove_dir_all(setting.directory.path().join("state")).unwrap();
        std::fs::rename(
            setting.directory.path().join("crashed"),
            setting.directory.path().join("state"),
        )
        .unwrap();
        setting.records = ReleaseRecords::open(&setting.directory.path().join("state")).unwrap();
        std::thread::sleep(PAUSE);
        if by_release {
            setting.release(&setting.records).unwrap();
        } else {
            setting.quiesce(&session).unwrap().release().unwrap();
        }

        // The record has whole seconds.
        assert_both(PAUSE.saturating_sub(Duration::from_secs(1)));
    }
}

#[test]
fn a_pause_ends_at_its_limit_and_no_retry_extends_it() {
    let limit = Duration::from_millis(1500);
    let brief = QuiesceSettings {
        max_pause: limit,
        ..settings()
    };
    let too_long = Kind::Interrupted(kbackup::error::Cause::PausedTooLong);

    let setting = Setting::licensed("26.1-append", AutoScavengeState::Waiting);
    let session = setting.session();
    let mut quiet = quiesce(
        &session,
        &setting.records,
        &NodeFiles::default(),
        brief.clone(),
        &setting.run,
    )
    .unwrap();
    let begun = Instant::now();
    let error = loop {
        if let Err(error) = quiet.quiesce_again() {
            break error;
        }
        assert!(begun.elapsed() < Duration::from_secs(20));
    };
    assert_eq!((error.kind(), error.kind().exit_code()), (too_long, 22));

    quiet.release().unwrap();
    assert_eq!(
        (setting.node.auto_scavenge(), setting.records()),
        (Some(AutoScavengeState::Waiting), 0)
    );

    // The limit ends the wait for a slow scavenge. Giving back waits until that has stopped.
    let setting = Setting::new("26.1-append");
    setting
        .node
        .change_quirks(|quirks| quirks.cancel_delay = limit * 3);
    setting
        .node
        .start_scavenge(Some(Duration::from_secs(3600)))
        .unwrap();
    let session = setting.session();
    let error = quiesce(
        &session,
        &setting.records,
        &NodeFiles::default(),
        brief.clone(),
        &setting.run,
    )
    .map(drop)
    .unwrap_err();
    assert_eq!(error.kind(), too_long);
    assert_eq!(
        (setting.records(), setting.node.owes_scavenge()),
        (0, false)
    );

    // If nothing is taken, no time runs.
    let setting = Setting::new("26.1-append");
    let session = setting.session();
    let quiet = quiesce(
        &session,
        &setting.records,
        &NodeFiles::default(),
        QuiesceSettings {
            max_pause: Duration::ZERO,
            ..settings()
        },
        &setting.run,
    )
    .unwrap();
    setting.run.pause(Duration::from_millis(200)).unwrap();
    quiet.release().unwrap();

    // What an earlier run took counts.
    let setting = Setting::licensed("26.1-append", AutoScavengeState::Waiting);
    let session = setting.session();
    std::mem::forget(setting.quiesce(&session).unwrap());
    let quiet = quiesce(
        &session,
        &setting.after_crash(),
        &NodeFiles::default(),
        brief,
        &setting.run,
    )
    .unwrap();
    assert_eq!(
        setting
            .run
            .pause(Duration::from_secs(20))
            .unwrap_err()
            .kind(),
        too_long
    );

    quiet.release().unwrap();
    assert_eq!(
        setting.node.auto_scavenge(),
        Some(AutoScavengeState::Waiting)
    );
}
