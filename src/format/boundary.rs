//! Where a log may end (disk-format §2.7 C1–C3, §4.6).
//!
//! A server that starts from a log with half an append shows that half to its clients (O32). So a
//! log may only be cut where no append is open. Only this module makes a [`Boundary`] out of a
//! position, and only after it has seen the records before that position, in their order.

use serde::{Deserialize, Serialize};

use super::chunk::ChunkHeader;
use super::record::{Frame, PrepareFlags, Record};
use super::{Boundary, LogPosition};

/// Finds the last boundary of the records that are added to it.
///
/// * There is a boundary behind every record, except behind a prepare that needs no commit record
///   (`IsCommitted`) and is not the last one of its append (no `TransactionEnd`).
/// * Old logs hold appends that were begun and never ended. Such an append ends where a record of
///   another transaction begins (§4.6).
/// * There is no boundary directly behind an epoch (C3). Most servers write an event
///   `$epoch-information` there, and would give it a wrong number if the log ended before it
///   (§4.4). Any record behind the epoch ends this state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boundaries {
    last: Boundary,
    /// The log position behind everything that was added.
    end: LogPosition,
    open: Open,
    /// The last boundary before the end of a scavenged chunk. It counts if the next record shows
    /// that this end lies inside an append.
    fallback: Option<Boundary>,
}

/// Why the end is not a boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Open {
    Nothing,
    /// An append, by its transaction position.
    Append(LogPosition),
    /// An epoch was the last record.
    Epoch,
}

impl Boundaries {
    /// Begins at a boundary that was proven before. A whole log begins at [`Boundary::ZERO`].
    #[must_use]
    pub const fn starting_at(start: Boundary) -> Self {
        Self {
            last: start,
            end: start.position(),
            open: Open::Nothing,
            fallback: None,
        }
    }

    /// Adds the next record of the log.
    pub fn add(&mut self, frame: &Frame<'_>) {
        self.end_append_before(transaction_of(frame));

        self.end = frame.end();
        self.open = opened_by(&frame.record);
        self.mark_if_closed();
    }

    /// Adds the next records of the log, which `part` has seen.
    pub fn append(&mut self, part: &PartBoundaries) {
        match part.first {
            FirstRecord::Missing => return,
            FirstRecord::Alone => self.end_append_before(None),
            FirstRecord::Of(transaction) => self.end_append_before(Some(transaction)),
        }

        if part.boundaries.last.position() > part.start {
            self.last = part.boundaries.last;
        }
        (self.end, self.open) = (part.boundaries.end, part.boundaries.open);
    }

    /// Decides whether the append before the next record has ended. The next record belongs to
    /// `transaction`.
    fn end_append_before(&mut self, transaction: Option<LogPosition>) {
        match self.open {
            Open::Append(open) if transaction == Some(open) => {
                if let Some(fallback) = self.fallback {
                    self.last = fallback;
                }
            }
            // The server never ended that append.
            Open::Append(_) => self.last = Boundary::proven_at(self.end),
            Open::Nothing | Open::Epoch => {}
        }
        self.fallback = None;
    }

    /// Adds the end of a completed chunk, whose records were added before. The log continues at the
    /// chunk's end, which lies behind its last record (disk-format §3.3).
    ///
    /// A scavenge may have removed the last event of an append. So behind a scavenged chunk an open
    /// append counts as ended, until a record of the same append follows.
    pub fn chunk_completed(&mut self, header: &ChunkHeader) {
        self.end = header.end_position();
        if header.scavenged && self.open != Open::Nothing {
            self.fallback = Some(self.last);
            self.last = Boundary::proven_at(self.end);
        } else {
            self.mark_if_closed();
        }
    }

    /// Makes the end the last boundary, unless something is open.
    fn mark_if_closed(&mut self) {
        if self.open == Open::Nothing {
            self.last = Boundary::proven_at(self.end);
        }
    }

    /// The last boundary, which is at most [`Self::end`].
    #[must_use]
    pub const fn last(&self) -> Boundary {
        self.last
    }

    /// The log position behind everything that was added.
    #[must_use]
    pub const fn end(&self) -> LogPosition {
        self.end
    }
}

/// What is open behind a record.
fn opened_by(record: &Record<'_>) -> Open {
    match record {
        Record::Prepare(prepare)
            if prepare.flags.contains(PrepareFlags::IS_COMMITTED)
                && !prepare.flags.contains(PrepareFlags::TRANSACTION_END) =>
        {
            Open::Append(prepare.transaction)
        }
        Record::System(system) if system.is_epoch() => Open::Epoch,
        Record::Prepare(_) | Record::Commit(_) | Record::System(_) => Open::Nothing,
    }
}

fn transaction_of(frame: &Frame<'_>) -> Option<LogPosition> {
    match &frame.record {
        Record::Prepare(prepare) => Some(prepare.transaction),
        Record::Commit(_) | Record::System(_) => None,
    }
}

