//! A backup of a node: the vendor's procedure, step by step, made safe. `docs/procedure.md`
//! explains it, with the evidence for each departure.

mod attempt;
mod branch;
mod capture;
mod checkpoints;
mod chunks;
mod counted;
mod index;
mod normalise;
mod recheck;
mod source;
mod survey;

use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use self::branch::Place;
use self::capture::{Capture, changed};
use self::chunks::Allowed;
use self::index::Index;
use self::normalise::End;
pub use self::recheck::Share;
use self::source::Still;
pub use self::source::{Node, Running, Source};
pub use self::survey::Estimate;
use self::survey::{Ground, Shelf};
use crate::clock::{self, Timestamp};
use crate::error::{Kind, Result};
use crate::event::{Event, Step};
use crate::format::{Boundary, ChunkSize, Lineage, LogPosition, Relation};
use crate::log::{self, ChunkSet};
use crate::manifest::{
    self, BackupKind, Contents, Head, Label, Log, Manifest, ReadCheckpoints, Row, SecondaryIndex,
    Totals,
};
use crate::proof::{self, BackupEvidence, LogProof};
use crate::repository::Repository;
use crate::run::Run;
use crate::transfer::Paced;

/// What the operator asks for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Read everything again, or only what changed.
    pub kind: BackupKind,
    /// How often the procedure may start over.
    pub attempts: u32,
    /// A stored stream-existence filter that is older is read again.
    pub filter_max_age: Duration,
    /// How long a member that does not lead may take to reach the leader's position.
    pub catch_up: Duration,
    /// Keep a backup of chunks that fail their own MD5.
    pub accept_damaged: bool,
    /// The log may go another way: then a new branch begins. Does nothing while it has not.
    pub new_branch: bool,
    /// The node may have another address than before; the repository keeps to the new one from then
    /// on.
    pub new_address: bool,
    /// How much of what a diff takes over is hashed again.
    pub recheck: Share,
}

/// What became of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Its name.
    pub label: Label,
    /// The repository it is in.
    pub repository: Uuid,
    /// How it came to its bytes; a diff without a predecessor is a full.
    pub kind: BackupKind,
    /// The backup it took unchanged files from.
    pub parent: Option<Label>,
    /// Its branch.
    pub branch: u32,
    /// Where a restored log ends, a log position in bytes.
    pub position: LogPosition,
    /// Bytes it has more than its parent, of log; 0 without one.
    pub log_bytes_added: u64,
    /// Bytes that a restore writes.
    pub bytes: u64,
    /// Bytes read from the source.
    pub bytes_read: u64,
    /// Bytes newly written to the repository.
    pub bytes_stored: u64,
    /// Files copied, in whole or in part.
    pub files_copied: u64,
    /// Files taken over from an earlier backup.
    pub files_linked: u64,
    /// Files that an interrupted run had copied.
    pub files_resumed: u64,
    /// Their bytes.
    pub bytes_resumed: u64,
    /// How often the procedure had to start over.
    pub retries: u32,
    /// Whole seconds from the first question to the commit.
    pub seconds: i64,
    /// The index is in it.
    pub index: bool,
    /// Bytes by which the leader is ahead.
    pub missing_bytes: Option<u64>,
}

/// Takes a backup. When this returns, the node has back what was taken from it, or `kbackup
/// release` is owed and said so.
///
/// # Errors
/// Each kind has its meaning in `docs/guide.md`; after any of them nothing is listed.
pub fn take(
    request: &Request,
    source: &Source<'_>,
    repository: &dyn Repository,
    run: &Run,
) -> Result<Summary> {
    let started = clock::now();
    run.emit(Event::Step(Step::Preflight));
    let mut ground = attempt::repeat(request.attempts, run, |_| survey::look(source, run))?;
    let shelf = survey::shelf(repository, run)?;
    let newest_label = shelf.newest_label.clone();
    let (place, parent) = survey::settle(shelf, request, &ground, repository, run)?;
    let estimates = survey::estimate(&ground, parent.as_ref());
    // There may be tens of thousands.
    drop(std::mem::take(&mut ground.entries));
    survey::room_for(estimates.all, source, &ground, repository, run)?;
    let incoming = repository.writer(run)?.begin(parent.as_ref())?;
    incoming.check_next(place.sequence)?;
    // While the node still goes about its work: hashing takes its time.
    let damaged = parent
        .as_ref()
        .map(|parent| recheck::recheck(repository, parent, request.recheck, run))
        .transpose()?
        .unwrap_or_default();

    run.emit(Event::Step(Step::Quiesce));
    let mut still = source.quiesce(repository, run)?;
    let mut capture = Capture::new(incoming, &source.directories, parent.as_ref(), run);
    capture.cost.bytes_read = ground.bytes_read;
    capture.seen = std::mem::take(&mut ground.seen);
    damaged
        .iter()
        .for_each(|damaged| capture.distrust(&damaged.path, &damaged.error));
    // Those are marked already.
    drop(capture.distrusted());
    let task = Task {
        request,
        source,
        repository,
        ground: &ground,
        place: &place,
        expected: estimates.chunks,
        newest_label,
        started,
    };
    let captured = task.capture(&mut capture, &mut still);
    if let Some(parent) = &parent {
        recheck::mark(repository, parent, &capture.distrusted(), run);
    }
    let taken = captured.and_then(|(manifest, log)| task.commit(capture, manifest, &log));

    run.emit(Event::Step(Step::Release));
    if let Err(error) = still.release(repository, run) {
        run.warn(format!(
            "the node has not got everything back ({error}): run `kbackup release`"
        ));
    }
    Ok(summary(&taken?, repository.id(), place.held_up_to))
}

