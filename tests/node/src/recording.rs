//! A recording of everything that one real node did to its data directory (`fixtures/README.md`).

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Deserializer};
use uuid::Uuid;

/// A server version, as far as the recordings distinguish versions: `26.1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The year: 20 to 26.
    pub major: u32,
    /// The release of the year.
    pub minor: u32,
}

impl Version {
    /// `Version::new(26, 1)` is KurrentDB 26.1.
    #[must_use]
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

impl std::str::FromStr for Version {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (major, minor) = text
            .split_once('.')
            .with_context(|| format!("`{text}` is not a version such as 26.1"))?;
        Ok(Self::new(major.parse()?, minor.parse()?))
    }
}

/// One step of a recording.
#[derive(Debug, Clone, Deserialize)]
pub struct Step {
    /// Seconds since the recording began.
    #[serde(rename = "t")]
    pub time: f64,
    /// What happened.
    #[serde(flatten)]
    pub action: Action,
}

/// The mode of a `flock`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// `LOCK_SH`.
    Shared,
    /// `LOCK_EX`.
    Exclusive,
    /// `LOCK_UN`.
    Release,
}

/// The action of a step. Paths are relative to the replay's root and begin with `db/`.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the fields are those of fixtures/README.md")]
pub enum Action {
    /// Opened with O_CREAT.
    Create {
        path: String,
        #[serde(rename = "excl")]
        exclusive: bool,
        #[serde(rename = "trunc")]
        truncate: bool,
    },
    /// `length` bytes at `offset`, from the recording's data at `data`; without `data`, zeros.
    Write {
        path: String,
        #[serde(rename = "off")]
        offset: u64,
        #[serde(rename = "len")]
        length: u64,
        data: Option<u64>,
    },
    /// `ftruncate`, shrinks or extends.
    Truncate { path: String, size: u64 },
    /// `fallocate`.
    Allocate {
        path: String,
        #[serde(rename = "off")]
        offset: u64,
        #[serde(rename = "len")]
        length: u64,
        mode: String,
    },
    /// A rename, which replaces an existing `to`.
    Rename { path: String, to: String },
    /// `copy_file_range` or `sendfile`.
    Copy {
        path: String,
        #[serde(rename = "src_off")]
        source_offset: u64,
        to: String,
        #[serde(rename = "off")]
        offset: u64,
        #[serde(rename = "len")]
        length: u64,
    },
    /// A file was removed.
    Unlink { path: String },
    /// A directory was made.
    Mkdir { path: String },
    /// A directory was removed.
    Rmdir { path: String },
    /// A hard link.
    Link { path: String, to: String },
    /// The permission bits.
    Chmod {
        path: String,
        #[serde(deserialize_with = "octal")]
        mode: u32,
    },
    /// Everything that was written to the file before is durable.
    Fsync { path: String },
    /// A lock was taken or given up.
    Flock {
        path: String,
        #[serde(deserialize_with = "lock")]
        how: Lock,
    },
    /// A file was changed through a mapping; the change is not recorded.
    MmapSharedWrite { path: String },
    /// The node has acknowledged these events to a client.
    Acked { stream: String, ids: Vec<Uuid> },
    /// An admin call to the node, from `sent` to the step's time.
    Http {
        method: String,
        path: String,
        status: u16,
        sent: f64,
        body: String,
    },
    /// An event in the node's life.
    Mark { what: Mark },
    /// A checkpoint written by hand between two runs.
    Operator { path: String, value: i64 },
}

impl Action {
    /// The path that the step touches, if it touches one.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Create { path, .. }
            | Self::Write { path, .. }
            | Self::Truncate { path, .. }
            | Self::Allocate { path, .. }
            | Self::Rename { path, .. }
            | Self::Copy { path, .. }
            | Self::Unlink { path }
            | Self::Mkdir { path }
            | Self::Rmdir { path }
            | Self::Link { path, .. }
            | Self::Chmod { path, .. }
            | Self::Fsync { path }
            | Self::Flock { path, .. }
            | Self::MmapSharedWrite { path }
            | Self::Operator { path, .. } => Some(path),
            Self::Acked { .. } | Self::Http { .. } | Self::Mark { .. } => None,
        }
    }
}

