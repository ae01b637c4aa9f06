//! The test node's executable.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use kbackup_testnode::{
    Appender, Checkpoint, Listen, Mark, Node, Recording, Server, Speed, Synthetic, Version,
};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Replays recordings of real nodes, serves their admin API, and makes synthetic data directories
#[derive(Parser)]
#[command(name = "kbackup-testnode")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Replay a recording as a live node with its admin API, until SIGTERM
    ///
    /// Prints one line of JSON with the URL and the directories when it listens. The node stays
    /// alive at the end of the recording unless --exit-at-end or --hold-at says otherwise.
    Run {
        /// Such as 26.1-append
        #[arg(long)]
        recording: String,
        /// An empty or new directory; the data directory is `db` in it
        #[arg(long)]
        dir: PathBuf,
        /// How many times as fast as the recording, or `fastest`
        #[arg(long, default_value = "1")]
        speed: SpeedArgument,
        /// Where the admin API listens
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// A unix socket for the admin API as well
        #[arg(long)]
        socket: Option<PathBuf>,
        /// Do these steps before listening: a number, or a mark such as `ready`
        #[arg(long, default_value = "ready")]
        from_step: Place,
        /// Continue until this step and stay there
        #[arg(long)]
        hold_at: Option<Place>,
        /// Replay the node's stop as well and exit
        #[arg(long)]
        exit_at_end: bool,
    },
    /// Replay a recording into a directory, without an API
    Replay {
        /// Such as 26.1-append
        #[arg(long)]
        recording: String,
        /// An empty or new directory; the data directory is `db` in it
        #[arg(long)]
        dir: PathBuf,
        /// Do only the steps before this one: a number, or up to a mark such as `killed`
        #[arg(long)]
        until: Option<Place>,
    },
    /// Serve the admin API over a data directory that does not change, until SIGTERM
    Still {
        /// The data directory is `db` in it
        #[arg(long)]
        dir: PathBuf,
        /// The version that answers
        #[arg(long, default_value = "26.1")]
        version: Version,
        /// Where the admin API listens
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
    /// Make a synthetic data directory
    Make {
        /// The data directory will be `db` in it
        #[arg(long)]
        dir: PathBuf,
        /// Bytes of log, such as 8GiB
        #[arg(long, required_unless_present = "chunks")]
        size: Option<Size>,
        /// Number of completed chunks, with half an active one after them, instead of --size
        #[arg(long, conflicts_with = "size")]
        chunks: Option<u32>,
        /// Bytes of a chunk
        #[arg(long, default_value = "256MiB")]
        chunk_size: Size,
        /// Bytes of an event's payload [default: 4000, or what fits into a small chunk]
        #[arg(long)]
        event_size: Option<Size>,
        /// Bytes of the stream-existence filter (sparse)
        #[arg(long, default_value = "256000000")]
        filter_size: Size,
        /// Set half of the bits of all filters, as a node with many streams does (they are sparse
        /// otherwise)
        #[arg(long)]
        filled_filters: bool,
        /// Entries of an index table
        #[arg(long, default_value_t = 100_000)]
        table_entries: usize,
        /// Merge so many chunks at the beginning of the log into one scavenged file
        #[arg(long, default_value_t = 0)]
        merged_chunks: u32,
        /// The seed of the data
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Append events to a synthetic data directory, as a node would
    Append {
        /// The data directory is `db` in it
        #[arg(long)]
        dir: PathBuf,
        /// At least so many bytes of log
        #[arg(long)]
        bytes: Size,
    },
    /// Append events as a recorded node did, at a steady rate, and tell how long it took until each
    /// was durable
    ///
    /// Ends when its standard input ends, or after --seconds. Prints one line of JSON; latencies
    /// are in milliseconds.
    AppendLatency {
        /// A new or empty directory for the chunk and the checkpoints
        #[arg(long)]
        dir: PathBuf,
        /// The recording that gives the appends
        #[arg(long, default_value = "26.1-append")]
        recording: String,
        /// Appends a second
        #[arg(long, default_value_t = 100)]
        rate: u32,
        /// At most so many seconds
        #[arg(long, default_value_t = 3600)]
        seconds: u64,
    },
    /// List the recordings
    List,
}

#[derive(Clone)]
struct SpeedArgument(Speed);

impl FromStr for SpeedArgument {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "fastest" {
            return Ok(Self(Speed::Fastest));
        }

        let factor: f64 = text.parse().context("not a number")?;
        if !factor.is_finite() || factor <= 0.0 {
            bail!("a speed is more than 0");
        }

        Ok(Self(Speed::Times(factor)))
    }
}

