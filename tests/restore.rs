//! Backups of real nodes' directories, made by hand, and what a restore makes of them.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may end in a panic")]

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use kbackup::clock::Timestamp;
use kbackup::error::Kind;
use kbackup::event::{Run, Silent};
use kbackup::format::{ChunkSize, Lineage, LogPosition, Md5Hash, WriterPosition};
use kbackup::fs;
use kbackup::manifest::*;
use kbackup::proof::Proven;
use kbackup::repository::{DirectoryRepository, Ingest, Repository};
use kbackup::restore::{Accept, Behaviour, Outcome, Plan, Report, Request, Target, execute, plan};

use crate::fixtures::DataDirectory;

/// A repository with one backup of a real node's directory, and a place for targets.
struct Stage {
    data: DataDirectory,
    repository: DirectoryRepository,
    manifest: Manifest,
    place: tempfile::TempDir,
}

impl Stage {
    fn new(name: &str) -> Self {
        Self::with(name, |_| ())
    }

    /// `change` has the last word about the manifest.
    fn with(name: &str, change: impl FnOnce(&mut Manifest)) -> Self {
        Self::at(name, tempfile::tempdir().unwrap(), change)
    }

    fn at(name: &str, place: tempfile::TempDir, change: impl FnOnce(&mut Manifest)) -> Self {
        let data = DataDirectory::unpack(name).unwrap();
        let repository = DirectoryRepository::create(&place.path().join("repository")).unwrap();
        let manifest = back_up(&repository, &data, 1, change);
        Self { data, repository, manifest, place }
    }

