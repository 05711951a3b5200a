//! What is taken for an order is the same one when it is written and read again.

#![no_main]

use contentmonster::strangers::order;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| order(bytes));