/// A place in a recording.
#[derive(Clone)]
enum Place {
    Step(usize),
    After(Mark),
}

impl FromStr for Place {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.parse() {
            Ok(step) => Ok(Self::Step(step)),
            Err(_) => Ok(Self::After(text.parse()?)),
        }
    }
}

impl Place {
    fn find(&self, recording: &Recording) -> Result<usize> {
        match self {
            Self::Step(step) => Ok(*step),
            Self::After(mark) => recording
                .find_mark(*mark, 0)
                .map(|found| found + 1)
                .with_context(|| format!("{} has no mark {mark:?}", recording.name)),
        }
    }
}

/// A number of bytes, such as `262144`, `256KiB`, `8GiB` or `1GB`.
#[derive(Clone, Copy)]
struct Size(u64);

impl FromStr for Size {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
        let factor: u64 = match text[digits.len()..].to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "kib" | "k" => 1 << 10,
            "mib" | "m" => 1 << 20,
            "gib" | "g" => 1 << 30,
            "kb" => 1000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            unit => bail!("`{unit}` is no unit of size"),
        };

        let count: u64 = digits.trim().parse().context("not a size")?;
        Ok(Self(count.checked_mul(factor).context("too large")?))
    }
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Run {
            recording,
            dir,
            speed,
            listen,
            socket,
            from_step,
            hold_at,
            exit_at_end,
        } => {
            let node = Node::start(Recording::named(&recording)?, &dir)?;
            node.advance_to(from_step.find(node.recording())?)?;
            match &hold_at {
                Some(place) => node.hold_at(place.find(node.recording())?),
                None if exit_at_end => {}
                None => node.hold_at(node.recording().live_end()),
            }

            let server = node.serve_on(&Listen {
                address: listen,
                unix_socket: socket,
            })?;
            let signals = Signals::catch()?;
            announce(&node, &server)?;
            node.run(speed.0);
            signals.wait(&node, exit_at_end)
        }
        Command::Replay {
            recording,
            dir,
            until,
        } => replay(&recording, &dir, until),
        Command::Still {
            dir,
            version,
            listen,
        } => serve_unchanging(version, &dir, listen),
        Command::Make {
            dir,
            size,
            chunks,
            chunk_size,
            event_size,
            filter_size,
            filled_filters,
            table_entries,
            merged_chunks,
            seed,
        } => {
            let bytes = match (size, chunks) {
                (Some(size), _) => size.0,
                (None, Some(chunks)) => u64::from(chunks) * chunk_size.0 + chunk_size.0 / 2,
                (None, None) => bail!("neither --size nor --chunks"),
            };
            let synthetic = Synthetic::of_size(bytes, u32::try_from(chunk_size.0)?);
            let event_bytes = match event_size {
                Some(size) => u32::try_from(size.0)?,
                None => synthetic.event_bytes,
            };

            let synthetic = Synthetic {
                event_bytes,
                filter_bytes: filter_size.0,
                filled_filters,
                table_entries,
                merged_chunks,
                seed,
                ..synthetic
            };
            let made = synthetic.make(&dir)?;
            print(&json!({
                "db": made.db,
                "index": made.index,
                "writer": made.writer,
                "events": made.events,
                "indexed": made.indexed,
            }))
        }
        Command::Append { dir, bytes } => {
            print(&json!({ "writer": Synthetic::append(&dir, bytes.0)? }))
        }
        Command::AppendLatency {
            dir,
            recording,
            rate,
            seconds,
        } => append_latency(&dir, &recording, rate, Duration::from_secs(seconds)),
        Command::List => list(),
    }
}

