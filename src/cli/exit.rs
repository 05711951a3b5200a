//! The program's exit codes.

/// The program's exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Success; also the end of a daemon that was stopped.
    Good,
    /// `--once`, `demo` or `why`: not everything was delivered. `retry`, `resend` or `forget`: there was nothing to do.
    /// `settings fmt --check`: a file is not formatted.
    Undelivered,
    /// The command line is invalid, or it names an output file that exists already.
    Usage,
    /// The settings are invalid.
    Settings,
    /// The ledger can't be used, or the program failed otherwise.
    Broken,
    /// `check` found a problem, or `trust` did not record a key.
    Unfit,
    /// A second signal stopped the program at once; `demo` stops on the first Ctrl-C.
    Interrupted,
    /// `status --check`: the reported state, as the exit code of a Nagios plugin.
    Monitored(u8),
}

impl Exit {
    /// The table of exit codes in the output of `--help`.
    pub const HELP: &str = "Exit codes:
  0    success (also for a stopped daemon)
  1    --once, demo, why: not everything was delivered; retry, resend, forget: there was nothing to do
  2    invalid command line; init, import: the file exists
  3    invalid settings
  4    the ledger can't be used, or the program failed internally
  5    check: something does not work; trust: no key was recorded
  130  stopped at once by a second signal
  `status --check` has codes of its own: 0 fine, 1 warning, 2 critical, 3 unknown; `settings fmt --check`: 1, not formatted";

    fn code(self) -> u8 {
        match self {
            Self::Good => 0,
            Self::Undelivered => 1,
            Self::Usage => 2,
            Self::Settings => 3,
            Self::Broken => 4,
            Self::Unfit => 5,
            Self::Interrupted => 130,
            Self::Monitored(code) => code,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
