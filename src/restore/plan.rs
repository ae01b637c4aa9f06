use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use serde::Serialize;
use uuid::Uuid;

use super::closing::Closing;
use super::finish;
use super::guard;
use super::place::is_placed;
use super::target::{self, Found, Ownership};
use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::event::{Event, Step};
use crate::format::checkpoint;
use crate::format::chunk::Transform;
use crate::format::{Boundary, LogPosition};
use crate::fs;
use crate::log::{ChunkPlace, LogEndingAt};
use crate::manifest::{
    BackupKind, Blake3Hash, Directories, Head, Label, Manifest, Role, Root, Row, SecondaryIndex,
};
use crate::proof;
use crate::repository::{Remembered, Repository, remembered};
use crate::run::Run;
use crate::server::ServerVersion;

/// What the operator wants restored.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Which backup; none for the newest sound one.
    pub label: Option<Label>,
    /// Where to; each gets the whole backup.
    pub targets: Vec<Target>,
    /// `truncate.chk` shall be −1, so that the first start is enough on every version (O11).
    pub ready: bool,
    /// User and group that shall own the files.
    pub owner: Option<(u32, u32)>,
    /// The server that will be started there, where that is known.
    pub server_version: Option<String>,
    /// What the operator knows and accepts.
    pub accept: Accept,
}

/// One place to restore to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The db directory.
    pub db: PathBuf,
    /// The index directory; `index` in the db directory if none.
    pub index: Option<PathBuf>,
}

/// Dangers that the operator knows of and accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accept {
    /// Chunks are missing here that an archive holds.
    pub archive: bool,
    /// The server is older than the one that wrote the files.
    pub older_server: bool,
    /// It cannot be told for sure whether a server uses the target.
    pub unsure_whether_in_use: bool,
}

/// Everything a restore will do. Making it writes nothing.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// Where the backup is.
    pub repository: String,
    /// The repository's id.
    pub repository_id: Uuid,
    /// The backup.
    pub backup: Chosen,
    /// The newest backups of other branches, where none was named: `latest` is the newest of all,
    /// whatever its branch.
    pub other_branches: Vec<OtherBranch>,
    /// The log ends here.
    pub position: Boundary,
    /// Files to place in each target.
    pub files: u64,
    /// Their bytes, holes included.
    pub bytes: u64,
    /// What becomes of `truncate.chk`.
    pub truncation: Truncation,
    /// Each target, in the order of the request.
    pub targets: Vec<PlannedTarget>,
    /// What the operator has to know afterwards.
    pub closing: Closing,
    /// What the operator should know before.
    pub warnings: Vec<String>,
    #[serde(skip)]
    pub(super) accept: Accept,
    #[serde(skip)]
    pub(super) manifest: Manifest,
}

/// The backup to be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Chosen {
    /// Its name.
    pub label: Label,
    /// Its number in the repository.
    pub sequence: u64,
    /// The way that its log went.
    pub branch: u32,
    /// Full or diff.
    pub kind: BackupKind,
    /// When it was finished: the log in it is not newer.
    pub finished: Timestamp,
    /// The server that wrote the files.
    pub server_version: Option<String>,
}

/// A way that the log went as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OtherBranch {
    /// Its number.
    pub branch: u32,
    /// Its newest sound backup.
    pub newest: Label,
    /// Where the log of that ends.
    pub position: Boundary,
}

/// One target of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedTarget {
    /// The db directory, absolute and without links.
    #[serde(serialize_with = "super::as_text")]
    pub db: PathBuf,
    /// The index directory, absolute and without links.
    #[serde(serialize_with = "super::as_text")]
    pub index: PathBuf,
    /// What is there now.
    pub found: Found,
    /// Who will own the files.
    pub owner: Ownership,
    /// Bytes that will be written, as far as holes are known.
    pub bytes_needed: u64,
    /// Bytes that are free on the db directory's file system.
    pub bytes_free: u64,
}