/// An event in the node's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Mark {
    /// The node answers requests.
    #[serde(rename = "ready")]
    Ready,
    /// The node was stopped cleanly.
    #[serde(rename = "stopped")]
    Stopped,
    /// SIGKILL.
    #[serde(rename = "killed")]
    Killed,
    /// The node ended by itself, after a truncation (O10). The recordings have a second `ready`
    /// before the next start instead.
    #[serde(skip)]
    Exited,
    /// A scavenge came to its end.
    #[serde(rename = "scavenge finished")]
    ScavengeFinished,
}

impl std::str::FromStr for Mark {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "ready" => Self::Ready,
            "stopped" => Self::Stopped,
            "killed" => Self::Killed,
            "exited" => Self::Exited,
            "scavenge finished" => Self::ScavengeFinished,
            _ => bail!(
                "`{text}` is no mark; there are ready, stopped, killed, exited and scavenge finished"
            ),
        })
    }
}

/// A scavenge that the recording holds.
#[derive(Debug, Clone)]
pub struct RecordedScavenge {
    /// The id that the node gave it.
    pub id: Uuid,
    /// The first step that may belong to it. Its request came before this step.
    pub begin: usize,
    /// The first step at which `/admin/scavenge/current` is empty again, and from which on no file
    /// changes because of the scavenge.
    pub end: usize,
    /// True if a DELETE stopped it in the recording.
    pub stopped: bool,
}

/// The five checkpoints of a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Checkpoint {
    /// The end of the log, a log position.
    Writer,
    /// The log position that the chaser has reached.
    Chaser,
    /// The position of the latest epoch record.
    Epoch,
    /// The highest proposed epoch number.
    Proposal,
    /// −1, or the position to which the next start truncates the log.
    Truncate,
}

impl Checkpoint {
    /// All five.
    pub const ALL: [Self; 5] = [
        Self::Writer,
        Self::Chaser,
        Self::Epoch,
        Self::Proposal,
        Self::Truncate,
    ];

    /// The file's name, such as `writer.chk`.
    #[must_use]
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Writer => "writer.chk",
            Self::Chaser => "chaser.chk",
            Self::Epoch => "epoch.chk",
            Self::Proposal => "proposal.chk",
            Self::Truncate => "truncate.chk",
        }
    }
}

/// Everything that one node did to its data directory, in order, with the data.
#[derive(Debug)]
pub struct Recording {
    /// Such as `26.1-append`.
    pub name: String,
    /// The server's version.
    pub version: Version,
    /// Such as `append`.
    pub scenario: String,
    /// The steps.
    pub steps: Vec<Step>,
    /// The scavenges in it, in order.
    pub scavenges: Vec<RecordedScavenge>,
    data: Vec<u8>,
}

/// The repository's `fixtures` directory, or the directory in `KBACKUP_FIXTURES`.
#[must_use]
pub fn fixtures() -> PathBuf {
    if let Some(path) = std::env::var_os("KBACKUP_FIXTURES") {
        return PathBuf::from(path);
    }
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    repository.unwrap_or(Path::new(".")).join("fixtures")
}

impl Recording {
    /// Loads a recording of the repository's fixtures, such as `26.1-append`.
    pub fn named(name: &str) -> Result<Self> {
        Self::load(&fixtures().join("recordings").join(name))
    }

