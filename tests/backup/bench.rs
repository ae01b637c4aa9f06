//! The bench of most tests: a data directory, a repository, and assertions about its backups.

use std::collections::HashSet;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kbackup::backup::{
    self, BackupRequest, BackupSummary, RecheckShare, RunningNode, Source, SourceNode,
};
use kbackup::error::Error;
use kbackup::event::{Event, Observer, Step};
use kbackup::manifest::{BackupKind, Directories, Head, Manifest};
use kbackup::node::{Client, Connection, QuiesceSettings, ReleaseRecords, Session, TimeLimits};
use kbackup::proof::{self, Depth};
use kbackup::repository::Repository;
use kbackup::restore;
use kbackup::run::Run;
use kbackup::server::ServerLine;
use kbackup::verify::{self, Which};
use kbackup_testnode::log::Log;
use kbackup_testnode::{Checkpoint, Made, Node, Server, Synthetic, Version};
use uuid::Uuid;

use crate::fixtures::DataDirectory;
use crate::stores::TestRepository;

/// A data directory, a repository, and room for restores. It lies in memory if possible, because
/// every backup syncs every file.
pub(crate) struct Bench {
    place: tempfile::TempDir,
    pub(crate) db: PathBuf,
    pub(crate) repository: TestRepository,
    pub(crate) request: BackupRequest,
    pub(crate) line: ServerLine,
    events: Arc<Mutex<Vec<String>>>,
}

/// Passes every event of a run on.
struct Hook<F>(F);

impl<F: Fn(&Event) + Send + Sync> Observer for Hook<F> {
    fn observe(&self, event: &Event) {
        (self.0)(event);
    }
}

/// A few chunks of 64 KiB, three tables, and an active chunk that is half full.
pub(crate) fn small() -> Synthetic {
    Synthetic {
        filled_filters: false,
        chunk_size: 64 * 1024,
        completed_chunks: 5,
        active_bytes: 40_000,
        event_bytes: 700,
        most_events_in_append: 4,
        streams: 10,
        table_entries: 120,
        filter_bytes: 10_000,
        merged_chunks: 0,
        seed: 7,
    }
}

impl Bench {
    pub(crate) fn new(synthetic: &Synthetic) -> Self {
        Self::made(synthetic).0
    }

    pub(crate) fn made(synthetic: &Synthetic) -> (Self, Made) {
        let place = workplace();
        let made = synthetic.make(place.path()).unwrap();

        // The filter says that it is empty. Otherwise it would hide every stream from a deep check.
        std::fs::write(
            made.index
                .join("stream-existence/streamExistenceFilter.chk"),
            (-1_i64).to_le_bytes(),
        )
        .unwrap();
        (Self::over(place, made.db.clone(), ServerLine::V26_1), made)
    }

    /// Takes a copy of a real node's directory.
    pub(crate) fn of(name: &str) -> Self {
        let place = workplace();
        let data = DataDirectory::unpack(name).unwrap();
        let db = place.path().join("db");
        copy_tree(&data.db(), &db);
        Self::over(place, db, ServerLine::of_version(name).unwrap())
    }