/// What becomes of `truncate.chk`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "truncate", rename_all = "kebab-case")]
pub enum Truncation {
    /// A copy of `chaser.chk`, as the vendor's procedure says (R3).
    ToPosition {
        /// P, in bytes.
        position: LogPosition,
    },
    /// −1, as was asked for.
    Ready,
    /// −1, because a truncation inside of a scavenged chunk goes back to that chunk's start and
    /// would lose events (O33).
    Scavenged {
        /// The chunk that holds P.
        chunk: String,
    },
    /// −1, because there is no log.
    EmptyLog,
}

impl Truncation {
    fn decide(manifest: &Manifest, ready: bool) -> Self {
        let log = &manifest.log;
        let position = log.position.position();
        if ready {
            return Self::Ready;
        }
        if position == LogPosition::ZERO {
            return Self::EmptyLog;
        }
        // At a chunk's start without a file there is nothing to cut: every truncator from 20.10 to
        // 26.1 finds no file to touch (disk-format §2.4, O36).
        let ending = LogEndingAt::of(log);
        let covering = manifest.files.iter().find(|row| {
            row.chunk.is_some_and(|chunk| {
                let place = ending.place_of(chunk.start, chunk.end);
                matches!(place, ChunkPlace::HoldsEnd | ChunkPlace::BeginsAtEnd)
            })
        });
        match covering.and_then(|row| row.chunk.map(|chunk| (row, chunk))) {
            // Merged but unscavenged files stop the truncator, and with it the server (disk-format
            // §2.4).
            Some((row, chunk))
                if (chunk.scavenged || chunk.start != chunk.end)
                    && log.chunk_size.start_of(chunk.start) != position =>
            {
                Self::Scavenged {
                    chunk: row.path.file_name().to_owned(),
                }
            }
            Some(_) | None => Self::ToPosition { position },
        }
    }

    /// The checkpoint's value; none for −1.
    #[must_use]
    pub fn value(&self) -> Option<LogPosition> {
        match self {
            Self::ToPosition { position } => Some(*position),
            Self::Ready | Self::Scavenged { .. } | Self::EmptyLog => None,
        }
    }
}

impl Plan {
    /// The files to place: all but the checkpoints, and no secondary index that may be ahead of the
    /// log.
    pub(super) fn placed(&self) -> impl Iterator<Item = &Row> {
        placed(&self.manifest)
    }
}

/// The rows of the files that a restore places.
pub(super) fn placed(manifest: &Manifest) -> impl Iterator<Item = &Row> {
    let secondary_index = carries_secondary_index(manifest);
    manifest
        .files
        .iter()
        .filter(move |row| is_placed(row) && (secondary_index || row.role != Role::SecondaryIndex))
}

/// Whether `kurrent.ddb` is in the backup and may be used: one that is ahead of the log is never
/// corrected, and new events stay unindexed (O35).
pub(super) fn carries_secondary_index(manifest: &Manifest) -> bool {
    manifest.contents.secondary_index == SecondaryIndex::Included
        && manifest.log.read.writer.0 <= manifest.log.position.position()
}

