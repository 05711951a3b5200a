//! A changed file costs its changes, whatever way the vessel can copy what it has, and never more than its bytes are right.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::time::{Duration, SystemTime};

use crate::fleet::Fleet;
use crate::fleet::content::{MIB, content};
use crate::fleet::daemon::Daemon;
use crate::fleet::plan::FleetPlan;
use crate::fleet::wait::wait_until;

const SIZE: usize = 32 * MIB;
/// What commands, answers and a login cost beside the bytes.
const WRAPPING: u64 = 128 << 10;

/// A vessel on a link that counts, and a directory whose files are prepared for changes from the first one on.
fn counted(plan: FleetPlan) -> FleetPlan {
    plan.key("Connections", "1").proxied().directory("in").key("Delta", "yes").monster("ChunkSize", "8 MiB")
}

/// Has a version of `big` delivered; returns how many bytes that sent.
#[track_caller]
fn deliver(fleet: &Fleet, bytes: &[u8]) -> u64 {
    let link = fleet.vessel("tern").link();
    let before = link.sent();
    fleet.put("big", bytes);
    wait_until("the version to be delivered and retired", || !fleet.source("big").exists());
    let sent = link.sent() - before;
    fleet.assert_equal("tern", "big", bytes);
    println!("{} of {} KiB were sent", sent >> 10, bytes.len() >> 10);
    sent
}

fn changed_in_the_middle(bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    let middle = changed.len() / 2;
    changed[middle..middle + MIB].copy_from_slice(&content(seed, MIB));
    changed
}

/// Appends, changes in place, inserts, and says what each may cost.
fn changes_cost_little(plan: FleetPlan, prepare: impl Fn(&Fleet)) {
    let Some(fleet) = counted(plan).start() else { return };
    prepare(&fleet);
    let daemon = fleet.run();
    let first = content(51, SIZE);
    assert!(deliver(&fleet, &first) > SIZE as u64, "the first version is sent whole");
    let appended = [&first[..], &content(52, MIB)].concat();
    assert!(deliver(&fleet, &appended) < 2 * MIB as u64);
    let changed = changed_in_the_middle(&appended, 53);
    assert!(deliver(&fleet, &changed) < 2 * MIB as u64);
    let inserted = [&content(54, 1024)[..], &changed].concat();
    assert!(deliver(&fleet, &inserted) < (SIZE / 20) as u64);
    assert!(deliver(&fleet, &inserted[..SIZE / 2]) < WRAPPING + (256 << 10), "what is cut off costs next to nothing");
    fleet.wait_until_tidy("tern");
    assert!(daemon.logged(&["warn"]).is_none(), "{:?}", daemon.log());
    daemon.terminate();
}

#[test]
fn a_changed_file_costs_its_changes_where_sftp_copies() {
    changes_cost_little(Fleet::new().openssh("tern"), |_| {});
}

#[test]
fn a_changed_file_costs_its_changes_where_a_command_copies() {
    changes_cost_little(Fleet::new().openssh("tern"), without_copy_data);
}

#[test]
fn a_changed_file_costs_its_changes_without_a_shell() {
    // What is read back comes the other way.
    changes_cost_little(Fleet::new().sftp_only("tern"), |_| {});
}

/// As OpenSSH was before 9.0.
pub(crate) fn without_copy_data(fleet: &Fleet) {
    let vessel = fleet.vessel("tern");
    let config = vessel.etc("sshd_config");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("sftp-server\n", "sftp-server -P copy-data\n")).unwrap();
    vessel.stop();
    vessel.start();
}

#[test]
fn a_file_of_one_chunk_costs_its_changes_too() {
    let Some(fleet) = counted(Fleet::new().openssh("tern")).start() else { return };
    let daemon = fleet.run();
    let first = content(55, 6 * MIB);
    deliver(&fleet, &first);
    assert!(deliver(&fleet, &[&first[..], b"and more"].concat()) < WRAPPING + (256 << 10));
    daemon.terminate();
}

#[test]
fn in_a_directory_left_to_itself_the_third_version_costs_its_changes() {
    let plan = Fleet::new().openssh("tern").proxied().monster("ChunkSize", "2 MiB");
    let Some(fleet) = plan.start() else { return };
    let daemon = fleet.run();
    let first = content(56, 6 * MIB);
    deliver(&fleet, &first);
    let second = [&first[..], b"second"].concat();
    assert!(deliver(&fleet, &second) > 6 * MIB as u64);
    assert!(deliver(&fleet, &[&second[..], b"third"].concat()) < WRAPPING + (256 << 10));
    daemon.terminate();
}

