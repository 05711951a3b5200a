//! Encodes lists as JSON arrays for `json_each`, because the number of parameters of a static SQL statement is fixed.

use std::fmt::Write;

use super::rows::{digest_bytes, signed};
use crate::names::{RelPath, VesselName};
use crate::records::{DeliveryCost, NewVersion, VersionKind};

fn array(items: impl Iterator<Item = impl AsRef<str>>) -> String {
    let mut text = String::from("[");
    for item in items {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(item.as_ref());
    }
    text.push(']');
    text
}

/// Encodes numbers of deliveries or versions.
pub(super) fn numbers(ids: impl Iterator<Item = i64>) -> String {
    array(ids.map(|id| id.to_string()))
}

/// Encodes the costs of deliveries, each as `[delivery, written bytes, bytes on the link]`.
pub(super) fn costs(costs: impl Iterator<Item = (i64, Option<DeliveryCost>)>) -> String {
    let number = |bytes: Option<u64>| bytes.map_or_else(|| "null".to_owned(), |bytes| signed(bytes).to_string());
    let parts = |cost: Option<DeliveryCost>| (cost.map(|cost| cost.written), cost.and_then(|cost| cost.link));
    array(costs.map(|(id, cost)| {
        let (written, link) = parts(cost);
        format!("[{id},{},{}]", number(written), number(link))
    }))
}

/// Encodes names of vessels.
pub(super) fn names(vessels: &[VesselName]) -> String {
    texts(vessels.iter().map(VesselName::as_str))
}

/// Encodes texts. Control characters need no escape, because the settings reject texts with them.
pub(super) fn texts<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    array(texts.map(text))
}

/// Encodes pairs of texts. Control characters need no escape, because the settings reject texts with them.
pub(super) fn pairs<'a>(pairs: impl Iterator<Item = [&'a str; 2]>) -> String {
    array(pairs.map(|[first, second]| format!("[{},{}]", text(first), text(second))))
}

fn text(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Encodes paths in hexadecimal, for `unhex(value)`: paths are bytes and JSON is text.
pub(super) fn paths(paths: &[RelPath]) -> String {
    array(paths.iter().map(|path| format!("\"{}\"", hex(path.as_bytes()))))
}

/// Encodes, for each path, the range of the paths below it as the hexadecimal pair `[path/, path0]`. The byte `0`
/// follows the byte `/`.
pub(super) fn ranges_below(paths: &[RelPath]) -> String {
    array(paths.iter().map(|path| {
        let path = hex(path.as_bytes());
        format!("[\"{path}2f\",\"{path}30\"]")
    }))
}

/// Encodes versions, each as `[path, size, mtime, mtime_nanos, inode, mode, digest, chunk_size, kind, target, uid, gid,
/// replaces, origin, moved_with]`, with path, digest, target and moved_with in hexadecimal for `unhex`.
pub(super) fn versions<'a>(versions: impl Iterator<Item = (&'a NewVersion, Option<i64>)>) -> String {
    array(versions.map(|(new, replaces)| {
        format!(
            "[\"{}\",{},{},{},{},{},\"{}\",{},\"{}\",\"{}\",{},{},{},{},{}]",
            hex(new.path.as_bytes()),
            signed(new.stamp.size),
            new.stamp.mtime,
            new.stamp.mtime_nanos,
            signed(new.stamp.inode),
            new.mode,
            hex(digest_bytes(&new.digest)),
            signed(new.chunk_size),
            new.kind.as_str(),
            hex(&new.target),
            or_null(new.owner.map(|(user, _)| user.into())),
            or_null(new.owner.map(|(_, group)| group.into())),
            or_null(replaces),
            or_null(new.origin.filter(|_| new.kind != VersionKind::Gone).map(|origin| origin.0)),
            new.moved_with.as_ref().map_or_else(|| "null".into(), |path| format!("\"{}\"", hex(path.as_bytes()))),
        )
    }))
}

fn or_null(number: Option<i64>) -> String {
    number.map_or_else(|| "null".into(), |number| number.to_string())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
        text
    })
}
