//! A disk that does not answer holds a thread in the kernel (state D), and no signal reaches that
//! thread. The process takes its signals nevertheless.

#![expect(clippy::print_stdout, reason = "a test says what it leaves out")]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use kbackup_testnode::{AutoScavenge, AutoScavengeState};
use rustix::process::{Pid, Signal, kill_process};

use super::{NodeSite, Place, wait_until};

/// SIGHUP, SIGINT and SIGTERM in the masks of `/proc`.
const ENDING: u64 = 1 | 1 << 1 | 1 << 14;

/// One thread of a process, as the kernel shows it.
pub(crate) struct Thread {
    name: String,
    state: char,
    blocked: u64,
}

fn status_field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().trim_start_matches(':').trim()
}

fn mask(status: &str, name: &str) -> u64 {
    u64::from_str_radix(status_field(status, name), 16).unwrap()
}

pub(crate) fn threads(process: u32) -> Vec<Thread> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let mut threads = Vec::new();

    for task in tasks {
        // A thread may end meanwhile.
        let Ok(status) = std::fs::read_to_string(task.unwrap().path().join("status")) else {
            continue;
        };
        threads.push(Thread {
            name: status_field(&status, "Name").to_owned(),
            state: status_field(&status, "State").chars().next().unwrap(),
            blocked: mask(&status, "SigBlk"),
        });
    }
    threads
}

/// The signals that this status of a process says it blocks, of those that end a run.
pub(crate) fn blocked_of_ending(status: &str) -> u64 {
    mask(status, "SigBlk") & ENDING
}

/// All threads but one block the signals that end a run, and that one does nothing else.
pub(crate) fn assert_one_thread_takes_signals(process: u32) {
    let threads = threads(process);
    assert!(threads.len() >= 3, "{}", threads.len());

    let mut takers = Vec::new();
    for thread in threads {
        if thread.blocked & ENDING != ENDING {
            takers.push((thread.name, thread.blocked & ENDING));
        }
    }
    assert_eq!(takers, [("signals".to_owned(), 0)]);
}

fn hangs_in_kernel(process: u32) -> bool {
    threads(process).iter().any(|thread| thread.state == 'D')
}

/// A file system of its own, which can be frozen. Dropping it thaws and unmounts it.
struct Disk {
    mount: PathBuf,
}

impl Disk {
    /// Mounts it at `disk`. Returns `None` if this user or this machine cannot do it.
    fn mount(place: &Place) -> Option<Self> {
        let (image, mount) = (place.path("disk.img"), place.path("disk"));
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(128 << 20).unwrap();
        std::fs::create_dir(&mount).unwrap();

        let disk = Self { mount };
        let is_made = command("mkfs.ext4", &["-q", image.to_str().unwrap()])
            && command(
                "mount",
                &["-o", "loop", image.to_str().unwrap(), disk.path()],
            );
        // Some containers mount, and do not freeze.
        if is_made && disk.freeze() {
            disk.thaw();
            return Some(disk);
        }

        println!("SKIPPED: a frozen disk needs root, loop devices, mkfs.ext4 and fsfreeze");
        None
    }

    fn path(&self) -> &str {
        self.mount.to_str().unwrap()
    }

    /// From now on every write waits in the kernel.
    fn freeze(&self) -> bool {
        command("fsfreeze", &["--freeze", self.path()])
    }

    fn thaw(&self) {
        command("fsfreeze", &["--unfreeze", self.path()]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.thaw();
        command("umount", &["--lazy", self.path()]);
    }
}

fn command(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn one_thread_alone_takes_the_signals_of_a_run() {
    let site = NodeSite::scavenging();
    let mut child = site.start("full --repo repo --node URL --limit-rate 256KiB");
    wait_until(|| site.node.current_scavenge().is_none());

    assert_one_thread_takes_signals(child.id());
    send(&child, Signal::TERM);
    child.wait().unwrap();
}

#[test]
fn a_signal_gives_back_although_the_disk_hangs_in_the_kernel() {
    let site = NodeSite::still();
    let Some(disk) = Disk::mount(&site.place) else {
        return;
    };
    site.node.change_quirks(|quirks| {
        quirks.auto_scavenge = AutoScavenge::Licensed(AutoScavengeState::InProgress);
    });
    let is_paused = || site.node.auto_scavenge() == Some(AutoScavengeState::Paused);

    let child = site.start("full --repo disk/repo --node URL --limit-rate 256KiB");
    wait_until(is_paused);
    assert!(disk.freeze());
    wait_until(|| hangs_in_kernel(child.id()));
    send(&child, Signal::TERM);
    wait_until(|| !is_paused());

    // Nobody can end the process before the disk answers.
    disk.thaw();
    let output = child.wait_with_output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(143), "{log}");
    assert_eq!(site.place.release_records(), 0);
    site.place
        .kbackup(&site.line("full --repo disk/repo --node URL"))
        .assert()
        .code(0);
}

/// The main thread itself hangs here, and the kernel would choose it for the signal.
#[test]
fn a_signal_is_taken_while_the_main_thread_hangs_in_the_kernel() {
    for signal in [Signal::INT, Signal::TERM] {
        let site = NodeSite::still();
        let Some(disk) = Disk::mount(&site.place) else {
            return;
        };
        assert!(disk.freeze());

        let mut child = site.start("init --repo disk/repo");
        let main = format!("/proc/{}/status", child.id());
        let main = || std::fs::read_to_string(&main).unwrap();
        wait_until(|| status_field(&main(), "State").starts_with('D'));
        send(&child, signal);
        wait_until(|| mask(&main(), "ShdPnd") & ENDING == 0);

        disk.thaw();
        child.wait().unwrap();
    }
}
