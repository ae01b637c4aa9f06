//! The records of the log: what it ends with, where it is damaged, and its epochs.

use std::collections::BTreeMap;

use super::Gathering;
use crate::error::{Kind, Result};
use crate::format::chunk::Transform;
use crate::format::{self, Boundary, LogPosition, WriterPosition};
use crate::log::{ChunkSet, LogFile, lineage, with_place};
use crate::proof::depth::Depth;
use crate::proof::log::{LogEnd, LogProof, LogStretch, ScanFailure, Torn, scan_or_damage};
use crate::proof::start::facts::{Damage, EndFact};

/// What the records of the log tell.
#[derive(Default)]
pub(super) struct LogFacts {
    pub(super) ends: BTreeMap<LogPosition, EndFact>,
    pub(super) damage: Vec<Damage>,
    pub(super) proof: Option<LogProof>,
    pub(super) bad_epoch: Option<Damage>,
    pub(super) epochs: Option<u64>,
}

impl LogFacts {
    /// Reads what the log ends with at `writer`, and what it would end with at the `others`. A deep
    /// examination reads all records.
    pub(super) fn read(
        &mut self,
        gathering: &mut Gathering<'_>,
        set: &ChunkSet,
        writer: LogPosition,
        others: &[i64],
    ) -> Result<()> {
        if gathering.depth == Depth::Quick {
            return Ok(());
        }

        if let Some((end, proof)) = gathering.end_at(set, writer)? {
            self.ends.insert(writer, end);
            self.proof = proof;
        }
        for other in others {
            let Some(position) = LogPosition::from_signed(*other) else {
                continue;
            };
            if position >= writer || self.ends.contains_key(&position) {
                continue;
            }
            if let Some((end, _)) = gathering.end_at(set, position)? {
                self.ends.insert(position, end);
            }
        }

        if gathering.depth == Depth::Deep {
            self.damage = gathering.all_records(set, writer)?;
        }
        Ok(())
    }

    /// Follows the epochs from the one that `epoch.chk` names.
    pub(super) fn read_epochs(
        &mut self,
        gathering: &mut Gathering<'_>,
        set: &ChunkSet,
        writer: LogPosition,
        epoch: i64,
    ) -> Result<()> {
        let Some(position) = LogPosition::from_signed(epoch) else {
            return Ok(());
        };
        // If the epoch's chunk is missing or encrypted, or if the epoch is ahead of the log,
        // another finding says so.
        let Some(file) = set.holding(position) else {
            return Ok(());
        };
        if position > writer || !is_plain(file) {
            return Ok(());
        }

        match lineage(gathering.files, set, position) {
            Ok(lineage) => self.epochs = Some(lineage.epochs().len() as u64),
            Err(error) if error.kind() == Kind::SourceCorrupt => {
                self.bad_epoch = Some(Damage {
                    position,
                    place: gathering.place(&file.path),
                    why: error.in_words(),
                });
            }
            Err(error) if error.kind() == Kind::Refused => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl Gathering<'_> {
    /// What the log would end with if it ended at `position`. Returns `None` if that cannot be
    /// read.
    fn end_at(
        &mut self,
        set: &ChunkSet,
        position: LogPosition,
    ) -> Result<Option<(EndFact, Option<LogProof>)>> {
        // A scavenged chunk is read whole: a server that accepts a position in it goes on behind it,
        // or reads the next record that is left (disk-format §6.7).
        let position = match set.holding(position) {
            Some(file) if file.header().scavenged => end_of_scavenged(file, position),
            _ => position,
        };
        let Some(readings) = files_to_read(set, position) else {
            return Ok(None);
        };

        for (number, files) in readings.iter().enumerate() {
            let Some(first) = files.first() else { continue };
            let proof = match self.scan_from_starts(set, files, position) {
                Ok(proof) => proof,
                Err(ScanFailure::Torn(torn)) => {
                    let damage = self.damage(torn)?;
                    return Ok(Some((EndFact::Damaged(damage), None)));
                }
                Err(ScanFailure::Failed(error)) if error.kind() == Kind::Failed => return Ok(None),
                Err(ScanFailure::Failed(error)) => return Err(error),
            };

            let LogEnd::HalfAppend(begin) = proof.end else {
                return Ok(Some((EndFact::Whole, Some(proof))));
            };
            // If the append began before these files, only the chunk before them tells where.
            let is_second_reading = number > 0;
            let begins_here = begin >= first.header().start_position();
            if begins_here || first.start().0 == 0 || is_second_reading {
                return Ok(Some((EndFact::HalfAppend(begin), Some(proof))));
            }
        }
        Ok(None)
    }

    fn scan_from_starts(
        &self,
        set: &ChunkSet,
        files: &[&LogFile],
        end: LogPosition,
    ) -> Result<LogProof, ScanFailure> {
        let stretches: Vec<LogStretch> = files
            .iter()
            .map(|file| LogStretch::new(file.path.clone(), file.header().start_position()))
            .collect();
        let end = WriterPosition(end);
        scan_or_damage(self.files, set, &stretches, Boundary::ZERO, end, self.run)
    }

    /// What is wrong at the place where a scan stopped. An error of the storage stays an error.
    fn damage(&self, torn: Torn) -> Result<Damage> {
        let why = match torn.why {
            format::Error::Malformed(why) => why.to_string(),
            format::Error::Read(error) => {
                return with_place(self.files, &torn.path, Err(error.into()));
            }
        };
        Ok(Damage {
            position: torn.position,
            place: self.place(&torn.path),
            why,
        })
    }

    /// Reads every record of the completed chunks before `writer`, and says where they are damaged.
    fn all_records(&mut self, set: &ChunkSet, writer: LogPosition) -> Result<Vec<Damage>> {
        let mut damage = Vec::new();
        for file in set.in_use() {
            let end = file.header().end_position();
            if end > writer || file.chunk.footer().is_none() || !is_plain(file) {
                continue;
            }

            match self.scan_from_starts(set, &[file], end) {
                Ok(_) => {}
                Err(ScanFailure::Torn(torn)) => damage.push(Damage {
                    position: torn.position,
                    place: self.place(&torn.path),
                    why: torn.why.to_string(),
                }),
                Err(ScanFailure::Failed(error)) => return Err(error),
            }
        }
        Ok(damage)
    }
}

/// The files to read for the end of a log at `position`. The first reading takes the chunk that the
/// log ends in. The second one, for a chunk that begins inside an append, also takes the chunk
/// before it. Returns `None` if they cannot be read.
fn files_to_read(set: &ChunkSet, position: LogPosition) -> Option<[Vec<&LogFile>; 2]> {
    let mut current = None;
    let mut before = position;
    if set.chunk_size().local(position) > 0 {
        let file = set.holding(position)?;
        before = file.header().start_position();
        current = Some(file);
    }

    let mut previous = None;
    if let Some(last) = before.get().checked_sub(1).and_then(LogPosition::new) {
        previous = set.holding(last);
    }
    if !is_plain(current.or(previous)?) {
        return None;
    }

    let first = current.into_iter().collect();
    let second = previous.into_iter().chain(current).collect();
    Some([first, second])
}

fn end_of_scavenged(file: &LogFile, position: LogPosition) -> LogPosition {
    let header = file.header();
    if position == header.start_position() {
        position
    } else {
        header.end_position()
    }
}

fn is_plain(file: &LogFile) -> bool {
    file.header().transform == Transform::Identity
}