/// The boundaries in a part of a log, found without the records before it. Parts can be read in any
/// order. [`Boundaries::append`] puts them together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartBoundaries {
    start: LogPosition,
    first: FirstRecord,
    /// The last boundary in here counts only if it lies behind the start.
    boundaries: Boundaries,
}

/// The first record of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum FirstRecord {
    /// No record was added.
    Missing,
    /// It belongs to no transaction.
    Alone,
    /// It belongs to this transaction.
    Of(LogPosition),
}

impl PartBoundaries {
    /// A part without a record, which begins at `start`.
    #[must_use]
    pub const fn starting_at(start: LogPosition) -> Self {
        Self {
            start,
            first: FirstRecord::Missing,
            boundaries: Boundaries::starting_at(Boundary::proven_at(start)),
        }
    }

    /// Adds the next record of the part.
    pub fn add(&mut self, frame: &Frame<'_>) {
        if self.first == FirstRecord::Missing {
            self.first = match transaction_of(frame) {
                Some(transaction) => FirstRecord::Of(transaction),
                None => FirstRecord::Alone,
            };
        }
        self.boundaries.add(frame);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::super::chunk::Transform;
    use super::super::record::{ByteSpan, Commit, Prepare, System, Ticks};
    use super::super::{ChunkNumber, ChunkSize};
    use super::*;

    const APPENDED: u16 = PrepareFlags::DATA.0 | PrepareFlags::IS_COMMITTED.0;
    const FIRST: u16 = APPENDED | PrepareFlags::TRANSACTION_BEGIN.0;
    const LAST: u16 = APPENDED | PrepareFlags::TRANSACTION_END.0;
    const ONLY: u16 = FIRST | LAST;

    fn position(bytes: u64) -> LogPosition {
        LogPosition::new(bytes).unwrap()
    }

    /// A frame of 100 bytes.
    fn frame(at: u64, record: Record<'static>) -> Frame<'static> {
        Frame {
            position: position(at),
            offset: 128 + at,
            length: 100,
            record,
        }
    }

    fn prepare(at: u64, flags: u16, transaction: u64) -> Frame<'static> {
        let nothing = ByteSpan {
            offset: 0,
            length: 0,
        };

        let prepare = Prepare {
            flags: PrepareFlags(flags),
            transaction: position(transaction),
            transaction_offset: 0,
            expected_version: -1,
            stream: b"stream",
            event_id: Uuid::nil(),
            correlation_id: Uuid::nil(),
            timestamp: Ticks::MAX,
            event_type: b"type",
            data: nothing,
            metadata: nothing,
        };
        frame(at, Record::Prepare(prepare))
    }

    fn epoch(at: u64) -> Frame<'static> {
        let system = System {
            timestamp: Ticks::MAX,
            subtype: System::EPOCH,
            serialization: System::JSON,
            data: b"",
        };
        frame(at, Record::System(system))
    }

