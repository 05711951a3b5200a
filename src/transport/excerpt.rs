//! A vessel's own words, fit for a message.

/// What a vessel said: on one line, and as [`crate::text::excerpt`] shows it.
pub(super) fn excerpt(said: &str) -> String {
    crate::text::excerpt(said.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_vessel_stand_on_one_line() {
        assert_eq!(excerpt("  Password\r\n expired "), "Password expired");
    }
}
