//! Prepares text from a vessel for messages.

/// Returns text from a vessel on one line, shortened by [`crate::text::excerpt`].
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