    fn target(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn request(&self) -> Request {
        request(&[&self.target("target")])
    }

    fn plan(&self, request: &Request) -> kbackup::error::Result<Plan> {
        plan(&self.repository, request, &run())
    }

    fn restore(&self, request: &Request) -> Report {
        execute(&self.repository, &self.plan(request).unwrap(), &run()).unwrap()
    }

    fn refused(&self, request: &Request) -> String {
        let error = self.plan(request).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{error}");
        assert!(!error.hints().is_empty(), "{error}");
        error.to_string()
    }

    fn stored(&self, row: &Row) -> PathBuf {
        row.path.under(&Path::new(&self.repository.place()).join("backups").join(self.manifest.label.as_str()))
    }

    /// Flips a bit in the middle of a stored file. Its inode is the backup's alone.
    fn damage(&self, row: &Row) {
        let path = self.stored(row);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }

    fn row(&self, role: Role) -> &Row {
        self.manifest.files.iter().find(|row| row.role == role).unwrap()
    }
}

fn run() -> Run {
    Run::new(Silent)
}

fn request(targets: &[&Path]) -> Request {
    let targets = targets.iter().map(|db| Target { db: db.to_path_buf(), index: None }).collect();
    Request { targets, ..Request::default() }
}

fn position(bytes: i64) -> LogPosition {
    LogPosition::from_signed(bytes).unwrap()
}

fn from_json<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// What a backup of a stopped node does, without proof: every file, the checkpoints normalised, no secondary index.
fn back_up(repository: &dyn Repository, data: &DataDirectory, sequence: u64, change: impl FnOnce(&mut Manifest)) -> Manifest {
    let run = run();
    let incoming = repository.begin(None, &run).unwrap();
    let chunk_size = ChunkSize::new(data.facts["chunk_size"].as_u64().unwrap().try_into().unwrap()).unwrap();
    let writer = data.checkpoint("writer").unwrap();
    let source = Directories::new(data.db(), None);
    let mut files = Vec::new();
    for entry in source.files().unwrap() {
        let name = entry.path.file_name().to_owned();
        let file = fs::open_source(&source.path_of(&entry.path)).unwrap();
        let mut row = Row {
            path: entry.path.clone(),
            role: Role::Chunk,
            size: entry.size,
            mode: 0o444,
            modified: Timestamp::UNIX_EPOCH,
            captured: Timestamp::UNIX_EPOCH,
            blake3: Blake3Hash::of(b""),
            chunk: None,
            table_md5: None,
        };
        let mut ingest = Ingest { source: &file, length: entry.size, full_length: entry.size, md5: false, live: false, mode: 0o644 };
        row.role = match name.as_str() {
            "kurrent.ddb" | "kurrent.ddb.wal" => continue,
            "streamExistenceFilter.chk" => Role::StreamFilterCheckpoint,
            "streamExistenceFilter.dat" => Role::StreamFilter,
            "scavenging.db" => Role::ScavengeState,
            "indexmap" => Role::IndexMap,
            name if name.ends_with(".chk") => Role::Checkpoint,
            name if name.ends_with(".bloomfilter") => Role::TableFilter,
            name if name.starts_with("chunk-") => Role::Chunk,
            name if uuid::Uuid::parse_str(name).is_ok() => Role::Table,
            name => panic!("what is {name}?"),
        };
        if row.role == Role::Chunk {
            let facts = data.facts["chunks"].as_array().unwrap().iter().find(|chunk| chunk["name"] == name.as_str()).unwrap();
            let completed = facts["completed"].as_bool().unwrap();
            let scavenged = facts["scavenged"].as_bool().unwrap();
            row.chunk = Some(from_json(serde_json::json!({
                "start": facts["start"], "end": facts["end"], "version": 0, "id": facts["id"],
                "md5": completed.then(|| last_16(&file, entry.size)), "scavenged": scavenged, "transform": 0,
            })));
            if !completed {
                row.mode = 0o644;
                ingest.length = 128 + chunk_size.local(position(writer));
            }
        }
        if row.role == Role::Table {
            row.table_md5 = Some(last_16(&file, entry.size));
        }
        let stored = match name.as_str() {
            "writer.chk" | "chaser.chk" => incoming.write(&entry.path, &writer.to_le_bytes(), 0o644),
            "truncate.chk" => incoming.write(&entry.path, &(-1_i64).to_le_bytes(), 0o644),
            _ => incoming.ingest(&entry.path, &ingest),
        };
        row.blake3 = stored.unwrap().blake3;
        files.push(row);
    }
    let epoch = data.checkpoint("epoch").and_then(LogPosition::from_signed);
    let proposal = data.checkpoint("proposal").filter(|number| *number >= 0);
    let finished = "2026-11-21T06:00:00Z".parse::<Timestamp>().unwrap() + std::time::Duration::from_secs(sequence);
    let (major, minor) = data.server();
    let mut manifest = Manifest {
        format: FORMAT,
        label: Label::new(finished, BackupKind::Full),
        sequence,
        kind: BackupKind::Full,
        parent: None,
        branch: 1,
        tool: "kbackup".to_owned(),
        started: finished,
        finished,
        source: Source {
            server_version: Some(format!("{major}.{minor}.0")),
            identity: Identity { database: uuid::Uuid::nil(), endpoint: None },
            instance: None,
            state: None,
            db: data.db().display().to_string(),
            index: data.index().display().to_string(),
            owner: Some(Owner { user: 1001, group: 1002, user_name: None, group_name: None }),
            online: false,
            restored: None,
            missing_bytes: None,
        },
        log: Log {
            chunk_size,
            position: from_json(writer.into()),
            lineage: Lineage::default(),
            read: ReadCheckpoints { writer: WriterPosition(position(writer)), chaser: position(writer), epoch, proposal },
            stored: StoredCheckpoints { epoch, proposal },
            index_commit: None,
        },
        scavenging: Scavenging { quiet: Quiet::Offline, stopped: None, auto_paused: false },
        contents: Contents { index: true, secondary_index: SecondaryIndex::LeftOut, archive: false, damaged: Vec::new() },
        cost: Cost::default(),
        files,
    };
    change(&mut manifest);
    let proven = Proven::unproven(manifest);
    incoming.commit(&proven).unwrap();
    (*proven).clone()
}

fn last_16(file: &fs::File, size: u64) -> Md5Hash {
    let mut md5 = [0; 16];
    file.read_exact_at(size - 16, &mut md5).unwrap();
    Md5Hash(md5)
}

/// Every file below a directory with its bytes.
fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in walkdir::WalkDir::new(directory).into_iter().skip(if directory.exists() { 0 } else { 1 }) {
        let entry = entry.unwrap();
        if entry.file_type().is_file() {
            let name = entry.path().strip_prefix(directory).unwrap().to_str().unwrap().to_owned();
            found.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
    found
}

/// A checkpoint as the server reads it: a short file is extended with zeros (disk-format §2.1).
fn checkpoint(db: &Path, name: &str, missing: i64) -> i64 {
    match std::fs::read(db.join(name)) {
        Ok(mut bytes) => {
            bytes.resize(8, 0);
            i64::from_le_bytes(bytes.try_into().unwrap())
        }
        Err(_) => missing,
    }
}

/// What a server does first in a directory, by disk-format §2.3, §2.4 and §6, with its `MaxTruncation` switched off.
#[derive(Debug, PartialEq, Eq)]
enum Start {
    Refused,
    Opened { writer: i64, chaser: i64 },
}

fn start(db: &Path, manifest: &Manifest) -> Start {
    let (mut writer, mut chaser) = (checkpoint(db, "writer.chk", 0), checkpoint(db, "chaser.chk", 0));
    let (mut epoch, truncate) = (checkpoint(db, "epoch.chk", -1), checkpoint(db, "truncate.chk", -1));
    let size = i64::try_from(manifest.log.chunk_size.get()).unwrap();
    let rows: Vec<ChunkRow> = manifest.files.iter().filter_map(|row| row.chunk).collect();
    if truncate != -1 {
        // The number is a 32-bit one in the server, and overflows.
        #[expect(clippy::cast_possible_truncation, reason = "as in the server")]
        let next = ((writer / size) as i32).wrapping_add(1);
        if rows.iter().any(|chunk| i32::try_from(chunk.start.0).unwrap() == next) {
            return Start::Refused;
        }
        assert_eq!(truncate, manifest.log.position.position().to_signed(), "a truncation to anywhere else loses events");
        let covering =
            rows.iter().find(|chunk| i64::from(chunk.start.0) * size <= truncate && truncate < (i64::from(chunk.end.0) + 1) * size);
        assert!(covering.is_none_or(|chunk| !chunk.scavenged), "O33: it would go back to the start of a scavenged chunk");
        epoch = if epoch >= truncate { -1 } else { epoch };
        (writer, chaser) = (writer.min(truncate), chaser.min(truncate));
    }
    if chaser > writer || epoch > writer { Start::Refused } else { Start::Opened { writer, chaser } }
}

/// What a finished restore looks like.
fn assert_restored(stage: &Stage, db: &Path, truncate: i64) {
    let end = stage.manifest.log.position.position().to_signed();
    let mut expected = contents(&stage.data.db());
    expected.retain(|name, _| !name.starts_with("kurrent.ddb"));
    for row in &stage.manifest.files {
        if row.chunk.is_some_and(|chunk| chunk.md5.is_none()) {
            let local = usize::try_from(128 + stage.manifest.log.chunk_size.local(position(end))).unwrap();
            expected.get_mut(row.path.below_root()).unwrap()[local..].fill(0);
        }
    }
    let number = |value: i64| value.to_le_bytes().to_vec();
    expected.extend([("writer.chk".to_owned(), number(end)), ("chaser.chk".to_owned(), number(end))]);
    expected.insert("truncate.chk".to_owned(), number(truncate));
    expected.insert("epoch.chk".to_owned(), number(stage.data.checkpoint("epoch").unwrap_or(-1)));
    expected.insert("proposal.chk".to_owned(), number(stage.data.checkpoint("proposal").unwrap_or(-1)));
    let mut found = contents(db);
    found.remove(RestoreMark::NAME).unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, bytes) in expected {
        assert!(found[&name] == bytes, "{name} differs");
    }
    assert_eq!(start(db, &stage.manifest), Start::Opened { writer: end, chaser: end });
    let origin = RestoreMark::read(db).unwrap().unwrap().restored_from().unwrap();
    assert_eq!((origin.repository, origin.label), (stage.repository.id(), stage.manifest.label.clone()));
}

#[test]
fn brings_back_every_directory_of_a_real_node() {
    for name in ["20.10-append", "21.10-truncate", "22.10-scavenge", "23.10-append", "24.10-scavenge", "26.1-append", "26.1-truncate"] {
        let stage = Stage::new(name);
        let report = stage.restore(&stage.request());
        assert!(report.failure().is_none(), "{name}: {:?}", report.failure());
        assert_restored(&stage, &stage.target("target"), stage.data.checkpoint("writer").unwrap());
        let ready = Request { ready: true, ..request(&[&stage.target("ready")]) };
        assert!(stage.restore(&ready).failure().is_none(), "{name}");
        assert_restored(&stage, &stage.target("ready"), -1);
    }
}

#[test]
fn planning_writes_nothing() {
    let stage = Stage::new("26.1-append");
    let before = contents(stage.place.path());
    let plan = stage.plan(&stage.request()).unwrap();
    assert!(plan.to_string().contains("26.1"), "{plan}");
    assert_eq!(contents(stage.place.path()), before);
    assert!(!stage.target("target").exists());
}

#[test]
fn owner_and_modes_are_what_a_server_needs() {
    let stage = Stage::new("24.10-append");
    stage.restore(&stage.request());
    let root = rustix::process::geteuid().is_root();
    for entry in walkdir::WalkDir::new(stage.target("target")) {
        let entry = entry.unwrap();
        let status = entry.metadata().unwrap();
        if root {
            assert_eq!((status.uid(), status.gid()), (1001, 1002), "{}", entry.path().display());
        }
        let name = entry.file_name().to_str().unwrap();
        let expected = match name {
            _ if entry.file_type().is_dir() => 0o750,
            "chunk-000004.000000" => 0o644,
            name if name.starts_with("chunk-") || uuid::Uuid::parse_str(name).is_ok() => 0o444,
            name if name.ends_with(".chk") && !name.starts_with("stream") => 0o644,
            _ => status.permissions().mode() & 0o777 | 0o600,
        };
        assert_eq!(status.permissions().mode() & 0o7777, expected, "{name}");
        assert_eq!(status.nlink() > 1, entry.file_type().is_dir() && status.nlink() > 1, "{name} is a hard link");
    }
}

#[test]
fn holes_stay_holes() {
    let stage = Stage::new("26.1-append");
    stage.restore(&stage.request());
    let active = stage.target("target").join("chunk-000004.000000").metadata().unwrap();
    let data = 128 + stage.manifest.log.chunk_size.local(stage.manifest.log.position.position());
    assert!(active.blocks() * 512 <= data.next_multiple_of(64 * 1024), "{} blocks for {data} bytes", active.blocks());
}

#[test]
fn the_plan_tells_what_the_first_start_does() {
    let stage = Stage::new("24.10-append");
    let behaviour = |request: &Request| stage.plan(request).unwrap().closing.first_start.behaviour;
    assert_eq!(behaviour(&stage.request()), Behaviour::ExitsOnce);
    assert_eq!(behaviour(&Request { ready: true, ..stage.request() }), Behaviour::Starts);
    assert_eq!(behaviour(&Request { server_version: Some("26.1".to_owned()), ..stage.request() }), Behaviour::ExitsOnce);
    let stage = Stage::new("23.10-append");
    assert_eq!(stage.plan(&stage.request()).unwrap().closing.first_start.behaviour, Behaviour::TruncatesAndStarts);
}

#[test]
fn a_restore_that_dies_anywhere_leaves_what_no_server_starts_from() {
    // In memory, where there is any: hundreds of restores are made, and a sync costs nothing there.
    let place = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let stage = Stage::at("20.10-scavenge", place, |_| ());
    let end = stage.manifest.log.position.position().to_signed();
    assert_eq!(stage.plan(&stage.request()).unwrap().truncation.value(), Some(position(end)), "the harder way to the end");
    for operation in ["create", "write", "truncate", "sync", "rename", "setmode", "setowner"] {
        let mut count = 1;
        while !restore_that_dies(&stage, operation, count, end) {
            count += 1;
        }
        assert!(count > 1, "no {operation} was seen");
    }
}

/// Lets the `count`-th operation on the target be the last one; true where there was none.
fn restore_that_dies(stage: &Stage, operation: &str, count: u32, end: i64) -> bool {
    let target = stage.target(&format!("{operation}-{count}"));
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["restore::restores_in_a_process_of_its_own", "--exact", "--ignored", "--test-threads=1"])
        .env("KBACKUP_FAULT", format!("{operation}:{}:{count}:abort", target.display()))
        .env("KBACKUP_TEST_REPOSITORY", stage.repository.place())
        .env("KBACKUP_TEST_TARGET", &target)
        .output()
        .unwrap()
        .status;
    let died = !status.success();
    let take_up = || assert!(stage.restore(&request(&[&target])).failure().is_none(), "{operation} {count}");
    match start(&target, &stage.manifest) {
        Start::Refused => {
            assert!(died, "{operation} {count}: not startable");
            take_up();
        }
        Start::Opened { writer, .. } if writer == end => {
            assert_restored(stage, &target, end);
            assert!(stage.refused(&request(&[&target])).contains("restored database"), "{operation} {count}");
        }
        Start::Opened { .. } => {
            let nothing = contents(&target).keys().all(|name| name == "writer.chk" || name.ends_with(".tmp"));
            assert!(nothing, "{operation} {count}: something can be lost");
            take_up();
        }
    }
    assert_restored(stage, &target, end);
    std::fs::remove_dir_all(&target).unwrap();
    !died
}

