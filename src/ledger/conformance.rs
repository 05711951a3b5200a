//! Conformance tests for every [`Store`], independent of the database: one test case for each fact that the workflows
//! rely on.
//!
//! A test case gets an empty store and the [`Hands`] that set the store's clock. [`for_each_case`] passes the names of
//! all cases to a macro of the store, which makes a `#[test]` of each case. No case uses SQL, so the cases test only
//! the behaviour that [`Store`] shows.

mod at_once;
mod deliveries;
mod link_usage;
mod mounts;
mod moves;
mod notifications;
mod people;
mod places;
mod queue_pages;
mod queues;
mod signatures;
mod survival;
mod versions;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use super::{CurrentVersion, Store};
use crate::clock::Clock;
use crate::digest::Digest;
use crate::names::{DirectoryName, RelPath, VesselName};
use crate::records::{
    Backlog, Delivery, DeliveryState, Entry, FileStamp, NewVersion, Traits, Verified, Version, VersionId, VersionKind,
};

/// Calls the macro `$make_tests` with the names of all test cases.
macro_rules! for_each_case {
    ($make_tests:ident) => {
        $make_tests! {
            admitting_twice_is_one_version,
            one_file_among_many_that_can_not_be_new_does_not_hide_the_others,
            the_last_of_two_versions_of_a_path_in_one_batch_stays,
            a_changed_file_supersedes_what_is_open_and_keeps_what_is_acknowledged,
            a_file_changed_back_is_a_new_version,
            directories_do_not_meet,
            only_what_every_vessel_acknowledged_is_retirable,
            retirable_versions_come_in_batches,
            retiring_ends_a_version_once,
            what_is_not_complete_any_more_is_not_retired,
            a_version_that_nobody_takes_is_never_complete,
            an_added_vessel_makes_a_version_incomplete_again,
            a_removed_vessel_completes_what_another_acknowledged,
            a_removed_vessel_retires_nothing_that_nobody_acknowledged,
            a_vessel_that_returns_is_served_at_once,
            reconciling_takes_any_vessel_name_and_leaves_other_directories,
            reconciling_twice_changes_nothing,
            what_was_admitted_for_other_vessels_is_fitted_again,
            current_versions_are_read_part_by_part,
            a_vanished_source_drops_what_is_open_and_is_counted,
            a_vanished_source_that_was_complete_counts_as_retired,
            a_path_that_vanished_can_come_back,
            directories_and_links_survive_and_never_retire,
            another_mode_owner_or_kind_is_another_version,
            what_is_gone_is_delivered_and_then_no_concern_any_more,
            what_is_gone_from_all_that_stay_ends_with_the_vessel_that_goes,
            what_is_skipped_goes_to_nobody_and_is_deleted_once_it_is_gone,
            what_a_vessel_may_hold_is_told_last_first,
            what_lies_below_is_told_apart_from_what_only_begins_alike,
            what_is_longest_due_comes_first,
            large_and_small_files_are_asked_for_apart,
            a_delivery_put_off_hides_until_it_is_due,
            failures_in_a_row_are_counted,
            parked_deliveries_are_counted_and_listed_with_their_reason,
            hurry_brings_back_what_was_put_off_for_one_vessel,
            a_state_that_was_entered_is_found_again,
            a_superseded_delivery_is_neither_entered_nor_acknowledged_nor_put_off,
            acknowledging_twice_is_acknowledging_once,
            an_acknowledged_delivery_goes_back_to_no_other_state,
            only_what_was_touched_and_superseded_remains,
            remains_are_given_in_batches_until_they_are_swept,
            sweeping_late_does_not_hide_what_was_sent_again,
            a_delivery_is_open_until_it_is_acknowledged_or_superseded,
            the_backlog_counts_for_each_vessel,
            any_path_survives,
            any_number_survives,
            a_version_may_be_hashed_after_it_was_admitted,
            a_signature_is_found_for_the_vessel_that_got_its_version_last,
            signatures_that_no_vessel_needs_are_dropped,
            other_files_are_found_by_their_blocks,
            what_a_failed_attempt_copied_is_not_in_the_receipt,
            version_numbers_are_never_used_twice,
            many_calls_at_once_lose_nothing,
            a_call_that_is_cut_off_leaves_the_store_usable,
            of_calls_at_once_each_gets_its_own_answer,
            the_same_delivery_in_several_calls_at_once_is_entered_once,
            different_entries_at_once_do_not_mix,
            callers_that_go_away_take_nobody_along,
            what_a_caller_gave_up_does_not_undo_what_came_after,
            the_summary_counts_by_vessel_and_by_directory,
            the_oldest_waiting_file_is_named_for_each_vessel,
            what_was_retired_today_is_counted,
            a_retried_delivery_is_due_at_once_and_has_all_its_attempts_again,
            a_forgotten_file_is_sent_to_nobody_until_it_changes,
            a_forgotten_file_that_some_vessels_have_never_retires,
            only_what_is_still_to_be_delivered_can_be_forgotten,
            a_paused_vessel_stays_paused,
            a_pause_ends_at_its_time_and_keeps_its_note,
            a_paused_directory_is_recorded_with_its_note,
            the_latest_receipts_are_found_by_vessel_and_by_text,
            the_queue_is_listed_in_the_order_in_which_it_is_due,
            queues_are_listed_in_the_order_in_which_they_are_sent,
            a_filter_changes_neither_the_order_of_the_queue_nor_what_its_pages_hold,
            a_list_goes_on_between_deliveries,
            what_was_put_off_is_counted_and_the_next_to_be_tried_is_named,
            why_a_vessel_is_away_is_kept_until_it_is_back,
            receipts_come_in_the_order_of_the_acknowledgements,
            a_history_lists_all_versions_and_deliveries,
            nothing_is_noted_where_nobody_listens,
            who_listens_is_told_of_all_once,
            a_parked_delivery_is_told_once_for_each_reason,
            a_source_that_vanished_when_all_had_it_is_told_as_retired,
            an_acknowledgement_for_an_earlier_place_is_not_told,
            retired_files_are_found_by_what_they_are_called_now,
            what_tells_what_a_vessel_holds_is_not_forgotten,
            a_place_that_is_entered_first_is_the_one_everything_went_to,
            another_place_makes_all_that_is_held_there_due,
            what_retired_is_not_delivered_to_another_place,
            what_is_acknowledged_for_an_earlier_place_does_not_count,
            what_went_to_an_earlier_place_is_not_held_at_the_new_one,
            a_host_is_known_by_its_key_wherever_it_is,
            a_directory_of_many_files_is_fitted_in_steps_and_wholly,
            what_waits_longest_goes_first_to_an_added_vessel,
            what_was_lost_is_sent_once_more,
            what_a_file_looks_like_on_its_vessel_is_kept,
            a_clock_that_was_put_back_makes_nobody_wait_longer,
            mounts_are_remembered_for_each_directory,
            what_had_another_path_is_found_by_its_stamp,
            what_was_moved_and_changed_is_found_by_its_inode,
            a_path_is_moved_away_only_while_it_holds_what_moved,
            what_deletes_or_replaces_a_source_waits_for_the_move,
            files_that_swap_their_names_do_not_wait_for_each_other,
            a_moved_tree_is_delivered_first_and_acknowledged_whole,
            copies_are_found_by_digest_or_by_size,
            bytes_on_the_link_are_summed_by_vessel_and_day,
            bytes_are_also_summed_by_way,
            a_share_of_a_budget_is_told_once_in_a_period,
            a_ceiling_is_lowered_only_by_whoever_knows_it,
            sums_of_long_ago_are_forgotten,
            the_cost_of_a_delivery_is_the_sum_of_its_attempts,
            costs_of_calls_at_once_do_not_mix,
            the_rate_of_a_path_is_remembered_with_its_time,
            a_queue_gives_its_files_in_its_order,
            what_failed_in_a_queue_comes_after_all_others_once_it_is_due,
            what_begins_anew_in_a_queue_has_its_place_in_the_order_again,
            a_directory_that_is_not_configured_any_more_has_no_queue,
            what_a_vessel_has_not_received_in_time_expires,
            what_is_being_published_does_not_expire_and_what_arrives_late_counts,
            an_expired_version_stays_expired_and_a_new_one_is_sent,
        }
    };
}
pub(super) use at_once::*;
pub(super) use deliveries::*;
pub(super) use for_each_case;
pub(super) use link_usage::*;
pub(super) use mounts::*;
pub(super) use moves::*;
pub(super) use notifications::*;
pub(super) use people::*;
pub(super) use places::*;
pub(super) use queue_pages::*;
pub(super) use queues::*;
pub(super) use signatures::*;
pub(super) use survival::*;
pub(super) use versions::*;

