//! Large files of one priority follow each other without a pause on a long path.

use rstest::rstest;

use crate::fleet::content::content;
use crate::fleet::plan::FleetPlan;
use crate::fleet::wait::wait_until;
use crate::fleet::{Fleet, names_in};

/// Below the size from which more connections are opened.
const SIZE: usize = 400 << 10;

/// The sizes of the files on the vessel that are not complete, or not verified, the largest first.
fn assemblies(fleet: &Fleet) -> Vec<u64> {
    let place = fleet.vessel("open").path("in");
    let names = names_in(&place).into_iter().filter(|name| name.to_string_lossy().starts_with(".contentmonster"));
    let mut sizes: Vec<u64> = names.filter_map(|name| Some(place.join(name).metadata().ok()?.len())).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    sizes
}

#[rstest]
#[case::joined(Fleet::new().openssh("open"))]
#[case::written_in_order(Fleet::new().sftp_only("open"))]
fn the_next_one_begins_before_the_vessel_has_answered_the_last_one(#[case] plan: FleetPlan) {
    let Some(fleet) = plan.proxied().monster("ChunkSize", "64 KiB").start() else { return };
    let link = fleet.vessel("open").link();
    // Each 16 KiB take this long, too.
    link.lengthen(25);
    link.delay_answers(200);
    let contents = [content(51, SIZE), content(52, SIZE)];
    fleet.put("first", &contents[0]);
    fleet.put("second", &contents[1]);
    let daemon = fleet.run();
    wait_until("the vessel to have one file", || assemblies(&fleet).first() == Some(&(SIZE as u64)));
    // The answers of the last 200 ms have not passed yet.
    link.stall_answers(true);
    wait_until("bytes of the other one", || assemblies(&fleet).get(1).is_some_and(|size| *size > 0));
    assert_eq!(assemblies(&fleet).len(), 2);
    link.stall_answers(false);
    link.delay_answers(0);
    for (name, bytes) in ["first", "second"].iter().zip(&contents) {
        fleet.wait_until_retired(name);
        fleet.assert_equal("open", name, bytes);
    }
    fleet.wait_until_tidy("open");
    daemon.terminate();
}