#[test]
#[ignore = "it is run by another test, which lets it die"]
fn restores_in_a_process_of_its_own() {
    let repository = DirectoryRepository::open(Path::new(&std::env::var_os("KBACKUP_TEST_REPOSITORY").unwrap())).unwrap();
    let target = PathBuf::from(std::env::var_os("KBACKUP_TEST_TARGET").unwrap());
    let plan = plan(&repository, &request(&[&target]), &run()).unwrap();
    let report = execute(&repository, &plan, &run()).unwrap();
    assert!(report.failure().is_none(), "{:?}", report.failure());
}

#[test]
fn corruption_in_the_repository_is_never_passed_on() {
    for role in [Role::Chunk, Role::Table, Role::TableFilter, Role::IndexMap] {
        let stage = Stage::new("26.1-append");
        stage.damage(stage.row(role));
        let report = stage.restore(&stage.request());
        let failure = report.failure().expect("the damage was not seen");
        assert_eq!(failure.kind(), Kind::StoredCorrupt, "{failure}");
        assert!(failure.hints().iter().any(|hint| hint.contains("no server starts")), "{:?}", failure.hints());
        assert_eq!(start(&stage.target("target"), &stage.manifest), Start::Refused);
    }
}

#[test]
fn several_targets_stand_alone() {
    let stage = Stage::new("26.1-append");
    let (one, two, three) = (stage.target("one"), stage.target("two"), stage.target("three"));
    let request = request(&[&one, &two, &three]);
    let plan = stage.plan(&request).unwrap();
    std::fs::create_dir(&two).unwrap();
    std::fs::write(two.join("precious"), "x").unwrap();
    let report = execute(&stage.repository, &plan, &run()).unwrap();
    assert_eq!(report.failure().unwrap().kind(), Kind::Refused);
    assert!(matches!(report.targets[0].outcome, Outcome::Restored(_)));
    assert!(matches!(report.targets[1].outcome, Outcome::Failed(_)));
    assert!(matches!(report.targets[2].outcome, Outcome::Restored(_)));
    let end = stage.manifest.log.position.position().to_signed();
    assert_restored(&stage, &one, end);
    assert_restored(&stage, &three, end);
    assert_eq!(contents(&two).len(), 1, "nothing was added");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["targets"][1]["outcome"]["failed"]["exit_code"], 23);
}

