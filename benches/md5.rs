//! The speed of each kernel on one core, and of the engine with many threads: in GB/s, and as a multiple
//! of the library's single stream.

#![expect(
    clippy::print_stdout,
    reason = "the figures are for the person who runs it"
)]

use std::sync::Arc;
use std::time::Instant;

use kbackup::md5::{Block, HashLane, Kernel, LANES, Md5, Piece, State};

const PIECE: usize = 256 * 1024;
const THREADS: usize = 16;
const PIECES_OF_A_THREAD: usize = 256;

fn main() {
    // `cargo test --all-targets` runs this too, but there it is slow and useless.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }

    let alone = measure_kernels();
    for threads in [1, 2, 4, THREADS, 2 * THREADS] {
        measure_engine(threads, alone);
    }
}

/// Returns the speed of the single stream of the library.
fn measure_kernels() -> f64 {
    let streams: Vec<Vec<Block>> = (0..2 * LANES).map(|_| vec![[7; 64]; PIECE / 64]).collect();
    let mut alone = 0.0;
    for (name, kernel) in Kernel::all() {
        for count in [1, 2, 3, 4, 8, 12, 16, 32] {
            let mut states = [State::default(); 2 * LANES];
            let time = seconds(40, || {
                let mut lanes = Vec::with_capacity(count);
                for (state, blocks) in states.iter_mut().zip(&streams).take(count) {
                    lanes.push(HashLane { state, blocks });
                }
                kernel.compress(&mut lanes);
            });

            let name = format!("{name}, {count} streams");
            let speed = tell(&name, count * PIECE, time, alone);
            if alone == 0.0 {
                alone = speed;
            }
        }
    }

    alone
}

fn measure_engine(threads: usize, alone: f64) {
    let time = seconds(3, || {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(hash_pieces);
            }
        });
    });

    let bytes = threads * PIECES_OF_A_THREAD * PIECE;
    tell(&format!("engine, {threads} threads"), bytes, time, alone);
}

fn hash_pieces() {
    let pieces: [Piece; 2] = [Arc::new(vec![7; 4 * PIECE]), Arc::new(vec![9; 4 * PIECE])];
    let mut md5 = Md5::new();
    for piece in pieces.iter().cycle().take(PIECES_OF_A_THREAD / 4) {
        md5.update(piece, 0..4 * PIECE);
    }
    std::hint::black_box(md5.finish());
}

/// The best of many attempts, because other programs use the machine too.
fn seconds(tries: usize, mut work: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..tries {
        let started = Instant::now();
        work();
        best = best.min(started.elapsed().as_secs_f64());
    }
    best
}

#[expect(
    clippy::cast_precision_loss,
    reason = "far fewer than a float can count"
)]
fn tell(name: &str, bytes: usize, seconds: f64, alone: f64) -> f64 {
    let speed = bytes as f64 / seconds / 1e9;
    let times = if alone > 0.0 { speed / alone } else { 1.0 };
    println!("{name:<28} {speed:6.2} GB/s {times:6.1} x");
    speed
}
