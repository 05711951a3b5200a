//! OpenSSH's patterns for host and user names, as used in `known_hosts` and `ssh_config`.
//!
//! `*` matches any sequence of characters, `?` any single one; all other characters, including brackets, match
//! themselves. In a list, a pattern with `!` excludes names that other patterns match.

/// Implements OpenSSH's `match_pattern_list`: at least one pattern without `!` must match, and no pattern with `!` may
/// match. Case-sensitive.
pub fn any<'a>(patterns: impl IntoIterator<Item = &'a str>, name: &str) -> bool {
    let mut matched = false;
    for pattern in patterns {
        let (negated, pattern) = match pattern.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, pattern),
        };
        if matches(pattern, name) {
            if negated {
                return false;
            }
            matched = true;
        }
    }
    matched
}

/// Returns whether one pattern, without a `!`, matches. Takes at most (length of the pattern) × (length of the name)
/// steps, because after a mismatch it only backtracks to the last `*`.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    let mut last_star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                last_star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match last_star {
                Some((star, from)) => {
                    last_star = Some((star, from + 1));
                    p = star + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_negated_pattern_takes_back_what_others_say_and_says_nothing_itself() {
        let list = |list: &str, name: &str| any(list.split(' '), name);
        assert!(list("*.example.com !db.example.com", "www.example.com"));
        assert!(!list("*.example.com !db.example.com", "db.example.com"));
        assert!(!list("!db.example.com", "www.example.com"));
        assert!(list("a?c [x]", "abc") && list("a?c [x]", "[x]") && !list("a?c [x]", "x"));
    }

    #[test]
    fn a_pattern_full_of_stars_is_matched_in_no_time() {
        assert!(!matches(&format!("{}b", "a*".repeat(200)), &"a".repeat(2_000)));
    }
}
