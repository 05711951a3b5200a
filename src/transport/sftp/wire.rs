//! Encodes requests and decodes replies of SFTP version 3. Names and handles stay bytes throughout.
//!
//! Source: draft-ietf-secsh-filexfer-02, and OpenSSH's PROTOCOL file for the `@openssh.com` extensions. This module
//! handles neither channels nor the order or timing of packets.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::text::excerpt;

/// The largest packet accepted from a vessel, in bytes: OpenSSH's own limit (256 KiB) plus space for the head.
///
/// A peer that announces a larger packet does not speak SFTP, or is hostile.
pub(crate) const MAX_PACKET: usize = 256 * 1024 + 1024;

pub(crate) mod kind {
    //! Packet types.
    pub(crate) const INIT: u8 = 1;
    pub(crate) const VERSION: u8 = 2;
    pub(crate) const OPEN: u8 = 3;
    pub(crate) const CLOSE: u8 = 4;
    pub(crate) const READ: u8 = 5;
    pub(crate) const WRITE: u8 = 6;
    pub(crate) const LSTAT: u8 = 7;
    pub(crate) const FSTAT: u8 = 8;
    pub(crate) const SETSTAT: u8 = 9;
    pub(crate) const FSETSTAT: u8 = 10;
    pub(crate) const OPENDIR: u8 = 11;
    pub(crate) const READDIR: u8 = 12;
    pub(crate) const REMOVE: u8 = 13;
    pub(crate) const MKDIR: u8 = 14;
    pub(crate) const RMDIR: u8 = 15;
    pub(crate) const REALPATH: u8 = 16;
    pub(crate) const STAT: u8 = 17;
    pub(crate) const RENAME: u8 = 18;
    pub(crate) const READLINK: u8 = 19;
    pub(crate) const SYMLINK: u8 = 20;
    pub(crate) const STATUS: u8 = 101;
    pub(crate) const HANDLE: u8 = 102;
    pub(crate) const DATA: u8 = 103;
    pub(crate) const NAME: u8 = 104;
    pub(crate) const ATTRS: u8 = 105;
    pub(crate) const EXTENDED: u8 = 200;
    pub(crate) const EXTENDED_REPLY: u8 = 201;
}

/// Returns whether the reply to a request may have to wait for the vessel's disk or for the store behind it. `head`
/// starts with the length, type and number of the request.
pub(crate) fn is_slow(head: &[u8]) -> bool {
    const NAMES: [&[u8]; 3] = [b"fsync@openssh.com", b"posix-rename@openssh.com", b"copy-data"];
    match head.get(4) {
        Some(&kind::CLOSE | &kind::RENAME) => true,
        Some(&kind::EXTENDED) => {
            let name = head.get(13..).unwrap_or_default();
            NAMES.iter().any(|slow| name.starts_with(slow))
        }
        _ => false,
    }
}

/// The mode in which a file is opened (`SSH_FXF_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFlags(pub(crate) u32);

impl OpenFlags {
    /// Opens for reading.
    pub const READ: Self = Self(0x01);
    /// Opens for writing at offsets. Creates a missing file and keeps the content of an existing one.
    pub const WRITE: Self = Self(0x02 | 0x08);
    /// Opens for writing from the start. Creates a missing file and truncates an existing one.
    pub const FRESH: Self = Self(0x02 | 0x08 | 0x10);
    /// Opens an existing file for writing.
    pub const WRITE_EXISTING: Self = Self(0x02);
    /// Creates a file for writing. Fails when the path exists, even as a link.
    pub const NEW: Self = Self(0x02 | 0x08 | Self::EXCLUSIVE);
    const EXCLUSIVE: u32 = 0x20;

    /// Returns whether the path must not exist yet.
    pub(super) fn is_exclusive(self) -> bool {
        self.0 & Self::EXCLUSIVE != 0
    }
}

/// The type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
}