/// Time at which the clock of every test case starts, in milliseconds since 1970.
const START: i64 = 1_700_000_000_000;

/// The hands of a clock. The time of this clock changes only when a test calls [`Self::forward`].
#[derive(Clone)]
pub(super) struct Hands(Arc<AtomicI64>);

impl Hands {
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicI64::new(START)))
    }

    pub(super) fn clock(&self) -> Clock {
        let hands = self.clone();
        Clock::from_fn(move || UNIX_EPOCH + Duration::from_millis(hands.now().cast_unsigned()))
    }

    pub(super) fn now(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    pub(super) fn forward(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

fn docs() -> DirectoryName {
    DirectoryName::new("docs")
}

fn vessel(name: &str) -> VesselName {
    VesselName::new(name)
}

fn vessels<const N: usize>(names: [&str; N]) -> Vec<VesselName> {
    names.into_iter().map(VesselName::new).collect()
}

fn path(bytes: impl AsRef<[u8]>) -> RelPath {
    RelPath::new(bytes.as_ref()).unwrap()
}

/// Returns a file of one chunk; different values of `inode` make different files.
pub(super) fn file(at: impl AsRef<[u8]>, content: &str, inode: u64) -> NewVersion {
    let digest = Digest::of(content.as_bytes());
    let entry = Entry {
        path: path(at),
        kind: VersionKind::File,
        stamp: FileStamp { size: content.len() as u64, mtime: 1_600_000_000, mtime_nanos: 5, inode },
        mode: 0o644,
        owner: None,
        target: Vec::new(),
        digest: Some(digest),
        chunk_size: 100,
    };
    entry.into()
}

fn traits_of(new: &NewVersion) -> Traits {
    Traits { kind: new.kind, stamp: new.stamp, mode: new.mode, owner: new.owner }
}

async fn admit<const N: usize>(store: &dyn Store, version: NewVersion, to: [&str; N]) {
    store.admit(&docs(), &[version], &vessels(to)).await.unwrap();
}

/// Returns the due deliveries to a vessel: first those of small files, then those of large files.
async fn due(store: &dyn Store, name: &str) -> Vec<Delivery> {
    let mut due = store.next_due(&vessel(name), false, 100_000).await.unwrap();
    due.extend(store.next_due(&vessel(name), true, 100_000).await.unwrap());
    due
}

async fn only_due(store: &dyn Store, name: &str) -> Delivery {
    let mut due = due(store, name).await;
    assert_eq!(due.len(), 1, "{due:?}");
    due.remove(0)
}

fn paths_of(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(|delivery| delivery.version.path.to_string()).collect()
}

async fn due_paths(store: &dyn Store, name: &str) -> Vec<String> {
    paths_of(&due(store, name).await)
}

/// Acknowledges all due deliveries to a vessel.
async fn deliver(store: &dyn Store, name: &str) {
    for delivery in due(store, name).await {
        assert!(store.acknowledge(delivery.id, Verified::ByVessel).await.unwrap());
    }
}

async fn retirable(store: &dyn Store) -> Vec<Version> {
    store.retirable(&docs(), VersionId(0), 1000).await.unwrap()
}

async fn current_paths(store: &dyn Store) -> Vec<String> {
    let mut paths: Vec<_> = store.current(&docs()).await.unwrap().iter().map(|v| v.path.to_string()).collect();
    paths.sort();
    paths
}

async fn backlog_of(store: &dyn Store, name: &str) -> Option<Backlog> {
    store.backlog().await.unwrap().into_iter().find(|backlog| backlog.vessel == vessel(name))
}
