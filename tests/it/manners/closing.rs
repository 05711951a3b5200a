//! Closing a file may take longer than `Timeout`: a gateway sends it on to a store first.

use std::time::Duration;

use contentmonster::embedded_vessel::Quirks;

use super::odd::{Odd, Rule};
use crate::fleet::embedded::Manners;
use crate::fleet::{Fleet, wait::DEADLINE};

fn closing_in(time: Duration) -> Option<Fleet> {
    let manners = Manners {
        faults: Odd::new(&[Rule::ClosesSlowly(time)]),
        quirks: Quirks::default(),
        shell: false,
        rooted: false,
    };
    Fleet::new().embedded("vessel", manners).key("Timeout", "1s").start()
}

#[test]
fn a_close_that_takes_longer_than_timeout_is_waited_for() {
    let Some(fleet) = closing_in(Duration::from_secs(3)) else { return };
    fleet.put("cargo", b"cargo");
    let run = fleet.once();
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(!run.says(&["raise `Timeout`"]), "{run:?}");
    fleet.assert_equal("vessel", "cargo", b"cargo");
}

#[test]
fn a_close_that_takes_far_too_long_says_what_to_raise() {
    let Some(fleet) = closing_in(DEADLINE) else { return };
    let daemon = fleet.run();
    fleet.put("cargo", b"cargo");
    daemon.wait_for_log(&["vessel", "raise `Timeout`"]);
    daemon.terminate();
}
