use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Pieces that a thread takes at once: so many that asking for more costs nothing, so few that none
/// waits long for the last.
const STRETCH: usize = 64;
/// More threads would gain nothing: the pieces wait for one file system.
const MOST: usize = 4;

/// Pieces for one call of [`many`] where there may be very many: their results need not all be held
/// twice.
pub const AT_ONCE: usize = 2048;

/// Does very many small pieces of work, and returns the results in the order of the pieces.
///
/// # Errors
/// The error of the first piece, in their order, that has one: what comes before that was done,
/// what comes after may have been.
pub fn map<T: Sync, R: Send, E: Send>(
    pieces: &[T],
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let threads = std::thread::available_parallelism()
        .map_or(1, NonZeroUsize::get)
        .min(MOST)
        .min(pieces.len().div_ceil(STRETCH));
    if threads <= 1 {
        return pieces.iter().map(work).collect();
    }
    let shared = Shared {
        pieces,
        work,
        next: AtomicUsize::new(0),
        failed: AtomicUsize::new(usize::MAX),
    };
    let mut stretches: Vec<Stretch<R, E>> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads)
            .map(|_| scope.spawn(|| shared.take_turns()))
            .collect();
        let mut stretches = shared.take_turns();
        for other in others {
            stretches.extend(
                other
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            );
        }
        stretches
    });
    stretches.sort_unstable_by_key(|stretch| stretch.begin);
    let mut results = Vec::with_capacity(pieces.len());
    for stretch in stretches {
        results.extend(stretch.results);
        if let Some(error) = stretch.error {
            return Err(error);
        }
    }
    Ok(results)
}

/// What the threads share.
struct Shared<'a, T, W> {
    pieces: &'a [T],
    work: W,
    next: AtomicUsize,
    /// The first piece so far that has failed: nothing behind it is begun.
    failed: AtomicUsize,
}

/// Pieces in a row that one thread has done.
struct Stretch<R, E> {
    begin: usize,
    results: Vec<R>,
    error: Option<E>,
}

impl<T, W> Shared<'_, T, W> {
    fn take_turns<R, E>(&self) -> Vec<Stretch<R, E>>
    where
        W: Fn(&T) -> Result<R, E>,
    {
        let mut done = Vec::new();
        loop {
            let begin = self.next.fetch_add(STRETCH, Ordering::Relaxed);
            let Some(rest) = self.pieces.get(begin..).filter(|rest| !rest.is_empty()) else {
                return done;
            };
            let mut stretch = Stretch {
                begin,
                results: Vec::with_capacity(STRETCH.min(rest.len())),
                error: None,
            };
            for (number, piece) in rest.iter().enumerate().take(STRETCH) {
                if self.failed.load(Ordering::Relaxed) < begin + number {
                    break;
                }
                match (self.work)(piece) {
                    Ok(result) => stretch.results.push(result),
                    Err(error) => {
                        self.failed.fetch_min(begin + number, Ordering::Relaxed);
                        stretch.error = Some(error);
                        break;
                    }
                }
            }
            done.push(stretch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_pieces() {
        for count in [0, 1, STRETCH, STRETCH + 1, 10_000] {
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
