//! Whatever a settings file holds, reading it ends with settings or with errors, never with a panic.

#![no_main]

use contentmonster::strangers::settings;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| settings(text));