fn replay(recording: &str, dir: &Path, until: Option<Place>) -> Result<()> {
    let node = Node::start(Recording::named(recording)?, dir)?;
    let until = match until {
        Some(place) => place.find(node.recording())?,
        None => node.len(),
    };
    node.advance_to(until)?;

    print(&json!({
        "recording": recording,
        "step": node.step(),
        "steps": node.len(),
        "db": node.db(),
        "index": node.index(),
        "writer": node.checkpoint(Checkpoint::Writer),
    }))
}

fn serve_unchanging(version: Version, dir: &Path, listen: SocketAddr) -> Result<()> {
    let node = Node::still(version, dir)?;
    let server = node.serve_on(&Listen {
        address: listen,
        unix_socket: None,
    })?;

    let signals = Signals::catch()?;
    announce(&node, &server)?;
    signals.wait(&node, false)
}

fn append_latency(dir: &Path, recording: &str, rate: u32, time: Duration) -> Result<()> {
    let appender = Appender::of(&Recording::named(recording)?, rate, time)?;
    std::fs::create_dir_all(dir)?;

    // The end of the standard input stops the appender.
    let stop = Arc::new(AtomicBool::new(false));
    std::thread::spawn({
        let stop = stop.clone();
        move || {
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            stop.store(true, Ordering::Relaxed);
        }
    });

    let latencies = appender.run(dir, &stop)?;
    print(&json!({
        "count": latencies.count(),
        "p50": latencies.percentile(50),
        "p90": latencies.percentile(90),
        "p99": latencies.percentile(99),
        "max": latencies.percentile(100),
    }))
}

fn list() -> Result<()> {
    for name in Recording::names()? {
        let recording = Recording::named(&name)?;
        print(&json!({
            "recording": name,
            "steps": recording.steps.len(),
            "seconds": recording.steps.last().map(|step| step.time),
            "scavenges": recording.scavenges.len(),
        }))?;
    }
    Ok(())
}

fn print(line: &serde_json::Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}

fn announce(node: &Node, server: &Server) -> Result<()> {
    print(&json!({
        "url": server.url(),
        "socket": server.unix_socket(),
        "db": node.db(),
        "index": node.index(),
        "version": node.recording().version.to_string(),
        "recording": node.recording().name,
        "step": node.step(),
        "steps": node.len(),
        "pid": std::process::id(),
    }))
}

/// SIGTERM and SIGINT. They are caught before the node is announced, because the reader of the
/// announcement may send one at once.
struct Signals {
    runtime: tokio::runtime::Runtime,
    terminated: Signal,
    interrupted: Signal,
}

impl Signals {
    fn catch() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let context = runtime.enter();
        let terminated = signal(SignalKind::terminate())?;
        let interrupted = signal(SignalKind::interrupt())?;

        drop(context);
        Ok(Self {
            runtime,
            terminated,
            interrupted,
        })
    }

    /// Waits for a signal, a step that fails, or the end of the recording if `exit_at_end` is set.
    fn wait(mut self, node: &Node, exit_at_end: bool) -> Result<()> {
        self.runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = self.terminated.recv() => return Ok(()),
                    _ = self.interrupted.recv() => return Ok(()),
                    () = tokio::time::sleep(Duration::from_millis(20)) => {}
                }

                if let Some(failure) = node.failure() {
                    bail!("{failure}");
                }
                if exit_at_end && node.step() == node.len() {
                    return Ok(());
                }
            }
        })
    }
}