/// Plans a restore: chooses the backup, looks at every target, and refuses what could destroy data
/// or not start. Writes nothing.
///
/// # Errors
/// * [`Kind::NotFound`] and [`Kind::StoredCorrupt`] where the backup is not there or damaged, also
///   where the *newest* one is, or is known to be: none before it is taken silently.
/// * [`Kind::Refused`] for every danger, with what to do about it.
pub fn plan(repository: &dyn Repository, request: &Request, run: &Run) -> Result<Plan> {
    run.emit(Event::Step(Step::Preflight));
    let mut warnings = Vec::new();
    let (manifest, other_branches) = choose(repository, request.label.as_ref(), &mut warnings)?;
    check_manifest(&manifest)?;
    let server = server_version(request, &manifest)?;
    if manifest.contents.archive && !request.accept.archive {
        return Err(Error::new(Kind::Refused, "the backup lacks chunks that lie in an archive, and a server needs that archive to start")
            .on(&manifest.label)
            .hint("`--archived` restores it nevertheless; keep the archive as it is, and configure the server with it"));
    }
    if let Some(missing) = manifest.source.missing_bytes.filter(|bytes| *bytes > 0) {
        warnings.push(format!(
            "the backup lacks the last {missing} bytes of log that the leader had when it was taken"
        ));
    }
    for path in &manifest.contents.damaged {
        warnings.push(format!("`{path}` was damaged when it was backed up; the server ends itself when it finds that out (O17)"));
    }
    if manifest.contents.secondary_index == SecondaryIndex::Included
        && !carries_secondary_index(&manifest)
    {
        warnings.push("`kurrent.ddb` is left out: it may be ahead of the log (O35)".to_owned());
    }
    let truncation = Truncation::decide(&manifest, request.ready);
    if let Truncation::Scavenged { chunk } = &truncation {
        warnings.push(format!(
            "`truncate.chk` is left at -1, as with `--ready`: `{chunk}` is scavenged, and a truncation there would lose events (O33)"
        ));
    }
    let targets = targets(
        repository,
        request,
        (&manifest, &truncation),
        &mut warnings,
        run,
    )?;
    enough_space(&manifest, &targets)?;
    for other in &other_branches {
        run.note(format!(
            "the newest backup is of branch {}; {other}",
            manifest.branch
        ));
    }
    Ok(Plan {
        repository: repository.place(),
        repository_id: repository.id(),
        backup: Chosen {
            label: manifest.label.clone(),
            sequence: manifest.sequence,
            branch: manifest.branch,
            kind: manifest.kind,
            finished: manifest.finished,
            server_version: manifest.source.server_version.clone(),
        },
        other_branches,
        position: manifest.log.position,
        files: placed(&manifest).count() as u64,
        bytes: placed(&manifest)
            .map(|row| row.size)
            .fold(0, u64::saturating_add),
        closing: Closing::new(&manifest, &truncation, server.as_ref()),
        truncation,
        targets,
        warnings,
        accept: request.accept,
        manifest,
    })
}

fn choose(
    repository: &dyn Repository,
    label: Option<&Label>,
    warnings: &mut Vec<String>,
) -> Result<(Manifest, Vec<OtherBranch>)> {
    if let Some(label) = label {
        let manifest = repository.manifest(label)?;
        if let Some(known) = known_damage(repository, label)? {
            warnings.push(format!(
                "{known}; the restore ends at the first file that is not as it was stored"
            ));
        }
        return Ok((manifest, Vec::new()));
    }
    let mut tips: BTreeMap<u32, OtherBranch> = BTreeMap::new();
    let (mut sound, mut damaged): (Vec<Head>, Vec<Head>) = Default::default();
    let mut unreadable: Option<(Label, Error)> = None;
    for listed in repository.list()? {
        match listed.head {
            Ok(head) if !head.is_sound() => damaged.push(head),
            Ok(head) => {
                let tip = OtherBranch {
                    branch: head.branch,
                    newest: head.label.clone(),
                    position: head.log.position,
                };
                tips.insert(head.branch, tip);
                sound.push(head);
            }
            Err(error) => {
                if unreadable
                    .as_ref()
                    .is_none_or(|(label, _)| *label < listed.label)
                {
                    unreadable = Some((listed.label, error));
                }
            }
        }
    }
    sound.sort_by_key(|head| head.sequence);
    // Labels never go back in time, so that the order of an unreadable backup is known by its name.
    if let Some((label, error)) =
        unreadable.filter(|(label, _)| sound.last().is_none_or(|newest| newest.label < *label))
    {
        return Err(not_silently(repository, &label, error, &sound));
    }
    let Some(newest) = sound.pop() else {
        let error = Error::new(Kind::NotFound, "there is no sound backup to restore")
            .on(repository.place());
        return Err(match damaged.last() {
            Some(damaged) => error.hint(format!(
                "`kbackup restore {}` restores one that is marked as damaged",
                damaged.label
            )),
            None => error.hint("`kbackup list` tells what is there"),
        });
    };
    if let Some(known) = known_damage(repository, &newest.label)? {
        let what = format!(
            "the newest backup, {}, is known to be damaged, and an older one is not taken silently",
            newest.label
        );
        return Err(Error::new(Kind::StoredCorrupt, what)
            .on(repository.place())
            .because(known)
            .hint(format!("`kbackup verify {} --repair` mends it where the repository holds the same bytes once more", newest.label))
            .hint(instead_of(repository, &sound)?));
    }
    let manifest = repository
        .manifest(&newest.label)
        .map_err(|error| not_silently(repository, &newest.label, error, &sound))?;
    for later in damaged
        .iter()
        .filter(|damaged| damaged.sequence > newest.sequence)
    {
        warnings.push(format!(
            "the later backup {} is marked as damaged, so {} is taken",
            later.label, newest.label
        ));
    }
    let position = manifest.log.position;
    if let Some(further) = sound
        .iter()
        .rev()
        .find(|other| other.branch == manifest.branch && other.log.position > position)
    {
        warnings.push(format!(
            "the earlier backup {} of the same branch reaches further, to {}; this one ends at {position}: was an older copy of the node backed up?",
            further.label, further.log.position
        ));
    }
    tips.remove(&newest.branch);
    Ok((manifest, tips.into_values().collect()))
}

