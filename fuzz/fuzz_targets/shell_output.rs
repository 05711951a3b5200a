//! Whatever a shell says to the probe or to a script, it is no panic.

#![no_main]

use contentmonster::strangers::shell_output;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| shell_output(bytes));
