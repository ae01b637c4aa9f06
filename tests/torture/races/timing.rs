//! Recordings of real nodes whose threads run at another pace.
//!
//! Only orders that a real node could show may come out:
//! * The log's own steps keep their order: data before checkpoint before acknowledgement. These are
//!   the chunks, `writer.chk`, the epochs, the acknowledgements, and everything not named below.
//! * The writes of another thread keep their order too, and only come **later** against the log.
//!   There are three such threads: the chaser's checkpoint, the index with its tables, and the
//!   stream-existence filter. Each of them follows the log. A slow disk or a busy processor makes it
//!   follow later. None of them can know what is not yet there.
//! * No step crosses a mark in the node's life, a lock, an admin call or an operator's action,
//!   because everything has come to rest there.

use std::collections::VecDeque;
use std::sync::Arc;

use kbackup_testnode::{Action, Recording, Step};

use super::Chance;
use crate::live;

/// The most steps of the log that another thread stays behind.
const LONGEST_LAG: usize = 60;

/// The thread that a step belongs to. Returns `None` for the log's own steps.
fn thread(action: &Action) -> Option<usize> {
    let path = action.path()?;
    if path == "db/chaser.chk" {
        Some(0)
    } else if path.starts_with("db/index/stream-existence/") {
        Some(1)
    } else if path.starts_with("db/index/") {
        Some(2)
    } else {
        None
    }
}

fn is_boundary(action: &Action) -> bool {
    matches!(
        action,
        Action::Mark { .. } | Action::Flock { .. } | Action::Operator { .. } | Action::Http { .. }
    )
}

/// Delays the other threads, each by a lag that changes now and then. Returns how many steps came
/// later than recorded.
fn permute(steps: &mut Vec<Step>, chance: &mut Chance) -> usize {
    let mut waiting: [VecDeque<(usize, Step)>; 3] = Default::default();
    let (mut lags, mut order, mut later) = ([0; 3], Vec::with_capacity(steps.len()), 0);
    for (index, step) in std::mem::take(steps).into_iter().enumerate() {
        if is_boundary(&step.action) {
            for queue in &mut waiting {
                order.extend(queue.drain(..).map(|(_, step)| step));
            }
            order.push(step);
            continue;
        }

        if let Some(thread) = thread(&step.action) {
            if chance.below(20) == 0 {
                lags[thread] = chance.place(LONGEST_LAG);
            }
            later += usize::from(lags[thread] > 0);
            waiting[thread].push_back((index + lags[thread], step));
        } else {
            order.push(step);
        }

        for queue in &mut waiting {
            while queue.front().is_some_and(|(due, _)| *due <= index) {
                order.extend(queue.pop_front().map(|(_, step)| step));
            }
        }
    }

    order.extend(waiting.into_iter().flatten().map(|(_, step)| step));
    *steps = order;
    later
}

#[test]
fn nodes_with_slower_threads_are_backed_up() {
    let mut chance = Chance::new(super::seed());
    // Scavenges are known by the numbers of their steps, so they keep their pace.
    let mut names = Recording::names().unwrap();
    names.retain(|name| !name.contains("scavenge"));

    for round in 0..super::amount(3, 10 * names.len()) {
        let name = if super::amount(0, 1) == 1 {
            &names[round % names.len()]
        } else {
            chance.of(&names)
        };

        let mut recording = Recording::named(name).unwrap();
        let count = recording.steps.len();
        let later = permute(&mut recording.steps, &mut chance);
        assert_eq!(recording.steps.len(), count);
        assert!(later > 50, "{name}: only {later} steps moved");

        let taken = live::chain_over(&Arc::new(recording), super::amount(14, 48), chance.number());
        assert!(
            taken >= 8,
            "seed {}, {name}: only {taken} backups",
            super::seed()
        );
        eprintln!("{name}: {later} of {count} steps came later, {taken} backups");
    }
}