/// The newest backup cannot be read.
fn not_silently(
    repository: &dyn Repository,
    label: &Label,
    error: Error,
    others: &[Head],
) -> Error {
    let what = format!(
        "the newest backup, {label}, cannot be read, and an older one is not taken silently"
    );
    let unreadable = Error::new(error.kind(), what)
        .on(repository.place())
        .because(error);
    match instead_of(repository, others) {
        Ok(hint) => unreadable.hint(hint),
        Err(error) => unreadable.hint(format!(
            "what is known of the others cannot be read either: {error}"
        )),
    }
}

/// What was found wrong with a backup's stored files, if anything was.
fn known_damage(repository: &dyn Repository, label: &Label) -> Result<Option<String>> {
    let known = remembered(repository, label)?.filter(Remembered::is_damaged);
    Ok(known.map(|known| {
        format!(
            "damage was found in the stored files of {label} at {}",
            known.at.strftime("%Y-%m-%d %H:%M")
        )
    }))
}

/// The newest of these, oldest first, that nothing bad is known of, for an operator who has to do
/// without those after it.
fn instead_of(repository: &dyn Repository, sound: &[Head]) -> Result<String> {
    for head in sound.iter().rev() {
        if known_damage(repository, &head.label)?.is_none() {
            let Head {
                label, finished, ..
            } = head;
            return Ok(format!(
                "`kbackup restore {label}` restores the newest one that is not known to be damaged, of {finished}"
            ));
        }
    }
    Ok(if sound.is_empty() {
        "there is no other sound backup".to_owned()
    } else {
        "every other backup is known to be damaged, too: `kbackup verify --all --repair` mends what it can".to_owned()
    })
}

/// What a server would stumble over, as far as the manifest alone tells.
fn check_manifest(manifest: &Manifest) -> Result<()> {
    let log = &manifest.log;
    let corrupt = |what: String| {
        let label = &manifest.label;
        Error::new(Kind::StoredCorrupt, what)
            .on(label)
            .hint(format!(
                "`kbackup verify {label}` tells more; restore another backup"
            ))
    };
    if let Some(fault) = proof::misnamed(manifest).into_iter().next() {
        let place = fault
            .path
            .map_or_else(String::new, |path| format!("`{path}`: "));
        return Err(corrupt(format!("{place}{}", fault.what)));
    }
    let ending = LogEndingAt::of(log);
    for row in &manifest.files {
        if let Some(chunk) = row.chunk
            && ending.place_of(chunk.start, chunk.end) == ChunkPlace::Beyond
        {
            // O16: with it no server starts.
            return Err(corrupt(format!(
                "the backup holds `{}`, which lies behind the end of its log",
                row.path
            )));
        }

        let Some(which) = row.path.as_checkpoint() else {
            continue;
        };
        let bytes = checkpoint::encode(ending.checkpoint(which));
        if row.blake3 != Blake3Hash::of(&bytes) {
            return Err(corrupt(format!(
                "`{}` is not what the rest of the manifest says",
                row.path
            )));
        }
    }
    if log
        .stored
        .epoch
        .is_some_and(|epoch| epoch >= log.position.position())
    {
        return Err(corrupt(
            "the epoch checkpoint lies behind the end of the log".to_owned(),
        ));
    }
    Ok(())
}