#[test]
fn in_a_mirror_a_change_in_place_costs_little_from_the_first_on() {
    let plan = Fleet::new().openssh("tern").key("Connections", "1").proxied().directory("in").key("Mode", "mirror");
    let Some(fleet) = plan.start() else { return };
    let daemon = fleet.run();
    let first = content(62, SIZE);
    fleet.put("big", &first);
    fleet.wait_until_served("tern", "big", &first);
    let link = fleet.vessel("tern").link();
    let before = link.sent();
    let changed = changed_in_the_middle(&first, 63);
    let mut source = File::options().write(true).open(fleet.source("big")).unwrap();
    source.seek(SeekFrom::Start((SIZE / 2) as u64)).unwrap();
    source.write_all(&changed[SIZE / 2..SIZE / 2 + MIB]).unwrap();
    drop(source);
    fleet.wait_until_served("tern", "big", &changed);
    assert!(link.sent() - before < 2 * MIB as u64, "{} bytes were sent", link.sent() - before);
    daemon.terminate();
}

#[test]
fn an_old_file_that_somebody_changed_in_secret_is_found_out_and_mended() {
    for prepare in [|_: &Fleet| {}, without_copy_data] {
        let Some(fleet) = counted(Fleet::new().openssh("tern")).start() else { return };
        prepare(&fleet);
        let daemon = fleet.run();
        let first = content(57, SIZE);
        deliver(&fleet, &first);
        // Same size, same time, other bytes.
        let there = fleet.vessel("tern").path("in/big");
        let modified = fs::metadata(&there).unwrap().modified().unwrap();
        fs::write(&there, changed_in_the_middle(&first, 58)).unwrap();
        File::options().write(true).open(&there).unwrap().set_modified(modified).unwrap();
        let sent = deliver(&fleet, &[&first[..], b"more"].concat());
        assert!(sent < 20 * MIB as u64, "only what was damaged is sent again, not {sent}");
        assert!(daemon.logged(&["arrived damaged"]).is_some());
        daemon.terminate();
    }
}

#[test]
fn an_old_file_that_is_not_the_one_delivered_is_not_used() {
    let Some(fleet) = counted(Fleet::new().openssh("tern")).start() else { return };
    let daemon = fleet.run();
    let first = content(59, 8 * MIB + 1);
    deliver(&fleet, &first);
    let there = File::options().write(true).open(fleet.vessel("tern").path("in/big")).unwrap();
    there.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
    assert!(deliver(&fleet, &[&first[..], b"more"].concat()) > 8 * MIB as u64);
    assert!(daemon.logged(&["arrived damaged"]).is_none());
    daemon.terminate();
}

/// Kills the program while the new half of a file is on its way, and counts what the rest costs.
fn killed_halfway(prepare: impl Fn(&Fleet)) {
    let Some(fleet) = counted(Fleet::new().openssh("tern").key("RateLimit", "8 MiB/s")).start() else { return };
    prepare(&fleet);
    let daemon = fleet.run();
    let first = content(60, 16 * MIB);
    deliver(&fleet, &first);
    let link = fleet.vessel("tern").link();
    let before = link.sent();
    let second = [&first[..], &content(61, 16 * MIB)].concat();
    fleet.put("big", &second);
    wait_until("half of what is new to be sent", || link.sent() - before > 8 * MIB as u64);
    daemon.kill9();
    fleet.assert_equal("tern", "big", &first);
    let daemon: Daemon = fleet.run();
    wait_until("the version to be retired", || !fleet.source("big").exists());
    fleet.assert_equal("tern", "big", &second);
    let sent = link.sent() - before;
    assert!(sent < 21 * MIB as u64, "{sent} bytes were sent in all");
    fleet.wait_until_tidy("tern");
    assert!(daemon.logged(&["damaged"]).is_none(), "{:?}", daemon.log());
    daemon.terminate();
}

#[test]
fn killed_while_sftp_copies_it_goes_on_where_it_was() {
    killed_halfway(|_| {});
}

#[test]
fn killed_before_a_command_copies_it_goes_on_where_it_was() {
    killed_halfway(without_copy_data);
}

