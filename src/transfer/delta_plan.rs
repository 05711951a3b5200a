//! A plan for building a file from the bytes that the vessel already has and the bytes that must be sent.
//!
//! This module is pure arithmetic on two signatures; it does not copy or send bytes.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use crate::signature::{Block, Signature};

/// One range of the new file, and where its bytes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// The range in the new file.
    pub(super) range: Range<u64>,
    /// Offset of the same bytes in the old file; `None` if the bytes are sent.
    pub(crate) from: Option<u64>,
}

impl Step {
    pub(crate) fn length(&self) -> u64 {
        self.range.end - self.range.start
    }
}

/// Steps in the order of the new file. They cover the planned part of the file without gaps or overlaps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DeltaPlan(Vec<Step>);

impl DeltaPlan {
    /// Plans how to build the new file from the old one. If the signatures have different average block sizes, they
    /// can't be compared, and the plan sends all bytes.
    pub(crate) fn new(old: &Signature, new: &Signature) -> Self {
        let comparable = old.average() == new.average();
        let old: BTreeMap<u64, &Block> = places(old).filter(|_| comparable).collect();
        let by_content: HashMap<&Block, u64> = old.iter().rev().map(|(at, block)| (*block, *at)).collect();
        let mut plan = Self::default();
        for (at, block) in places(new) {
            // If the old file has the block at several offsets, the offset after the previous copy is used, so that
            // both copies become one.
            let goes_on = plan.kept_end().filter(|end| old.get(end) == Some(&block));
            let from = goes_on.or_else(|| by_content.get(block).copied());
            plan.push(Step { range: at..at + u64::from(block.length), from });
        }
        plan
    }

    /// Plans to copy a whole file of `size` bytes.
    pub(super) fn whole(size: u64) -> Self {
        let mut plan = Self::default();
        plan.push(Step { range: 0..size, from: Some(0) });
        plan
    }

    /// Returns the offset in the old file at which the last step ends, if it is a copy.
    fn kept_end(&self) -> Option<u64> {
        self.0.last().and_then(|step| Some(step.from? + step.length()))
    }

    /// Adds a step, or extends the last step if the new step continues it.
    fn push(&mut self, step: Step) {
        let kept_end = self.kept_end();
        match self.0.last_mut() {
            Some(last) if last.from.is_some() == step.from.is_some() && kept_end == step.from => {
                last.range.end = step.range.end;
            }
            _ if step.range.is_empty() => {}
            _ => self.0.push(step),
        }
    }

    /// Returns the remaining plan after the first `joined` bytes are done.
    pub(crate) fn after(self, joined: u64) -> Self {
        let mut rest = Self::default();
        for Step { range, from } in self.0 {
            let skipped = joined.clamp(range.start, range.end) - range.start;
            rest.push(Step { range: range.start + skipped..range.end, from: from.map(|from| from + skipped) });
        }
        rest
    }

    /// Returns the plan in which copies shorter than `least` bytes are sent instead, because each copy may have a fixed
    /// cost.
    pub(super) fn without_short_copies(self, least: u64) -> Self {
        let mut plan = Self::default();
        for step in self.0 {
            let from = step.from.filter(|_| step.length() >= least);
            plan.push(Step { from, ..step });
        }
        plan
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.0
    }

    /// Returns the ranges that are sent.
    pub(crate) fn sent(&self) -> impl Iterator<Item = &Range<u64>> {
        self.0.iter().filter(|step| step.from.is_none()).map(|step| &step.range)
    }

    /// Returns how many bytes are sent.
    pub(super) fn sent_bytes(&self) -> u64 {
        self.sent().map(|range| range.end - range.start).sum()
    }

    /// Returns how many bytes are copied from the old file.
    pub(super) fn kept_bytes(&self) -> u64 {
        self.0.iter().filter(|step| step.from.is_some()).map(Step::length).sum()
    }
}

/// Returns each block with its start offset.
fn places(signature: &Signature) -> impl Iterator<Item = (u64, &Block)> {
    signature.blocks().iter().scan(0, |at, block| {
        let start = *at;
        *at += u64::from(block.length);
        Some((start, block))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::SignatureBuilder;
    use proptest::prelude::*;

    fn signature_of(bytes: &[u8]) -> Signature {
        let mut signature_builder = SignatureBuilder::new(0);
        signature_builder.update(bytes);
        signature_builder.finish()
    }

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(seed);
        (0..length).map(|_| random.u8(..)).collect()
    }

    /// Executes a plan, and returns the resulting file.
    fn cook(plan: &DeltaPlan, old: &[u8], new: &[u8]) -> Vec<u8> {
        let mut made = Vec::new();
        for step in plan.steps() {
            assert_eq!(step.range.start, made.len() as u64);
            let (bytes, start) = step.from.map_or((new, step.range.start), |from| (old, from));
            made.extend_from_slice(&bytes[start as usize..(start + step.length()) as usize]);
        }
        made
    }

    #[test]
    fn a_change_in_the_middle_and_something_appended_are_all_that_is_sent() {
        let old = noise(1, 4 << 20);
        let mut new = old.clone();
        new[2_000_000] ^= 1;
        new.extend(noise(2, 100_000));
        let plan = DeltaPlan::new(&signature_of(&old), &signature_of(&new));
        assert_eq!(cook(&plan, &old, &new), new);
        assert!(plan.sent_bytes() < 300_000 && plan.steps().len() == 4, "{plan:?}");
    }

    #[test]
    fn a_file_that_repeats_itself_is_copied_in_one_go() {
        let half = noise(3, 1 << 20);
        let old = [&half[..], &half].concat();
        let plan = DeltaPlan::new(&signature_of(&old), &signature_of(&old));
        assert_eq!(cook(&plan, &old, &old), old);
        assert!(plan.steps().len() <= 2 && plan.sent_bytes() == 0, "{plan:?}");
    }

    #[test]
    fn signatures_of_different_averages_have_nothing_in_common() {
        let mut coarse = SignatureBuilder::new(1 << 20);
        coarse.update(&[0; 100]);
        let plan = DeltaPlan::new(&signature_of(&[0; 100]), &coarse.finish());
        assert_eq!((plan.sent_bytes(), plan.steps().len()), (100, 1));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn the_new_file_comes_of_it_wherever_it_was_left_off(
            seed: u64, length in 0usize..500_000, cut in 0usize..500_000, inserted in 0usize..100_000, joined in 0u64..700_000,
            least in 0u64..200_000,
        ) {
            let old = noise(seed, length);
            let cut = cut.min(length);
            let new = [&old[..cut], &noise(seed ^ 1, inserted), &old[cut / 2..]].concat();
            let plan = DeltaPlan::new(&signature_of(&old), &signature_of(&new)).without_short_copies(least);
            prop_assert_eq!(cook(&plan, &old, &new), &new[..]);
            prop_assert_eq!(plan.sent_bytes() + plan.kept_bytes(), new.len() as u64);
            let joined = joined.min(new.len() as u64);
            let rest = plan.after(joined);
            prop_assert_eq!(rest.sent_bytes() + rest.kept_bytes(), new.len() as u64 - joined);
            for step in rest.steps() {
                let (start, end) = (step.range.start as usize, step.range.end as usize);
                if let Some(from) = step.from {
                    prop_assert_eq!(&old[from as usize..][..end - start], &new[start..end]);
                }
            }
        }
    }
}