/// The version of the server that will be started, or else of the one that was backed up.
fn server_version(request: &Request, manifest: &Manifest) -> Result<Option<ServerVersion>> {
    let wanted = match request.server_version.as_deref() {
        Some(text) => Some(ServerVersion::parse(text).ok_or_else(|| {
            Error::new(Kind::Usage, "this is no version of a server")
                .on(text)
                .hint("write it like `26.1.0`")
        })?),
        None => None,
    };
    let source = manifest
        .source
        .server_version
        .as_deref()
        .and_then(ServerVersion::parse);
    if let (Some(wanted), Some(source)) = (&wanted, &source)
        && wanted.is_older_release_than(source)
        && !request.accept.older_server
    {
        let what = format!(
            "a server of version {wanted} is older than the one that was backed up, {source}"
        );
        return Err(Error::new(Kind::Refused, what)
            .on(&manifest.label)
            .hint(format!("start a server of version {source} or later there"))
            .hint("`--older-server` restores nevertheless; it may not start"));
    }
    Ok(wanted.or(source))
}

fn targets(
    repository: &dyn Repository,
    request: &Request,
    (manifest, truncation): (&Manifest, &Truncation),
    warnings: &mut Vec<String>,
    run: &Run,
) -> Result<Vec<PlannedTarget>> {
    if request.targets.is_empty() {
        return Err(
            Error::new(Kind::Usage, "no directory to restore to").hint("name one with `--to`")
        );
    }
    let with_index = request
        .targets
        .iter()
        .filter(|target| target.index.is_some())
        .count();
    if with_index != 0 && with_index != request.targets.len() {
        return Err(Error::new(
            Kind::Refused,
            "an index directory is given for some of the targets, but not for all",
        )
        .hint("give `--index-to` once for each `--to`, in the same order, or never"));
    }
    let mut resolved = Vec::with_capacity(request.targets.len());
    for target in &request.targets {
        let db = target::resolve(&target.db)?;
        let index = target.index.as_deref().map(target::resolve).transpose()?;
        resolved.push(Directories::new(db, index));
    }
    apart(repository, &resolved)?;
    // Who names a single one that is finished means to restore there again.
    let checkpoints = finish::checkpoints(manifest, truncation);
    let finished = (resolved.len() > 1).then_some(checkpoints.as_slice());
    let mut planned = Vec::with_capacity(resolved.len());
    for directories in resolved {
        let found = guard::find_unused(
            &directories,
            repository.id(),
            manifest,
            request.accept,
            finished,
            run,
        )?;
        let (owner, warning) = target::ownership(
            request.owner,
            &directories.db,
            manifest.source.owner.as_ref(),
        )?;
        warnings.extend(warning);
        let bytes_needed = placed(manifest)
            .map(|row| needed(row, manifest, &found))
            .fold(0, u64::saturating_add);
        let bytes_free = fs::free_space(target::nearest(&directories.db)?)?;
        planned.push(PlannedTarget {
            db: directories.db,
            index: directories.index,
            found,
            owner,
            bytes_needed,
            bytes_free,
        });
    }
    Ok(planned)
}

/// No two directories may be the same, or one inside of another, except an index directory in its
/// own db directory.
fn apart(repository: &dyn Repository, targets: &[Directories]) -> Result<()> {
    let mut taken: Vec<(PathBuf, &str)> = Vec::new();
    if let Some(place) = existing_directory(&repository.place())? {
        taken.push((place, "the repository"));
    }
    let overlap = |path: &Path, what: &str| {
        Error::new(Kind::Refused, format!("the target and {what} overlap"))
            .at(path)
            .hint("every target needs a directory of its own, outside of the repository")
    };
    let clash = |taken: &[(PathBuf, &str)], path: &Path| {
        taken
            .iter()
            .find(|(other, _)| path.starts_with(other) || other.starts_with(path))
            .map(|(_, what)| overlap(path, what))
    };
    for target in targets {
        if target.db.starts_with(&target.index) {
            return Err(overlap(&target.db, "its index directory"));
        }
        if let Some(error) = clash(&taken, &target.db).or_else(|| clash(&taken, &target.index)) {
            return Err(error);
        }
        taken.push((target.db.clone(), "another target"));
        taken.push((target.index.clone(), "another target's index directory"));
    }
    Ok(())
}

