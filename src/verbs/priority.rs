//! The priority of a run against the other programs of the machine.

use std::io;

use rustix::process::{getpriority_process, setpriority_process};
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id, thread_schedule_policy,
};

use crate::event::Observer;
use crate::run::Run;
use crate::settings::options::{LoadOptions, Priority};

/// A run within the limits of the load. The caller lowers the priority of its thread by [`lower`].
pub(crate) fn run(observer: impl Observer + 'static, load: LoadOptions) -> Run {
    let run = Run::new(observer).limited_to(load.rate);
    match load.priority {
        Priority::Normal => run,
        Priority::Low | Priority::Idle => run.at_low_priority(),
    }
}

/// Lowers the priority of this thread, and of the threads that it starts from now on.
///
/// The I/O class is left alone. The kernel derives it: level 6 of the best-effort class from nice
/// 10 (`ioprio_set(2)`), and the idle class from the scheduling policy for idle work (Linux,
/// `include/linux/ioprio.h`). A class that was set from outside, by `ionice`, stays.
///
/// # Errors
/// The first error of the kernel. Everything else is done all the same.
pub(crate) fn lower(priority: Priority) -> io::Result<()> {
    match priority {
        Priority::Normal => Ok(()),
        Priority::Low => set_nice(10),
        Priority::Idle => {
            // The policy comes first, because its change also sets nice.
            let policy = set_idle_policy();
            set_nice(19).and(policy)
        }
    }
}

fn set_nice(wanted: i32) -> io::Result<()> {
    // Never raise the priority: the operator may have started kbackup at a lower one.
    let now = getpriority_process(None)?;
    Ok(setpriority_process(None, now.max(wanted))?)
}

fn set_idle_policy() -> io::Result<()> {
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    let changed = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy);

    match changed {
        Ok(()) => Ok(()),
        // The crate also sets nice to 0, which only root may do. That fails after the policy was
        // changed, and is not wanted anyway.
        Err(_) if thread_schedule_policy().is_ok_and(|now| now == policy) => Ok(()),
        Err(error) => Err(io::Error::other(error)),
    }
}