/// Attributes of a file, as reported by a vessel or to be set. A field that is `None` is unknown or is not changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attrs {
    /// Size in bytes. Setting a size truncates or extends the file.
    pub size: Option<u64>,
    /// Owner and group numbers.
    pub owner: Option<(u32, u32)>,
    /// File type and permission bits, as in `st_mode`.
    pub mode: Option<u32>,
    /// Access and modification time in whole seconds since 1970. SFTP can express times from 1970 to 2106; other times
    /// are not sent.
    pub times: Option<(i64, i64)>,
    /// The file type as other requests found it, for a `mode` without a file type. Never sent.
    pub kind: Option<Kind>,
}

impl Attrs {
    const FILE_TYPE: u32 = 0o170_000;

    /// Returns attributes of which only the file type is known.
    pub(crate) fn of_kind(kind: Kind) -> Self {
        Self { kind: Some(kind), ..Self::default() }
    }

    fn is(&self, kind: Kind) -> bool {
        let file_type = match kind {
            Kind::File => 0o100_000,
            Kind::Directory => 0o040_000,
            Kind::Link => 0o120_000,
        };
        match self.mode.map(|mode| mode & Self::FILE_TYPE) {
            None | Some(0) => self.kind == Some(kind),
            Some(is) => is == file_type,
        }
    }

    /// Returns whether the file type is known; some vessels do not report it.
    pub fn has_kind(&self) -> bool {
        self.kind.is_some() || self.mode.is_some_and(|mode| mode & Self::FILE_TYPE != 0)
    }

    /// Returns whether the file is a directory.
    pub fn is_dir(&self) -> bool {
        self.is(Kind::Directory)
    }

    /// Returns whether the file is a regular file.
    pub fn is_file(&self) -> bool {
        self.is(Kind::File)
    }

    /// Returns whether the file is a symbolic link.
    pub fn is_link(&self) -> bool {
        self.is(Kind::Link)
    }

    pub(crate) fn put(&self, out: &mut BytesMut) {
        let seconds = |time: i64| u32::try_from(time).ok();
        let times = self.times.and_then(|(access, change)| seconds(access).zip(seconds(change)));
        let flag = |given: bool, bit: u32| if given { bit } else { 0 };
        out.put_u32(
            flag(self.size.is_some(), 1)
                | flag(self.owner.is_some(), 2)
                | flag(self.mode.is_some(), 4)
                | flag(times.is_some(), 8),
        );
        if let Some(size) = self.size {
            out.put_u64(size);
        }
        if let Some((user, group)) = self.owner {
            out.put_u32(user);
            out.put_u32(group);
        }
        if let Some(mode) = self.mode {
            out.put_u32(mode);
        }
        if let Some((access, change)) = times {
            out.put_u32(access);
            out.put_u32(change);
        }
    }
}

/// The error for a packet that is not valid SFTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Garbled;

/// The reply to a request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Status { code: u32, message: String },
    Handle(Bytes),
    Data(Bytes),
    Names(Vec<(Bytes, Attrs)>),
    Attrs(Attrs),
    Extended(Bytes),
}

/// Starts a packet with its type and request number, after a placeholder for its length.
pub(crate) fn begin(kind: u8, id: u32) -> BytesMut {
    let mut out = BytesMut::with_capacity(64);
    out.put_u32(0);
    out.put_u8(kind);
    out.put_u32(id);
    out
}

/// Completes a packet by setting its length, which includes `payload` bytes that are sent after `out`.
pub(crate) fn end(mut out: BytesMut, payload: usize) -> Bytes {
    let length = u32::try_from(out.len() - 4 + payload).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&length.to_be_bytes());
    out.freeze()
}

pub(crate) fn put_string(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    out.put_slice(bytes);
}

/// Removes the next complete packet from the front of the received bytes. Returns `None` if no packet is complete yet.
pub(crate) fn split_packet(arrived: &mut BytesMut) -> Result<Option<Bytes>, Garbled> {
    let Some(head) = arrived.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*head) as usize;
    if length == 0 || length > MAX_PACKET {
        return Err(Garbled);
    }
    if arrived.len() < 4 + length {
        return Ok(None);
    }
    arrived.advance(4);
    Ok(Some(arrived.split_to(length).freeze()))
}

