//! A word that was quoted is one word for a POSIX shell, byte for byte. A shell is too slow to be asked here: the rules for
//! single quotes and backslashes are few, and a property test asks a real `sh`.

#![no_main]

use contentmonster::transport::Script;
use libfuzzer_sys::fuzz_target;

/// The word that a shell reads, by POSIX XCU 2.2.1 and 2.2.2; `None` when something stands unquoted.
fn word(quoted: &[u8]) -> Option<Vec<u8>> {
    let (mut word, mut rest) = (Vec::new(), quoted);
    while let Some((first, after)) = rest.split_first() {
        match first {
            b'\'' => {
                let end = after.iter().position(|byte| *byte == b'\'')?;
                word.extend_from_slice(&after[..end]);
                rest = &after[end + 1..];
            }
            b'\\' => {
                let (escaped, after) = after.split_first()?;
                word.push(*escaped);
                rest = after;
            }
            _ => return None,
        }
    }
    Some(word)
}

fuzz_target!(|bytes: &[u8]| {
    let script = Script::new().word(bytes).into_bytes();
    assert_eq!(script.first(), Some(&b' '));
    assert_eq!(word(&script[1..]).as_deref(), Some(bytes));
});
