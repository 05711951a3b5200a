//! A set of priorities, such as those of the files that may go over a link.

use std::fmt;

use super::priority::Priority;

/// A set of priorities. The default is all priorities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Priorities(u8);

const ALL: u8 = (1 << Priority::ALL.len()) - 1;

impl Default for Priorities {
    fn default() -> Self {
        Self(ALL)
    }
}

impl Priorities {
    /// No priority.
    pub const NONE: Self = Self(0);

    /// Returns the set of a priority and all higher ones.
    pub fn from(lowest: Priority) -> Self {
        Priority::ALL.into_iter().filter(|priority| *priority <= lowest).collect()
    }

    /// Returns whether the set holds a priority.
    pub fn contains(self, priority: Priority) -> bool {
        self.0 & 1 << priority as u8 != 0
    }

    /// Returns whether the set holds all priorities.
    pub fn is_all(self) -> bool {
        self.0 == ALL
    }

    /// Returns whether the set holds no priority.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns how many priorities the set holds.
    pub fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// Returns the priorities that both sets hold.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Returns the priorities that at least one of the two sets holds.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the names of the priorities as alternatives, such as `urgent or high`.
    pub fn either(self) -> String {
        self.to_string().replace(", ", " or ")
    }

    /// Adds a priority.
    pub fn add(&mut self, priority: Priority) {
        self.0 |= 1 << priority as u8;
    }
}

impl FromIterator<Priority> for Priorities {
    fn from_iter<T: IntoIterator<Item = Priority>>(priorities: T) -> Self {
        let mut set = Self::NONE;
        priorities.into_iter().for_each(|priority| set.add(priority));
        set
    }
}

impl fmt::Display for Priorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = Priority::ALL.into_iter().filter(|one| self.contains(*one)).map(Priority::as_str).collect();
        f.write_str(&words.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_added_and_says_the_highest_first() {
        let high = Priorities::from(Priority::High);
        assert_eq!((high.to_string().as_str(), high.count(), high.is_all()), ("urgent, high", 2, false));
        assert!(high.contains(Priority::Urgent) && !high.contains(Priority::Normal));
        assert!(Priorities::from(Priority::Bulk).is_all() && Priorities::default().is_all());
        let low: Priorities = [Priority::Bulk].into_iter().collect();
        assert!(low.and(high).is_empty() && low.and(Priorities::default()) == low);
    }
}