/// The repository's directory, where it is one.
fn existing_directory(place: &str) -> Result<Option<PathBuf>> {
    let path = Path::new(place);
    Ok(if fs::status(path)?.is_some() {
        Some(fs::canonical(path)?)
    } else {
        None
    })
}

/// Bytes that one file takes on the disk, if it is written; holes do not count where the manifest
/// tells of them.
fn needed(row: &Row, manifest: &Manifest, found: &Found) -> u64 {
    const BLOCK: u64 = 4096;
    match found {
        Found::Finished => return 0,
        Found::Interrupted(interrupted) if interrupted.present.contains(&row.path) => return 0,
        Found::Interrupted(_) | Found::Absent | Found::Empty => {}
    }
    let ending = LogEndingAt::of(&manifest.log);
    let bytes = match &row.chunk {
        Some(chunk) if ending.is_active(chunk) && chunk.transform == Transform::Identity => {
            row.size.min(ending.active_bytes())
        }
        _ => row.size,
    };
    bytes.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX)
}

/// Targets may share a file system, and an index may lie on one of its own.
fn enough_space(manifest: &Manifest, targets: &[PlannedTarget]) -> Result<()> {
    let mut devices: BTreeMap<u64, (&Path, u64)> = BTreeMap::new();
    for target in targets {
        for (root, directory) in [(Root::Db, &target.db), (Root::Index, &target.index)] {
            let place = target::nearest(directory)?;
            let Some(status) = fs::status(place)? else {
                continue;
            };
            let bytes = placed(manifest)
                .filter(|row| row.path.root() == root)
                .map(|row| needed(row, manifest, &target.found))
                .fold(0, u64::saturating_add);
            let device = devices.entry(status.device).or_insert((directory, 0));
            device.1 = device.1.saturating_add(bytes);
        }
    }
    for (directory, bytes) in devices.into_values() {
        let free = fs::free_space(target::nearest(directory)?)?;
        if bytes > free {
            return Err(Error::new(Kind::Refused, "there is not enough space")
                .at(directory)
                .because(format!(
                    "the restore needs {} there, {} are free",
                    ByteSize(bytes),
                    ByteSize(free)
                ))
                .hint("free space, or restore to another file system"));
        }
    }
    Ok(())
}

impl fmt::Display for OtherBranch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the newest of branch {} is {}, which ends at {}",
            self.branch, self.newest, self.position
        )
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "backup: {} ({}, finished {}) in {}",
            self.backup.label, self.backup.kind, self.backup.finished, self.repository
        )?;
        writeln!(f, "branch: {}", self.backup.branch)?;
        for other in &self.other_branches {
            writeln!(f, "  {other}")?;
        }
        writeln!(f, "position: {}", self.position)?;
        writeln!(f, "files: {}, {}", self.files, ByteSize(self.bytes))?;
        for target in &self.targets {
            writeln!(f, "target: {}", target.db.display())?;
            writeln!(f, "  index: {}", target.index.display())?;
            match &target.found {
                Found::Absent => writeln!(f, "  will be created")?,
                Found::Empty => writeln!(f, "  empty")?,
                Found::Finished => {
                    writeln!(f, "  already restored; left as it is")?;
                    continue;
                }
                Found::Interrupted(interrupted) => {
                    writeln!(
                        f,
                        "  an interrupted restore of this backup is taken up again; files there, to be proven: {}",
                        interrupted.files
                    )?;
                }
            }
            writeln!(
                f,
                "  owner: {}:{}; finished chunks and tables are read-only",
                target.owner.user, target.owner.group
            )?;
            writeln!(
                f,
                "  space: {} needed, {} free",
                ByteSize(target.bytes_needed),
                ByteSize(target.bytes_free)
            )?;
        }
        write!(f, "{}", self.closing)?;
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        Ok(())
    }
}
