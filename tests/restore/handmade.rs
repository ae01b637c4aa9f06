//! Backups of real nodes' directories that the tests make by hand and without proof.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kbackup::clock::Timestamp;
use kbackup::error::Kind;
use kbackup::event::Silent;
use kbackup::format::{ChunkSize, LogPosition, Md5Hash, WriterPosition};
use kbackup::fs;
use kbackup::log::{ChunkSet, lineage};
use kbackup::manifest::*;
use kbackup::proof::{BackupFault, Proven, structure};
use kbackup::repository::{Attributes, Incoming, Ingest, Repository};
use kbackup::restore::{RestorePlan, RestoreReport, RestoreRequest, RestoreTarget, execute, plan};
use kbackup::run::Run;

use super::start::{Start, start};
use crate::fixtures::DataDirectory;
use crate::stores::TestRepository;

/// A repository with one backup of a real node's directory, and a place for targets.
pub(crate) struct HandmadeBackup {
    pub(crate) data: DataDirectory,
    pub(crate) repository: TestRepository,
    pub(crate) manifest: Manifest,
    pub(crate) place: tempfile::TempDir,
}

impl HandmadeBackup {
    pub(crate) fn new(name: &str) -> Self {
        Self::with(name, |_| ())
    }

    /// Makes a backup, and passes the manifest to `change` before the commit.
    pub(crate) fn with(name: &str, change: impl FnOnce(&mut Manifest)) -> Self {
        Self::at(name, tempfile::tempdir().unwrap(), None, change)
    }

    /// Makes a backup in this place. If `end` is given, the log ends there, at the start of a chunk.
    pub(crate) fn at(
        name: &str,
        place: tempfile::TempDir,
        end: Option<i64>,
        change: impl FnOnce(&mut Manifest),
    ) -> Self {
        let data = DataDirectory::unpack(name).unwrap();
        let repository = TestRepository::create(&place.path().join("repository"));
        let manifest = back_up(&repository, &data, 1, end, change);
        Self {
            data,
            repository,
            manifest,
            place,
        }
    }

