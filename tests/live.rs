//! Backups of recorded live nodes, one chain of a full and many diffs per recording. At any moment
//! of the recording, a backup holds every event that was acknowledged before the backup began. It
//! holds no part of an append and no event of another branch. It restores to a directory that a
//! server starts from.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may end in a panic"
)]

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use kbackup::backup::{self, BackupRequest, BackupSummary, RunningNode, Source, SourceNode};
use kbackup::error::{Error, Kind, Signal};
use kbackup::event::{Event, Observer, Silent, Step};
use kbackup::manifest::{BackupKind, Directories};
use kbackup::node::{Client, Connection, QuiesceSettings, ReleaseRecords, Session, TimeLimits};
use kbackup::proof::{self, Depth};
use kbackup::repository::{DirectoryRepository, Repository};
use kbackup::restore;
use kbackup::run::Run;
use kbackup::server::ServerLine;
use kbackup::verify::{self, Which};
use kbackup_testnode::log::Log;
use kbackup_testnode::{Checkpoint, Mark, Node, Phase, Recording, Server};
use uuid::Uuid;

use crate::backup::bench::workplace;

/// Interrupts a backup after so many files, and at the latest before its proof.
struct Impatient {
    run: Weak<Run>,
    files: AtomicUsize,
}

impl Observer for Impatient {
    fn observe(&self, event: &Event) {
        let enough = match event {
            Event::Copied { .. } | Event::Resumed { .. } => {
                self.files.fetch_sub(1, Ordering::SeqCst) == 1
            }
            Event::Step(step) => *step == Step::Prove,
            _ => false,
        };

        if let (true, Some(run)) = (enough, self.run.upgrade()) {
            run.interrupt(Signal::Terminate);
        }
    }
}

struct Bench {
    node: Node,
    server: Server,
    repository: DirectoryRepository,
    place: tempfile::TempDir,
    line: ServerLine,
}

impl Bench {
    fn new(recording: &Arc<Recording>) -> Self {
        let place = workplace();
        let node = Node::start(Arc::clone(recording), place.path().join("node")).unwrap();
        let server = node.serve().unwrap();

        let repository = DirectoryRepository::create(&place.path().join("repository")).unwrap();

        let line = ServerLine::of_version(&format!(
            "{}.{}",
            recording.version.major, recording.version.minor
        ))
        .unwrap();

        Self {
            node,
            server,
            repository,
            place,
            line,
        }
    }

    fn take(&self, new_branch: bool) -> Result<BackupSummary, Error> {
        self.take_as(BackupKind::Diff, new_branch, &Run::new(Silent))
    }

    /// Takes a full that is interrupted after some files. Its leftovers must not harm the next
    /// backup.
    fn take_in_part(&self, files: usize) {
        let run = Arc::new_cyclic(|run| {
            Run::new(Impatient {
                run: run.clone(),
                files: AtomicUsize::new(files),
            })
        });
        assert!(self.take_as(BackupKind::Full, true, &run).is_err());
    }

    fn take_as(
        &self,
        kind: BackupKind,
        new_branch: bool,
        run: &Run,
    ) -> Result<BackupSummary, Error> {
        let directories = Directories::new(self.node.db(), Some(self.node.index()));
        let request = BackupRequest {
            kind,
            attempts: 10,
            filter_max_age: Duration::from_secs(86400),
            catch_up: Duration::ZERO,
            accept_damaged: false,
            new_branch,
            new_address: false,
            recheck: backup::RecheckShare::Percent(100),
        };

        if self.node.phase() == Phase::Down {
            let source = Source {
                directories,
                server_version: None,
                node: SourceNode::Stopped,
            };
            return backup::take(&request, &source, &self.repository, run);
        }

        let session = Session::open(
            Client::new(&Connection {
                limits: limits(),
                ..Connection::new(self.server.url())
            })?,
            run,
        )?;

        let release_records = ReleaseRecords::open(&self.place.path().join("state"))?;
        let quiesce = QuiesceSettings::default();

        let running = RunningNode {
            session: &session,
            release_records: &release_records,
            quiesce,
            state: "leader".to_owned(),
            leader_end: None,
        };

        let server_version = Some(session.version().as_str().to_owned());
        let source = Source {
            directories,
            server_version,
            node: SourceNode::Running(running),
        };
        backup::take(&request, &source, &self.repository, run)
    }

