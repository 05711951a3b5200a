//! The bytes on the link: what is counted is what the link carried, and no restart loses it.

use serde_json::Value;

use crate::fleet::Fleet;
use crate::fleet::content::{MIB, content};
use crate::fleet::proxy::Proxy;
use crate::fleet::wait::{wait_for, wait_until};
use crate::fleet::web::{get, metric, page_of};

/// The status of a vessel.
#[track_caller]
fn vessel(fleet: &Fleet, name: &str) -> Value {
    let ended = fleet.call(&["status", "--json"], "");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let document: Value = serde_json::from_str(&ended.stdout).unwrap();
    document["vessels"].as_array().unwrap().iter().find(|vessel| vessel["name"] == name).unwrap().clone()
}

/// The receipts of a fleet.
#[track_caller]
fn receipts(fleet: &Fleet) -> Vec<Value> {
    let ended = fleet.call(&["receipts", "--json"], "");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn sent(bytes: &Value) -> u64 {
    bytes["sent"].as_u64().unwrap_or(0)
}

/// Checks that the bytes counted for a vessel are those of its link.
#[track_caller]
fn assert_counted(fleet: &Fleet, name: &str, link: &Proxy) {
    let counted = vessel(fleet, name)["link_bytes"].clone();
    let (carried, back) = (link.sent(), link.received());
    println!("counted {counted}, carried {carried} there and {back} back");
    // The link counts bytes without headers. On this host, packets are large and headers few.
    assert!(sent(&counted).abs_diff(carried) <= carried * 3 / 100, "{counted}, but the link carried {carried}");
    let received = counted["received"].as_u64().unwrap();
    // What comes back is mostly headers: acknowledgements of what is sent.
    assert!(received >= back && received <= back + carried / 50, "{counted}, but the link carried {back} back");
}

#[test]
fn what_is_counted_is_what_the_link_carried() {
    let plan = Fleet::new().monster("Listen", "127.0.0.1:0").openssh("far").proxied();
    let Some(fleet) = plan.start() else { return };
    let daemon = fleet.run();
    let files = [("large", 8 * MIB), ("small", 10_000), ("empty", 0)];
    files.iter().for_each(|(name, size)| fleet.put(name, &content(1, *size)));
    files.iter().for_each(|(name, _)| fleet.wait_until_retired(name));
    assert_counted(&fleet, "far", fleet.vessel("far").link());
    let total = vessel(&fleet, "far")["link_bytes"].clone();
    let total = sent(&total) + total["received"].as_u64().unwrap();
    let metrics = get(&page_of(&daemon), "/metrics").body;
    assert!(metric(&metrics, "contentmonster_link_sent_bytes_total{vessel=\"far\"}") > 8 * MIB as u64);
    assert!(metric(&metrics, "contentmonster_link_received_bytes_total{vessel=\"far\"}") > 0);
    metric(&metrics, "contentmonster_link_resent_bytes_total{vessel=\"far\"}");
    let receipts = receipts(&fleet);
    println!("{receipts:?}");
    let cost = |name: &str| {
        let receipt = receipts.iter().find(|receipt| receipt["file"] == name).unwrap();
        (receipt["written_bytes"].as_u64().unwrap(), receipt["link_bytes"].as_u64().unwrap())
    };
    files.iter().for_each(|(name, size)| assert_eq!(cost(name).0, *size as u64, "{name}"));
    let shares: u64 = files.iter().map(|(name, _)| cost(name).1).sum();
    assert!(cost("large").1 > 8 * MIB as u64 && cost("empty").1 > 0, "{receipts:?}");
    assert!(shares <= total && total - shares <= total * 3 / 100, "{shares} of {total}");
    fleet.call(&["why", "in/large"], "").must_say(&["wrote 8.00 MiB of the file", "on the link for this delivery: 8."]);
    fleet.call(&["receipts"], "").must_say(&["in/large", "bytes on the link"]);
    wait_until("the ledger to have it", || sent(&vessel(&fleet, "far")["link_bytes_today"]) > 8 * MIB as u64);
    fleet.call(&["status"], "").must_say(&["far", "connected", "8.", "MiB"]);
    daemon.terminate();
}

#[test]
fn through_a_hop_the_bytes_are_counted_once() {
    let plan = Fleet::new().openssh("inner").openssh("hop").proxied();
    let Some(fleet) = plan.start() else { return };
    crate::hops::through(&fleet, &["hop"]);
    let daemon = fleet.run();
    fleet.put("large", &content(1, 8 * MIB));
    fleet.wait_until_retired("large");
    assert_counted(&fleet, "inner", fleet.vessel("hop").link());
    daemon.terminate();
}

#[test]
fn a_connection_that_is_cut_takes_no_count_along() {
    let plan = Fleet::new().monster("ChunkSize", "1 MiB").openssh("far").proxied();
    let Some(fleet) = plan.start() else { return };
    let (bytes, link) = (content(1, 16 * MIB), fleet.vessel("far").link());
    link.limit(8 * MIB as u64);
    let daemon = fleet.run();
    fleet.put("large", &bytes);
    wait_until("a third to be sent", || link.sent() > 5 * MIB as u64);
    link.cut();
    link.limit(0);
    fleet.wait_until_retired("large");
    let counted = sent(&vessel(&fleet, "far")["link_bytes"]);
    // Some of what was sent was still on its way to the link when it was cut.
    assert!(counted >= link.sent() && counted < link.sent() + 8 * MIB as u64, "{counted}, {}", link.sent());
    // Bytes that were written again count again, also those that the connection lost before it sent them.
    let receipt = &receipts(&fleet)[0];
    let written = receipt["written_bytes"].as_u64().unwrap();
    assert!(written >= 16 * MIB as u64 && written < 24 * MIB as u64, "{receipt}");
    assert!(receipt["link_bytes"].as_u64().unwrap() >= 16 * MIB as u64, "{receipt}");
    daemon.terminate();
}

#[test]
fn what_was_counted_today_survives_a_kill_and_a_clean_stop() {
    let Some(fleet) = Fleet::new().openssh("far").proxied().start() else { return };
    let today = || sent(&vessel(&fleet, "far")["link_bytes_today"]);
    let daemon = fleet.run();
    fleet.put("one", &content(1, 8 * MIB));
    fleet.wait_until_retired("one");
    let before = wait_for("the ledger to have it", || Some(today()).filter(|sent| *sent > 8 * MIB as u64));
    daemon.kill9();
    let idle = vessel(&fleet, "far");
    assert!(idle["link_bytes"].is_null() && sent(&idle["link_bytes_today"]) >= before, "{idle}");
    let daemon = fleet.run();
    fleet.put("two", &content(2, 8 * MIB));
    fleet.wait_until_retired("two");
    let since = sent(&vessel(&fleet, "far")["link_bytes"]);
    assert!((8 * MIB as u64..9 * MIB as u64).contains(&since), "only this run counts: {since}");
    // A clean stop records the rest.
    daemon.terminate();
    let (carried, recorded) = (fleet.vessel("far").link().sent(), today());
    assert!(recorded.abs_diff(carried) <= carried * 3 / 100, "{recorded}, but the link carried {carried}");
}