#[test]
fn a_target_that_holds_anything_is_refused() {
    let stage = Stage::new("26.1-append");
    let target = stage.target("target");
    std::fs::create_dir(&target).unwrap();
    std::fs::create_dir(target.join("lost+found")).unwrap();
    stage.plan(&stage.request()).unwrap();
    std::fs::write(target.join(".hidden"), "").unwrap();
    assert!(stage.refused(&stage.request()).contains("not empty"));
    std::fs::remove_file(target.join(".hidden")).unwrap();
    std::fs::create_dir_all(target.join("index")).unwrap();
    stage.plan(&stage.request()).unwrap();
    std::fs::write(target.join("index/indexmap"), "").unwrap();
    assert!(stage.refused(&stage.request()).contains("not empty"));
    std::fs::remove_dir_all(&target).unwrap();
    std::fs::write(&target, "").unwrap();
    assert!(stage.refused(&stage.request()).contains("not a directory"));
}

#[test]
fn a_database_that_was_restored_and_used_is_never_taken_up() {
    let stage = Stage::new("26.1-append");
    stage.restore(&stage.request());
    let before = contents(&stage.target("target"));
    assert!(stage.refused(&stage.request()).contains("restored database"));
    // Not even if the mark says that the restore is under way.
    RestoreMark::begin(stage.repository.id(), stage.manifest.label.clone(), stage.manifest.finished)
        .write(&stage.target("target"))
        .unwrap();
    assert!(stage.refused(&stage.request()).contains("restored database"));
    let mut after = contents(&stage.target("target"));
    after.insert(RestoreMark::NAME.to_owned(), before[RestoreMark::NAME].clone());
    assert_eq!(after, before);
}

