//! Shares work evenly among shores. Given the same records, all shores compute the same share.
//!
//! Work stays with its shore unless this shore has at least two pieces more than another shore that could do the work.
//! So a shore that starts or stops moves only as much work as necessary. Between shores with the same amount of work,
//! rendezvous hashing decides.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::discriminant;

use sha2::{Digest, Sha256};

use super::shores::Work;

/// A shore with a valid lease, as the ledger records it.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// The token of the shore's lease.
    pub(super) token: i64,
    pub(super) name: String,
    /// The work that the shore may be given.
    pub(super) serves: BTreeSet<Work>,
}

/// Returns, for each piece of work, the token of the shore that should have it. `has` holds the tokens of the present
/// owners. Work that no shore may have is left out.
pub(super) fn share(members: &[Member], has: &BTreeMap<Work, i64>) -> BTreeMap<Work, i64> {
    let all: BTreeSet<&Work> = members.iter().flat_map(|member| &member.serves).collect();
    let mut shared = BTreeMap::new();
    let mut kinds: Vec<Vec<&Work>> = Vec::new();
    for work in all {
        match kinds.iter_mut().find(|kind| discriminant(kind[0]) == discriminant(work)) {
            Some(kind) => kind.push(work),
            None => kinds.push(vec![work]),
        }
    }
    kinds.iter().for_each(|kind| share_kind(members, has, kind, &mut shared));
    shared
}

/// Shares work of one kind: vessels, directories or housekeeping.
fn share_kind(members: &[Member], has: &BTreeMap<Work, i64>, kind: &[&Work], shared: &mut BTreeMap<Work, i64>) {
    let may = |at: usize, work: &Work| members[at].serves.contains(work);
    let mut loads = vec![0_usize; members.len()];
    let mut of: Vec<Option<usize>> = kind
        .iter()
        .map(|work| {
            let token = has.get(work)?;
            members.iter().position(|member| member.token == *token).filter(|at| may(*at, work))
        })
        .collect();
    of.iter().flatten().for_each(|at| loads[*at] += 1);
    for (work, to) in kind.iter().zip(&mut of).filter(|(_, to)| to.is_none()) {
        let able = (0..members.len()).filter(|at| may(*at, work));
        *to = able.min_by_key(|at| (loads[*at], std::cmp::Reverse(score(&members[*at], work))));
        if let Some(at) = *to {
            loads[at] += 1;
        }
    }
    // Each move brings two loads closer together, so the loop ends.
    loop {
        let moves = kind.iter().enumerate().flat_map(|(nth, work)| {
            let (loads, from) = (&loads, of[nth]);
            (0..members.len()).filter_map(move |to| {
                let from = from?;
                let less = loads[from].saturating_sub(loads[to]);
                (less >= 2 && may(to, work)).then(|| (less, score(&members[to], work), nth, from, to))
            })
        });
        let Some((.., nth, from, to)) = moves.max() else { break };
        of[nth] = Some(to);
        loads[from] -= 1;
        loads[to] += 1;
    }
    shared.extend(kind.iter().zip(of).filter_map(|(work, at)| Some(((*work).clone(), members[at?].token))));
}

/// The score of a shore for a piece of work. All hosts compute the same score. The highest score wins.
fn score(member: &Member, work: &Work) -> [u8; 8] {
    let digest = Sha256::new().chain_update(&member.name).chain_update([0]).chain_update(work.to_string()).finalize();
    std::array::from_fn(|at| digest[at])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{DirectoryName, VesselName};

    fn vessels(count: usize) -> BTreeSet<Work> {
        (0..count).map(|at| Work::Vessel(VesselName::new(&format!("v{at}")))).collect()
    }

    fn member(token: i64, serves: &BTreeSet<Work>) -> Member {
        Member { token, name: format!("shore {token}"), serves: serves.clone() }
    }

    fn loads(shared: &BTreeMap<Work, i64>, members: &[Member]) -> Vec<usize> {
        members.iter().map(|member| shared.values().filter(|token| **token == member.token).count()).collect()
    }

    #[test]
    fn work_is_shared_evenly_and_little_moves_when_a_shore_comes_or_goes() {
        let all = vessels(20);
        let mut members = vec![member(1, &all), member(2, &all)];
        let first = share(&members, &BTreeMap::new());
        assert_eq!(loads(&first, &members), [10, 10]);
        assert_eq!(share(&members, &first), first, "nothing moves without a reason");
        members.push(member(3, &all));
        let second = share(&members, &first);
        let mut sorted = loads(&second, &members);
        sorted.sort_unstable();
        assert_eq!(sorted, [6, 7, 7]);
        let moved = all.iter().filter(|work| first[work] != second[work]).count();
        assert_eq!(moved, *loads(&second, &members).last().unwrap());
        members.remove(0);
        let third = share(&members, &second);
        assert_eq!(loads(&third, &members), [10, 10]);
        assert!(all.iter().all(|work| second[work] == 1 || second[work] == third[work]));
    }

    #[test]
    fn work_goes_only_to_shores_that_may_have_it_and_each_kind_is_shared_by_itself() {
        let mut rng = fastrand::Rng::with_seed(18);
        for _ in 0..200 {
            let mut all = vessels(rng.usize(0..12));
            all.extend((0..rng.usize(0..5)).map(|at| Work::Directory(DirectoryName::new(&format!("d{at}")))));
            all.insert(Work::Housekeeping);
            let members: Vec<Member> = (0..rng.i64(1..5))
                .map(|token| member(token, &all.iter().filter(|_| rng.u8(0..4) > 0).cloned().collect()))
                .collect();
            let has: BTreeMap<Work, i64> = all.iter().map(|work| (work.clone(), rng.i64(0..6))).collect();
            let shared = share(&members, &has);
            let mut other_order = members.clone();
            rng.shuffle(&mut other_order);
            assert_eq!(share(&other_order, &has), shared, "all shores compute the same");
            assert_eq!(loads(&shared, &members).iter().sum::<usize>(), shared.len());
            for work in &all {
                let able: Vec<_> = members.iter().filter(|member| member.serves.contains(work)).collect();
                assert_eq!(shared.contains_key(work), !able.is_empty());
                assert!(shared.get(work).is_none_or(|token| able.iter().any(|member| member.token == *token)));
            }
            assert_eq!(share(&members, &shared), shared, "a second look moves nothing");
        }
    }
}
