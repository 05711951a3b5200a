//! `Compression = auto`: files that shrink are sent compressed over slow links, the vessel's own program expands them,
//! and whatever goes wrong with that costs bytes and never a file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::fleet::Fleet;
use crate::fleet::content::{MIB, content, text};
use crate::fleet::plan::FleetPlan;
use crate::fleet::vessel::Vessel;
use crate::fleet::wait::wait_until;

const SIZE: usize = 24 * MIB;

/// A fleet with small chunks. The links and limits are so slow that the compressor is fast enough on a busy machine.
fn fleet() -> FleetPlan {
    Fleet::new().monster("ChunkSize", "4 MiB")
}

/// Lets a vessel with OpenSSH find these programs before its own. Each is a script that may use `$real`, the real
/// program, and `$armed`, a file that the returned path names.
fn disguise(vessel: &Vessel, programs: &[(&str, &str)]) -> PathBuf {
    let (bin, armed) = (vessel.etc("bin"), vessel.etc("armed"));
    fs::create_dir(&bin).unwrap();
    for (name, script) in programs {
        let text = format!("#!/bin/sh\nreal=/usr/bin/{name}; armed={armed:?}\n{script}\n");
        fs::write(bin.join(name), text).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    vessel.configure(&format!("SetEnv PATH={}:/usr/bin:/bin", bin.display()));
    armed
}

#[test]
fn text_takes_less_than_half_of_a_slow_link_and_noise_goes_as_it_is() {
    let plan = fleet().openssh("open").key("Compression", "auto").proxied();
    let plan = plan.dropbear("drop").key("Compression", "auto").proxied().openssh("plain").proxied();
    let Some(fleet) = plan.start() else { return };
    let vessels = ["open", "drop", "plain"];
    vessels.iter().for_each(|vessel| fleet.vessel(vessel).link().limit(4 * MIB as u64));
    let (words, noise) = (text(1, SIZE), content(2, 9 * MIB));
    let daemon = fleet.run();
    fleet.put("words", &words);
    fleet.wait_until_retired("words");
    let sent = vessels.map(|vessel| fleet.vessel(vessel).link().sent());
    println!("sent of {SIZE}: {sent:?} {vessels:?}");
    assert!(sent[0] < SIZE as u64 / 2 && sent[1] < SIZE as u64 / 2 && sent[2] > SIZE as u64, "{sent:?}");
    fleet.put("noise", &noise);
    fleet.wait_until_retired("noise");
    for vessel in vessels {
        fleet.assert_equal(vessel, "words", &words);
        fleet.assert_equal(vessel, "noise", &noise);
    }
    for vessel in ["open", "drop"] {
        daemon.wait_for_log(&["delivered", &format!("vessel={vessel}"), "words", "compressed=\"zstd\"", "sent="]);
        let noise = daemon.wait_for_log(&["delivered", &format!("vessel={vessel}"), "noise"]);
        assert!(!noise.contains("compressed"), "{noise}");
    }
    let plain = daemon.wait_for_log(&["delivered", "vessel=plain", "words"]);
    assert!(!plain.contains("compressed"), "{plain}");
    daemon.terminate();
    vessels.iter().for_each(|vessel| fleet.assert_tidy(vessel));
}

#[test]
fn a_rate_limit_counts_the_compressed_bytes() {
    let plan = fleet().openssh("open").key("Compression", "auto").key("RateLimit", "3 MiB/s").proxied();
    let Some(fleet) = plan.start() else { return };
    let words = text(3, SIZE);
    fleet.put("words", &words);
    let done = fleet.once();
    assert_eq!(done.code, Some(0), "{done:?}");
    fleet.assert_equal("open", "words", &words);
    // With a limit, the rate is known before anything is measured.
    let sent = fleet.vessel("open").link().sent();
    assert!(sent < SIZE as u64 * 4 / 10, "{sent}");
    done.must_say(&["delivered", "compressed=\"zstd\""]);
    fleet.assert_tidy("open");
}

#[test]
fn a_vessel_without_zstd_uses_gzip_and_one_without_either_gets_the_file_as_it_is() {
    let plan = fleet().openssh("gz").key("Compression", "auto").key("RateLimit", "2 MiB/s");
    let plan = plan.openssh("bare").key("Compression", "auto").key("RateLimit", "20 MiB/s");
    let Some(fleet) = plan.start() else { return };
    disguise(fleet.vessel("gz"), &[("zstd", "exit 127")]);
    disguise(fleet.vessel("bare"), &[("zstd", "exit 127"), ("gzip", "echo contentmonster no more")]);
    let words = text(4, SIZE);
    fleet.put("words", &words);
    let done = fleet.once();
    assert_eq!(done.code, Some(0), "{done:?}");
    ["gz", "bare"].iter().for_each(|vessel| fleet.assert_equal(vessel, "words", &words));
    done.must_say(&["delivered", "vessel=gz", "compressed=\"gzip\""]);
    assert!(!done.says(&["delivered", "vessel=bare", "compressed"]), "{done:?}");
    let checked = fleet.call(&["check"], "");
    checked.must_say(&["gz", "decompression: yes, by `gzip -dc`"]);
    checked.must_say(&["bare", "decompression: no"]);
}

#[test]
fn a_link_that_is_cut_costs_what_was_in_flight_of_a_compressed_file_too() {
    let plan = fleet().openssh("open").key("Compression", "auto").key("RateLimit", "3 MiB/s").proxied();
    let Some(fleet) = plan.start() else { return };
    let words = text(5, SIZE);
    let link = fleet.vessel("open").link();
    link.limit(3 * MIB as u64);
    let daemon = fleet.run();
    fleet.put("words", &words);
    for step in 1..4 {
        wait_until("more to be sent", || link.sent() > step * 3 * MIB as u64 / 2);
        link.cut();
    }
    fleet.wait_until_retired("words");
    fleet.assert_equal("open", "words", &words);
    let sent = link.sent();
    println!("{sent} of {SIZE} bytes were sent with three cuts");
    assert!(sent < SIZE as u64 / 2, "{sent}");
    daemon.wait_for_log(&["delivered", "compressed=\"zstd\""]);
    daemon.terminate();
    fleet.assert_tidy("open");
}

#[test]
fn a_program_that_is_killed_continues_with_the_parts_on_the_vessel() {
    let plan = fleet().openssh("open").key("Compression", "auto").key("RateLimit", "2 MiB/s").proxied();
    let Some(fleet) = plan.start() else { return };
    let words = text(6, SIZE);
    let daemon = fleet.run();
    fleet.put("words", &words);
    wait_until("half to be sent", || fleet.vessel("open").link().sent() > 3 * MIB as u64);
    daemon.kill9();
    let done = fleet.once();
    assert_eq!(done.code, Some(0), "{done:?}");
    fleet.assert_equal("open", "words", &words);
    let sent = fleet.vessel("open").link().sent();
    assert!(sent < SIZE as u64 * 4 / 10, "{sent}");
    fleet.assert_tidy("open");
}

/// Delivers text to a vessel whose `zstd` becomes this script once the vessel was probed. Returns what was logged.
fn with_zstd_that_later(script: &str) -> Vec<String> {
    let plan = fleet().openssh("open").key("Compression", "auto").key("RateLimit", "3 MiB/s");
    let Some(fleet) = plan.start() else { return Vec::new() };
    let armed = disguise(fleet.vessel("open"), &[("zstd", &format!("[ -e $armed ] || exec $real \"$@\"\n{script}"))]);
    let daemon = fleet.run();
    daemon.wait_for_log(&["connected", "decompresses zstd"]);
    fs::write(armed, "").unwrap();
    let words = text(7, SIZE / 2);
    fleet.put("words", &words);
    fleet.wait_until_retired("words");
    fleet.assert_equal("open", "words", &words);
    // The next file goes at once as it is, or compressed, as the last one ended.
    let more = text(8, 9 * MIB);
    fleet.put("more", &more);
    fleet.wait_until_retired("more");
    fleet.assert_equal("open", "more", &more);
    let log = daemon.log();
    daemon.terminate();
    fleet.assert_tidy("open");
    log
}

fn assert_fell_back(log: &[String]) {
    if log.is_empty() {
        return;
    }
    let says = |words: &[&str]| log.iter().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(says(&["cannot expand compressed parts", "sending them again uncompressed"]), "{log:#?}");
    assert!(!says(&["delivered", "more", "compressed"]), "{log:#?}");
}

#[test]
fn a_decompressor_that_fails_is_done_without_within_the_same_delivery() {
    assert_fell_back(&with_zstd_that_later("exit 1"));
}

#[test]
fn a_decompressor_that_prints_garbage_is_done_without_within_the_same_delivery() {
    assert_fell_back(&with_zstd_that_later("cat >/dev/null; echo garbage"));
}

#[test]
fn garbage_of_the_right_size_is_caught_by_the_hash_and_sent_again() {
    let log = with_zstd_that_later("$real \"$@\" | tr a-y b-z");
    assert!(log.is_empty() || log.iter().any(|line| line.contains("arrived damaged")), "{log:#?}");
}

#[test]
fn a_part_that_cannot_be_expanded_once_is_sent_compressed_again() {
    // Fails until it has failed for all attempts of one append.
    let script = "echo >>$armed; [ $(wc -l <$armed) -gt 4 ] && exec $real \"$@\"; exit 1";
    let log = with_zstd_that_later(script);
    if log.is_empty() {
        return;
    }
    let says = |words: &[&str]| log.iter().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(says(&["cannot expand compressed parts", "again compressed"]), "{log:#?}");
    assert!(says(&["delivered", "more", "compressed=\"zstd\""]), "{log:#?}");
}
