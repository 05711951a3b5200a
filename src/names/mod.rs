//! Names: labels from the settings, paths on both sides, and the names of our own files on a vessel.
//!
//! Paths are bytes. A file name may contain anything that the kernel allows (newlines, quotes, bytes that are not
//! UTF-8), so paths are converted to `String` for display only.

pub mod host_pattern;
mod label;
mod ours;
mod rel_path;
mod remote_path;

pub use label::{DirectoryName, LinkName, VesselName};
pub use ours::{InstanceId, OurFile, Stream, assembly_name, compressed_name, part_name, part_prefix, probe_name};
pub use rel_path::{RelPath, RelPathError};
pub use remote_path::RemotePath;

use crate::text::push_visible;

/// Formats bytes for people: plain characters ([`crate::text::is_plain`]) unchanged, all others escaped.
///
/// Adds no quotes; a newline becomes `\n`, a byte that is not UTF-8 becomes `\xNN`.
pub(crate) fn display_bytes(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for piece in bytes.utf8_chunks() {
        for c in piece.valid().chars() {
            match c {
                '\\' => shown.push_str("\\\\"),
                c => push_visible(&mut shown, c),
            }
        }
        for byte in piece.invalid() {
            shown.push_str(&format!("\\x{byte:02x}"));
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::display_bytes;

    #[test]
    fn hostile_names_are_shown_on_one_line() {
        assert_eq!(display_bytes(b"plain name"), "plain name");
        assert_eq!(display_bytes(b"two\nlines\x1b[2J"), "two\\nlines\\u{1b}[2J");
        assert_eq!(display_bytes(b"caf\xe9"), "caf\\xe9");
        assert_eq!(display_bytes("café".as_bytes()), "café");
        assert_eq!(display_bytes("\u{202e}fdp.exe\u{200b}".as_bytes()), "\\u{202e}fdp.exe\\u{200b}");
    }
}
