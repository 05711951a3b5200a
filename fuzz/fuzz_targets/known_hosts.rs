//! Whatever a `known_hosts` holds, every question to it is answered.

#![no_main]

use contentmonster::strangers::known_hosts;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| known_hosts(bytes));
