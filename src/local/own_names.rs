//! The names below a location that are our own: `processed/`, and temporary ones.

/// The directory that takes retired sources.
pub const PROCESSED: &str = "processed";

/// A copy in the making, in `processed/`.
pub(super) const COPYING: &str = ".contentmonster-retiring.";
/// A source about to be removed, in its own directory.
pub(super) const LEAVING: &str = ".contentmonster-leaving.";

/// Whether a name on the shore is a temporary one of ours.
pub(super) fn is_ours(name: &[u8]) -> bool {
    name.starts_with(COPYING.as_bytes()) || name.starts_with(LEAVING.as_bytes())
}
