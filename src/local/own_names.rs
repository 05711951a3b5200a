//! Names that this program uses below a location: `processed/`, `expired/`, and temporary files.

/// The directory for retired sources.
pub const PROCESSED: &str = "processed";

/// The directory for sources that expired before any vessel had received them.
pub const EXPIRED: &str = "expired";

/// Prefix of the names of unfinished copies in `processed/`.
pub(super) const COPYING: &str = ".contentmonster-retiring.";
/// Prefix of the name that a source gets, in its own directory, shortly before it is removed.
pub(super) const LEAVING: &str = ".contentmonster-leaving.";

/// Returns whether a name on the shore is one of our temporary names.
pub(super) fn is_ours(name: &[u8]) -> bool {
    name.starts_with(COPYING.as_bytes()) || name.starts_with(LEAVING.as_bytes())
}
