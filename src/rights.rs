//! Which permission bits a copy of a file or directory gets, by what its source has and by who owns the copy.
//!
//! Set-user-id and set-group-id say "runs as its owner": on a copy with another owner they would give that owner's rights
//! to whoever may write the source. And bits for a group are meant for that group alone.

/// All bits of a mode.
const ALL: u32 = 0o7777;
const SET_GROUP_ID: u32 = 0o2000;

/// What a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyOf {
    /// A regular file.
    File,
    /// A directory: its sticky bit gives nobody a right, so it travels.
    Directory,
}

impl CopyOf {
    /// The bits of a mode that give nobody the rights of an owner.
    pub fn plain(self, mode: u32) -> u32 {
        match self {
            Self::File => mode & 0o777,
            Self::Directory => mode & 0o1777,
        }
    }

    /// The mode of a copy that was to get the owner and group `wanted` and was seen to have `found`.
    ///
    /// All bits travel only with owner and group. A group that is another gets at most what the source gave to both its
    /// group and all others, and so do all others, among whom the source's group now is.
    pub fn owned(self, mode: u32, wanted: (u32, u32), found: Option<(u32, u32)>) -> u32 {
        match found {
            Some(found) if found == wanted => mode & ALL,
            Some((_, group)) if group == wanted.1 => self.plain(mode),
            _ => {
                let both = (mode >> 3) & mode & 0o7;
                (self.plain(mode) & !0o077) | (both << 3) | both
            }
        }
    }
}

/// A mode with the set-group-id bit that a directory got from the one above it, so that its files belong to that group.
pub fn keeping_inherited(mode: u32, found: u32) -> u32 {
    mode | (found & SET_GROUP_ID)
}

#[cfg(test)]
mod tests {
    use super::CopyOf::{Directory, File};

    #[test]
    fn bits_that_lend_an_owners_rights_travel_only_with_the_owner() {
        assert_eq!(File.plain(0o6755), 0o755);
        assert_eq!((File.plain(0o1644), Directory.plain(0o3775)), (0o644, 0o1775));
        assert_eq!(File.owned(0o6755, (7, 8), Some((7, 8))), 0o6755);
        for found in [None, Some((0, 0)), Some((7, 0)), Some((0, 8))] {
            assert_eq!(File.owned(0o6755, (7, 8), found), 0o755, "{found:?}");
        }
    }

    #[test]
    fn a_group_that_is_another_gets_no_more_than_the_source_gave_to_everybody() {
        assert_eq!(File.owned(0o640, (0, 8), Some((1, 1))), 0o600);
        assert_eq!(File.owned(0o664, (0, 8), Some((1, 1))), 0o644);
        assert_eq!(File.owned(0o640, (0, 8), Some((1, 8))), 0o640);
        assert_eq!(File.owned(0o604, (0, 8), Some((1, 1))), 0o600);
        assert_eq!(Directory.owned(0o1775, (0, 8), None), 0o1755);
    }
}