#[test]
fn directories_must_not_overlap() {
    let stage = Stage::new("26.1-append");
    let inside = |place: &Path| stage.refused(&request(&[place]));
    assert!(inside(&Path::new(&stage.repository.place()).join("incoming/x")).contains("the repository"));
    assert!(inside(stage.place.path()).contains("the repository"));
    let link = stage.target("link");
    std::os::unix::fs::symlink(stage.repository.place(), &link).unwrap();
    assert!(inside(&link).contains("the repository"));
    std::os::unix::fs::symlink(stage.target("nowhere"), stage.target("dangling")).unwrap();
    assert!(inside(&stage.target("dangling")).contains("leads nowhere"));
    let target = stage.target("target");
    assert!(stage.refused(&request(&[&target, &target])).contains("another target"));
    assert!(stage.refused(&request(&[&target, &target.join("below")])).contains("another target"));
    let with_index = |index: Option<PathBuf>| Target { db: target.clone(), index };
    let some = Request { targets: vec![with_index(Some(stage.target("index"))), with_index(None)], ..Request::default() };
    assert!(stage.refused(&some).contains("for some"));
    let same = Request { targets: vec![with_index(Some(target.clone()))], ..Request::default() };
    assert!(stage.refused(&same).contains("overlap"));
}

#[test]
fn an_index_directory_of_its_own_gets_the_index() {
    let stage = Stage::new("26.1-append");
    let (db, index) = (stage.target("db"), stage.target("index"));
    let request = Request { targets: vec![Target { db: db.clone(), index: Some(index.clone()) }], ..Request::default() };
    assert!(stage.restore(&request).failure().is_none());
    assert_eq!(contents(&index), contents(&stage.data.index()));
    assert!(!db.join("index").exists());
}

