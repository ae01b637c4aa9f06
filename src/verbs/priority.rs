//! How a run stands back behind what else the machine does.

use std::io;

use rustix::process::setpriority_process;
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id, thread_schedule_policy,
};

use crate::event::Observer;
use crate::run::Run;
use crate::settings::arguments::{Load, Priority};

/// A run that takes no more of the machine than that; its thread is to be lowered beside.
pub fn run(observer: impl Observer + 'static, load: Load) -> Run {
    let run = Run::new(observer).limited_to(load.rate);
    if load.priority == Priority::Normal {
        run
    } else {
        run.at_low_priority()
    }
}

/// Lowers this thread, and those it starts from now on.
///
/// No I/O class is set beside: the kernel derives it, level 6 of the best-effort class from nice 10
/// (`ioprio_set(2)`), and the idle class from the scheduling policy for idle work (Linux,
/// `include/linux/ioprio.h`). One that was set from outside, by `ionice`, stands.
///
/// # Errors
/// What the kernel reports; the rest of it was done.
pub fn lower(priority: Priority) -> io::Result<()> {
    match priority {
        Priority::Normal => Ok(()),
        Priority::Low => nice(10),
        Priority::Idle => {
            // In this order: a change of the policy sets nice as well.
            let policy = idle();
            nice(19).and(policy)
        }
    }
}

fn nice(wanted: i32) -> io::Result<()> {
    // Never up: whoever started this may have meant it to be lower still.
    let now = rustix::process::getpriority_process(None)?;
    Ok(setpriority_process(None, now.max(wanted))?)
}

fn idle() -> io::Result<()> {
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    match set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy) {
        // It may set nice to 0 only for root: that fails after the policy was changed, and is not
        // wanted anyway.
        Err(_) if thread_schedule_policy().is_ok_and(|now| now == policy) => Ok(()),
        result => result.map_err(io::Error::other),
    }
}
