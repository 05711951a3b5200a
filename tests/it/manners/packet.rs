//! Packets of SFTP version 3, as far as the odd manners take them apart.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use bytes::{Buf, BufMut, Bytes, BytesMut};

pub(super) const VERSION: u8 = 2;
pub(super) const OPEN: u8 = 3;
pub(super) const CLOSE: u8 = 4;
pub(super) const WRITE: u8 = 6;
pub(super) const LSTAT: u8 = 7;
pub(super) const FSTAT: u8 = 8;
pub(super) const SETSTAT: u8 = 9;
pub(super) const FSETSTAT: u8 = 10;
pub(super) const OPENDIR: u8 = 11;
pub(super) const REMOVE: u8 = 13;
pub(super) const MKDIR: u8 = 14;
pub(super) const RMDIR: u8 = 15;
pub(super) const STAT: u8 = 17;
pub(super) const RENAME: u8 = 18;
pub(super) const READLINK: u8 = 19;
pub(super) const STATUS: u8 = 101;
pub(super) const HANDLE: u8 = 102;
pub(super) const NAME: u8 = 104;
pub(super) const ATTRS: u8 = 105;
pub(super) const EXTENDED: u8 = 200;

/// Status codes.
pub(super) const OK: u32 = 0;
pub(super) const NO_SUCH_FILE: u32 = 2;
pub(super) const DENIED: u32 = 3;
pub(super) const FAILURE: u32 = 4;
pub(super) const UNSUPPORTED: u32 = 8;

/// Flags of OPEN.
pub(super) const FOR_READING: u32 = 1;
pub(super) const FOR_WRITING: u32 = 2;
pub(super) const TRUNCATE: u32 = 16;

const HAS_SIZE: u32 = 1;
const HAS_OWNER: u32 = 2;
const HAS_PERMISSIONS: u32 = 4;
const HAS_TIMES: u32 = 8;

/// What stands in a packet behind its type and number, taken off piece by piece. What is not there is nought or empty.
pub(super) struct Body(Bytes);

impl Body {
    pub(super) fn of(packet: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(packet.get(5..).unwrap_or_default()))
    }

    pub(super) fn number(&mut self) -> u32 {
        self.0.try_get_u32().unwrap_or_default()
    }

    pub(super) fn word(&mut self) -> Bytes {
        let length = (self.number() as usize).min(self.0.len());
        self.0.split_to(length)
    }

    pub(super) fn path(&mut self) -> PathBuf {
        OsStr::from_bytes(&self.word()).into()
    }

    pub(super) fn rest(self) -> Bytes {
        self.0
    }

    /// Attributes, of which only the size and the times are kept.
    fn bare_attributes(&mut self) -> BytesMut {
        let flags = self.number();
        let mut bare = BytesMut::new();
        bare.put_u32(flags & (HAS_SIZE | HAS_TIMES));
        if flags & HAS_SIZE != 0 {
            bare.put_u64(self.0.get_u64());
        }
        if flags & HAS_OWNER != 0 {
            self.0.advance(8);
        }
        if flags & HAS_PERMISSIONS != 0 {
            self.0.advance(4);
        }
        if flags & HAS_TIMES != 0 {
            bare.put_u64(self.0.get_u64());
        }
        bare
    }
}

/// A packet that is begun: its type, and room for its number.
fn begun(kind: u8) -> BytesMut {
    let mut packet = BytesMut::new();
    packet.put_u8(kind);
    packet.put_u32(0);
    packet
}

fn put_word(packet: &mut BytesMut, word: &[u8]) {
    packet.put_u32(u32::try_from(word.len()).unwrap());
    packet.extend_from_slice(word);
}

/// The head of a packet, with its number, and another body.
fn rebuilt(packet: &[u8], body: &[u8]) -> Bytes {
    let mut rebuilt = BytesMut::from(&packet[..5]);
    rebuilt.extend_from_slice(body);
    rebuilt.freeze()
}

pub(super) fn status(code: u32, words: &str) -> Bytes {
    let mut packet = begun(STATUS);
    packet.put_u32(code);
    put_word(&mut packet, words.as_bytes());
    put_word(&mut packet, b"");
    packet.freeze()
}

/// A status that ends with its code, as some servers send it.
pub(super) fn wordless(code: u32) -> Bytes {
    let mut packet = begun(STATUS);
    packet.put_u32(code);
    packet.freeze()
}

