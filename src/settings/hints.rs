//! What a misspelt name may have meant.

/// The candidate that a misspelt word most probably means, if any is near: a third of its letters may differ.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let fold = |text: &str| -> String { text.to_lowercase().replace([' ', '_', '-'], "") };
    let folded = fold(word);
    // Nobody misspells a name that long, and the distance costs the square of its length.
    if folded.len() > 200 {
        return None;
    }
    let distances = candidates.into_iter().map(|c| (strsim::damerau_levenshtein(&folded, &fold(c)), c));
    let (distance, near) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= near.chars().count().div_ceil(3)).then_some(near)
}
