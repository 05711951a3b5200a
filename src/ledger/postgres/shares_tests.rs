//! Tests of several shores that share one ledger.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::tests::{Place, docs, tern};
use crate::clock::Clock;
use crate::ledger::conformance::file;
use crate::ledger::{Hint, Ledger, LedgerError, LedgerView, Next, Share, Work};
use crate::names::VesselName;
use crate::records::{DeliveryId, DeliveryState, Verified};
use crate::settings::Database;

async fn join(place: &Place, name: &str) -> Result<Ledger, LedgerError> {
    let mut address = place.address_of(name);
    name.clone_into(&mut address.shore);
    Ledger::join_at(&Database::Postgres(Box::new(address)), Clock::system()).await
}

fn vessel(name: &str) -> Work {
    Work::Vessel(VesselName::new(name))
}

/// Returns all work: four vessels, a directory and the housekeeping.
fn all() -> Vec<Work> {
    let mut all: Vec<Work> = ["auk", "gull", "skua", "tern"].map(vessel).to_vec();
    all.extend([Work::Directory(docs()), Work::Housekeeping]);
    all
}

fn vessels_of(share: &Share) -> usize {
    share.held.keys().filter(|work| matches!(work, Work::Vessel(_))).count()
}

/// Takes a share, and gives back the work that this shore must hand over, as the daemon does after its tasks have
/// ended. Returns the work that stays.
async fn follow(ledger: &Ledger, serves: &[Work]) -> Share {
    let share = ledger.share_out(serves).await.unwrap();
    let goes: Vec<Work> =
        share.held.iter().filter(|(_, next)| **next == Next::Goes).map(|(work, _)| work.clone()).collect();
    if !goes.is_empty() {
        ledger.give_back(&goes).await.unwrap();
    }
    let stays = share.held.into_iter().filter(|(_, next)| *next == Next::Stays);
    Share { held: stays.collect(), look_in: share.look_in }
}

#[tokio::test(flavor = "multi_thread")]
async fn shores_that_start_at_the_same_time_on_an_empty_database_all_join() {
    for _ in 0..5 {
        let place = Place::new().await;
        let names = ["one", "two", "three", "four", "five", "six"];
        let joined = futures_util::future::join_all(names.map(|name| join(&place, name))).await;
        for (name, ledger) in names.iter().zip(joined) {
            let ledger = ledger.unwrap_or_else(|e| panic!("shore {name}: {e}"));
            ledger.close().await.unwrap();
        }
    }
}

#[tokio::test]
async fn shores_share_the_work_and_hand_it_over_when_one_comes_drains_or_ends() {
    let place = Place::new().await;
    let one = join(&place, "one").await.unwrap();
    assert_eq!(follow(&one, &all()).await.held.len(), 6, "a single shore has all");
    let two = join(&place, "two").await.unwrap();
    assert_eq!(follow(&two, &all()).await.held.len(), 0, "nothing is free");
    follow(&one, &all()).await;
    let (first, second) = (follow(&one, &all()).await, follow(&two, &all()).await);
    assert_eq!((vessels_of(&first), vessels_of(&second)), (2, 2));
    let shared: BTreeMap<_, _> = first.held.iter().chain(&second.held).collect();
    assert_eq!(shared.len(), 6, "each has work that the other has not");

    // A drained shore takes no work.
    follow(&one, &[]).await;
    assert_eq!(follow(&two, &all()).await.held.len(), 6);
    assert_eq!(follow(&one, &[]).await.held.len(), 0);
    let seen = LedgerView::open_at(&place.database()).await.unwrap().shores().await.unwrap();
    let seen: Vec<_> = seen.iter().map(|shore| (&*shore.name, shore.is_drained, shore.work.len())).collect();
    assert_eq!(seen, [("one", true, 0), ("two", false, 6)]);
    follow(&one, &all()).await;
    follow(&two, &all()).await;
    assert_eq!(vessels_of(&follow(&one, &all()).await), 2);

    // Closing gives back all work.
    let heard = async { while two.next_hint().await != Hint::Shares {} };
    let (closed, _) = tokio::join!(one.close(), tokio::time::timeout(Duration::from_secs(10), heard));
    closed.unwrap();
    assert_eq!(follow(&two, &all()).await.held.len(), 6);
    two.close().await.unwrap();
}