#[test]
fn an_older_server_is_refused_where_it_is_known() {
    let stage = Stage::new("24.10-append");
    let older = Request { server_version: Some("23.10.8".to_owned()), ..stage.request() };
    assert!(stage.refused(&older).contains("older"));
    stage.plan(&Request { accept: Accept { older_server: true, ..Accept::default() }, ..older }).unwrap();
    stage.plan(&Request { server_version: Some("24.10.0".to_owned()), ..stage.request() }).unwrap();
    let nonsense = Request { server_version: Some("new".to_owned()), ..stage.request() };
    assert_eq!(stage.plan(&nonsense).unwrap_err().kind(), Kind::Usage);
}

#[test]
fn a_backup_beside_an_archive_wants_an_acknowledgement() {
    let stage = Stage::with("26.1-append", |manifest| manifest.contents.archive = true);
    assert!(stage.refused(&stage.request()).contains("archive"));
    let plan = stage.plan(&Request { accept: Accept { archive: true, ..Accept::default() }, ..stage.request() }).unwrap();
    assert!(plan.closing.to_do.iter().any(|note| note.topic == "archive"));
}

#[test]
fn latest_is_the_newest_sound_one_and_never_silently_an_older_one() {
    let stage = Stage::new("26.1-append");
    let damaged = back_up(&stage.repository, &stage.data, 2, |manifest| {
        manifest.contents.damaged = vec!["db/chunk-000000.000000".parse().unwrap()];
    });
    let plan = stage.plan(&stage.request()).unwrap();
    assert_eq!(plan.backup.label, stage.manifest.label);
    assert!(plan.warnings.iter().any(|warning| warning.contains(damaged.label.as_str())), "{:?}", plan.warnings);
    let named = Request { label: Some(damaged.label.clone()), ..stage.request() };
    assert_eq!(stage.plan(&named).unwrap().backup.label, damaged.label);

    let newest = back_up(&stage.repository, &stage.data, 3, |_| ());
    assert_eq!(stage.plan(&stage.request()).unwrap().backup.label, newest.label);
    let path = Path::new(&stage.repository.place()).join("backups").join(newest.label.as_str()).join("manifest.json");
    std::fs::write(path, "{").unwrap();
    let error = stage.plan(&stage.request()).unwrap_err();
    assert_eq!(error.kind(), Kind::StoredCorrupt);
    assert!(error.hints().iter().any(|hint| hint.contains(stage.manifest.label.as_str())), "{:?}", error.hints());
}