/// What a backup would be, as far as it can be said while the node goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Forecast {
    /// Full, or diff on a parent.
    pub kind: BackupKind,
    /// The backup that unchanged files would come from.
    pub parent: Option<Label>,
    /// Its branch.
    pub branch: u32,
    /// Where the log ends now.
    pub position: LogPosition,
    /// What would be copied.
    pub estimate: Estimate,
}

/// Estimates a backup. Nothing is asked of the node's scavenging, and nothing is written.
///
/// # Errors
/// As the preflight of [`take`].
pub fn forecast(
    request: &Request,
    source: &Source<'_>,
    repository: Option<&dyn Repository>,
    run: &Run,
) -> Result<Forecast> {
    let ground = attempt::repeat(request.attempts, run, |_| survey::look(source, run))?;
    let (place, parent) = match repository {
        Some(repository) => survey::settle(
            survey::shelf(repository, run)?,
            request,
            &ground,
            repository,
            run,
        )?,
        None => (
            branch::place(&Shelf::default(), &ground.seen(), request, run)?,
            None,
        ),
    };
    let estimate = survey::estimate(&ground, parent.as_ref()).all;
    Ok(Forecast {
        kind: place.kind,
        parent: place.parent,
        branch: place.branch,
        position: ground.end,
        estimate,
    })
}

/// One run's work, after the preflight.
struct Task<'a> {
    request: &'a Request,
    source: &'a Source<'a>,
    repository: &'a dyn Repository,
    ground: &'a Ground,
    place: &'a Place,
    /// What the chunks will cost, for the progress.
    expected: Estimate,
    newest_label: Option<Label>,
    started: Timestamp,
}