    /// The names of all recordings of the repository's fixtures, sorted.
    pub fn names() -> Result<Vec<String>> {
        let directory = fixtures().join("recordings");
        let mut names = Vec::new();
        for entry in directory
            .read_dir()
            .with_context(|| format!("cannot list {}", directory.display()))?
        {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// Loads a recording from its directory, whose name is `VERSION-SCENARIO`.
    pub fn load(directory: &Path) -> Result<Self> {
        let name = directory
            .file_name()
            .context("a recording is a directory")?
            .to_string_lossy()
            .into_owned();
        let (version, scenario) = name
            .split_once('-')
            .with_context(|| format!("`{name}` is not VERSION-SCENARIO"))?;

        let mut data = Vec::new();
        decompressed(&directory.join("data.bin.zst"))?.read_to_end(&mut data)?;

        let path = directory.join("ops.jsonl.zst");
        let mut steps: Vec<Step> = Vec::new();
        for (number, line) in BufReader::new(decompressed(&path)?).lines().enumerate() {
            let step: Step = serde_json::from_str(&line?)
                .with_context(|| format!("{}, line {}", path.display(), number + 1))?;

            if let Action::Write {
                length,
                data: Some(start),
                ..
            } = step.action
            {
                let end = start.checked_add(length);
                ensure!(
                    end.is_some_and(|end| end <= data.len() as u64),
                    "{}, line {}: beyond the recorded data",
                    path.display(),
                    number + 1
                );
            }
            steps.push(step);
        }

        mark_exits(&mut steps);
        let scavenges = find_scavenges(&steps, &data)?;
        Ok(Self {
            version: version.parse()?,
            scenario: scenario.to_owned(),
            name,
            steps,
            scavenges,
            data,
        })
    }

    /// A recording without any step: a node over a directory that does not change.
    #[must_use]
    pub fn empty(version: Version) -> Self {
        Self {
            name: format!("{version}-still"),
            version,
            scenario: "still".to_owned(),
            steps: Vec::new(),
            scavenges: Vec::new(),
            data: Vec::new(),
        }
    }

    /// The bytes of a `Write` step.
    #[must_use]
    pub fn bytes(&self, start: u64, length: u64) -> &[u8] {
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.data
            .get(start..start.saturating_add(length))
            .unwrap_or(&[])
    }

    /// Every value of a checkpoint, with the number of steps that are done when it is on disk (the
    /// step that writes it, plus one).
    #[must_use]
    pub fn values_of(&self, checkpoint: Checkpoint) -> Vec<(usize, i64)> {
        let path = format!("db/{}", checkpoint.file_name());
        let mut values = Vec::new();
        for (index, step) in self.steps.iter().enumerate() {
            match &step.action {
                Action::Write {
                    path: written,
                    data,
                    length: 8,
                    offset: 0,
                } if *written == path => {
                    let value = data.map_or(0, |start| number(self.bytes(start, 8)));
                    values.push((index + 1, value));
                }
                Action::Operator {
                    path: written,
                    value,
                } if *written == path => values.push((index + 1, *value)),
                _ => {}
            }
        }
        values
    }

    /// The numbers of steps at which `writer.chk` lies inside an append (O38). Each is the first step
    /// of such a span. The recording is replayed into `scratch`, which must be empty.
    pub fn steps_inside_appends(self: &std::sync::Arc<Self>, scratch: &Path) -> Result<Vec<usize>> {
        let node = crate::Node::start(std::sync::Arc::clone(self), scratch)?;
        let mut found = Vec::new();
        let mut ends: std::collections::BTreeMap<u64, bool> = std::collections::BTreeMap::new();

        let mut before = 0;
        for (steps, value) in self.values_of(Checkpoint::Writer) {
            node.advance_to(steps)?;
            let Ok(writer) = u64::try_from(value) else {
                continue;
            };

            if writer < before {
                ends.clear();
            }
            before = writer;

            if ends.last_key_value().is_none_or(|(end, _)| *end < writer) {
                for chunk in crate::log::chunks(&node.db())? {
                    for record in chunk.records(writer)? {
                        ends.insert(record.end, record.is_boundary());
                    }
                }
            }

            if let Some((_, false)) = ends.range(..=writer).next_back() {
                found.push(steps);
            }
        }
        Ok(found)
    }

    /// The events that were acknowledged after `steps` steps.
    #[must_use]
    pub fn acknowledged_before(&self, steps: usize) -> Vec<Acknowledged> {
        let mut acknowledged = Vec::new();
        for (step, entry) in self.steps.iter().take(steps).enumerate() {
            if let Action::Acked { stream, ids } = &entry.action {
                acknowledged.push(Acknowledged {
                    step,
                    stream: stream.clone(),
                    ids: ids.clone(),
                });
            }
        }
        acknowledged
    }

    /// The last step at which the node certainly lives before the recording ends. Later steps may
    /// belong to its stop.
    #[must_use]
    pub fn live_end(&self) -> usize {
        let last = self.steps.iter().rposition(|step| {
            matches!(
                step.action,
                Action::Acked { .. }
                    | Action::Http { .. }
                    | Action::Mark {
                        what: Mark::ScavengeFinished
                    }
            )
        });
        last.map_or(self.steps.len(), |last| last + 1)
    }

    /// The first step at or after `from` that is this mark.
    #[must_use]
    pub fn find_mark(&self, mark: Mark, from: usize) -> Option<usize> {
        for (index, step) in self.steps.iter().enumerate().skip(from) {
            if matches!(step.action, Action::Mark { what } if what == mark) {
                return Some(index);
            }
        }
        None
    }
}

/// Events that the node acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    /// The step of the acknowledgement.
    pub step: usize,
    /// The stream.
    pub stream: String,
    /// The events' ids, in order.
    pub ids: Vec<Uuid>,
}

/// Reads eight bytes, little-endian.
pub(crate) fn number(bytes: &[u8]) -> i64 {
    bytes.try_into().map_or(0, i64::from_le_bytes)
}

fn decompressed(path: &Path) -> Result<impl Read> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok(zstd::Decoder::new(file)?)
}

