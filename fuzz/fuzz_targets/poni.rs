//! Whatever a configuration of Poni holds, importing it ends with settings or with complaints.

#![no_main]

use contentmonster::strangers::poni_import;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| poni_import(text));
