//! The mode of a directory: its sources retire after their delivery, or they stay (a mirror). Also the options of a
//! mirror.

/// What happens to a source that every vessel has received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The source retires to `processed/`.
    #[default]
    Replicate,
    /// The source stays, and all its changes are sent.
    Mirror,
}

/// How symbolic links are handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Links {
    /// Links are skipped.
    #[default]
    Skip,
    /// The link's target is sent in place of the link.
    Follow,
    /// The same link is created on the vessel.
    Copy,
}

/// The limit of deletions on the vessels within 1 minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxDelete {
    /// A number of paths.
    Count(u64),
    /// A percentage of the directory's paths.
    Percent(u8),
}

impl Default for MaxDelete {
    fn default() -> Self {
        Self::Count(0)
    }
}

impl MaxDelete {
    /// Returns the limit for a directory with `all` paths.
    pub fn of(self, all: u64) -> u64 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => (u128::from(all) * u128::from(percent) / 100) as u64,
        }
    }
}

/// Parses a number of paths, or a percentage.
pub(super) fn max_delete(text: &str) -> Option<MaxDelete> {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    match text.strip_suffix('%') {
        Some(percent) => digits(percent.trim_end())
            .and_then(|percent| u8::try_from(percent).ok())
            .filter(|percent| *percent <= 100)
            .map(MaxDelete::Percent),
        None => digits(text).map(MaxDelete::Count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_or_a_share() {
        assert_eq!(max_delete("100"), Some(MaxDelete::Count(100)));
        assert_eq!(max_delete("10%"), Some(MaxDelete::Percent(10)));
        assert_eq!(max_delete("0 %"), Some(MaxDelete::Percent(0)));
        for bad in ["", "%", "-1", "+1", "101%", "1.5%", "ten", "100 files"] {
            assert!(max_delete(bad).is_none(), "{bad:?}");
        }
        assert_eq!((MaxDelete::Count(7).of(3), MaxDelete::Percent(10).of(205)), (7, 20));
    }
}