    /// Takes a backup while the node slowly goes on. The writer position may lie inside an append
    /// now, and outside of it a moment later.
    fn take_while_the_node_goes_on(&self, new_branch: bool) -> Result<BackupSummary, Error> {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(30));
                let mut steps = 0;
                while !done.load(Ordering::SeqCst)
                    && self.node.phase() == Phase::Ready
                    && self.node.step() < self.node.len()
                {
                    // A scavenge that must not begin stops the replay.
                    if self.node.advance_to(self.node.step() + 1).is_err() {
                        break;
                    }
                    steps += 1;
                    // However long a backup takes on a busy machine, it does not use up the
                    // moments of the next ones.
                    std::thread::sleep(match steps {
                        0..40 => Duration::from_millis(3),
                        40..60 => Duration::from_millis(100),
                        _ => Duration::from_secs(2),
                    });
                }
            });

            let taken = self.take(new_branch);

            done.store(true, Ordering::SeqCst);
            taken
        })
    }

    /// The acknowledged events that the node has. A scavenge may have removed some.
    fn expected(&self) -> Option<HashSet<Uuid>> {
        let acknowledged: HashSet<Uuid> = self
            .node
            .acked()
            .into_iter()
            .flat_map(|acked| acked.ids)
            .collect();
        Some(acknowledged.intersection(&self.held()?).copied().collect())
    }

    /// The events in the node's log now. Returns `None` if a start ended in the middle of its
    /// truncation.
    fn held(&self) -> Option<HashSet<Uuid>> {
        Some(Log::read(&self.node.db()).ok()?.event_ids().collect())
    }

    fn stored(&self, summary: &BackupSummary) -> PathBuf {
        Path::new(&self.repository.place())
            .join("backups")
            .join(summary.label.as_str())
    }

    fn prove(&self, summary: &BackupSummary, before: &HashSet<Uuid>, step: usize) {
        let log = Log::read(&self.stored(summary).join("db"))
            .unwrap_or_else(|error| panic!("step {step}: {error:#}"));
        let held: HashSet<Uuid> = log.event_ids().collect();

        assert!(
            log.ends_at_boundary(),
            "step {step}: the log ends inside an append"
        );

        if let Some(now) = self.held() {
            let expected: Vec<&Uuid> = before.intersection(&now).collect();
            let missing = expected.iter().filter(|id| !held.contains(**id)).count();
            assert_eq!(
                missing, 0,
                "step {step}: acknowledged events are missing in {}",
                summary.label
            );

            assert_eq!(
                held.difference(&now).count(),
                0,
                "step {step}: events of another branch are in {}",
                summary.label
            );
        }

        self.assert_restores(summary, &log, step);
    }

    fn assert_restores(&self, summary: &BackupSummary, log: &Log, step: usize) {
        let run = Run::new(Silent);

        let target = self.place.path().join("restored");
        let request = restore::RestoreRequest {
            label: Some(summary.label.clone()),
            targets: vec![restore::RestoreTarget {
                db: target.clone(),
                index: None,
            }],
            ready: step.is_multiple_of(2),
            ..restore::RestoreRequest::default()
        };

        let plan = restore::plan(&self.repository, &request, &run).unwrap();
        let report = restore::execute(&self.repository, &plan, &run).unwrap();
        assert!(report.failure().is_none(), "step {step}: {report}");

        let restored = Log::read(&target).unwrap();
        assert_eq!(restored.records.len(), log.records.len(), "step {step}");

        let options = proof::ExamineOptions {
            version: Some(self.line),
            depth: Depth::Deep,
            in_use: false,
        };
        let examination = proof::examine(&Directories::new(&target, None), &options, &run).unwrap();

        assert_eq!(
            examination.kind(),
            None,
            "step {step}: {:#?}",
            examination.findings
        );

        if summary.index {
            let unlisted = examination
                .findings
                .iter()
                .find(|finding| finding.code.contains("unlisted"));
            assert!(unlisted.is_none(), "step {step}: {unlisted:?}");
        }

        std::fs::remove_dir_all(&target).unwrap();
    }
}