    pub(crate) fn target(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    pub(crate) fn request(&self) -> RestoreRequest {
        request(&[&self.target("target")])
    }

    pub(crate) fn plan(&self, request: &RestoreRequest) -> kbackup::error::Result<RestorePlan> {
        plan(&self.repository, request, &run())
    }

    pub(crate) fn restore(&self, request: &RestoreRequest) -> RestoreReport {
        execute(&self.repository, &self.plan(request).unwrap(), &run()).unwrap()
    }

    pub(crate) fn refused(&self, request: &RestoreRequest) -> String {
        let error = self.plan(request).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{error}");
        assert!(!error.hints().is_empty(), "{error}");
        error.to_string()
    }

    pub(crate) fn stored(&self, row: &Row) -> PathBuf {
        row.path.under(
            &Path::new(&self.repository.place())
                .join("backups")
                .join(self.manifest.label.as_str()),
        )
    }

    /// Flips a bit in the middle of a stored file that no other backup shares.
    pub(crate) fn damage(&self, row: &Row) {
        self.repository.damage(&self.manifest.label, &row.path);
    }

    pub(crate) fn row(&self, role: Role) -> &Row {
        let mut rows = self.manifest.files.iter();
        rows.find(|row| row.role == role).unwrap()
    }
}

pub(crate) fn run() -> Run {
    Run::new(Silent)
}

pub(crate) fn request(targets: &[&Path]) -> RestoreRequest {
    let targets = targets.iter().map(|db| RestoreTarget {
        db: db.to_path_buf(),
        index: None,
    });
    let targets = targets.collect();
    RestoreRequest {
        targets,
        ..RestoreRequest::default()
    }
}

pub(crate) fn position(bytes: i64) -> LogPosition {
    LogPosition::from_signed(bytes).unwrap()
}

pub(crate) fn from_json<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// Backs a stopped node up without proof: every file, with the checkpoints that a backup writes. If
/// `end` is given, the log ends there, at the start of a chunk, and there is no index.
pub(crate) fn back_up(
    repository: &dyn Repository,
    data: &DataDirectory,
    sequence: u64,
    end: Option<i64>,
    change: impl FnOnce(&mut Manifest),
) -> Manifest {
    let run = run();
    let incoming = repository
        .writer(&run)
        .and_then(|writer| writer.begin(None))
        .unwrap();
    let writer = end.unwrap_or_else(|| data.checkpoint("writer").unwrap());
    let files = store_files(&*incoming, data, end, writer);

    let mut manifest = Manifest {
        head: head(data, sequence, end, writer, &files),
        files,
    };
    assert_eq!(
        structure(&*incoming, &manifest, &run).unwrap(),
        [],
        "this manifest could be committed"
    );

    change(&mut manifest);
    let proven = Proven::unproven(manifest);
    incoming.commit(&proven).unwrap();
    (*proven).clone()
}

fn chunk_size(data: &DataDirectory) -> ChunkSize {
    let bytes = data.facts["chunk_size"].as_u64().unwrap();
    ChunkSize::new(bytes.try_into().unwrap()).unwrap()
}

fn store_files(
    incoming: &dyn Incoming,
    data: &DataDirectory,
    end: Option<i64>,
    writer: i64,
) -> Vec<Row> {
    let source = Directories::new(data.db(), None);
    let unlisted: Vec<String> = from_json(data.facts["index"]["unlisted"].clone());
    let mut files = Vec::new();
    for entry in source.files().unwrap() {
        let name = entry.path.file_name().to_owned();
        let is_index_backup =
            entry.path.root() == Root::Db && entry.path.below_root().contains('/');
        let is_unlisted = unlisted
            .iter()
            .any(|table| name.starts_with(table.as_str()));
        let is_left_out = end.is_some() && entry.path.root() == Root::Index;
        if is_index_backup || is_unlisted || is_left_out {
            continue;
        }

        let file = fs::open_source(&source.path_of(&entry.path)).unwrap();
        let mut row = Row {
            path: entry.path.clone(),
            role: role_of(&name),
            size: entry.size,
            mode: 0o444,
            modified: Timestamp::UNIX_EPOCH,
            captured: Timestamp::UNIX_EPOCH,
            blake3: Blake3Hash::of(b""),
            chunk: None,
            table_md5: None,
        };
        let attributes = Attributes {
            mode: 0o644,
            modified: Timestamp::UNIX_EPOCH,
        };
        let mut ingest = Ingest {
            source: &file,
            place: file.path().display().to_string(),
            length: entry.size,
            full_length: entry.size,
            md5: None,
            reads_every_byte: false,
            attributes,
            follow: None,
        };

        if row.role == Role::Chunk {
            let Some(chunk) = chunk_row(data, &file, &name, entry.size, writer) else {
                continue;
            };
            if chunk.md5.is_none() {
                row.mode = 0o644;
                ingest.length = 128 + chunk_size(data).local(position(writer));
            }
            row.chunk = Some(chunk);
        }

        if row.role == Role::Table {
            row.table_md5 = Some(last_16(&file, entry.size));
        }

        let stored = match name.as_str() {
            "writer.chk" | "chaser.chk" => {
                incoming.write(&entry.path, &writer.to_le_bytes(), attributes)
            }
            "truncate.chk" => incoming.write(&entry.path, &(-1_i64).to_le_bytes(), attributes),
            _ => incoming.ingest(&entry.path, ingest),
        };

        row.blake3 = stored.unwrap().blake3;
        files.push(row);
    }
    files
}

fn role_of(name: &str) -> Role {
    match name {
        "kurrent.ddb" | "kurrent.ddb.wal" => Role::SecondaryIndex,
        "streamExistenceFilter.chk" => Role::StreamFilterCheckpoint,
        "streamExistenceFilter.dat" => Role::StreamFilter,
        "scavenging.db" => Role::ScavengeState,
        "indexmap" => Role::IndexMap,
        name if name.ends_with(".chk") => Role::Checkpoint,
        name if name.ends_with(".bloomfilter") => Role::TableFilter,
        name if name.starts_with("chunk-") => Role::Chunk,
        name if uuid::Uuid::parse_str(name).is_ok() => Role::Table,
        name => panic!("{name} has no role"),
    }
}

/// The description of a chunk, from the facts of the fixture. Returns `None` for a chunk beyond the
/// log.
fn chunk_row(
    data: &DataDirectory,
    file: &fs::File,
    name: &str,
    size: u64,
    writer: i64,
) -> Option<ChunkRow> {
    let mut chunks = data.facts["chunks"].as_array().unwrap().iter();
    let facts = chunks.find(|chunk| chunk["name"] == name).unwrap();
    let start = facts["start"].as_i64().unwrap();
    if start * i64::try_from(chunk_size(data).get()).unwrap() >= writer {
        return None;
    }

    let completed = facts["completed"].as_bool().unwrap();
    let version: u32 = name.split('.').nth(1).unwrap().parse().unwrap();
    Some(from_json(serde_json::json!({
        "start": facts["start"],
        "end": facts["end"],
        "version": version,
        "id": facts["id"],
        "md5": completed.then(|| last_16(file, size)),
        "scavenged": facts["scavenged"].as_bool().unwrap(),
        "transform": "identity",
    })))
}

fn head(data: &DataDirectory, sequence: u64, end: Option<i64>, writer: i64, files: &[Row]) -> Head {
    let source = Directories::new(data.db(), None);

    let epoch = data.checkpoint("epoch").and_then(LogPosition::from_signed);
    let proposal = data.checkpoint("proposal").filter(|number| *number >= 0);
    let finished = "2026-11-21T06:00:00Z".parse::<Timestamp>().unwrap()
        + std::time::Duration::from_secs(sequence);
    let (major, minor) = data.server();

    let secondary_index = match files.iter().any(|row| row.role == Role::SecondaryIndex) {
        true => SecondaryIndex::Included,
        false => SecondaryIndex::Absent,
    };
    let lineage = match epoch {
        Some(epoch) => lineage(&source, &ChunkSet::read(&source).unwrap(), epoch).unwrap(),
        None => Default::default(),
    };
    let index_commit = match end {
        Some(_) => None,
        None => data.facts["index"]["commit"].as_i64(),
    };

    Head {
        format: FORMAT,
        label: Label::new(finished, BackupKind::Full),
        sequence,
        kind: BackupKind::Full,
        parent: None,
        branch: 1,
        tool: "kbackup".to_owned(),
        started: finished,
        finished,
        source: SourceRecord {
            server_version: Some(format!("{major}.{minor}.0")),
            identity: Identity {
                database: uuid::Uuid::nil(),
                endpoint: None,
            },
            instance: None,
            state: None,
            db: data.db().display().to_string(),
            index: data.index().display().to_string(),
            owner: Some(Owner {
                user: 1001,
                group: 1002,
                user_name: None,
                group_name: None,
            }),
            online: false,
            restored: None,
            missing_bytes: None,
        },
        log: LogRecord {
            chunk_size: chunk_size(data),
            position: from_json(writer.into()),
            last_event: None,
            lineage,
            read: ReadCheckpoints {
                writer: WriterPosition(position(writer)),
                chaser: position(writer),
                epoch,
                proposal,
            },
            stored: StoredCheckpoints { epoch, proposal },
            index_commit: index_commit.and_then(LogPosition::from_signed),
        },
        scavenging: Scavenging {
            quiet: Quiet::Offline,
            stopped: None,
            auto_paused: false,
            auto_found: None,
        },
        contents: Contents {
            index: end.is_none(),
            secondary_index,
            archive: false,
            damaged: Vec::new(),
        },
        cost: Cost::default(),
        totals: Totals::of(files),
    }
}

fn last_16(file: &fs::File, size: u64) -> Md5Hash {
    let mut md5 = [0; 16];
    file.read_exact_at(size - 16, &mut md5).unwrap();
    Md5Hash(md5)
}

/// Every file below a directory with its bytes.
pub(crate) fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    if !directory.exists() {
        return found;
    }