/// This packet with the number of another one.
pub(super) fn numbered_like(packet: &[u8], other: &[u8]) -> Bytes {
    let mut numbered = BytesMut::from(other);
    numbered[1..5].copy_from_slice(&packet[1..5]);
    numbered.freeze()
}

/// Whether a request names something that is not UTF-8.
pub(super) fn has_odd_name(packet: &[u8]) -> bool {
    let mut body = Body::of(packet);
    match packet.first() {
        Some(&(OPEN | LSTAT | SETSTAT | OPENDIR | REMOVE | MKDIR | RMDIR | STAT | RENAME | READLINK)) => {}
        Some(&EXTENDED) => drop(body.word()),
        _ => return false,
    }
    let (first, second) = (body.word(), body.word());
    let is_rename = rename_of(packet).is_some();
    std::str::from_utf8(&first).is_err() || is_rename && std::str::from_utf8(&second).is_err()
}

/// The code of a status packet.
pub(super) fn status_of(packet: &[u8]) -> Option<u32> {
    (packet.first() == Some(&STATUS)).then(|| Body::of(packet).number())
}

/// The same status with another code.
pub(super) fn with_code(packet: &[u8], code: u32) -> Bytes {
    let mut body = Body::of(packet);
    let _ = body.number();
    let mut changed = BytesMut::new();
    changed.put_u32(code);
    changed.extend_from_slice(&body.rest());
    rebuilt(packet, &changed)
}

/// The same OPEN with these flags added.
pub(super) fn opened_with(packet: &[u8], more: u32) -> Bytes {
    let mut body = Body::of(packet);
    let (path, flags) = (body.word(), body.number());
    let mut changed = BytesMut::new();
    put_word(&mut changed, &path);
    changed.put_u32(flags | more);
    changed.extend_from_slice(&body.rest());
    rebuilt(packet, &changed)
}

/// The same MKDIR without attributes.
pub(super) fn without_mode(packet: &[u8]) -> Bytes {
    let mut changed = BytesMut::new();
    put_word(&mut changed, &Body::of(packet).word());
    changed.put_u32(0);
    rebuilt(packet, &changed)
}

/// The same ATTRS or NAME without owner and permissions, which hold the type; of a NAME, the line for people goes too.
pub(super) fn without_type(packet: &[u8]) -> Bytes {
    let mut body = Body::of(packet);
    if packet[0] == ATTRS {
        return rebuilt(packet, &body.bare_attributes());
    }
    let mut changed = BytesMut::new();
    let count = body.number();
    changed.put_u32(count);
    for _ in 0..count {
        put_word(&mut changed, &body.word());
        let _ = body.word();
        put_word(&mut changed, b"");
        changed.extend_from_slice(&body.bare_attributes());
    }
    rebuilt(packet, &changed)
}

/// The same NAME with one more name, an empty one.
pub(super) fn with_an_empty_name(packet: &[u8]) -> Bytes {
    let mut body = Body::of(packet);
    let mut changed = BytesMut::new();
    changed.put_u32(body.number() + 1);
    put_word(&mut changed, b"");
    put_word(&mut changed, b"");
    changed.put_u32(0);
    changed.extend_from_slice(&body.rest());
    rebuilt(packet, &changed)
}

/// The same VERSION without an extension.
pub(super) fn without_extension(packet: &[u8], name: &str) -> Bytes {
    // The number of a VERSION packet is the version.
    let mut body = Body::of(packet);
    let mut changed = BytesMut::new();
    loop {
        let (one, value) = (body.word(), body.word());
        if one.is_empty() {
            return rebuilt(packet, &changed);
        }
        if one != name {
            put_word(&mut changed, &one);
            put_word(&mut changed, &value);
        }
    }
}

/// The name of an extended request.
pub(super) fn extension_of(packet: &[u8]) -> Option<Bytes> {
    (packet.first() == Some(&EXTENDED)).then(|| Body::of(packet).word())
}

/// The two paths of a rename, whichever way it is asked for.
pub(super) fn rename_of(packet: &[u8]) -> Option<(PathBuf, PathBuf)> {
    let mut body = Body::of(packet);
    match packet.first() {
        Some(&RENAME) => Some((body.path(), body.path())),
        Some(&EXTENDED) if body.word() == "posix-rename@openssh.com" => Some((body.path(), body.path())),
        _ => None,
    }
}
