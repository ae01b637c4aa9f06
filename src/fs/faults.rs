//! Faults for tests: operations that fail, or end the process, at a chosen moment.

use std::io;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Operation;

struct Fault {
    operation: Option<String>,
    path: String,
    from: u64,
    effect: Effect,
}

enum Effect {
    Abort,
    Stop,
    Errno(i32),
    Once(i32),
}

/// `KBACKUP_FAULT=operation:path part:n:effect`: the n-th such operation, and for an error number
/// every one after it, fails. An empty operation or path part stands for all. The effect is
/// `abort`, an error number, one with a `!` for that one operation only, or `stop`: the process
/// stops itself before that one operation, until somebody continues it.
fn fault() -> Option<&'static Fault> {
    static FAULT: OnceLock<Option<Fault>> = OnceLock::new();
    FAULT
        .get_or_init(|| {
            let text = std::env::var("KBACKUP_FAULT").ok()?;
            let mut parts = text.splitn(4, ':');
            let operation = parts
                .next()
                .filter(|name| !name.is_empty())
                .map(str::to_owned);
            let path = parts.next()?.to_owned();
            let from = parts.next()?.parse().ok()?;
            let effect = match parts.next()? {
                "abort" => Effect::Abort,
                "stop" => Effect::Stop,
                number => match number.strip_suffix('!') {
                    Some(number) => Effect::Once(number.parse().ok()?),
                    None => Effect::Errno(number.parse().ok()?),
                },
            };
            Some(Fault {
                operation,
                path,
                from,
                effect,
            })
        })
        .as_ref()
}

pub(super) fn gate(operation: Operation, path: &Path) -> io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let Some(fault) = fault() else { return Ok(()) };
    let fits = fault
        .operation
        .as_ref()
        .is_none_or(|name| *name == format!("{operation:?}").to_lowercase());
    if !fits || !path.to_string_lossy().contains(&fault.path) {
        return Ok(());
    }
    let number = COUNT.fetch_add(1, Ordering::SeqCst) + 1;
    if number < fault.from {
        return Ok(());
    }
    match fault.effect {
        Effect::Abort => {
            let _changes = super::recording::hold();
            std::process::abort()
        }
        Effect::Stop if number == fault.from => {
            rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::STOP,
            )?;
            // Another thread may take the signal, and this one stops a moment later.
            std::thread::sleep(std::time::Duration::from_millis(20));
            Ok(())
        }
        Effect::Once(error) if number == fault.from => Err(io::Error::from_raw_os_error(error)),
        Effect::Stop | Effect::Once(_) => Ok(()),
        Effect::Errno(number) => Err(io::Error::from_raw_os_error(number)),
    }
}
