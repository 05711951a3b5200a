//! Standard output and standard error.
//!
//! A reader may close its end of the pipe early (`status | head -1`). The command then continues without output and
//! returns its usual exit code. So `check` still removes its files, and `--once` still delivers. Any other write error,
//! such as a full disk, is reported once and turns a success into a failure.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicU8, Ordering};

use super::Exit;
use crate::text;

/// The state of standard output: open, closed by its reader, or failed. A static, because the process has only one
/// standard output.
static STATE: AtomicU8 = AtomicU8::new(OPEN);
const OPEN: u8 = 0;
const CLOSED: u8 = 1;
const FAILED: u8 = 2;

/// Prints text, with deceptive characters escaped.
pub(super) fn say(lines: Arguments<'_>) {
    print(format!("{}\n", text::visible_lines(&lines.to_string())).as_bytes());
}

/// Prints JSON, with deceptive characters escaped as JSON requires.
pub(super) fn say_json(json: &str) {
    print(format!("{}\n", text::visible_json(json)).as_bytes());
}

/// Moves the cursor to the top left and clears the screen from there, which avoids flicker.
pub(super) fn clear_screen() {
    print(b"\x1b[H\x1b[J");
}

/// Prints an error. A failure to write to standard error can't be reported anywhere.
pub(super) fn say_error(lines: Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{}", text::visible_lines(&lines.to_string()));
}

/// Prints bytes as they are.
pub(super) fn print(bytes: &[u8]) {
    if STATE.load(Ordering::Relaxed) != OPEN {
        return;
    }
    let mut out = io::stdout().lock();
    if let Err(e) = out.write_all(bytes).and_then(|()| out.flush()) {
        note(&e);
    }
}

/// Records that standard output can't be written, and reports the error unless the reader has closed the pipe.
pub(super) fn note(error: &io::Error) {
    let closed = error.kind() == ErrorKind::BrokenPipe;
    STATE.store(if closed { CLOSED } else { FAILED }, Ordering::Relaxed);
    if !closed {
        say_error(format_args!("cannot write the output: {error}"));
    }
}

/// Returns whether no further output is possible, so that a command that only prints can end.
pub(super) fn is_over() -> bool {
    STATE.load(Ordering::Relaxed) != OPEN
}

/// Returns the program's exit code after a command that ended with `exit`: a success without its whole output is a
/// failure.
pub(super) fn outcome(exit: Exit) -> Exit {
    let failed = STATE.load(Ordering::Relaxed) == FAILED;
    if failed && exit == Exit::Good { Exit::Broken } else { exit }
}
