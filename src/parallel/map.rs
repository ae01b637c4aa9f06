//! Many small pieces of work: each thread takes a row of them at a time, and their results keep
//! their order.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Pieces that a thread takes at once: so many that asking for more costs nothing, so few that no
/// thread waits long for the last.
const ROW: usize = 64;
/// More threads would gain nothing: the pieces wait for one file system.
const MOST: usize = 4;

/// Pieces for one call of [`map`], if there may be very many: their results need not all be held
/// twice.
pub const AT_ONCE: usize = 2048;

/// Does very many small pieces of work, and returns the results in the order of the pieces.
///
/// # Errors
/// The error of the first piece, in their order, that has one. All pieces before it were done, and
/// some behind it may have been.
pub fn map<T: Sync, R: Send, E: Send>(
    pieces: &[T],
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let threads = threads_for(pieces.len());
    if threads <= 1 {
        return pieces.iter().map(work).collect();
    }

    let shared = SharedWork {
        pieces,
        work,
        next: AtomicUsize::new(0),
        failed: AtomicUsize::new(usize::MAX),
    };
    let mut rows: Vec<FinishedRow<R, E>> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads)
            .map(|_| scope.spawn(|| shared.take_turns()))
            .collect();
        let mut rows = shared.take_turns();
        for other in others {
            match other.join() {
                Ok(theirs) => rows.extend(theirs),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        rows
    });

    rows.sort_unstable_by_key(|row| row.begin);
    let mut results = Vec::with_capacity(pieces.len());
    for row in rows {
        results.extend(row.results);
        if let Some(error) = row.error {
            return Err(error);
        }
    }
    Ok(results)
}

fn threads_for(pieces: usize) -> usize {
    let processors = match std::thread::available_parallelism() {
        Ok(processors) => NonZeroUsize::get(processors),
        Err(_) => 1,
    };
    processors.min(MOST).min(pieces.div_ceil(ROW))
}

/// The pieces, for all threads.
struct SharedWork<'a, T, W> {
    pieces: &'a [T],
    work: W,
    next: AtomicUsize,
    /// The first piece so far that has failed: nothing behind it is begun.
    failed: AtomicUsize,
}

/// Pieces in a row that one thread has done.
struct FinishedRow<R, E> {
    begin: usize,
    results: Vec<R>,
    error: Option<E>,
}

impl<T, W> SharedWork<'_, T, W> {
    fn take_turns<R, E>(&self) -> Vec<FinishedRow<R, E>>
    where
        W: Fn(&T) -> Result<R, E>,
    {
        let mut done = Vec::new();
        loop {
            let begin = self.next.fetch_add(ROW, Ordering::Relaxed);
            match self.pieces.get(begin..) {
                Some(rest) if !rest.is_empty() => done.push(self.do_row(begin, rest)),
                _ => return done,
            }
        }
    }

    fn do_row<R, E>(&self, begin: usize, rest: &[T]) -> FinishedRow<R, E>
    where
        W: Fn(&T) -> Result<R, E>,
    {
        let mut row = FinishedRow {
            begin,
            results: Vec::with_capacity(ROW.min(rest.len())),
            error: None,
        };

        for (number, piece) in rest.iter().enumerate().take(ROW) {
            if self.failed.load(Ordering::Relaxed) < begin + number {
                break;
            }
            match (self.work)(piece) {
                Ok(result) => row.results.push(result),
                Err(error) => {
                    self.failed.fetch_min(begin + number, Ordering::Relaxed);
                    row.error = Some(error);
                    break;
                }
            }
        }

        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_pieces() {
        for count in [0, 1, ROW, ROW + 1, 10_000] {
            let pieces: Vec<usize> = (0..count).collect();
            let doubled: Vec<usize> = pieces.iter().map(|piece| piece * 2).collect();
            assert_eq!(map(&pieces, |piece| Ok::<_, ()>(piece * 2)), Ok(doubled));
        }
    }

    #[test]
    fn the_first_error_in_the_order_of_the_pieces_counts() {
        let pieces: Vec<usize> = (0..10_000).collect();
        for first in [0, 1, 63, 64, 5_000, 9_999] {
            assert_eq!(
                map(&pieces, |piece| if *piece >= first {
                    Err(*piece)
                } else {
                    Ok(())
                }),
                Err(first)
            );
        }
    }
}