#[tokio::test]
async fn work_is_bound_to_the_shores_that_can_do_it() {
    let place = Place::new().await;
    let (one, two) = (join(&place, "one").await.unwrap(), join(&place, "two").await.unwrap());
    let bound = [vessel("gull"), Work::Directory(docs())];
    follow(&one, &[vessel("auk")]).await;
    assert_eq!(follow(&two, &bound).await.held.len(), 2);
    assert_eq!(follow(&one, &[vessel("auk")]).await.held.len(), 1);
    // A vessel that is removed from the settings belongs to nobody.
    follow(&two, &bound[1..]).await;
    assert_eq!(follow(&two, &bound[1..]).await.held.len(), 1);
    one.close().await.unwrap();
    two.close().await.unwrap();
}

#[tokio::test]
async fn updates_of_work_are_refused_once_it_was_given_back() {
    let place = Place::new().await;
    let one = join(&place, "one").await.unwrap();
    follow(&one, &all()).await;
    let (of_docs, of_tern) = (one.of_work(&Work::Directory(docs())), one.of_work(&vessel("tern")));
    of_docs.admit(&docs(), &[file("a", "one", 1), file("b", "one", 2)], &[tern()]).await.unwrap();
    let due = of_tern.next_due(&tern(), false, 2).await.unwrap();
    assert!(of_tern.enter(due[0].id, DeliveryState::Publishing).await.unwrap());
    of_tern.surely_ours().await.unwrap();
    one.give_back(&[vessel("tern")]).await.unwrap();
    assert!(one.of_work(&vessel("tern")).hurry(&tern()).await.is_err());
    let refused = [
        of_tern.enter(due[0].id, DeliveryState::Publishing).await.map(drop),
        of_tern.acknowledge(due[0].id, Verified::ByVessel).await.map(drop),
        of_tern.hurry(&tern()).await,
        of_tern.surely_ours().await,
    ];
    for refused in refused {
        assert!(matches!(refused, Err(LedgerError::NotOurs { .. })), "{refused:?}");
    }
    // The shore's other work continues, even in the same group of updates. A later acquisition of the work does not let
    // the earlier handle write.
    of_docs.surely_ours().await.unwrap();
    follow(&one, &all()).await;
    let again = one.of_work(&vessel("tern"));
    let (old, new) = tokio::join!(
        of_tern.acknowledge(due[0].id, Verified::ByVessel),
        again.acknowledge(due[1].id, Verified::ByVessel)
    );
    assert!(matches!(old, Err(LedgerError::NotOurs { .. })), "{old:?}");
    assert!(new.unwrap());
    let backlog = one.backlog().await.unwrap();
    assert_eq!((backlog[0].waiting, backlog[0].acknowledged), (1, 1));
    one.close().await.unwrap();
}

