//! Determines the permission bits of a copied file or directory, from its source's mode and the copy's owner.
//!
//! Set-user-id and set-group-id mean "runs as its owner". On a copy with another owner, they would give that owner's
//! rights to everyone who may write to the source. Group bits are meant for the source's group only.

/// All bits of a mode.
const ALL: u32 = 0o7777;
const SET_GROUP_ID: u32 = 0o2000;

/// The kind of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyOf {
    /// A regular file.
    File,
    /// A directory. Its sticky bit is copied, because it grants no rights.
    Directory,
}

impl CopyOf {
    /// Returns the mode without the bits that grant an owner's rights.
    pub fn plain(self, mode: u32) -> u32 {
        match self {
            Self::File => mode & 0o777,
            Self::Directory => mode & 0o1777,
        }
    }

    /// Returns the mode of a copy that should get the owner and group `wanted` and actually got `found` (`None`:
    /// unknown).
    ///
    /// All bits are copied only if owner and group match. If the group differs, group and others get only the bits that
    /// the source grants to both its group and others, because the source's group is now among the others.
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

/// Returns `mode` with the set-group-id bit of `found`, the mode with which a new directory was created: a bit
/// inherited from the parent stays, so that files in the directory still get its group.
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
