//! The manifest of a new backup.

use super::attempt::CapturedBackup;
use super::capture::Capture;
use super::index::CapturedIndex;
use super::parentage::Parentage;
use super::preflight::Preflight;
use super::source::Source;
use crate::clock::Timestamp;
use crate::manifest::{self, Contents, Cost, Head, Label, LogRecord, Manifest, Totals};

/// What is known of a backup before its files are captured.
#[derive(Clone, Copy)]
pub(super) struct BackupDescription<'a> {
    pub(super) source: &'a Source<'a>,
    pub(super) preflight: &'a Preflight,
    pub(super) parentage: &'a Parentage,
    pub(super) newest_label: Option<&'a Label>,
    pub(super) started: Timestamp,
}

impl BackupDescription<'_> {
    /// Describes what was captured, and warns if the leader has more.
    pub(super) fn manifest(&self, capture: &Capture<'_>, captured: &CapturedBackup) -> Manifest {
        let missing_bytes = self.missing_bytes(captured);
        if let Some(missing) = missing_bytes {
            capture.run.warn(format!(
                "the leader was {missing} bytes ahead of this member; this backup does not hold \
                 them"
            ));
        }

        let files = capture.rows();
        let mut head = Head {
            format: manifest::FORMAT,
            label: self.label(),
            sequence: self.parentage.sequence,
            kind: self.parentage.kind,
            parent: capture.parent().map(|parent| parent.label.clone()),
            branch: self.parentage.branch,
            tool: concat!("kbackup ", env!("CARGO_PKG_VERSION")).to_owned(),
            started: self.started,
            // The clock may have gone back meanwhile.
            finished: captured.finished.max(self.started),
            source: self.source_described(missing_bytes),
            log: log(capture, captured),
            scavenging: captured.scavenging.clone(),
            contents: Contents {
                index: matches!(captured.index, CapturedIndex::Complete { .. }),
                secondary_index: captured.secondary_index,
                archive: false,
                damaged: capture.damaged_chunks(),
            },
            cost: Cost {
                retries: captured.retries,
                ..capture.cost()
            },
            totals: Totals::of(&files),
        };
        // An older kbackup then says that it is too old, instead of calling the backup damaged.
        if let Ok(format) = head.oldest_format() {
            head.format = format;
        }
        Manifest { head, files }
    }

    /// Bytes that the leader had when the backup began, and that this backup lacks.
    fn missing_bytes(&self, captured: &CapturedBackup) -> Option<u64> {
        let leader_end = self.source.leader_end()?;
        match leader_end.since(captured.end.position.position()) {
            0 => None,
            missing => Some(missing),
        }
    }

    fn source_described(&self, missing_bytes: Option<u64>) -> manifest::SourceRecord {
        let (source, preflight) = (self.source, self.preflight);
        manifest::SourceRecord {
            server_version: source.server_version.clone(),
            identity: preflight.identity.clone(),
            instance: source.instance(),
            state: source.state(),
            db: source.directories.db.display().to_string(),
            index: source.directories.index.display().to_string(),
            owner: preflight.owner.clone(),
            online: source.is_running(),
            restored: preflight.restored.clone(),
            missing_bytes,
        }
    }

    /// The label of the new backup, from time and kind. Its time is later than that of every label
    /// in the repository, even if the clock went back.
    fn label(&self) -> Label {
        let mut second = self.started.as_second();
        if let Some(newest) = self.newest_label {
            let next = newest.time().as_second().saturating_add(1);
            second = second.max(next);
        }

        let time = Timestamp::from_second(second).unwrap_or(self.started);
        Label::new(time, self.parentage.kind)
    }
}

fn log(capture: &Capture<'_>, captured: &CapturedBackup) -> LogRecord {
    // A diff that adds no event has the last event of its parent.
    let parents_last_event = match capture.parent() {
        Some(parent) => parent.log.last_event,
        None => None,
    };
    LogRecord {
        chunk_size: captured.chunk_size,
        position: captured.end.position,
        last_event: captured.proof.seen.last_event.or(parents_last_event),
        lineage: captured.end.lineage.clone(),
        read: captured.read.clone(),
        stored: captured.end.checkpoints.clone(),
        index_commit: match captured.index {
            CapturedIndex::Complete { commit } => commit,
            CapturedIndex::Empty | CapturedIndex::LeftOut => None,
        },
    }
}