impl Task<'_> {
    /// Tries until the source held still for long enough.
    fn capture(
        &self,
        capture: &mut Capture<'_>,
        still: &mut Still<'_>,
    ) -> Result<(Manifest, LogProof)> {
        let run = capture.run;
        attempt::repeat(self.request.attempts, run, |number| {
            if number > 1 {
                capture.start_over();
                // A node that cannot be made quiet again was restarted, or is gone: no further
                // attempt can help.
                if let Err(error) = still.settle_again() {
                    return Ok(Err(error));
                }
            }
            let (mut manifest, log) = self.attempt(capture, still)?;
            manifest.cost.retries = number - 1;
            Ok(Ok((manifest, log)))
        })?
    }

    /// The procedure, from the index to the last look at the node.
    fn attempt(
        &self,
        capture: &mut Capture<'_>,
        still: &Still<'_>,
    ) -> Result<(Manifest, LogProof)> {
        let run = capture.run;
        run.emit(Event::Step(Step::Index));
        let index = index::copy(capture, index::filter_policy(self.request.filter_max_age))?;

        run.emit(Event::Step(Step::Checkpoints));
        let read = self.checkpoints(capture)?;

        run.emit(Event::Step(Step::Chunks));
        run.emit(Event::Expected {
            files: self.expected.files,
            bytes: self.expected.bytes,
        });
        let allowed = Allowed {
            damaged: self.request.accept_damaged,
            running: self.source.is_running(),
        };
        let chunk_size = chunks::copy(capture, self.repository, read.writer, allowed)?;
        let secondary_index = source::secondary_index(capture, self.source.is_running())?;
        // Before anything is proven: what an earlier attempt has captured and this one did not find
        // must not pass for a part of the log.
        capture.drop_unwanted()?;

        run.emit(Event::Step(Step::Prove));
        let set = capture.chunks()?;
        let proof = self.scan(capture, &set, &read)?;
        let epochs = self.lineage(capture, &set, &read, &proof)?;
        let end = normalise::end(
            capture,
            chunk_size,
            &read,
            &epochs,
            proof.boundary,
            !self.source.is_running(),
        )?;
        let index = self.fitting_index(capture, index, end.position)?;
        index::complete_filter(capture, &set, end.position.position())?;
        drop(set);

        still.check(checkpoints::pending_truncation(&self.source.directories)?)?;
        let captured = Captured {
            index,
            read,
            chunk_size,
            secondary_index,
            end,
        };
        Ok((self.manifest(capture, still, captured, &proof), proof))
    }

    /// Steps D11–D14. A member that does not lead is given time to reach where its leader was when
    /// the backup began.
    fn checkpoints(&self, capture: &mut Capture<'_>) -> Result<ReadCheckpoints> {
        let deadline = std::time::Instant::now() + self.request.catch_up;
        loop {
            let read = checkpoints::read(&self.source.directories)?;
            let behind = self
                .source
                .leader_end()
                .is_some_and(|leader| read.writer.0 < leader);
            if !behind || std::time::Instant::now() >= deadline {
                capture.cost.bytes_read += checkpoints::BYTES_READ;
                return Ok(read);
            }
            capture.run.pause(Duration::from_millis(100))?;
        }
    }

    /// Parses every frame of the log bytes that this run has read.
    fn scan(
        &self,
        capture: &Capture<'_>,
        set: &ChunkSet,
        read: &ReadCheckpoints,
    ) -> Result<LogProof> {
        let parent_end = capture
            .parent()
            .map(|parent| parent.log.position)
            .filter(|end| end.position() <= read.writer.0);
        let files = capture.files();
        let paced = Paced::new(&files, capture.run);
        proof::scan(
            &paced,
            set,
            &capture.newly_read(),
            parent_end.unwrap_or(Boundary::ZERO),
            read.writer,
            capture.run,
        )
    }

    /// The epochs of the captured log. Those written after `epoch.chk` was read lie in the newly
    /// read bytes.
    fn lineage(
        &self,
        capture: &mut Capture<'_>,
        set: &ChunkSet,
        read: &ReadCheckpoints,
        proof: &LogProof,
    ) -> Result<Lineage> {
        let newest = proof
            .seen
            .epochs
            .last()
            .map(|epoch| epoch.position)
            .max(read.epoch);
        let lineage = match newest {
            Some(epoch) => match log::lineage(&capture.files(), set, epoch) {
                Err(error) if error.kind() == Kind::SourceCorrupt => {
                    self.stored_epochs(capture)?;
                    return Err(error);
                }
                lineage => lineage?,
            },
            None => self.ground.lineage.clone(),
        };
        let agrees = |before: &Lineage, end: LogPosition| {
            matches!(
                before.relation(end, &lineage, read.writer.0),
                Relation::Same { .. }
            )
        };
        let parent_agrees = capture
            .parent()
            .is_none_or(|parent| agrees(&parent.log.lineage, parent.log.position.position()));
        if !parent_agrees
            || !agrees(&self.ground.lineage, self.ground.end.min(read.writer.0))
            || read.writer.0 < self.ground.end
        {
            self.stored_epochs(capture)?;
            return Err(changed("the log went another way during the backup")
                .at(&self.source.directories.db));
        }
        Ok(lineage)
    }

    /// Before the node is said to be wrong about its epochs: the chunks that hold them may have
    /// been adopted, and be damaged where they are stored.
    ///
    /// # Errors
    /// `Unstable` where one was: the next attempt reads it from the node.
    fn stored_epochs(&self, capture: &mut Capture<'_>) -> Result<()> {
        let (size, epochs) = (self.ground.chunk_size, self.ground.lineage.epochs());
        let holds_one = |row: &Row| {
            row.chunk.is_some_and(|chunk| {
                epochs.iter().any(|epoch| {
                    size.start_of(chunk.start) <= epoch.position
                        && epoch.position < size.end_of(chunk.end)
                })
            })
        };
        if capture.weed_out(holds_one)? {
            return Err(changed("a stored chunk is damaged").on(self.repository.place()));
        }
        Ok(())
    }

    /// An index that reaches beyond the log makes the server copy it away and rebuild everything
    /// (O37); one that ends before is caught up.
    fn fitting_index(
        &self,
        capture: &mut Capture<'_>,
        index: Index,
        end: Boundary,
    ) -> Result<Index> {
        index::hold_filter_back(capture, end.position())?;
        match index {
            Index::Captured {
                commit: Some(commit),
            } if commit >= end.position() => {
                if self.source.is_running() {
                    return Err(changed(format!(
                        "the index reaches to {commit}, into an append that the log has only in part"
                    )));
                }
                index::leave_out(
                    capture,
                    &format!("it reaches to {commit}, and the log ends at {end}"),
                )?;
                Ok(Index::LeftOut)
            }
            index => Ok(index),
        }
    }

    fn manifest(
        &self,
        capture: &Capture<'_>,
        still: &Still<'_>,
        captured: Captured,
        proof: &LogProof,
    ) -> Manifest {
        let Captured {
            index,
            read,
            chunk_size,
            secondary_index,
            end,
        } = captured;
        let missing_bytes = self
            .source
            .leader_end()
            .map(|leader| leader.since(end.position.position()))
            .filter(|missing| *missing > 0);
        if let Some(missing) = missing_bytes {
            capture.run.warn(format!(
                "the leader was {missing} bytes ahead of this member; they are not in this backup"
            ));
        }
        let files = capture.rows();
        let head = Head {
            format: manifest::FORMAT,
            label: self.label(),
            sequence: self.place.sequence,
            kind: self.place.kind,
            parent: capture.parent().map(|parent| parent.label.clone()),
            branch: self.place.branch,
            tool: concat!("kbackup ", env!("CARGO_PKG_VERSION")).to_owned(),
            started: self.started,
            // The clock may have gone back meanwhile.
            finished: clock::now().max(self.started),
            source: manifest::Source {
                server_version: self.source.server_version.clone(),
                identity: self.ground.identity.clone(),
                instance: self.source.instance(),
                state: self.source.state(),
                db: self.source.directories.db.display().to_string(),
                index: self.source.directories.index.display().to_string(),
                owner: self.ground.owner.clone(),
                online: self.source.is_running(),
                restored: self.ground.restored.clone(),
                missing_bytes,
            },
            log: Log {
                chunk_size,
                position: end.position,
                last_event: proof
                    .seen
                    .last_event
                    .or_else(|| capture.parent().and_then(|parent| parent.log.last_event)),
                lineage: end.lineage,
                read,
                stored: end.stored,
                index_commit: if let Index::Captured { commit } = index {
                    commit
                } else {
                    None
                },
            },
            scavenging: still.scavenging(),
            contents: Contents {
                index: index != Index::LeftOut,
                secondary_index,
                archive: false,
                damaged: capture.damaged(),
            },
            cost: capture.cost(),
            totals: Totals::of(&files),
        };
        Manifest { head, files }
    }

    /// Time and kind; never before the newest backup's, whatever the clock says.
    fn label(&self) -> Label {
        let after_previous = self
            .newest_label
            .as_ref()
            .map(|newest| newest.time().as_second().saturating_add(1));
        let second = self
            .started
            .as_second()
            .max(after_previous.unwrap_or(i64::MIN));
        Label::new(
            Timestamp::from_second(second).unwrap_or(self.started),
            self.place.kind,
        )
    }

    fn commit(&self, capture: Capture<'_>, manifest: Manifest, log: &LogProof) -> Result<Head> {
        let (run, parent) = (capture.run, capture.parent());
        run.almost_done()?;
        run.emit(Event::Step(Step::Commit));
        let md5_compared = capture.newly_copied();
        let (incoming, inspected) = capture.into_incoming();
        let evidence = BackupEvidence {
            parent,
            md5_compared: &md5_compared,
            log,
            inspected: &inspected,
        };
        let proven = proof::prove_backup(&*incoming, manifest, &evidence, run)?;
        // The files are listed once more, and there may be tens of thousands.
        drop((inspected, md5_compared));
        incoming.commit(&proven)?;
        run.emit(Event::Committed {
            label: proven.label.to_string(),
            position: proven.log.position.position().get(),
        });
        Ok(proven.head.clone())
    }
}

/// What one attempt has captured.
struct Captured {
    index: Index,
    read: ReadCheckpoints,
    chunk_size: ChunkSize,
    secondary_index: SecondaryIndex,
    end: End,
}

fn summary(manifest: &Head, repository: Uuid, held_up_to: Option<LogPosition>) -> Summary {
    let position = manifest.log.position.position();
    Summary {
        label: manifest.label.clone(),
        repository,
        kind: manifest.kind,
        parent: manifest.parent.clone(),
        branch: manifest.branch,
        position,
        log_bytes_added: held_up_to.map_or(0, |end| position.since(end)),
        bytes: manifest.totals.bytes,
        bytes_read: manifest.cost.bytes_read,
        bytes_stored: manifest.cost.bytes_stored,
        files_copied: manifest.cost.files_copied,
        files_linked: manifest.cost.files_linked,
        files_resumed: manifest.cost.files_resumed,
        bytes_resumed: manifest.cost.bytes_resumed,
        retries: manifest.cost.retries,
        seconds: manifest
            .finished
            .as_second()
            .saturating_sub(manifest.started.as_second()),
        index: manifest.contents.index,
        missing_bytes: manifest.source.missing_bytes,
    }
}
