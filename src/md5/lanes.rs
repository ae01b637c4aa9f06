//! Compresses whole blocks of several streams side by side. Each stream has a lane of the vectors,
//! so every instruction works for all streams.
//!
//! MD5 is one long chain in which each step waits for the one before, so nothing can run in
//! parallel within a stream.

use fearless_simd::prelude::*;
use fearless_simd::{Level, dispatch, u8x64, u32x8, u32x16};

/// The 64 bytes that the algorithm works on at once.
pub type Block = [u8; 64];
/// The four words that a stream's blocks have been mixed into so far.
pub type State = [u32; 4];

/// Streams that fill all lanes. If a vector register holds fewer, the code alternates between two
/// or four registers, which fills the processor's pipeline.
pub const LANES: usize = 16;

/// The way blocks are compressed.
#[derive(Debug, Clone, Copy)]
pub struct Kernel(KernelKind);

#[derive(Debug, Clone, Copy)]
enum KernelKind {
    /// One stream after the other.
    Alone,
    /// Many streams side by side, with these vectors.
    Lanes(Level),
}

/// A stream's next blocks, and its state before and after them.
#[derive(Debug)]
pub struct HashLane<'a> {
    /// The state before the blocks; compressing them changes it.
    pub state: &'a mut State,
    /// The blocks that are not in the state yet.
    pub blocks: &'a [Block],
}

impl Kernel {
    /// One stream after the other.
    pub const ALONE: Self = Self(KernelKind::Alone);

    /// The fastest on this machine.
    #[must_use]
    pub fn best() -> Self {
        let level = Level::new();
        // Without optimisation, this code gains nothing from vectors. The dependency's code is
        // always optimised.
        if level.is_fallback() || cfg!(target_endian = "big") || cfg!(debug_assertions) {
            return Self::ALONE;
        }
        Self(KernelKind::Lanes(level))
    }

    /// All that this machine can run, with their names: for tests and measurements.
    #[must_use]
    pub fn all() -> Vec<(&'static str, Self)> {
        let level = Level::new();
        #[cfg(target_arch = "x86_64")]
        let levels = [
            ("avx512", level.as_avx512().map(Level::Avx512)),
            ("avx2", level.as_avx2().map(Level::Avx2)),
            ("sse4.2", level.as_sse4_2().map(Level::Sse4_2)),
        ];
        #[cfg(not(target_arch = "x86_64"))]
        let levels = [(
            "lanes",
            (!level.is_fallback() && cfg!(target_endian = "little")).then_some(level),
        )];

        let mut kernels = vec![("alone", Self::ALONE)];
        for (name, level) in levels {
            if let Some(level) = level {
                kernels.push((name, Self(KernelKind::Lanes(level))));
            }
        }
        kernels
    }

    /// Streams that it works on at once.
    #[must_use]
    pub const fn lanes(self) -> usize {
        match self.0 {
            KernelKind::Alone => 1,
            KernelKind::Lanes(_) => LANES,
        }
    }

