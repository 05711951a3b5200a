//! Vessels that are reached through other hosts: `ProxyJump`, one hop and several, and what goes wrong on the way.

use std::fs;

use crate::fleet::Fleet;
use crate::fleet::content::{MIB, content, text};
use crate::fleet::plan::FleetPlan;
use crate::fleet::vessel::{PASSWORD, Vessel};
use crate::fleet::wait::wait_until;

/// Has the settings lead to `inner` through these vessels, the nearest first; they are vessels no more.
pub(crate) fn through(fleet: &Fleet, hops: &[&str]) {
    let text = fs::read_to_string(fleet.settings()).unwrap();
    let is_hop = |section: &&str| hops.iter().any(|hop| section.starts_with(&format!("Vessel {hop}]")));
    let sections: Vec<_> = text.split("\n[").filter(|section| !is_hop(section)).collect();
    let way: Vec<_> = hops.iter().map(|hop| format!("root@127.0.0.1:{}", fleet.vessel(hop).port())).collect();
    let inner = "[Vessel inner]\n";
    let text = sections.join("\n[").replace(inner, &format!("{inner}ProxyJump = {}\n", way.join(", ")));
    fleet.write_settings(&text);
}

/// `inner` behind the vessel `hop`, which is reached over a link that counts.
fn behind_a_hop(plan: FleetPlan) -> Option<Fleet> {
    let fleet = plan.openssh("hop").proxied().start()?;
    through(&fleet, &["hop"]);
    Some(fleet)
}

#[test]
fn files_go_through_one_hop_and_through_two() {
    for hops in [&["near"][..], &["near", "far"]] {
        let plan = Fleet::new().openssh("inner").openssh("far").openssh("near").proxied();
        let Some(fleet) = plan.start() else { return };
        through(&fleet, hops);
        if hops.len() == 1 {
            fleet.vessel("far").stop();
        }
        let files = [("empty", Vec::new()), ("small", content(1, 70_000)), ("large", content(2, 25 * MIB))];
        let text = fs::read_to_string(fleet.settings()).unwrap().split("\n[Vessel far]").next().unwrap().to_owned();
        fleet.write_settings(&format!("{text}\n"));
        files.iter().for_each(|(name, bytes)| fleet.put(name, bytes));
        let done = fleet.once();
        assert_eq!(done.code, Some(0), "{done:?}");
        files.iter().for_each(|(name, bytes)| fleet.assert_equal("inner", name, bytes));
        fleet.assert_tidy("inner");
        let sent = fleet.vessel("near").link().sent();
        assert!(sent > 25 * MIB as u64, "it all went through the hop, not past it: {sent}");
        let checked = fleet.call(&["check"], "");
        checked.must_say(&["ok", "inner", "hop 127.0.0.1", "root@127.0.0.1", &fleet.vessel("near").port().to_string()]);
        checked.must_say(&["ok", "inner", "congestion control"]);
        assert_eq!(checked.code, Some(0), "{checked:?}");
    }
}

#[test]
fn ssh_compresses_on_a_long_way_to_a_vessel_that_expands_nothing() {
    let plan = Fleet::new().openssh("inner").key("Compression", "auto").key("Assembly", "direct");
    let Some(fleet) = behind_a_hop(plan) else { return };
    let (link, words) = (fleet.vessel("hop").link(), text(1, 2 * MIB));
    link.lengthen(30);
    fleet.put("long way", &words);
    let done = fleet.once();
    assert_eq!(done.code, Some(0), "{done:?}");
    done.must_say(&["inner", "connected", "compression=true"]);
    let sent = link.sent();
    assert!(sent < words.len() as u64 * 6 / 10, "{sent}");
    fleet.assert_equal("inner", "long way", &words);
}

#[test]
fn many_small_files_go_through_a_hop() {
    let Some(fleet) = behind_a_hop(Fleet::new().openssh("inner")) else { return };
    let files: Vec<_> = (0..600).map(|n| (format!("file{n}"), content(n, 3000))).collect();
    files.iter().for_each(|(name, bytes)| fleet.put(name, bytes));
    let done = fleet.once();
    assert_eq!(done.code, Some(0), "{done:?}");
    files.iter().for_each(|(name, bytes)| fleet.assert_equal("inner", name, bytes));
}

#[test]
fn a_hop_that_dies_in_the_middle_and_comes_back_costs_only_what_was_in_flight() {
    let Some(fleet) = behind_a_hop(Fleet::new().openssh("inner")) else { return };
    let size = 64 * MIB;
    let bytes = content(3, size);
    let link = fleet.vessel("hop").link();
    link.limit(16 * MIB as u64);
    fleet.put("big", &bytes);
    let daemon = fleet.run();
    wait_until("a third of the file to be sent", || link.sent() > size as u64 / 3);
    fleet.vessel("hop").stop();
    daemon.wait_for_log(&["warn", "inner", "hop"]);
    assert!(fleet.held("inner", "big").is_none(), "a name appears with complete bytes only");
    link.limit(0);
    fleet.vessel("hop").start();
    fleet.wait_until_served("inner", "big", &bytes);
    fleet.wait_until_retired("big");
    fleet.wait_until_tidy("inner");
    let sent = link.sent();
    println!("{} MiB were sent for {} MiB", sent / MIB as u64, size / MIB);
    assert!(sent < (size + 40 * MIB) as u64, "{sent} bytes were sent for {size}");
    daemon.terminate();
}

