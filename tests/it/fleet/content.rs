//! What the files hold: the same pseudo-random bytes on every run.

/// Bytes in a mebibyte.
pub(crate) const MIB: usize = 1 << 20;

/// `len` bytes that depend on the seed alone, never repeat within a file and can't be compressed (xorshift64*).
pub(crate) fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// `len` bytes of words that depend on the seed alone, and that shrink to about a fourth, as text does.
pub(crate) fn text(seed: u64, len: usize) -> Vec<u8> {
    let letters = content(seed ^ 0x7e87, 64 * 8);
    let word = |at: u8| &letters[usize::from(at % 64) * 8..][..usize::from(3 + at % 6)];
    let mut bytes = Vec::with_capacity(len + 16);
    for at in content(seed, len) {
        bytes.extend(word(at).iter().map(|letter| b'a' + letter % 26));
        bytes.push(b' ');
        if bytes.len() >= len {
            break;
        }
    }
    bytes.truncate(len);
    bytes
}
