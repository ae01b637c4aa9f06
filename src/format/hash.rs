//! The server's hashes of stream names (disk-format §5.2, §5.3).
//!
//! Its "XXHash" is an early design that no released library computes: the rounds for long inputs and
//! the loop for short ones are different. Its Murmur3A is the usual one.

/// The seed of the index's hashes and of the hashes in bloom filter lines.
const INDEX_SEED: u32 = 0xc58f_1a7b;

/// The number that the index uses for a stream: the XXHash of its name in the upper half and the
/// Murmur3A in the lower, both over UTF-16 in little-endian order.
///
/// Tables of version 1 keep the upper half only: see
/// [`TableVersion::entry_hash`](super::ptable::TableVersion::entry_hash).
#[must_use]
pub fn stream_hash(name: &str) -> u64 {
    let bytes: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    join(xxhash(INDEX_SEED, &bytes), murmur3a(INDEX_SEED, &bytes))
}

/// The hash that a bloom filter's line holds behind its data.
pub(super) fn line_hash(data: &[u8; 60]) -> u32 {
    xxhash(INDEX_SEED, data)
}

/// One of the two pairs of hashes from which a bloom filter derives its bits.
pub(super) fn filter_hash(seed: u32, bytes: &[u8]) -> u64 {
    join(xxhash(seed, bytes), murmur3a(seed, bytes))
}

fn join(upper: u32, lower: u32) -> u64 {
    u64::from(upper) << 32 | u64::from(lower)
}

const PRIME_1: u32 = 2_654_435_761;
const PRIME_2: u32 = 2_246_822_519;
const PRIME_3: u32 = 3_266_489_917;
const PRIME_4: u32 = 668_265_263;
const PRIME_5: u32 = 374_761_393;

fn xxhash(seed: u32, bytes: &[u8]) -> u32 {
    // Lengths enter the hash modulo 2³², as in the server.
    let length = u32::try_from(bytes.len() & 0xffff_ffff).unwrap_or_default();
    match bytes.last_chunk::<16>() {
        Some(last) => xxhash_long(seed, length, bytes, last),
        None => xxhash_short(seed, length, bytes),
    }
}

/// Four lanes take a word each of every block. The last block is always the last 16 bytes, even
/// where it overlaps the one before.
fn xxhash_long(seed: u32, length: u32, bytes: &[u8], last: &[u8; 16]) -> u32 {
    let first = seed.wrapping_add(PRIME_1);
    let second = first.wrapping_mul(PRIME_2).wrapping_add(length);
    let third = second.wrapping_mul(PRIME_3);
    let mut lanes = [first, second, third, third.wrapping_mul(PRIME_4)];

    let before_last = bytes.len().saturating_sub(16).div_ceil(16);
    for block in bytes.chunks(16).take(before_last) {
        absorb(&mut lanes, [13, 11, 17, 19], block);
    }
    absorb(&mut lanes, [17, 19, 13, 11], last);

    for (lane, rotation) in lanes.iter_mut().zip([11, 17, 19, 13]) {
        *lane = lane.wrapping_mul(PRIME_2);
        *lane = lane
            .wrapping_add(lane.rotate_left(rotation))
            .wrapping_mul(PRIME_3);
    }

    let [first, second, third, fourth] = lanes;
    let mut hash = first
        .wrapping_add(second.rotate_left(3))
        .wrapping_add(third.rotate_left(6))
        .wrapping_add(fourth.rotate_left(9));
    hash ^= hash >> 11;
    hash = hash.wrapping_add(PRIME_4.wrapping_add(length).wrapping_mul(PRIME_1));
    hash ^= hash >> 15;
    hash = hash.wrapping_mul(PRIME_2);
    hash ^ hash >> 13
}

fn absorb(lanes: &mut [u32; 4], rotations: [u32; 4], block: &[u8]) {
    for ((lane, rotation), word) in lanes.iter_mut().zip(rotations).zip(words(block)) {
        *lane = lane
            .wrapping_add(lane.rotate_left(rotation))
            .wrapping_mul(PRIME_1)
            .wrapping_add(word);
    }
}

/// Words while more than four bytes are left, then bytes.
fn xxhash_short(seed: u32, length: u32, bytes: &[u8]) -> u32 {
    let mut counter = seed.wrapping_add(PRIME_1);
    let mut hash = PRIME_5;
    let (in_words, in_bytes) = bytes.split_at(bytes.len().saturating_sub(1) / 4 * 4);

    for word in words(in_words) {
        hash = hash.wrapping_add(word).wrapping_add(counter);
        hash = hash
            .wrapping_add(hash.rotate_left(17).wrapping_mul(PRIME_4))
            .wrapping_mul(PRIME_1);
        counter = counter.wrapping_add(1);
    }
    for byte in in_bytes {
        hash = hash
            .wrapping_add(u32::from(*byte))
            .wrapping_add(counter)
            .wrapping_mul(PRIME_1);
        counter = counter.wrapping_add(1);
    }

    hash = hash.wrapping_add(length);
    hash ^= hash >> 15;
    hash = hash.wrapping_mul(PRIME_2);
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(PRIME_3);
    hash ^ hash >> 16
}

fn murmur3a(seed: u32, bytes: &[u8]) -> u32 {
    let mut hash = seed;
    for word in words(bytes) {
        hash = (hash ^ murmur_mix(word))
            .rotate_left(13)
            .wrapping_mul(5)
            .wrapping_add(0xe654_6b64);
    }

    // A tail of no bytes mixes to 0 and changes nothing.
    let mut tail = 0;
    for byte in bytes.chunks_exact(4).remainder().iter().rev() {
        tail = tail << 8 | u32::from(*byte);
    }
    hash ^= murmur_mix(tail);

    hash ^= u32::try_from(bytes.len() & 0xffff_ffff).unwrap_or_default();
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

fn murmur_mix(word: u32) -> u32 {
    word.wrapping_mul(0xcc9e_2d51)
        .rotate_left(15)
        .wrapping_mul(0x1b87_3593)
}

/// The whole little-endian words of a slice.
fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    let words = bytes.as_chunks::<4>().0.iter();
    words.map(|word| u32::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verification of the `SMHasher` suite: a hash of the hashes of 0 to 255 bytes under as
    /// many seeds.
    fn verification(hash: impl Fn(u32, &[u8]) -> u32) -> u32 {
        let key: Vec<u8> = (0..=255).collect();
        let hashes: Vec<u8> = (0..256)
            .flat_map(|length: u32| hash(256 - length, &key[..length as usize]).to_le_bytes())
            .collect();
        hash(0, &hashes)
    }

    #[test]
    fn both_hashes_are_those_the_server_is_tested_for() {
        assert_eq!(verification(xxhash), 0x56d2_49b1);
        assert_eq!(verification(murmur3a), 0xb0f5_7ee3);
    }

    #[test]
    fn names_are_hashed_in_utf_16() {
        assert_ne!(stream_hash("a"), stream_hash("ä"));
        // Four bytes in UTF-8 and in UTF-16, as a pair.
        let pair = [0x3d, 0xd8, 0x00, 0xde];
        assert_eq!(
            stream_hash("\u{1f600}"),
            join(xxhash(INDEX_SEED, &pair), murmur3a(INDEX_SEED, &pair))
        );
    }
}