#[test]
fn a_link_to_a_hop_that_falls_silent_is_replaced() {
    let Some(fleet) = behind_a_hop(Fleet::new().openssh("inner")) else { return };
    let size = 48 * MIB;
    let bytes = content(4, size);
    let link = fleet.vessel("hop").link();
    link.limit(16 * MIB as u64);
    fleet.put("big", &bytes);
    let daemon = fleet.run();
    wait_until("a third of the file to be sent", || link.sent() > size as u64 / 3);
    link.stall();
    daemon.wait_for_log(&["inner", "stopped answering; the connection was replaced"]);
    link.limit(0);
    fleet.wait_until_served("inner", "big", &bytes);
    daemon.terminate();
}

#[test]
fn what_goes_wrong_at_a_hop_is_told_of_the_hop() {
    let Some(fleet) = behind_a_hop(Fleet::new().openssh("inner")) else { return };
    let hop = fleet.vessel("hop");
    let at = format!("the hop 127.0.0.1:{}", hop.port());

    hop.configure("AllowTcpForwarding no");
    fleet.checked_unfit().must_say(&["BAD", "inner", &at, "forwarding to", "AllowTcpForwarding local"]);
    hop.configure("AllowTcpForwarding local\nPermitOpen 127.0.0.1:1");
    fleet.checked_unfit().must_say(&["BAD", "inner", &at, "forwarding to", "PermitOpen"]);
    hop.configure("PermitOpen any");

    fleet.vessel("inner").stop();
    let inner = format!("127.0.0.1:{}", fleet.vessel("inner").port());
    fleet.checked_unfit().must_say(&[
        "BAD",
        "inner",
        &format!("{inner} can't be reached"),
        &at,
        "cannot connect to it",
    ]);
    fleet.vessel("inner").start();

    hop.authorize("");
    fleet.checked_unfit().must_say(&[
        "BAD",
        &at,
        "refuses the login of root",
        "IdentityFile",
        "authorized_keys on the hop",
    ]);
    hop.stop();
    fleet.checked_unfit().must_say(&["BAD", "inner", &at]);
}

#[test]
fn a_hop_is_checked_for_its_own_host_key_and_trust_shows_both() {
    let Some(fleet) = behind_a_hop(Fleet::new().openssh("inner")) else { return };
    let known = fs::read_to_string(fleet.known_hosts()).unwrap();
    fs::write(fleet.known_hosts(), "").unwrap();
    let at = format!("the hop 127.0.0.1:{}", fleet.vessel("hop").port());
    fleet.checked_unfit().must_say(&["BAD", "inner", &at, "unknown host key", "trust inner"]);

    let trusted = fleet.call(&["trust", "inner"], "yes\nyes\n");
    assert_eq!(trusted.code, Some(0), "{trusted:?}");
    let [hop, inner] = ["hop", "inner"].map(|vessel| fleet.vessel(vessel).fingerprint());
    trusted.must_say(&[&hop]);
    trusted.must_say(&[&inner]);
    assert_eq!(fleet.call(&["check"], "").code, Some(0));

    let lines = |vessel: &Vessel| vessel.known_hosts_line();
    let other_key = lines(fleet.vessel("inner")).split_once(' ').unwrap().1.to_owned();
    let forged = format!("[127.0.0.1]:{} {other_key}", fleet.vessel("hop").port());
    fs::write(fleet.known_hosts(), format!("{}{forged}", lines(fleet.vessel("inner")))).unwrap();
    fleet.checked_unfit().must_say(&[
        "BAD",
        "inner",
        &at,
        "has another",
        "known_hosts:2",
        "if the hop was set up again",
    ]);
    fs::write(fleet.known_hosts(), known).unwrap();
    assert_eq!(fleet.call(&["check"], "").code, Some(0));
}

#[test]
fn a_hop_is_left_when_it_leads_nowhere() {
    let Some(fleet) = behind_a_hop(Fleet::new().openssh("inner")) else { return };
    fs::write(fleet.known_hosts(), fleet.vessel("hop").known_hosts_line()).unwrap();
    let daemon = fleet.run();
    daemon.wait_for_log(&["warn", "inner", "unknown host key"]);
    // One of them listens for more.
    wait_until("the connection to the hop to end", || fleet.vessel("hop").processes("sshd").len() == 1);
    daemon.terminate();
}

#[test]
fn a_hop_is_never_sent_the_vessels_password() {
    let plan = Fleet::new().openssh("inner").without_key().key("Password", PASSWORD);
    let Some(fleet) = behind_a_hop(plan) else { return };
    fleet.put("cargo", b"cargo");
    assert_eq!(fleet.once().code, Some(0), "the hop takes the key, the vessel the password");
    fleet.assert_equal("inner", "cargo", b"cargo");
    fleet.vessel("hop").authorize("");
    fleet.checked_unfit().must_say(&["BAD", "the hop", "refuses the login", "the server accepts publickey, password"]);
}