#[tokio::test]
async fn a_vessel_that_passes_to_another_shore_gives_its_begun_deliveries_new_names() {
    let place = Place::new().await;
    let (one, two) = (join(&place, "one").await.unwrap(), join(&place, "two").await.unwrap());
    let serves = [vessel("tern"), Work::Directory(docs())];
    assert_eq!(follow(&one, &serves).await.held.len(), 2);
    let (of_docs, of_tern) = (one.of_work(&serves[1]), one.of_work(&serves[0]));
    let files = ["begun", "changed", "done", "new"].map(|name| file(name, name, 1));
    of_docs.admit(&docs(), &files, &[tern()]).await.unwrap();
    let due = of_tern.next_due(&tern(), false, 4).await.unwrap();
    let of = |name: &str| due.iter().find(|delivery| delivery.version.path.to_string() == name).unwrap();
    for name in ["begun", "changed", "done"] {
        assert!(of_tern.enter(of(name).id, DeliveryState::Publishing).await.unwrap());
    }
    assert!(of_tern.acknowledge(of("done").id, Verified::ByVessel).await.unwrap());
    of_docs.admit(&docs(), &[file("changed", "again", 2)], &[tern()]).await.unwrap();
    assert_eq!(of_tern.former_assemblies(&tern()).await.unwrap(), []);

    // The vessel passes to another shore twice, and no shore renames the files meanwhile.
    for (to, from) in [(&two, &one), (&one, &two)] {
        follow(from, &[]).await;
        assert_eq!(follow(to, &serves).await.held.len(), 2);
    }
    let again = one.of_work(&serves[0]);
    let now = again.next_due(&tern(), false, 4).await.unwrap();
    let token_of = |name: &str| now.iter().find(|delivery| delivery.version.path.to_string() == name).unwrap().token;
    assert_eq!(token_of("new"), of("new").token, "nothing was begun under this name");
    let former = again.former_assemblies(&tern()).await.unwrap();
    let begun: Vec<_> = former.iter().filter(|one| one.delivery == of("begun").id).collect();
    assert_eq!(begun.len(), 2);
    assert_eq!(begun[1].former, of("begun").token, "the latest name comes first");
    assert!(begun.iter().all(|one| one.current == token_of("begun") && one.current != one.former), "{begun:?}");
    let changed: Vec<_> = former.iter().filter(|one| one.delivery == of("changed").id).collect();
    assert_eq!(changed.len(), 1, "a superseded delivery keeps its name");
    assert_eq!((changed[0].former, changed[0].current), (of("changed").token, None));
    assert_eq!(former.len(), 3);
    let remains = again.remains(&tern(), DeliveryId(0), 9).await.unwrap();
    assert_eq!(remains[0].token, of("changed").token);

    again.forget_former_assemblies(&former.iter().map(|one| one.number).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(again.former_assemblies(&tern()).await.unwrap(), []);
    one.close().await.unwrap();
    two.close().await.unwrap();
}

/// Tests a shore whose process was suspended and continues after its lease was taken over.
#[tokio::test]
async fn a_shore_whose_lease_has_run_out_is_taken_over_and_writes_nothing_more() {
    let place = Place::new().await;
    let (one, two) = (join(&place, "one").await.unwrap(), join(&place, "two").await.unwrap());
    follow(&one, &all()).await;
    follow(&two, &all()).await;
    follow(&one, &all()).await;
    follow(&two, &all()).await;
    let held = one.share_out(&all()).await.unwrap();
    let stopped = one.of_work(held.held.keys().next().unwrap());
    // The lease of shore `one` expires, as it does without renewals.
    let mut bare = place.bare().await;
    sqlx::query(
        "UPDATE lease SET name = 'shore gone', until = clock_timestamp() - interval '1 s' WHERE name = 'shore one'",
    )
    .execute(&mut bare)
    .await
    .unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while follow(&two, &all()).await.held.len() < 6 {
        assert!(Instant::now() < deadline, "it is not taken over");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for refused in [
        stopped.admit(&docs(), &[file("b", "one", 1)], &[tern()]).await,
        stopped.surely_ours().await,
        one.share_out(&all()).await.map(drop),
    ] {
        assert!(matches!(refused, Err(LedgerError::TakenOver { .. })), "{refused:?}");
    }
    two.of_work(&Work::Directory(docs())).surely_ours().await.unwrap();
    one.close().await.unwrap();
    two.close().await.unwrap();
}

#[tokio::test]
async fn a_ledger_has_one_program_alone_or_several_shores_of_different_names() {
    let place = Place::new().await;
    let one = join(&place, "one").await.unwrap();
    let alone = Ledger::open_at(&place.database(), Clock::system()).await.err().expect("a shore lives");
    assert!(matches!(alone, LedgerError::Held { .. }), "{alone:?}");
    // A shore of the same name on another host is refused.
    let mut address = place.address_of("other");
    "one".clone_into(&mut address.shore);
    let same = Ledger::join_at(&Database::Postgres(Box::new(address)), Clock::system()).await.err().expect("it lives");
    assert!(matches!(same, LedgerError::Held { .. }), "{same:?}");
    one.close().await.unwrap();
    let alone = Ledger::open_at(&place.database(), Clock::system()).await.unwrap();
    let refused = join(&place, "one").await.err().expect("a program has the ledger alone");
    assert!(matches!(refused, LedgerError::Held { .. }), "{refused:?}");
    alone.of_work(&vessel("tern")).hurry(&tern()).await.unwrap();
    alone.close().await.unwrap();
    join(&place, "one").await.unwrap().close().await.unwrap();
}

#[tokio::test]
async fn hints_reach_the_other_shores_and_not_the_own_one() {
    let place = Place::new().await;
    let (one, two) = (join(&place, "one").await.unwrap(), join(&place, "two").await.unwrap());
    assert_eq!((one.next_hint().await, two.next_hint().await), (Hint::Anything, Hint::Anything));
    let hints = [Hint::New(vessel("tern")), Hint::Hurry(tern()), Hint::Pauses, Hint::Notices, Hint::Locations];
    one.send_hints(&hints).await.unwrap();
    two.send_hints(&[Hint::Shares]).await.unwrap();
    for hint in hints {
        assert_eq!(two.next_hint().await, hint);
    }
    assert_eq!(one.next_hint().await, Hint::Shares);
    one.close().await.unwrap();
    two.close().await.unwrap();
}

#[tokio::test]
async fn only_vessels_with_open_deliveries_or_parts_have_work() {
    let place = Place::new().await;
    let one = join(&place, "one").await.unwrap();
    let with_work = async || one.with_work(vec![VesselName::new("gull"), tern()]).await.unwrap();
    assert!(with_work().await.is_empty());
    one.admit(&docs(), &[file("a", "one", 1)], &[tern()]).await.unwrap();
    assert_eq!(with_work().await, [tern()]);
    let due = one.next_due(&tern(), false, 1).await.unwrap();
    assert!(one.enter(due[0].id, DeliveryState::Uploading).await.unwrap());
    one.vanished(&docs(), std::slice::from_ref(&due[0].version.path)).await.unwrap();
    assert_eq!(with_work().await, [tern()], "the begun file is on the vessel");
    let remains = one.remains(&tern(), DeliveryId(0), 1).await.unwrap();
    one.swept(remains[0].delivery).await.unwrap();
    assert!(with_work().await.is_empty());
    one.admit(&docs(), &[file("b", "one", 2)], &[tern()]).await.unwrap();
    let due = one.next_due(&tern(), false, 1).await.unwrap();
    assert!(one.acknowledge(due[0].id, Verified::ByVessel).await.unwrap());
    assert!(with_work().await.is_empty());
    one.close().await.unwrap();
}

/// Versions whose last deliveries are acknowledged by two shores at the same moment become complete.
#[tokio::test]
async fn updates_of_several_shores_run_one_after_the_other() {
    let place = Place::new().await;
    let (one, two) = (join(&place, "one").await.unwrap(), join(&place, "two").await.unwrap());
    let gull = VesselName::new("gull");
    for round in 0..50_u64 {
        let name = round.to_string();
        one.admit(&docs(), &[file(&name, "one", round)], &[tern(), gull.clone()]).await.unwrap();
        let (to_tern, to_gull) = (one.next_due(&tern(), false, 1).await, two.next_due(&gull, false, 1).await);
        let (to_tern, to_gull) = (to_tern.unwrap(), to_gull.unwrap());
        let (first, second) = tokio::join!(
            one.acknowledge(to_tern[0].id, Verified::ByVessel),
            two.acknowledge(to_gull[0].id, Verified::ByVessel)
        );
        assert!(first.unwrap() && second.unwrap());
        let complete = one.retirable(&docs(), crate::records::VersionId(0), 1000).await.unwrap();
        assert_eq!(complete.len() as u64, round + 1);
    }
    one.close().await.unwrap();
    two.close().await.unwrap();
}
