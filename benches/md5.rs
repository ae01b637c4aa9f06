//! How fast each kernel is, on one core, and what the engine makes of many threads: GB/s, and how
//! often the single stream of the library.
#![expect(clippy::print_stdout, reason = "the figures are for whoever runs it")]

use std::sync::Arc;
use std::time::Instant;

use kbackup::md5::{Block, Kernel, LANES, Lane, Md5, Piece, State};

const PIECE: usize = 256 * 1024;
const THREADS: usize = 16;
const PIECES_OF_A_THREAD: usize = 256;

/// The best of many tries: others use the machine too.
fn seconds(tries: usize, mut work: impl FnMut()) -> f64 {
    let tries = (0..tries).map(|_| {
        let started = Instant::now();
        work();
        started.elapsed().as_secs_f64()
    });
    tries.fold(f64::INFINITY, f64::min)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "far fewer than a float can count"
)]
fn tell(name: &str, bytes: usize, seconds: f64, alone: f64) -> f64 {
    let speed = bytes as f64 / seconds / 1e9;
    println!(
        "{name:<28} {speed:6.2} GB/s {:6.1} x",
        if alone > 0.0 { speed / alone } else { 1.0 }
    );
    speed
}

fn main() {
    // `cargo test --all-targets` runs this too, slowly and for nothing.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let streams: Vec<Vec<Block>> = (0..2 * LANES).map(|_| vec![[7; 64]; PIECE / 64]).collect();
    let mut alone = 0.0;
    for (name, kernel) in Kernel::all() {
        for count in [1, 2, 3, 4, 8, 12, 16, 32] {
            let mut states = [State::default(); 2 * LANES];
            let time = seconds(40, || {
                let lanes = states.iter_mut().zip(&streams).take(count);
                kernel.compress(
                    &mut lanes
                        .map(|(state, blocks)| Lane { state, blocks })
                        .collect::<Vec<_>>(),
                );
            });
            let speed = tell(
                &format!("{name}, {count} streams"),
                count * PIECE,
                time,
                alone,
            );
            if alone == 0.0 {
                alone = speed;
            }
        }
    }
    for threads in [1, 2, 4, THREADS, 2 * THREADS] {
        let time = seconds(3, || {
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        let pieces: [Piece; 2] =
                            [Arc::new(vec![7; 4 * PIECE]), Arc::new(vec![9; 4 * PIECE])];
                        let mut md5 = Md5::new();
                        for piece in pieces.iter().cycle().take(PIECES_OF_A_THREAD / 4) {
                            md5.update(piece, 0..4 * PIECE);
                        }
                        std::hint::black_box(md5.finish());
                    });
                }
            });
        });
        tell(
            &format!("engine, {threads} threads"),
            threads * PIECES_OF_A_THREAD * PIECE,
            time,
            alone,
        );
    }
}