    for entry in walkdir::WalkDir::new(directory) {
        let entry = entry.unwrap();
        if entry.file_type().is_file() {
            let path = entry.path().strip_prefix(directory).unwrap();
            let name = path.to_str().unwrap().to_owned();
            found.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
    found
}

/// Asserts that a target holds a finished restore of the backup.
pub(crate) fn assert_restored(handmade: &HandmadeBackup, db: &Path, truncate: i64) {
    let end = handmade.manifest.log.position.position().to_signed();
    let mut expected = contents(&handmade.data.db());
    expected.retain(|name, _| {
        handmade
            .manifest
            .files
            .iter()
            .any(|row| row.path.below_root() == name.trim_start_matches("index/"))
    });

    for row in &handmade.manifest.files {
        if row.chunk.is_some_and(|chunk| chunk.md5.is_none()) {
            let local =
                usize::try_from(128 + handmade.manifest.log.chunk_size.local(position(end)))
                    .unwrap();
            expected.get_mut(row.path.below_root()).unwrap()[local..].fill(0);
        }
    }

    let number = |value: i64| value.to_le_bytes().to_vec();
    expected.extend([
        ("writer.chk".to_owned(), number(end)),
        ("chaser.chk".to_owned(), number(end)),
    ]);
    expected.insert("truncate.chk".to_owned(), number(truncate));
    expected.insert(
        "epoch.chk".to_owned(),
        number(handmade.data.checkpoint("epoch").unwrap_or(-1)),
    );
    expected.insert(
        "proposal.chk".to_owned(),
        number(handmade.data.checkpoint("proposal").unwrap_or(-1)),
    );

    let mut found = contents(db);
    found.remove(RestoreMark::NAME).unwrap();
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>()
    );

    for (name, bytes) in expected {
        assert!(found[&name] == bytes, "{name} differs");
    }

    assert_eq!(
        start(db, &handmade.manifest),
        Start::Opened {
            writer: end,
            chaser: end
        }
    );

    let mut faults = structure(&Directories::new(db, None), &handmade.manifest, &run()).unwrap();
    faults.retain(|fault: &BackupFault| {
        let name = fault.path.as_ref().map(RelativePath::file_name);
        name != Some(RestoreMark::NAME) && (name != Some("truncate.chk") || truncate == -1)
    });
    let stored = handmade.repository.files(&handmade.manifest.label).unwrap();
    assert_eq!(
        faults,
        structure(&*stored, &handmade.manifest, &run()).unwrap()
    );

    let origin = RestoreMark::read(db)
        .unwrap()
        .unwrap()
        .restored_from()
        .unwrap();
    assert_eq!(
        (origin.repository, origin.label),
        (handmade.repository.id(), handmade.manifest.label.clone())
    );
}