    fn commit(at: u64) -> Frame<'static> {
        let commit = Commit {
            transaction: position(0),
            first_event_number: 0,
            correlation_id: Uuid::nil(),
            timestamp: Ticks::MAX,
        };
        frame(at, Record::Commit(commit))
    }

    fn header(scavenged: bool) -> ChunkHeader {
        ChunkHeader {
            min_compatible: 3,
            version: 3,
            chunk_size: ChunkSize::new(1000).unwrap(),
            start: ChunkNumber(0),
            end: ChunkNumber(0),
            scavenged,
            id: Uuid::nil(),
            transform: Transform::Identity,
        }
    }

    /// The last boundary after each record.
    fn boundaries(frames: &[Frame<'_>]) -> Vec<u64> {
        let mut boundaries = Boundaries::starting_at(Boundary::ZERO);
        let mut last = Vec::new();
        for frame in frames {
            boundaries.add(frame);
            last.push(boundaries.last().position().get());
        }
        last
    }

    #[test]
    fn an_append_is_never_cut() {
        let frames = [
            prepare(0, ONLY, 0),
            prepare(100, FIRST, 100),
            prepare(200, APPENDED, 100),
            prepare(300, LAST, 100),
            prepare(400, FIRST, 400),
        ];
        assert_eq!(boundaries(&frames), [100, 100, 100, 400, 400]);
    }

    #[test]
    fn explicit_transactions_may_be_cut_anywhere() {
        let begin = PrepareFlags::TRANSACTION_BEGIN.0;
        let frames = [
            prepare(0, begin, 0),
            prepare(100, PrepareFlags::DATA.0, 0),
            prepare(200, PrepareFlags::TRANSACTION_END.0, 0),
            commit(300),
        ];
        assert_eq!(boundaries(&frames), [100, 200, 300, 400]);
    }

    #[test]
    fn a_torn_append_ends_where_another_transaction_begins() {
        let frames = [
            prepare(0, FIRST, 0),
            prepare(100, APPENDED, 0),
            prepare(200, FIRST, 200),
            prepare(300, LAST, 200),
        ];
        assert_eq!(boundaries(&frames), [0, 0, 200, 400]);
        assert_eq!(
            boundaries(&[prepare(0, FIRST, 0), epoch(100), prepare(200, ONLY, 200)]),
            [0, 100, 300]
        );
    }

    #[test]
    fn an_epoch_needs_a_record_behind_it() {
        assert_eq!(
            boundaries(&[
                epoch(0),
                prepare(100, ONLY, 100),
                epoch(200),
                epoch(300),
                prepare(400, FIRST, 400),
                prepare(500, LAST, 400)
            ]),
            [0, 200, 200, 200, 200, 600]
        );
    }

    #[test]
    fn the_end_of_a_chunk_is_a_boundary_unless_an_append_goes_on() {
        let mut whole = Boundaries::starting_at(Boundary::ZERO);
        whole.add(&prepare(0, ONLY, 0));
        whole.chunk_completed(&header(false));
        assert_eq!(whole.last().position(), position(1000));

        let mut spanning = Boundaries::starting_at(Boundary::ZERO);
        spanning.add(&prepare(800, ONLY, 800));
        spanning.add(&prepare(900, FIRST, 900));
        spanning.chunk_completed(&header(false));
        assert_eq!(
            (spanning.last().position(), spanning.end()),
            (position(900), position(1000))
        );

        spanning.add(&prepare(1000, LAST, 900));
        assert_eq!(spanning.last().position(), position(1100));
    }

    #[test]
    fn behind_a_scavenged_chunk_an_append_counts_as_ended_until_it_goes_on() {
        let mut scavenged = Boundaries::starting_at(Boundary::ZERO);
        scavenged.add(&prepare(0, ONLY, 0));
        scavenged.add(&prepare(500, FIRST, 500));
        scavenged.chunk_completed(&header(true));
        assert_eq!(scavenged.last().position(), position(1000));

        let mut goes_on = scavenged.clone();
        goes_on.add(&prepare(1000, APPENDED, 500));
        assert_eq!(goes_on.last().position(), position(100));

        scavenged.add(&prepare(1000, FIRST, 1000));
        assert_eq!(scavenged.last().position(), position(1000));
    }

    #[test]
    fn goes_on_from_any_boundary() {
        let frames = [
            epoch(0),
            prepare(100, ONLY, 100),
            prepare(200, FIRST, 200),
            prepare(300, LAST, 200),
            epoch(400),
            prepare(500, ONLY, 500),
        ];

        let mut whole = Boundaries::starting_at(Boundary::ZERO);
        for (index, frame) in frames.iter().enumerate() {
            whole.add(frame);
            let mut resumed = Boundaries::starting_at(whole.last());
            let rest = frames
                .iter()
                .filter(|frame| frame.position >= whole.last().position());
            rest.for_each(|frame| resumed.add(frame));
            assert_eq!(
                resumed.last().position(),
                position(600),
                "after record {index}"
            );
        }
    }

    proptest! {
        #[test]
        fn parts_put_together_are_the_whole(
            records in proptest::collection::vec((0..7_u8, any::<bool>()), 1..40),
            cuts in proptest::collection::btree_set(0..40_usize, 0..6),
            scavenged: bool,
        ) {
            let mut open = 0;
            let mut frames = Vec::new();
            for (at, (kind, continues)) in (0..).step_by(100).zip(&records) {
                let transaction = if *continues { open } else { at };
                open = transaction;
                frames.push(match kind {
                    0 => epoch(at),
                    1 => commit(at),
                    2 => prepare(at, PrepareFlags::DATA.0, transaction),
                    3 => prepare(at, ONLY, at),
                    4 => prepare(at, LAST, transaction),
                    _ => prepare(at, APPENDED, transaction),
                });
            }

            let mut whole = Boundaries::starting_at(Boundary::ZERO);
            let mut together = Boundaries::starting_at(Boundary::ZERO);
            let mut ends: Vec<usize> = cuts.into_iter().collect();
            ends.retain(|cut| *cut < frames.len());
            ends.push(frames.len());

            let mut begin = 0;
            for end in ends {
                let start = frames.get(begin).map_or(whole.end(), |frame| frame.position);
                let mut part = PartBoundaries::starting_at(start);
                for frame in &frames[begin..end] {
                    whole.add(frame);
                    part.add(frame);
                }
                together.append(&part);

                // As if a chunk ended here, without room behind its last record.
                let number = u32::try_from(end).unwrap().saturating_sub(1);
                let header = ChunkHeader {
                    chunk_size: ChunkSize::new(100).unwrap(),
                    end: ChunkNumber(number),
                    ..header(scavenged)
                };
                if end > 0 {
                    whole.chunk_completed(&header);
                    together.chunk_completed(&header);
                }
                prop_assert_eq!((whole.last(), whole.end()), (together.last(), together.end()));
                prop_assert_eq!((whole.open, whole.fallback), (together.open, together.fallback));
                begin = end;
            }
        }
    }
}