/// Appends, changes in the middle and at the beginning: a file under a new name that has blocks of another one.
fn other_files_give_their_blocks(plan: FleetPlan, prepare: impl Fn(&Fleet)) {
    let plan = plan.key("Connections", "1").proxied().directory("in").key("Mode", "mirror").key("SettleTime", "200ms");
    let Some(fleet) = plan.monster("ChunkSize", "2 MiB").start() else { return };
    prepare(&fleet);
    let daemon = fleet.run();
    let link = fleet.vessel("tern").link();
    let image = content(70, SIZE);
    let cost = |name: &str, bytes: &[u8]| {
        let before = link.sent();
        fleet.put(name, bytes);
        fleet.wait_until_served("tern", name, bytes);
        println!("{name}: {} KiB of {}", (link.sent() - before) >> 10, bytes.len() >> 10);
        link.sent() - before
    };
    assert!(cost("other", &content(71, SIZE)) > SIZE as u64);
    assert!(cost("image-1", &image) > SIZE as u64, "another file has nothing of it");
    let changed = changed_in_the_middle(&image, 72);
    assert!(cost("image-2", &changed) < 2 * MIB as u64);
    let shifted = [&content(73, 3 * MIB)[..], &changed[MIB..], &content(74, 2 * MIB)].concat();
    assert!(cost("image-3", &shifted) < 7 * MIB as u64);
    let receipts = fleet.call(&["receipts"], "").stdout;
    assert!(
        receipts.contains(", blocks of in/image-1 (") && receipts.contains(", blocks of in/image-2 ("),
        "{receipts}"
    );
    fleet.call(&["why", "in/image-2"], "").must_say(&[", blocks of in/image-1 ("]);
    let status = fleet.call(&["status", "--json"], "").stdout;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let saved = status["vessels"][0]["saved_bytes"].as_u64().unwrap();
    assert!(saved > SIZE as u64 * 3 / 2, "{saved} bytes saved");
    // The earlier version of image-1 has nothing of its new content, but image-3 has.
    assert!(cost("image-1", &[&shifted[..], b"and more"].concat()) < MIB as u64);
    fleet.wait_until_tidy("tern");
    assert!(daemon.logged(&["warn"]).is_none(), "{:?}", daemon.log());
    daemon.terminate();
}

#[test]
fn blocks_of_other_files_are_not_sent_where_sftp_copies() {
    other_files_give_their_blocks(Fleet::new().openssh("tern"), |_| {});
}

#[test]
fn blocks_of_other_files_are_not_sent_where_a_command_copies() {
    other_files_give_their_blocks(Fleet::new().openssh("tern"), without_copy_data);
}

#[test]
fn blocks_of_other_files_are_not_sent_without_a_shell() {
    other_files_give_their_blocks(Fleet::new().sftp_only("tern"), |_| {});
}

#[test]
fn a_file_with_blocks_that_was_changed_there_is_not_used_or_mended() {
    let plan = Fleet::new().openssh("tern").key("Connections", "1").proxied();
    let plan = plan.directory("in").key("Mode", "mirror").monster("ChunkSize", "2 MiB");
    let Some(fleet) = plan.start() else { return };
    let daemon = fleet.run();
    let (image, there) = (content(75, SIZE), fleet.vessel("tern").path("in/image-1"));
    fleet.put("image-1", &image);
    fleet.wait_until_served("tern", "image-1", &image);
    let modified = fs::metadata(&there).unwrap().modified().unwrap();
    // The same size and time: the hash finds it out.
    fs::write(&there, changed_in_the_middle(&image, 76)).unwrap();
    File::options().write(true).open(&there).unwrap().set_modified(modified).unwrap();
    let appended = [&image[..], b"more"].concat();
    fleet.put("image-2", &appended);
    fleet.wait_until_served("tern", "image-2", &appended);
    assert!(daemon.logged(&["arrived damaged"]).is_some());
    // Another time: neither is used, because image-2 is gone.
    fs::remove_file(fleet.vessel("tern").path("in/image-2")).unwrap();
    File::options().write(true).open(&there).unwrap().set_modified(SystemTime::now()).unwrap();
    let link = fleet.vessel("tern").link();
    let before = link.sent();
    let third = [&image[..], b"and more"].concat();
    fleet.put("image-3", &third);
    fleet.wait_until_served("tern", "image-3", &third);
    assert!(link.sent() - before > SIZE as u64);
    daemon.terminate();
}