/// A node that has ended answers at once or never.
fn limits() -> TimeLimits {
    TimeLimits {
        patience: Duration::from_secs(3),
        ..TimeLimits::default()
    }
}

/// Random steps from a small generator, so that a failing run can be repeated.
fn random_steps(name: &str, seed: u64, from: usize, to: usize, count: usize) -> Vec<usize> {
    let mut state = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    state ^= seed;

    (0..count)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            from + usize::try_from(state >> 33).unwrap() % (to - from)
        })
        .collect()
}

fn chain(name: &str) {
    let recording = Arc::new(Recording::named(name).unwrap());
    let taken = chain_over(
        &recording,
        if name.contains("scavenge") { 72 } else { 48 },
        0,
    );
    assert!(taken >= 26, "{name}: only {taken} backups");
}

/// Takes a full and diffs at random moments of a recording, and proves each of them. Returns how many
/// backups there are.
pub(crate) fn chain_over(recording: &Arc<Recording>, moments: usize, seed: u64) -> usize {
    chain_through(recording, moments, seed, false)
}

/// If `interrupted` is set, an interrupted backup comes before each backup, at an earlier moment of
/// the recording.
fn chain_through(
    recording: &Arc<Recording>,
    moments: usize,
    seed: u64,
    interrupted: bool,
) -> usize {
    let name = recording.name.as_str();
    let bench = Bench::new(recording);
    let begin = bench.node.advance_to_mark(Mark::Ready).unwrap();
    let mut steps = random_steps(name, seed, begin, recording.live_end(), moments);

    // The moments of O38: the writer checkpoint lies inside an append.
    let scratch = workplace();
    let inside = recording.steps_inside_appends(scratch.path()).unwrap();
    let stride = inside.len() / 6 + 1;
    let inside = inside.iter().filter(|step| **step > begin);
    steps.extend(inside.step_by(stride));
    steps.sort_unstable();
    steps.dedup();

    let (mut taken, mut branches, mut resumed, mut failed) = (0, 1, 0, 0);
    for step in steps {
        if step < bench.node.step() {
            continue;
        }

        // A recorded scavenge that was told to stop came to its recorded end, so kbackup did not
        // give it back. The tests of `quiesce` prove the giving back.
        bench.node.quiet(false);
        if interrupted {
            let between = usize::midpoint(bench.node.step(), step);
            bench
                .node
                .advance_to(between)
                .unwrap_or_else(|error| panic!("{name} step {between}: {error:#}"));

            if matches!(bench.node.phase(), Phase::Ready | Phase::Down) {
                bench.take_in_part(taken * 5 % 17 + 1);
            }

            // A scavenge that was told to stop may have come to its recorded end.
            if step < bench.node.step() {
                continue;
            }
            bench.node.quiet(false);
        }

        bench
            .node
            .advance_to(step)
            .unwrap_or_else(|error| panic!("{name} step {step}: {error:#}"));
        if bench.node.phase() == Phase::Starting {
            continue;
        }

        let pending = bench
            .node
            .checkpoint(Checkpoint::Truncate)
            .is_some_and(|position| position >= 0);

        let Some(expected) = bench.expected() else {
            continue;
        };

        let result = match bench.take_while_the_node_goes_on(false) {
            Err(error) if wants_new_branch(&error) => {
                branches += 1;
                bench.take_while_the_node_goes_on(true)
            }
            result => result,
        };

        match result {
            Ok(summary) => {
                assert_eq!(summary.branch, branches, "{name} step {step}");
                bench.prove(&summary, &expected, step);
                taken += 1;
                resumed += summary.files_resumed;
            }
            Err(error) if pending && matches!(error.kind(), Kind::Refused | Kind::Unstable) => {
                failed += 1;
            }
            // The node stopped during the copy.
            Err(error)
                if bench.node.phase() != Phase::Ready
                    && matches!(error.kind(), Kind::Unstable | Kind::Unreachable) =>
            {
                failed += 1;
            }
            Err(error) => panic!(
                "{name} step {step} (now {}): {error} {:?}",
                bench.node.step(),
                error.causes()
            ),
        }
    }

    assert_eq!(
        branches,
        if name.ends_with("truncate") { 2 } else { 1 },
        "{name}"
    );

    let report = verify::verify(
        &bench.repository,
        &Which::All,
        Depth::Deep,
        &Run::new(Silent),
    )
    .unwrap();
    assert!(
        report.is_sound(),
        "{name}: {:#?}",
        report
            .backups
            .iter()
            .filter(|backup| !backup.findings.is_empty())
            .collect::<Vec<_>>()
    );

    assert_eq!(report.backups.len(), taken);

    // The next backup resumes what a failed run leaves, as it does after an interruption.
    assert!(
        if interrupted {
            resumed > 0
        } else {
            resumed == 0 || failed > 0
        },
        "{name}: {resumed} files were resumed"
    );
    taken
}

