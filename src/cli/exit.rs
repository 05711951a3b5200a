//! The program's exit codes.

/// The program's exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Success, and the end of a stopped daemon.
    Good = 0,
    /// `--once`, `demo` or `why`: not everything was delivered. `retry`, `resend` or `forget`: there was nothing to do.
    Undelivered = 1,
    /// The command line is invalid.
    Usage = 2,
    /// The settings are invalid.
    Settings = 3,
    /// The ledger can't be used, or the program failed otherwise.
    Broken = 4,
    /// `check` found a problem, or `trust` did not record a key.
    Unfit = 5,
    /// A second signal stopped the program at once.
    Interrupted = 130,
}

impl Exit {
    /// The table of exit codes in the output of `--help`.
    pub const HELP: &str = "Exit codes:
  0    success (also for a stopped daemon)
  1    --once, demo, why: not everything was delivered; retry, resend, forget: there was nothing to do
  2    invalid command line
  3    invalid settings
  4    the ledger can't be used, or the program failed internally
  5    check: something does not work; trust: no key was recorded
  130  stopped at once by a second signal";
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