    fn over(place: tempfile::TempDir, db: PathBuf, line: ServerLine) -> Self {
        let repository = TestRepository::create(&place.path().join("repository"));
        let request = BackupRequest {
            kind: BackupKind::Diff,
            attempts: 4,
            filter_max_age: Duration::from_secs(86400),
            catch_up: Duration::ZERO,
            accept_damaged: false,
            new_branch: false,
            new_address: false,
            recheck: RecheckShare::Bytes(1 << 30),
        };
        Self {
            place,
            db,
            repository,
            request,
            line,
            events: Arc::default(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    pub(crate) fn chunk(&self, number: u32, version: u32) -> PathBuf {
        self.db.join(format!("chunk-{number:06}.{version:06}"))
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.db.join("index")
    }

    /// The tables in the order of their names.
    pub(crate) fn tables(&self) -> Vec<PathBuf> {
        let mut tables = files(&self.index());
        tables.retain(|path| Uuid::parse_str(name(path)).is_ok());
        tables.sort();
        tables
    }

    pub(crate) fn set(&self, checkpoint: Checkpoint, value: u64) {
        std::fs::write(self.db.join(checkpoint.file_name()), value.to_le_bytes()).unwrap();
    }

    pub(crate) fn get(&self, checkpoint: Checkpoint) -> i64 {
        read_checkpoint(&self.db, checkpoint)
    }

    pub(crate) fn append(&self, bytes: u64) -> u64 {
        Synthetic::append(self.place.path(), bytes).unwrap()
    }

    /// Appends events that no other seed appends at this position.
    pub(crate) fn append_other(&self, bytes: u64, seed: u64) -> u64 {
        Synthetic::append_seeded(self.place.path(), bytes, seed).unwrap()
    }

    /// The output of the last run: notes, warnings and reasons of retries.
    pub(crate) fn said(&self) -> String {
        self.events.lock().unwrap().join("\n")
    }

    /// A run that passes its events to a hook.
    pub(crate) fn run(&self, hook: impl Fn(&Event) + Send + Sync + 'static) -> Run {
        let events = Arc::clone(&self.events);
        events.lock().unwrap().clear();
        Run::new(Hook(move |event: &Event| {
            let text = match event {
                Event::Warning(text) => Some(format!("warning: {text}")),
                Event::Note(text) => Some(text.clone()),
                Event::Retry { reason, .. } => Some(format!("retry: {reason}")),
                _ => None,
            };
            events.lock().unwrap().extend(text);
            hook(event);
        }))
    }

    pub(crate) fn take(&self) -> Result<BackupSummary, Error> {
        self.take_with(&self.request, |_| ())
    }

    pub(crate) fn full(&self) -> Result<BackupSummary, Error> {
        self.take_with(
            &BackupRequest {
                kind: BackupKind::Full,
                filter_max_age: Duration::ZERO,
                ..self.request.clone()
            },
            |_| (),
        )
    }

    /// Takes a backup of the stopped node and passes its events to a hook.
    pub(crate) fn take_with(
        &self,
        request: &BackupRequest,
        hook: impl Fn(&Event) + Send + Sync + 'static,
    ) -> Result<BackupSummary, Error> {
        let source = Source {
            directories: Directories::new(&self.db, None),
            server_version: None,
            node: SourceNode::Stopped,
        };
        backup::take(request, &source, &self.repository, &self.run(hook))
    }

    /// Takes a diff of the stopped node into another repository.
    pub(crate) fn take_to(&self, repository: &dyn Repository) -> Result<BackupSummary, Error> {
        self.take_of(&self.db, repository, &self.request)
    }

    /// Takes a diff of another data directory of the same node, which no other run locks.
    pub(crate) fn take_from(
        &self,
        db: &Path,
        repository: &dyn Repository,
    ) -> Result<BackupSummary, Error> {
        self.take_of(db, repository, &self.request)
    }

    /// Takes a full of the stopped node into another repository.
    pub(crate) fn full_to(&self, repository: &dyn Repository) -> Result<BackupSummary, Error> {
        let request = BackupRequest {
            kind: BackupKind::Full,
            filter_max_age: Duration::ZERO,
            ..self.request.clone()
        };
        self.take_of(&self.db, repository, &request)
    }

    fn take_of(
        &self,
        db: &Path,
        repository: &dyn Repository,
        request: &BackupRequest,
    ) -> Result<BackupSummary, Error> {
        let source = Source {
            directories: Directories::new(db, None),
            server_version: None,
            node: SourceNode::Stopped,
        };
        backup::take(request, &source, repository, &self.run(|_| ()))
    }

    /// Serves the directory as a running node.
    pub(crate) fn serve(&self) -> Live {
        let node = Node::still(Version::new(26, 1), self.place.path()).unwrap();
        let server = node.serve().unwrap();
        Live { node, server }
    }

    pub(crate) fn live(
        &self,
        live: &Live,
        hook: impl Fn(&Event) + Send + Sync + 'static,
    ) -> Result<BackupSummary, Error> {
        self.live_as(live, &self.request, None, hook)
    }

    pub(crate) fn live_as(
        &self,
        live: &Live,
        request: &BackupRequest,
        leader_end: Option<u64>,
        hook: impl Fn(&Event) + Send + Sync + 'static,
    ) -> Result<BackupSummary, Error> {
        let run = self.run(hook);
        let limits = TimeLimits {
            patience: Duration::from_secs(2),
            ..TimeLimits::default()
        };

        let session = Session::open(
            Client::new(&Connection {
                limits,
                ..Connection::new(live.server.url())
            })?,
            &run,
        )?;

        let release_records = ReleaseRecords::open(&self.path("state"))?;
        let quiesce = QuiesceSettings::default();
        let leader_end = leader_end.and_then(kbackup::format::LogPosition::new);
        let running = RunningNode {
            session: &session,
            release_records: &release_records,
            quiesce,
            state: "leader".to_owned(),
            leader_end,
        };

        let server_version = Some(session.version().as_str().to_owned());
        let directories = Directories::new(&self.db, None);
        let source = Source {
            directories,
            server_version,
            node: SourceNode::Running(running),
        };
        backup::take(request, &source, &self.repository, &run)
    }

    pub(crate) fn manifests(&self) -> Vec<Head> {
        let listed = self.repository.list().unwrap();
        listed.into_iter().map(|one| one.head.unwrap()).collect()
    }

    pub(crate) fn manifest(&self, summary: &BackupSummary) -> Manifest {
        self.repository.manifest(&summary.label).unwrap()
    }

    pub(crate) fn stored(&self, summary: &BackupSummary) -> PathBuf {
        Path::new(&self.repository.place())
            .join("backups")
            .join(summary.label.as_str())
    }

    /// Asserts that every listed backup is sound.
    pub(crate) fn assert_sound(&self) {
        let mut report = verify::verify(
            &self.repository,
            &Which::All,
            Depth::Deep,
            &Run::new(kbackup::event::Silent),
        )
        .unwrap();

        let is_sound = report.is_sound();
        report.backups.retain(|backup| !backup.findings.is_empty());
        assert!(is_sound, "{:#?}", report.backups);
    }

    /// What a deep verification finds wrong with all listed backups, in words.
    pub(crate) fn findings(&self) -> String {
        let run = Run::new(kbackup::event::Silent);
        let report = verify::verify(&self.repository, &Which::All, Depth::Deep, &run).unwrap();
        let mut said = String::new();
        for backup in report.backups {
            for finding in backup.findings {
                said.push_str(&format!("{finding}\n"));
            }
        }
        said
    }

    /// Asserts that a restore of the backup passes the check and holds these events.
    pub(crate) fn assert_restores(&self, summary: &BackupSummary, events: &HashSet<Uuid>) {
        let target = self.restore(summary, "restored", true);
        let log = Log::read(&target).unwrap();
        assert!(
            log.ends_at_boundary(),
            "{}: the log ends inside an append",
            summary.label
        );

        let held: HashSet<Uuid> = log.event_ids().collect();
        assert_eq!(
            (
                held.difference(events).count(),
                events.difference(&held).count()
            ),
            (0, 0),
            "{}: more or fewer events",
            summary.label
        );

        let run = Run::new(kbackup::event::Silent);
        let options = proof::ExamineOptions {
            version: Some(self.line),
            depth: Depth::Deep,
            in_use: false,
        };
        let examination = proof::examine(&Directories::new(&target, None), &options, &run).unwrap();
        assert_eq!(examination.kind(), None, "{:#?}", examination.findings);

        std::fs::remove_dir_all(target).unwrap();
    }

    pub(crate) fn restore(&self, summary: &BackupSummary, name: &str, ready: bool) -> PathBuf {
        let run = Run::new(kbackup::event::Silent);
        let target = self.path(name);
        let request = restore::RestoreRequest {
            label: Some(summary.label.clone()),
            targets: vec![restore::RestoreTarget {
                db: target.clone(),
                index: None,
            }],
            ready,
            ..restore::RestoreRequest::default()
        };

        let plan = restore::plan(&self.repository, &request, &run).unwrap();
        let report = restore::execute(&self.repository, &plan, &run).unwrap();
        assert!(report.failure().is_none(), "{report}");
        target
    }

    /// The bytes of all files of the source.
    pub(crate) fn db_bytes(&self) -> u64 {
        let mut bytes = 0;
        for entry in walkdir::WalkDir::new(&self.db) {
            let found = entry.unwrap().metadata().unwrap();
            if found.is_file() {
                bytes += found.len();
            }
        }
        bytes
    }

    /// The events of the source's log, up to its last consistent position.
    pub(crate) fn events(&self) -> HashSet<Uuid> {
        let mut log = Log::read(&self.db).unwrap();
        let end = log.last_boundary();
        log.records.retain(|record| record.end <= end);
        log.event_ids().collect()
    }
}

/// A node that serves the data directory.
pub(crate) struct Live {
    pub(crate) node: Node,
    pub(crate) server: Server,
}

impl Live {
    /// Stops the node. Its locks are gone when this returns.
    pub(crate) fn stop(self, bench: &Bench) {
        drop(self);
        for _ in 0..500 {
            let writer =
                std::fs::File::open(bench.db.join(Checkpoint::Writer.file_name())).unwrap();
            if writer.try_lock().is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn read_checkpoint(db: &Path, checkpoint: Checkpoint) -> i64 {
    let bytes = std::fs::read(db.join(checkpoint.file_name())).unwrap();
    i64::from_le_bytes(bytes.try_into().unwrap())
}

/// Elects another leader: writes an epoch record at the end of the log. The active chunk must have
/// room for it.
pub(crate) fn elect(db: &Path, number: u64, id: u128) {
    let writer = u64::try_from(read_checkpoint(db, Checkpoint::Writer)).unwrap();
    let previous = read_checkpoint(db, Checkpoint::Epoch);
    let json = serde_json::json!({
        "epochPosition": writer,
        "epochNumber": number,
        "epochId": Uuid::from_u128(id),
        "prevEpochPosition": previous,
        "timeStamp": "2026-11-21T00:00:00Z",
        "leaderInstanceId": Uuid::from_u128(id),
    })
    .to_string();

    let mut body = vec![2, 0];
    body.extend(writer.to_le_bytes());
    body.extend(639_308_160_000_000_000_i64.to_le_bytes());
    body.extend([1, 2]);
    body.extend(0_u64.to_le_bytes());
    body.extend(u32::try_from(json.len()).unwrap().to_le_bytes());
    body.extend(json.as_bytes());

    let length = u32::try_from(body.len()).unwrap().to_le_bytes();
    let record = [&length[..], &body, &length].concat();

    let chunk = writer / (64 * 1024);
    writable(&db.join(format!("chunk-{chunk:06}.000000")), |file| {
        file.write_all_at(&record, 128 + writer % (64 * 1024))
            .unwrap();
    });

    let end = writer + record.len() as u64;
    for (checkpoint, value) in [
        (Checkpoint::Writer, end),
        (Checkpoint::Chaser, end),
        (Checkpoint::Epoch, writer),
        (Checkpoint::Proposal, number),
    ] {
        std::fs::write(db.join(checkpoint.file_name()), value.to_le_bytes()).unwrap();
    }
}

/// Sets the node back to a backup.
pub(crate) fn restore_over(bench: &Bench, summary: &BackupSummary) {
    std::fs::remove_dir_all(&bench.db).unwrap();
    bench.restore(summary, "db", true);
}

/// A directory for many small backups, in memory if possible, because every backup syncs every
/// file.
pub(crate) fn workplace() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

/// A hook that does something once, when this step begins for the n-th time.
pub(crate) fn at(
    step: Step,
    count: usize,
    what: impl FnOnce() + Send + 'static,
) -> impl Fn(&Event) + Send + Sync + 'static {
    let state = Mutex::new((0, Some(what)));
    move |event| {
        if !matches!(event, Event::Step(begun) if *begun == step) {
            return;
        }

        let mut state = state.lock().unwrap();
        state.0 += 1;
        if state.0 == count
            && let Some(what) = state.1.take()
        {
            what();
        }
    }
}

/// Starts a scavenge that another client wants, for a moment.
pub(crate) fn begin_scavenge(node: &Node) {
    node.start_scavenge(Some(Duration::from_millis(1))).unwrap();
}

pub(crate) fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.is_file());
    files
}

/// Inverts one byte, whatever the file's mode is.
pub(crate) fn flip(path: &Path, offset: u64) {
    writable(path, |file| {
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[!byte[0]], offset).unwrap();
    });
}

/// Changes a file, whatever its mode is.
pub(crate) fn writable(path: &Path, change: impl FnOnce(&std::fs::File)) {
    let mode = path.metadata().unwrap().permissions();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();

    change(
        &std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .unwrap(),
    );

    std::fs::set_permissions(path, mode).unwrap();
}

pub(crate) fn copy_tree(from: &Path, to: &Path) {
    for entry in walkdir::WalkDir::new(from) {
        let entry = entry.unwrap();
        let target = to.join(entry.path().strip_prefix(from).unwrap());
        if entry.file_type().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}

/// A `scavenging.db` that knows of scavenges at these positions.
pub(crate) fn scavenge_state(points: &[u64]) -> Vec<u8> {
    let mut bytes = vec![0; 8192];
    bytes[..16].copy_from_slice(b"SQLite format 3\0");
    bytes[16..18].copy_from_slice(&4096_u16.to_be_bytes());
    bytes[18..24].copy_from_slice(&[2, 2, 0, 64, 32, 32]);
    bytes[28..32].copy_from_slice(&2_u32.to_be_bytes());
    for (number, point) in points.iter().enumerate() {
        let row = format!(
            r#"{{"scavengePoint":{{"position":{point},"eventNumber":{number},"threshold":0}}}}"#
        );
        bytes[4200 + number * 200..][..row.len()].copy_from_slice(row.as_bytes());
    }
    bytes
}

/// A `kurrent.ddb` without tables: the headers of a `DuckDB` database.
pub(crate) fn secondary_index() -> Vec<u8> {
    let mut bytes = vec![0; 3 * 4096];
    bytes[8..12].copy_from_slice(b"DUCK");
    for header in [4096, 2 * 4096] {
        // No catalogue, and no list of free blocks.
        bytes[header + 16..header + 32].fill(0xff);
    }

    for header in bytes.chunks_mut(4096) {
        let mut sum = 5381_u64;
        for word in header[8..].as_chunks::<8>().0 {
            sum ^= u64::from_le_bytes(*word).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        }
        header[..8].copy_from_slice(&sum.to_le_bytes());
    }
    bytes
}