/// A reader of the fields of a packet. Reading past the end of the packet returns [`Garbled`].
pub(crate) struct Reader(pub(crate) Bytes);

impl Reader {
    pub(crate) fn u8(&mut self) -> Result<u8, Garbled> {
        self.0.try_get_u8().map_err(|_| Garbled)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Garbled> {
        self.0.try_get_u32().map_err(|_| Garbled)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Garbled> {
        self.0.try_get_u64().map_err(|_| Garbled)
    }

    pub(crate) fn string(&mut self) -> Result<Bytes, Garbled> {
        let length = self.u32()? as usize;
        if length > self.0.len() { Err(Garbled) } else { Ok(self.0.split_to(length)) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn attrs(&mut self) -> Result<Attrs, Garbled> {
        let flags = self.u32()?;
        let mut attrs = Attrs::default();
        if flags & 1 != 0 {
            attrs.size = Some(self.u64()?);
        }
        if flags & 2 != 0 {
            attrs.owner = Some((self.u32()?, self.u32()?));
        }
        if flags & 4 != 0 {
            attrs.mode = Some(self.u32()?);
        }
        if flags & 8 != 0 {
            attrs.times = Some((self.u32()?.into(), self.u32()?.into()));
        }
        if flags & 0x8000_0000 != 0 {
            for _ in 0..self.u32()? {
                self.string()?;
                self.string()?;
            }
        }
        Ok(attrs)
    }

    /// Parses the rest of a packet of the given type as a reply.
    pub(crate) fn reply(mut self, kind: u8) -> Result<Reply, Garbled> {
        match kind {
            kind::STATUS => {
                let code = self.u32()?;
                // Some servers omit the message, although version 3 of the draft requires it. A missing message counts
                // as empty.
                let message = self.string().map(excerpt).unwrap_or_default();
                Ok(Reply::Status { code, message })
            }
            kind::HANDLE => Ok(Reply::Handle(self.string()?)),
            kind::DATA => Ok(Reply::Data(self.string()?)),
            kind::ATTRS => Ok(Reply::Attrs(self.attrs()?)),
            kind::EXTENDED_REPLY => Ok(Reply::Extended(self.0)),
            kind::NAME => {
                let count = self.u32()?;
                let mut names = Vec::new();
                for _ in 0..count {
                    let name = self.string()?;
                    self.string()?; // the long name, in the format of `ls -l`
                    names.push((name, self.attrs()?));
                }
                Ok(Reply::Names(names))
            }
            _ => Err(Garbled),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_packet_is_taken_only_when_it_is_whole() {
        let mut arrived = BytesMut::from(&[0, 0, 0, 2, 7][..]);
        assert_eq!(split_packet(&mut arrived), Ok(None));
        arrived.extend_from_slice(&[8, 9]);
        assert_eq!(split_packet(&mut arrived), Ok(Some(Bytes::from_static(&[7, 8]))));
        assert_eq!(&arrived[..], [9]);
    }

    #[test]
    fn absurd_lengths_are_refused_before_anything_is_stored() {
        assert_eq!(split_packet(&mut BytesMut::from(&[0xff; 4][..])), Err(Garbled));
        assert_eq!(split_packet(&mut BytesMut::from(&[0; 4][..])), Err(Garbled));
    }

    proptest! {
        #[test]
        fn attributes_go_both_ways(size: Option<u64>, owner: Option<(u32, u32)>, mode: Option<u32>, times: Option<(u32, u32)>) {
            let times = times.map(|(access, change)| (access.into(), change.into()));
            let attrs = Attrs { size, owner, mode, times, kind: None };
            let mut out = BytesMut::new();
            attrs.put(&mut out);
            let mut reader = Reader(out.freeze());
            prop_assert_eq!(reader.attrs(), Ok(attrs));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(kind: u8, bytes: Vec<u8>) {
            let _ = Reader(Bytes::from(bytes)).reply(kind);
        }
    }
}
