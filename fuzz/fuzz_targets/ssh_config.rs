//! Whatever an ssh config holds, reading it ends with advice or with what is wrong.

#![no_main]

use contentmonster::strangers::ssh_config_text;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| ssh_config_text(text));
