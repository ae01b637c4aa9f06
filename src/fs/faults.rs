//! Faults for tests: operations that fail, or end the process, at a chosen moment.

use std::io;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Operation;

struct InjectedFault {
    operation: String,
    path: String,
    from: u64,
    effect: FaultEffect,
}

enum FaultEffect {
    Abort,
    Stop,
    Hang,
    Errno(i32),
    Once(i32),
}

impl InjectedFault {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, ':');
        Some(Self {
            operation: parts.next()?.to_owned(),
            path: parts.next()?.to_owned(),
            from: parts.next()?.parse().ok()?,
            effect: FaultEffect::parse(parts.next()?)?,
        })
    }

    /// An empty operation or path part matches everything.
    fn is_about(&self, operation: Operation, path: &Path) -> bool {
        let is_operation =
            self.operation.is_empty() || self.operation == format!("{operation:?}").to_lowercase();

        is_operation && path.to_string_lossy().contains(&self.path)
    }
}

impl FaultEffect {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "abort" => Self::Abort,
            "stop" => Self::Stop,
            "hang" => Self::Hang,
            number => match number.strip_suffix('!') {
                Some(number) => Self::Once(number.parse().ok()?),
                None => Self::Errno(number.parse().ok()?),
            },
        })
    }
}

/// `KBACKUP_FAULT=operation:path part:n:effect`: the n-th such operation, and for an error number
/// every one after it, fails. An empty operation or path part matches everything. The effect is
/// `abort`, an error number, one with a `!` for that one operation only, `stop`, or `hang`.
///
/// * `stop`: the process stops itself before that one operation, until it gets SIGCONT.
/// * `hang`: that operation and every one after it wait while the file at `KBACKUP_HANG` exists, as
///   on a disk that does not answer.
fn fault() -> Option<&'static InjectedFault> {
    static FAULT: OnceLock<Option<InjectedFault>> = OnceLock::new();
    FAULT
        .get_or_init(|| InjectedFault::parse(&std::env::var("KBACKUP_FAULT").ok()?))
        .as_ref()
}

/// Lets an operation pass, or has it fail.
pub(super) fn gate(operation: Operation, path: &Path) -> io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);

    let Some(fault) = fault() else { return Ok(()) };
    if !fault.is_about(operation, path) {
        return Ok(());
    }

    let number = COUNT.fetch_add(1, Ordering::SeqCst) + 1;
    if number < fault.from {
        return Ok(());
    }

    let is_first = number == fault.from;
    match fault.effect {
        FaultEffect::Abort => {
            let _changes = super::recording::hold();
            std::process::abort()
        }
        FaultEffect::Stop if is_first => stop_process(),
        FaultEffect::Hang => {
            hang();
            Ok(())
        }
        FaultEffect::Once(error) if is_first => Err(io::Error::from_raw_os_error(error)),
        FaultEffect::Stop | FaultEffect::Once(_) => Ok(()),
        FaultEffect::Errno(error) => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Waits like a thread whose disk does not answer. Only the end of the process ends that earlier.
fn hang() {
    let Some(path) = std::env::var_os("KBACKUP_HANG") else {
        return;
    };
    let switch = Path::new(&path);
    while switch.exists() {
        // A test sees by this file that something hangs.
        drop(std::fs::write(switch.with_extension("waits"), ""));
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn stop_process() -> io::Result<()> {
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP)?;

    // Another thread may receive the signal. Then this one stops a moment later.
    std::thread::sleep(Duration::from_millis(20));
    Ok(())
}
