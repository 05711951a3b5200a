//! The settings of a link do what they say: congestion control, compression, rate limits.

use std::time::{Duration, Instant};

use crate::fleet::Fleet;
use crate::fleet::content::{MIB, content};

/// Bytes that shrink to a small part.
fn compressible(size: usize) -> Vec<u8> {
    b"wind from the west, force 4, visibility good; ".iter().copied().cycle().take(size).collect()
}

#[test]
fn a_vessels_rate_limit_holds_for_it_and_for_no_other() {
    let plan = Fleet::new().openssh("slow").key("RateLimit", "00:00-24:00 1 MiB/s, none").openssh("fast");
    let Some(fleet) = plan.start() else { return };
    let daemon = fleet.run();
    ["slow", "fast"].into_iter().for_each(|vessel| drop(daemon.wait_for_log(&[vessel, "connected"])));
    let bytes = content(1, 3 * MIB);
    let start = Instant::now();
    fleet.put("cargo", &bytes);
    fleet.wait_until_served("slow", "cargo", &bytes);
    let taken = start.elapsed();
    assert!(taken >= Duration::from_secs(2), "3 MiB at 1 MiB/s took {taken:?}");
    fleet.wait_until_retired("cargo");
    let delivered: Vec<_> = daemon.log().into_iter().filter(|line| line.contains("delivered")).collect();
    assert!(delivered[0].contains("fast") && delivered[1].contains("slow"), "{delivered:?}");
    daemon.terminate();
}

#[test]
fn the_shores_rate_limit_holds_for_all_vessels_together() {
    let plan = Fleet::new().monster("RateLimit", "1 MiB/s").openssh("a").openssh("b").key("RateLimit", "1 GiB/s");
    let Some(fleet) = plan.start() else { return };
    let bytes = content(1, 3 * MIB / 2);
    fleet.put("cargo", &bytes);
    let start = Instant::now();
    let done = fleet.once();
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(start.elapsed() >= Duration::from_secs(2), "2 x 1.5 MiB at 1 MiB/s took {:?}", start.elapsed());
    ["a", "b"].into_iter().for_each(|vessel| fleet.assert_equal(vessel, "cargo", &bytes));
}

#[test]
fn compression_saves_what_can_be_saved_and_changes_no_byte() {
    let plan = Fleet::new().openssh("open").key("Compression", "yes").proxied();
    let plan = plan.dropbear("drop").key("Compression", "yes").proxied().openssh("plain").proxied();
    let Some(fleet) = plan.start() else { return };
    // The stream begins anew with each change of keys, of which there will be some.
    fleet.vessel("open").configure("RekeyLimit 1M");
    let files = [("text", compressible(12 * MIB + 1)), ("noise", content(1, 3 * MIB)), ("empty", Vec::new())];
    files.iter().for_each(|(name, bytes)| fleet.put(name, bytes));
    let daemon = fleet.run();
    for (name, bytes) in &files {
        fleet.wait_until_retired(name);
        ["open", "drop", "plain"].into_iter().for_each(|vessel| fleet.assert_equal(vessel, name, bytes));
    }
    let [open, drop, plain] = ["open", "drop", "plain"].map(|vessel| fleet.vessel(vessel).link().sent());
    println!("sent to open: {open}, drop: {drop}, plain: {plain}");
    assert!(plain > 15 * MIB as u64, "{plain}");
    assert!(open < 4 * MIB as u64, "{open} bytes were sent for 3 MiB of noise and text that shrinks");
    daemon.wait_for_log(&["open", "connected", "compression=true"]);
    daemon.wait_for_log(&["plain", "connected", "compression=false"]);
    // Dropbear may be built without it.
    let offered = daemon.logged(&["drop", "connected", "compression=true"]).is_some();
    assert_eq!(offered, drop < 4 * MIB as u64, "{drop}");
    daemon.terminate();
    fleet.call(&["check"], "").must_say(&["ok", "open", "compression zlib"]);
}

#[test]
fn compression_that_the_vessel_does_not_offer_is_done_without_and_said_by_check() {
    let plan = Fleet::new().openssh("open").key("Compression", "yes");
    let Some(fleet) = plan.start() else { return };
    fleet.vessel("open").configure("Compression no");
    fleet.put("cargo", b"cargo");
    assert_eq!(fleet.once().code, Some(0));
    fleet.assert_equal("open", "cargo", b"cargo");
    let checked = fleet.call(&["check"], "");
    checked.must_say(&["note", "open", "nothing is compressed"]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
}

#[test]
fn a_named_congestion_control_is_used_and_shown() {
    let plan = Fleet::new().openssh("named").key("CongestionControl", "reno");
    let plan = plan.openssh("system").key("CongestionControl", "system").dropbear("auto");
    let Some(fleet) = plan.start() else { return };
    let daemon = fleet.run();
    daemon.wait_for_log(&["named", "connected", "congestion_control=\"reno\""]);
    let system = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap();
    daemon.wait_for_log(&["system", "connected", &format!("congestion_control={:?}", system.trim())]);
    daemon.wait_for_log(&["auto", "connected"]);
    assert!(daemon.logged(&["warn"]).is_none(), "auto is content with what there is: {:?}", daemon.log());
    daemon.terminate();
    let checked = fleet.call(&["check"], "");
    checked.must_say(&["ok", "named", "congestion control reno"]);
    // Either it is in use, or check says how to allow it.
    checked.must_say(&["auto", "congestion control", "bbr"]);
}

#[test]
fn a_congestion_control_that_is_refused_is_a_warning_with_its_remedy() {
    let plan = Fleet::new().openssh("open").key("CongestionControl", "no_such");
    let Some(fleet) = plan.start() else { return };
    let daemon = fleet.run();
    let warning = daemon.wait_for_log(&["warn", "open", "CongestionControl", "modprobe tcp_no_such"]);
    fleet.put("cargo", b"cargo");
    fleet.wait_until_retired("cargo");
    let said = daemon.log().into_iter().filter(|line| *line == warning).count();
    assert_eq!(said, 1, "once per connection");
    daemon.terminate();
    fleet.call(&["check"], "").must_say(&["note", "open", "modprobe tcp_no_such"]);
}
