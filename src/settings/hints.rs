//! Suggestions for misspelt names.

/// Returns the candidate nearest to a misspelt word, if at most a third of the candidate's letters differ.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let fold = |text: &str| -> String { text.to_lowercase().replace([' ', '_', '-'], "") };
    let folded = fold(word);
    // A name this long is not a misspelling, and computing the distance takes quadratic time.
    if folded.len() > 200 {
        return None;
    }
    let distances = candidates.into_iter().map(|c| (strsim::damerau_levenshtein(&folded, &fold(c)), c));
    let (distance, near) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= near.chars().count().div_ceil(3)).then_some(near)
}
