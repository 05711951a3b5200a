//! The extension `check-file`: the vessel hashes a file (draft-ietf-secsh-filexfer-13, section 9.1.2, and
//! draft-ietf-secsh-filexfer-extensions-00, section 3).

use std::collections::HashMap;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::wire::{Reader, Reply, kind, put_string};
use super::{Sftp, SftpError, unexpected};
use crate::digest::Digest;

/// The only hash algorithm that is requested, and accepted in a reply.
const ALGORITHM: &[u8] = b"sha256";

/// The name of the extension. Some servers begin their replies with it.
const NAME: &[u8] = b"check-file";

/// Returns whether the vessel may know the extension.
///
/// The extension belongs to later versions of SFTP. Servers of these versions list it in `supported2`, which they do
/// not send in a session of version 3. ProFTPD knows the extension in sessions of every version, but announces only the
/// list of the SFTP versions that it supports (`versions`).
pub(crate) fn may_know(extensions: &HashMap<String, String>) -> bool {
    let is_named = |(name, value): (&String, &String)| {
        name.starts_with("check-file") || name.starts_with("supported") && value.contains("check-file")
    };
    let versions = extensions.get("versions").map_or("", String::as_str);
    extensions.iter().any(is_named) || versions.split(',').any(|version| matches!(version, "5" | "6"))
}

/// Parses the body of a reply: optionally the name of the extension, then the algorithm, then one hash. Returns `None`
/// for another algorithm, and for a hash of another length.
pub(super) fn digest(body: Bytes) -> Option<Digest> {
    let mut body = Reader(body);
    let mut algorithm = body.string().ok()?;
    if algorithm == NAME {
        algorithm = body.string().ok()?;
    }
    if algorithm != ALGORITHM { None } else { Digest::from_bytes(&body.0) }
}

impl Sftp {
    /// Requests the vessel to hash `length` bytes of a file from `offset` on; a length of 0 means up to the end of the
    /// file. The reply may take longer than usual by `patience`. Returns `None` if the reply does not hold one SHA-256
    /// in the format of the extension.
    ///
    /// The block size is always 0, which requests a single hash.
    pub(crate) async fn check_file(
        &self,
        path: &[u8],
        (offset, length): (u64, u64),
        patience: Duration,
    ) -> Result<Option<Digest>, SftpError> {
        let fill = |out: &mut BytesMut| {
            put_string(out, b"check-file-name");
            put_string(out, path);
            put_string(out, ALGORITHM);
            out.put_u64(offset);
            out.put_u64(length);
            out.put_u32(0);
        };
        let reply = self.session.send_patiently(kind::EXTENDED, Bytes::new(), fill, patience).await?.wait().await?;
        match reply {
            Reply::Extended(body) => Ok(digest(body)),
            other => Err(unexpected(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(words: &[&[u8]], hash: &[u8]) -> Bytes {
        let mut body = BytesMut::new();
        words.iter().for_each(|word| put_string(&mut body, word));
        body.extend_from_slice(hash);
        body.freeze()
    }

    #[test]
    fn both_forms_of_the_reply_are_read() {
        let abc = Digest::of(b"abc");
        assert_eq!(digest(body(&[b"sha256"], abc.as_bytes())), Some(abc));
        assert_eq!(digest(body(&[b"check-file", b"sha256"], abc.as_bytes())), Some(abc));
    }

    #[test]
    fn another_algorithm_or_length_is_no_digest() {
        let abc = Digest::of(b"abc");
        for (words, hash) in [
            (&[b"md5" as &[u8]] as &[&[u8]], &abc.as_bytes()[..16]),
            (&[b"sha512"], &[7; 64]),
            (&[b"sha1"], abc.as_bytes()),
            (&[b"sha256"], &abc.as_bytes()[1..]),
            (&[b"sha256"], &[7; 64]),
            (&[b"sha256"], b""),
            (&[b"check-file"], abc.as_bytes()),
            (&[b"check-file", b"check-file", b"sha256"], abc.as_bytes()),
            (&[], b""),
            (&[], &[0xff; 40]),
        ] {
            assert_eq!(digest(body(words, hash)), None, "{words:?}");
        }
    }

    #[test]
    fn a_server_of_later_versions_may_know_the_extension() {
        let announced = |name: &str, value: &str| may_know(&HashMap::from([(name.to_owned(), value.to_owned())]));
        assert!(announced("versions", "2,3,4,5,6"));
        assert!(announced("check-file", ""));
        assert!(announced("check-file-name", "1"));
        assert!(announced("supported2", "\0\0\0\x0acheck-file"));
        assert!(!announced("versions", "3,4"));
        assert!(!announced("vendor-id", "check-file"));
        assert!(!announced("posix-rename@openssh.com", "1"));
    }
}
