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
