//! The extension `check-file`: hashes files on the vessel, correctly or with the error that a [`CheckFile`] quirk
//! selects.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use bytes::{Buf, BufMut};
use russh_sftp::protocol::StatusCode;

use super::quirks::CheckFile;
use super::status::Refusal;
use crate::digest::Hasher;

pub(super) const CHECK_FILE: &str = "check-file";
pub(super) const CHECK_FILE_NAME: &str = "check-file-name";

/// Returns the name and the value of the extension that the server announces: `check-file` or, with
/// [`CheckFile::ToTheEnd`], another one, because ProFTPD does not announce `check-file`.
pub(super) fn announced(quirk: CheckFile) -> (&'static str, &'static str) {
    if quirk == CheckFile::ToTheEnd { ("versions", "2,3,4,5,6") } else { (CHECK_FILE, "") }
}

/// Hashes a range of a file and returns the body of the reply. `rest` is the request after the path and the algorithms:
/// offset, length and block size.
pub(super) fn answer(quirk: CheckFile, path: &Path, mut rest: &[u8]) -> Result<Vec<u8>, Refusal> {
    let malformed = |_| Refusal::new(StatusCode::BadMessage, "the request is truncated");
    let offset = rest.try_get_u64().map_err(malformed)?;
    let length = rest.try_get_u64().map_err(malformed)?;
    if path.is_dir() || quirk == CheckFile::Fails {
        return Err(Refusal::new(StatusCode::Failure, "cannot hash this"));
    }
    let (algorithm, body): (&[u8], Vec<u8>) = match quirk {
        CheckFile::Right => (b"sha256", hash(path, offset, length)?),
        CheckFile::ToTheEnd => (b"sha256", hash(path, offset, 0)?),
        CheckFile::WrongHash | CheckFile::Fails => (b"sha256", vec![7; 32]),
        CheckFile::WrongAlgorithm => (b"md5", vec![7; 16]),
        CheckFile::ShortHash => (b"sha256", hash(path, offset, length)?[..16].to_vec()),
    };
    let mut reply = Vec::new();
    // In the drafts, the reply begins with the name of the extension. ProFTPD omits the name, and so do the faulty
    // replies here.
    let name = (quirk == CheckFile::Right).then_some(CHECK_FILE.as_bytes());
    for word in name.into_iter().chain([algorithm]) {
        reply.put_u32(word.len() as u32);
        reply.put_slice(word);
    }
    reply.extend(body);
    Ok(reply)
}

fn hash(path: &Path, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut file = file.take(if length == 0 { u64::MAX } else { length });
    let (mut hasher, mut buffer) = (Hasher::default(), vec![0; 64 << 10]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish().as_bytes().to_vec()),
            count => hasher.update(&buffer[..count]),
        }
    }
}