fn wants_new_branch(error: &Error) -> bool {
    let mut hints = error.hints().iter();
    error.kind() == Kind::Refused && hints.any(|hint| hint.contains("--new-branch"))
}

#[test]
fn files_of_an_interrupted_backup_are_never_mixed_with_another_branch() {
    let recording = Arc::new(Recording::named("24.10-truncate").unwrap());
    let taken = chain_through(&recording, 24, 0, true);
    assert!(taken >= 10, "only {taken} backups");
}

macro_rules! chains {
    ($($test:ident: $recording:literal,)*) => {
        $(#[test]
        fn $test() {
            chain($recording);
        })*

        #[test]
        fn every_recording_has_its_chain() {
            let tested: HashSet<&str> = [$($recording),*].into();
            for name in Recording::names().unwrap() {
                assert!(tested.contains(name.as_str()), "{name}");
            }
        }
    };
}

chains! {
    append_20_10: "20.10-append",
    kill_20_10: "20.10-kill",
    scavenge_20_10: "20.10-scavenge",
    truncate_20_10: "20.10-truncate",
    append_21_10: "21.10-append",
    kill_21_10: "21.10-kill",
    scavenge_21_10: "21.10-scavenge",
    truncate_21_10: "21.10-truncate",
    append_22_10: "22.10-append",
    kill_22_10: "22.10-kill",
    scavenge_22_10: "22.10-scavenge",
    scavenge_stopped_22_10: "22.10-scavenge-stopped",
    truncate_22_10: "22.10-truncate",
    append_23_10: "23.10-append",
    kill_23_10: "23.10-kill",
    scavenge_23_10: "23.10-scavenge",
    scavenge_stopped_23_10: "23.10-scavenge-stopped",
    truncate_23_10: "23.10-truncate",
    append_24_10: "24.10-append",
    kill_24_10: "24.10-kill",
    scavenge_24_10: "24.10-scavenge",
    scavenge_stopped_24_10: "24.10-scavenge-stopped",
    truncate_24_10: "24.10-truncate",
    append_26_1: "26.1-append",
    kill_26_1: "26.1-kill",
    scavenge_26_1: "26.1-scavenge",
    scavenge_stopped_26_1: "26.1-scavenge-stopped",
    truncate_26_1: "26.1-truncate",
}