fn octal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let text = String::deserialize(deserializer)?;
    u32::from_str_radix(&text, 8).map_err(serde::de::Error::custom)
}

fn lock<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Lock, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.trim_end_matches("|LOCK_NB") {
        "LOCK_SH" => Ok(Lock::Shared),
        "LOCK_EX" => Ok(Lock::Exclusive),
        "LOCK_UN" => Ok(Lock::Release),
        _ => Err(serde::de::Error::custom(format!(
            "`{text}` is no way to lock"
        ))),
    }
}

/// Marks exits: a `ready` that is followed by another start, with no stop between, was an exit (O10).
fn mark_exits(steps: &mut [Step]) {
    let mut ready = None;
    let mut exits = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        match &step.action {
            Action::Mark { what: Mark::Ready } => ready = Some(index),
            Action::Mark {
                what: Mark::Stopped | Mark::Killed,
            } => ready = None,
            Action::Flock {
                path,
                how: Lock::Shared,
            } if path == "db/writer.chk" => exits.extend(ready.take()),
            _ => {}
        }
    }

    for index in exits {
        if let Some(step) = steps.get_mut(index) {
            step.action = Action::Mark { what: Mark::Exited };
        }
    }
}

/// The body of a successful `POST /admin/scavenge`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Started {
    scavenge_id: Uuid,
}

fn find_scavenges(steps: &[Step], data: &[u8]) -> Result<Vec<RecordedScavenge>> {
    let mut found = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        let Action::Http {
            method,
            path,
            status: 200,
            sent,
            body,
        } = &step.action
        else {
            continue;
        };
        if method != "POST" || !path.starts_with("/admin/scavenge") {
            continue;
        }

        let id = serde_json::from_str::<Started>(body)?.scavenge_id;
        let begin = steps.partition_point(|earlier| earlier.time < *sent);
        let (end, stopped) = find_end(steps, data, index, id)
            .with_context(|| format!("the end of scavenge {id} is not in the recording"))?;

        found.push(RecordedScavenge {
            id,
            begin,
            end,
            stopped,
        });
    }
    Ok(found)
}

/// Up to 21.10, only the event `$scavengeCompleted` tells that a scavenge has ended. Later versions
/// empty `current`.
fn find_end(steps: &[Step], data: &[u8], posted: usize, id: Uuid) -> Option<(usize, bool)> {
    let mut stopped = false;
    let mut completed = false;
    for (index, step) in steps.iter().enumerate().skip(posted + 1) {
        match &step.action {
            Action::Http {
                method,
                path,
                status: 200,
                body,
                ..
            } => {
                stopped |= method == "DELETE";
                if path == "/admin/scavenge/current" && !body.contains(&id.to_string()) {
                    return Some((index + 1, stopped));
                }
            }
            Action::Write {
                path,
                length,
                data: Some(start),
                ..
            } if path.starts_with("db/chunk-") && !path.ends_with(".tmp") => {
                let start = usize::try_from(*start).ok()?;
                let bytes = data.get(start..start + usize::try_from(*length).ok()?)?;
                completed |= contains(bytes, b"$scavengeCompleted")
                    && contains(bytes, id.to_string().as_bytes());
            }
            Action::Write { path, .. } if completed && path == "db/writer.chk" => {
                let current_follows = steps.iter().skip(index).any(|later| {
                    matches!(
                        &later.action,
                        Action::Http { path, status: 200, .. } if path == "/admin/scavenge/current"
                    )
                });
                if !current_follows {
                    return Some((index + 1, stopped));
                }
            }
            Action::Mark {
                what: Mark::Stopped | Mark::Killed,
            } => return None,
            _ => {}
        }
    }
    None
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}
