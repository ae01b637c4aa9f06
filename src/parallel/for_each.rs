//! A few large pieces of work: each thread takes the next one when it is done with its last.

use std::slice::Iter;
use std::sync::mpsc::channel;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Does some large pieces of work on up to `threads` threads. Hands every result to `done` on the
/// caller's thread, as it comes.
///
/// After the first failure nothing more is begun. Work under way comes to its end, and `done` gets
/// every success.
///
/// # Errors
/// The first error that arrives from `work`.
pub fn for_each<'a, T: Sync, R: Send, E: Send>(
    threads: usize,
    items: &'a [T],
    work: impl Fn(&'a T) -> Result<R, E> + Sync,
    mut done: impl FnMut(&'a T, R),
) -> Result<(), E> {
    if threads <= 1 || items.len() <= 1 {
        for item in items {
            done(item, work(item)?);
        }
        return Ok(());
    }

    let left = Left(Mutex::new(items.iter()));
    let (results, arriving) = channel();
    std::thread::scope(|scope| {
        for _ in 0..threads.min(items.len()) {
            let (results, work, left) = (results.clone(), &work, &left);
            scope.spawn(move || {
                while let Some(item) = left.next() {
                    let result = work(item);

                    // Not left to the caller's thread: until that one is scheduled, the others
                    // would go on.
                    if result.is_err() {
                        left.clear();
                    }

                    // The caller takes them to the end.
                    let _ = results.send((item, result));
                }
            });
        }

        // The channel ends with the last thread.
        drop(results);
        let mut outcome = Ok(());
        for (item, result) in arriving {
            match result {
                Ok(result) => done(item, result),
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome
    })
}

/// The items that no thread has begun.
struct Left<'a, T>(Mutex<Iter<'a, T>>);

impl<'a, T> Left<'a, T> {
    fn next(&self) -> Option<&'a T> {
        self.items().next()
    }

    fn clear(&self) {
        *self.items() = [].iter();
    }

    fn items(&self) -> MutexGuard<'_, Iter<'a, T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_item_is_done_once() {
        let items: Vec<usize> = (0..1000).collect();
        for threads in [0, 1, 2, 7, 5000] {
            let mut seen = BTreeSet::new();
            for_each(
                threads,
                &items,
                |item| Ok::<_, ()>(item + 1),
                |item, result| {
                    assert_eq!(result, item + 1);
                    assert!(seen.insert(*item));
                },
            )
            .unwrap();
            assert_eq!(seen.len(), items.len(), "{threads} threads");
        }
    }

    #[test]
    fn after_a_failure_nothing_more_is_begun_and_what_succeeded_is_kept() {
        let items: Vec<usize> = (0..100_000).collect();
        for threads in [1, 4] {
            let begun = AtomicUsize::new(0);
            let mut kept = 0;
            let work = |item: &usize| {
                begun.fetch_add(1, Ordering::SeqCst);
                match *item {
                    ..10 => Ok(()),
                    10 => Err("ten"),
                    // Whoever runs ahead leaves the thread of the tenth item half a minute.
                    11.. => {
                        std::thread::sleep(Duration::from_millis(1));
                        Ok(())
                    }
                }
            };

            let outcome = for_each(threads, &items, work, |_, ()| kept += 1);
            assert_eq!(outcome, Err("ten"));
            let begun = begun.into_inner();
            assert_eq!(kept, begun - 1, "{threads} threads");
            assert!(begun < items.len(), "{begun}");
        }
    }
}
