//! Appends as a node does, at a steady rate, and measures how long each append took. It shows how a
//! backup beside a node affects the node.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::fs::FallocateFlags;

use crate::recording::{Action, Checkpoint, Recording};

/// The length of an active chunk, with the default settings of every version (disk-format §3).
const CHUNK: u64 = 268_439_552;
/// The offset of a chunk's records.
const HEADER: u64 = 128;
/// The most bytes that a node writes at once.
const AT_ONCE: usize = 8192;

/// The writes of a node for its appends, and their rate.
///
/// The order is that of the system calls of real nodes: write to the chunk, fsync it, write
/// `writer.chk`, fsync it, and then answer the client. The chaser follows in its own thread, and
/// writes and fsyncs `chaser.chk`. The chunk has its full length from the start, allocated as 26.1
/// does it.
#[derive(Debug, Clone)]
pub struct Appender {
    /// The lengths of the appends, which are repeated.
    pub lengths: Vec<u64>,
    /// The number of appends per second.
    pub rate: u32,
    /// The longest time of a run.
    pub time: Duration,
}

/// The durations of appends, sorted. Each lasts from the moment when the append was due to the
/// moment when the client would get its answer.
#[derive(Debug)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The latency that so many percent of them do not exceed, in milliseconds. Returns 0 if there
    /// is none.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> f64 {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        let Some(latency) = self.0.get(rank - 1) else {
            return 0.0;
        };
        (latency.as_secs_f64() * 1e6).round() / 1e3
    }
}

impl Appender {
    /// Takes the lengths of the appends of a recorded node: the bytes that it wrote into chunks
    /// between two acknowledgements.
    pub fn of(recording: &Recording, rate: u32, time: Duration) -> Result<Self> {
        let mut lengths = Vec::new();
        let mut length = 0;
        for step in &recording.steps {
            match &step.action {
                Action::Acked { .. } if length > 0 => {
                    lengths.push(length);
                    length = 0;
                }
                // Headers and footers of chunks lie before the first event or beside the events.
                Action::Write {
                    path,
                    offset,
                    length: written,
                    ..
                } if path.starts_with("db/chunk-") && *offset >= HEADER => length += written,
                _ => {}
            }
        }

        ensure!(!lengths.is_empty(), "{} holds no append", recording.name);
        ensure!(rate > 0, "a rate is more than 0");
        Ok(Self {
            lengths,
            rate,
            time,
        })
    }

    /// Appends in `directory` until the time is over or `stop` is set. Appends that become due
    /// during a sync are written together, as a node does.
    pub fn run(&self, directory: &Path, stop: &AtomicBool) -> Result<Latencies> {
        let writer = checkpoint(directory, Checkpoint::Writer)?;
        let chaser = checkpoint(directory, Checkpoint::Chaser)?;
        let (chase, chased) = channel();
        std::thread::scope(|scope| {
            let chaser = scope.spawn(move || follow(&chaser, &chased));
            let latencies = self.append(directory, &writer, stop, |position| {
                chase.send(position).context("the chaser has ended")
            });
            drop(chase);

            let chased = chaser.join();
            chased.map_err(|_| anyhow::anyhow!("the chaser panicked"))??;
            latencies
        })
    }

    fn append(
        &self,
        directory: &Path,
        writer: &File,
        stop: &AtomicBool,
        chase: impl Fn(u64) -> Result<()>,
    ) -> Result<Latencies> {
        let interval = Duration::from_secs(1) / self.rate;
        let bytes = [0x5a; AT_ONCE];
        let mut lengths = self.lengths.iter().copied().cycle();
        let mut latencies = Vec::new();
        let (mut number, mut position, mut offset) = (0, 0, HEADER);
        let mut chunk = new_chunk(directory, number)?;

        let start = Instant::now();
        let mut due = start;
        while !stop.load(Ordering::Relaxed) && start.elapsed() < self.time {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));

            let mut batch = Vec::new();
            while due <= Instant::now() {
                let mut left = lengths.next().unwrap_or_default();
                if offset + left > CHUNK - HEADER {
                    chunk.sync_all()?;
                    number += 1;
                    chunk = new_chunk(directory, number)?;
                    offset = HEADER;
                }
                while left > 0 {
                    let count = usize::try_from(left)?.min(AT_ONCE);
                    chunk.write_all_at(&bytes[..count], offset)?;
                    offset += count as u64;
                    position += count as u64;
                    left -= count as u64;
                }
                batch.push(due);
                due += interval;
            }

            chunk.sync_all()?;
            writer.write_all_at(&position.to_le_bytes(), 0)?;
            writer.sync_all()?;

            let told = Instant::now();
            for due in batch {
                latencies.push(told.saturating_duration_since(due));
            }
            chase(position)?;
        }

        latencies.sort();
        Ok(Latencies(latencies))
    }
}

fn checkpoint(directory: &Path, which: Checkpoint) -> Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(directory.join(which.file_name()))?;
    file.write_all_at(&0_u64.to_le_bytes(), 0)?;
    file.sync_all()?;
    Ok(file)
}

/// A chunk of full length that holds its header.
fn new_chunk(directory: &Path, number: u32) -> Result<File> {
    let path = directory.join(format!("chunk-{number:06}.000000"));
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .with_context(|| format!("cannot create {}", path.display()))?;
    rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, CHUNK)?;
    file.set_len(CHUNK)?;
    file.write_all_at(&[1; 128], 0)?;
    file.sync_all()?;
    Ok(file)
}

/// The chaser. It writes all positions that have arrived as one step.
fn follow(checkpoint: &File, positions: &Receiver<u64>) -> Result<()> {
    while let Ok(position) = positions.recv() {
        let position = positions.try_iter().last().unwrap_or(position);
        checkpoint.write_all_at(&position.to_le_bytes(), 0)?;
        checkpoint.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_as_a_recorded_node_does() {
        let directory = tempfile::tempdir().unwrap();
        let recording = Recording::named("26.1-append").unwrap();
        let appender = Appender::of(&recording, 200, Duration::from_millis(300)).unwrap();
        assert!(appender.lengths.len() > 200);

        let latencies = appender
            .run(directory.path(), &AtomicBool::new(false))
            .unwrap();

        assert!((1..=61).contains(&latencies.count()));
        assert!(latencies.percentile(50) <= latencies.percentile(100));

        let written: u64 = appender
            .lengths
            .iter()
            .cycle()
            .take(latencies.count())
            .sum();

        for checkpoint in ["writer.chk", "chaser.chk"] {
            assert_eq!(
                std::fs::read(directory.path().join(checkpoint)).unwrap(),
                written.to_le_bytes()
            );
        }

        assert_eq!(
            std::fs::metadata(directory.path().join("chunk-000000.000000"))
                .unwrap()
                .len(),
            CHUNK
        );
    }

    #[test]
    fn a_percentile_is_one_of_the_latencies() {
        let latencies = Latencies((1..=200).map(Duration::from_millis).collect());
        assert_eq!(
            [50, 99, 100].map(|percent| latencies.percentile(percent)),
            [100.0, 198.0, 200.0]
        );
        assert_eq!(Latencies(Vec::new()).percentile(99), 0.0);
    }
}
