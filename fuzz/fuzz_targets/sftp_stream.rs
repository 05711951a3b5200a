//! Whatever an SFTP server sends, reading it ends.

#![no_main]

use contentmonster::strangers::sftp_stream;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| sftp_stream(bytes));