    /// Compresses the blocks of all streams into their states. Afterwards the lanes hold no blocks,
    /// and may be in another order.
    pub fn compress(self, lanes: &mut [HashLane<'_>]) {
        if let KernelKind::Lanes(level) = self.0 {
            // Sorted by length, streams of similar length share a group, and the longest are at its
            // beginning.
            lanes.sort_by_key(|lane| std::cmp::Reverse(lane.blocks.len()));
            for group in lanes.chunks_mut(LANES) {
                compress_group(level, group);
            }
        }

        for HashLane { state, blocks } in lanes {
            ::md5::block_api::compress(state, std::mem::take(blocks));
        }
    }
}

/// Compresses the blocks of up to [`LANES`] streams, the longest first, until at most one stream
/// has any left. Two streams are as fast in lanes as one after the other.
fn compress_group(level: Level, group: &mut [HashLane<'_>]) {
    loop {
        let live = group
            .iter()
            .take_while(|lane| !lane.blocks.is_empty())
            .count();
        let live = group.get_mut(..live).unwrap_or_default();
        let [_, .., shortest] = &*live else {
            return;
        };

        let common = shortest.blocks.len();
        if live.len() > 8 {
            dispatch!(level, simd => compress_common::<_, u32x16<_>, 16>(simd, live, common));
        } else {
            dispatch!(level, simd => compress_common::<_, u32x8<_>, 8>(simd, live, common));
        }
    }
}

#[inline(always)]
fn compress_common<S: Simd, V: LaneWords<S, N>, const N: usize>(
    simd: S,
    live: &mut [HashLane<'_>],
    common: usize,
) {
    let mut states = [State::default(); N];
    let mut blocks: [&[Block]; N] = [&[]; N];
    for ((lane, state), blocks) in live.iter_mut().zip(&mut states).zip(&mut blocks) {
        let (now, later) = lane.blocks.split_at_checked(common).unwrap_or_default();
        (*state, *blocks, lane.blocks) = (*lane.state, now, later);
    }

    // A lane without a stream repeats the work of the first one.
    let first = blocks.first().copied().unwrap_or_default();
    for idle in blocks.iter_mut().skip(live.len()) {
        *idle = first;
    }

    compress_lanes::<S, V, N>(simd, &mut states, blocks);
    for (lane, state) in live.iter_mut().zip(states) {
        *lane.state = state;
    }
}

#[inline(always)]
fn compress_lanes<S: Simd, V: LaneWords<S, N>, const N: usize>(
    simd: S,
    states: &mut [State; N],
    blocks: [&[Block]; N],
) {
    let mut mixed = [
        V::of_lanes(simd, states.map(|[a, _, _, _]| a)),
        V::of_lanes(simd, states.map(|[_, b, _, _]| b)),
        V::of_lanes(simd, states.map(|[_, _, c, _]| c)),
        V::of_lanes(simd, states.map(|[_, _, _, d]| d)),
    ];

    let mut rest = blocks.map(<[Block]>::iter);
    'blocks: loop {
        let mut next = [&[0; 64]; N];
        for (next, rest) in next.iter_mut().zip(&mut rest) {
            let Some(block) = rest.next() else {
                break 'blocks;
            };
            *next = block;
        }
        mixed = mix(mixed, &V::words(simd, next));
    }

    let [a, b, c, d] = mixed.map(V::lanes);
    for ((((state, a), b), c), d) in states.iter_mut().zip(a).zip(b).zip(c).zip(d) {
        *state = [a, b, c, d];
    }
}

/// Vectors with a word of each of `N` streams.
trait LaneWords<S: Simd, const N: usize>: SimdInt<S, Element = u32> {
    fn of_lanes(simd: S, words: [u32; N]) -> Self;

    fn lanes(self) -> [u32; N];

    /// Each word of a block, of all blocks.
    fn words(simd: S, blocks: [&Block; N]) -> [Self; 16];
}

impl<S: Simd> LaneWords<S, 16> for u32x16<S> {
    #[inline(always)]
    fn of_lanes(simd: S, words: [u32; 16]) -> Self {
        words.simd_into(simd)
    }

    #[inline(always)]
    fn lanes(self) -> [u32; 16] {
        self.into()
    }

    #[inline(always)]
    fn words(simd: S, blocks: [&Block; 16]) -> [Self; 16] {
        transposed(blocks.map(|block| load(simd, block)))
    }
}

impl<S: Simd> LaneWords<S, 8> for u32x8<S> {
    #[inline(always)]
    fn of_lanes(simd: S, words: [u32; 8]) -> Self {
        words.simd_into(simd)
    }

    #[inline(always)]
    fn lanes(self) -> [u32; 8] {
        self.into()
    }

    #[inline(always)]
    fn words(simd: S, blocks: [&Block; 8]) -> [Self; 16] {
        let rows = blocks.map(|block| load(simd, block).split());
        let halves = [
            transposed(rows.map(|(low, _)| low)),
            transposed(rows.map(|(_, high)| high)),
        ];

        let mut words = [Self::splat(simd, 0); 16];
        for (word, found) in words.iter_mut().zip(halves.as_flattened()) {
            *word = *found;
        }
        words
    }
}

#[inline(always)]
fn load<S: Simd>(simd: S, block: &Block) -> u32x16<S> {
    let bytes: u8x64<S> = (*block).simd_into(simd);
    bytes.bitcast()
}

/// Turns rows into columns. Each interleaving of the first half of the rows with the second moves
/// one bit of a word's row number into its column number.
#[inline(always)]
fn transposed<S: Simd, V: SimdInt<S, Element = u32>, const N: usize>(mut rows: [V; N]) -> [V; N] {
    for _ in 0..N.ilog2() {
        let before = rows;
        let (first, second) = before.split_at(N / 2);
        for ((pair, first), second) in rows
            .as_chunks_mut::<2>()
            .0
            .iter_mut()
            .zip(first)
            .zip(second)
        {
            *pair = first.interleave(*second).into();
        }
    }
    rows
}

/// Sixteen steps of RFC 1321, section 3.4: for each four of them their words and their constants.
macro_rules! round {
    ($state:ident, $words:ident, $choose:ident, [$s0:literal $s1:literal $s2:literal $s3:literal],
     $([$w0:literal $w1:literal $w2:literal $w3:literal]
       [$k0:literal $k1:literal $k2:literal $k3:literal])+) => {{
        let [mut a, mut b, mut c, mut d] = $state;
        $(
            a = turned(a + $words[$w0] + $k0 + $choose(b, c, d), $s0) + b;
            d = turned(d + $words[$w1] + $k1 + $choose(a, b, c), $s1) + a;
            c = turned(c + $words[$w2] + $k2 + $choose(d, a, b), $s2) + d;
            b = turned(b + $words[$w3] + $k3 + $choose(c, d, a), $s3) + c;
        )+
        [a, b, c, d]
    }};
}

#[inline(always)]
fn mix<S: Simd, V: SimdInt<S, Element = u32>>(before: [V; 4], words: &[V; 16]) -> [V; 4] {
    let state = before;

    let state = round!(state, words, first, [7 12 17 22],
        [0 1 2 3] [0xd76a_a478 0xe8c7_b756 0x2420_70db 0xc1bd_ceee]
        [4 5 6 7] [0xf57c_0faf 0x4787_c62a 0xa830_4613 0xfd46_9501]
        [8 9 10 11] [0x6980_98d8 0x8b44_f7af 0xffff_5bb1 0x895c_d7be]
        [12 13 14 15] [0x6b90_1122 0xfd98_7193 0xa679_438e 0x49b4_0821]);
    let state = round!(state, words, second, [5 9 14 20],
        [1 6 11 0] [0xf61e_2562 0xc040_b340 0x265e_5a51 0xe9b6_c7aa]
        [5 10 15 4] [0xd62f_105d 0x0244_1453 0xd8a1_e681 0xe7d3_fbc8]
        [9 14 3 8] [0x21e1_cde6 0xc337_07d6 0xf4d5_0d87 0x455a_14ed]
        [13 2 7 12] [0xa9e3_e905 0xfcef_a3f8 0x676f_02d9 0x8d2a_4c8a]);
    let state = round!(state, words, third, [4 11 16 23],
        [5 8 11 14] [0xfffa_3942 0x8771_f681 0x6d9d_6122 0xfde5_380c]
        [1 4 7 10] [0xa4be_ea44 0x4bde_cfa9 0xf6bb_4b60 0xbebf_bc70]
        [13 0 3 6] [0x289b_7ec6 0xeaa1_27fa 0xd4ef_3085 0x0488_1d05]
        [9 12 15 2] [0xd9d4_d039 0xe6db_99e5 0x1fa2_7cf8 0xc4ac_5665]);
    let state = round!(state, words, fourth, [6 10 15 21],
        [0 7 14 5] [0xf429_2244 0x432a_ff97 0xab94_23a7 0xfc93_a039]
        [12 3 10 1] [0x655b_59c3 0x8f0c_cc92 0xffef_f47d 0x8584_5dd1]
        [8 15 6 13] [0x6fa8_7e4f 0xfe2c_e6e0 0xa301_4314 0x4e08_11a1]
        [4 11 2 9] [0xf753_7e82 0xbd3a_f235 0x2ad7_d2bb 0xeb86_d391]);

    let ([a, b, c, d], [e, f, g, h]) = (before, state);
    [a + e, b + f, c + g, d + h]
}

#[inline(always)]
fn turned<S: Simd, V: SimdInt<S, Element = u32>>(word: V, by: u32) -> V {
    (word << by) | (word >> (32 - by))
}

#[inline(always)]
fn first<S: Simd, V: SimdInt<S, Element = u32>>(x: V, y: V, z: V) -> V {
    ((y ^ z) & x) ^ z
}

#[inline(always)]
fn second<S: Simd, V: SimdInt<S, Element = u32>>(x: V, y: V, z: V) -> V {
    (x & z) | (y & !z)
}

#[inline(always)]
fn third<S: Simd, V: SimdInt<S, Element = u32>>(x: V, y: V, z: V) -> V {
    x ^ y ^ z
}

#[inline(always)]
fn fourth<S: Simd, V: SimdInt<S, Element = u32>>(x: V, y: V, z: V) -> V {
    y ^ (x | !z)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compressed_alone(before: &[State], streams: &[Vec<Block>]) -> Vec<State> {
        let mut states = before.to_vec();
        for (state, blocks) in states.iter_mut().zip(streams) {
            ::md5::block_api::compress(state, blocks);
        }
        states
    }

    fn compressed(kernel: Kernel, before: &[State], streams: &[Vec<Block>]) -> Vec<State> {
        let mut states = before.to_vec();
        let mut lanes = Vec::new();
        for (state, blocks) in states.iter_mut().zip(streams) {
            lanes.push(HashLane { state, blocks });
        }
        kernel.compress(&mut lanes);
        states
    }

    /// Bytes that look random, and are the same for the same seed.
    struct Random(u64);

    impl Random {
        fn byte(&mut self) -> u8 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            self.0.to_be_bytes()[0]
        }

        fn state(&mut self) -> State {
            std::array::from_fn(|_| u32::from_be_bytes(std::array::from_fn(|_| self.byte())))
        }

        fn blocks(&mut self, count: usize) -> Vec<Block> {
            let block = |_| std::array::from_fn(|_| self.byte());
            (0..count).map(block).collect()
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn every_kernel_agrees_with_the_library(
            lengths in prop::collection::vec(0_usize..12, 0..40),
            seed: u64,
        ) {
            let mut random = Random(seed);
            let streams: Vec<Vec<Block>> =
                lengths.iter().map(|length| random.blocks(*length)).collect();
            let before: Vec<State> = streams.iter().map(|_| random.state()).collect();

            let expected = compressed_alone(&before, &streams);
            for (name, kernel) in Kernel::all() {
                prop_assert_eq!(&compressed(kernel, &before, &streams), &expected, "{}", name);
            }
        }
    }
}
