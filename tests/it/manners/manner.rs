//! The servers of the matrix: each with its manners, and with what it can't do.

use std::time::Duration;

use bytes::Bytes;
use contentmonster::embedded_vessel::{CheckFile, Quirks};

use super::cell::Cell;
use super::odd::{Command, Odd, Rule};
use super::packet;
use crate::fleet::embedded::Manners;
use crate::fleet::plan::Kind;

/// How far a server lets a delivery be proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    Verified,
    NotVerified,
    /// It can't be done; what is said holds these words.
    Refused(&'static [&'static str]),
}

/// What server it is.
#[derive(Clone, Copy)]
pub(super) enum Server {
    /// A real one.
    Real(Kind),
    /// OpenSSH with these lines in front of its configuration.
    Configured(&'static str),
    /// OpenSSH whose user has bash, with this `.bashrc`.
    Bash(&'static str),
    /// The embedded vessel.
    Embedded { rules: &'static [Rule], quirks: fn() -> Quirks, shell: bool, rooted: bool },
}

/// A row of the matrix.
pub(super) struct Manner {
    pub(super) name: &'static str,
    pub(super) server: Server,
    /// What becomes of a cell that `except` does not name.
    pub(super) proof: Proof,
    pub(super) except: &'static [(Cell, Proof)],
    /// Whether its 30 MiB are tried even where time is short.
    pub(super) large: bool,
    /// Whether names that are no UTF-8 are among the odd ones.
    pub(super) takes_any_name: bool,
    /// The vessel's `Timeout`.
    pub(super) timeout: &'static str,
    /// Whether something takes each file of `in/` away.
    pub(super) consumes: bool,
}

impl Manner {
    const fn of(name: &'static str, server: Server) -> Self {
        Self {
            name,
            server,
            proof: Proof::Verified,
            except: &[],
            large: false,
            takes_any_name: false,
            timeout: "10s",
            consumes: false,
        }
    }

    const fn real(name: &'static str, server: Server) -> Self {
        Self { takes_any_name: true, ..Self::of(name, server) }
    }

    /// The embedded vessel without a shell.
    const fn sftp(name: &'static str, rules: &'static [Rule]) -> Self {
        Self::of(name, Server::Embedded { rules, quirks: Quirks::default, shell: false, rooted: false })
    }

    /// The embedded vessel without a shell that answers `check-file` in its own way.
    const fn hashes(name: &'static str, quirks: fn() -> Quirks) -> Self {
        Self::of(name, Server::Embedded { rules: &[], quirks, shell: false, rooted: false })
    }

    /// The embedded vessel with a shell.
    const fn shell(name: &'static str, rules: &'static [Rule]) -> Self {
        Self::of(name, Server::Embedded { rules, quirks: Quirks::default, shell: true, rooted: false })
    }

    const fn quirk(name: &'static str, quirks: fn() -> Quirks) -> Self {
        Self::of(name, Server::Embedded { rules: &[], quirks, shell: true, rooted: false })
    }

    const fn large(self) -> Self {
        Self { large: true, ..self }
    }

    const fn proof(self, proof: Proof) -> Self {
        Self { proof, ..self }
    }

    const fn except(self, except: &'static [(Cell, Proof)]) -> Self {
        Self { except, ..self }
    }

    pub(super) fn wanted(&self, cell: Cell) -> Proof {
        self.except.iter().find(|(one, _)| *one == cell).map_or(self.proof, |(_, proof)| *proof)
    }

    /// The policy and the plan of an embedded one.
    pub(super) fn embedded(&self) -> Option<(std::sync::Arc<Odd>, Manners)> {
        let Server::Embedded { rules, quirks, shell, rooted } = self.server else { return None };
        let odd = Odd::new(rules);
        Some((odd.clone(), Manners { faults: odd, quirks: quirks(), shell, rooted }))
    }
}

fn thirty_lines() -> Quirks {
    let lines: String = (1..=30).map(|n| format!("{n}: this system is for authorised users only\r\n")).collect();
    greeting(lines.into())
}

fn a_long_line() -> Quirks {
    greeting(format!("{}\r\n", "=".repeat(400)).into())
}

fn a_blank_line() -> Quirks {
    greeting("Welcome\n\nto the harbour\r\n".into())
}

fn greeting(greeting: Bytes) -> Quirks {
    Quirks { greeting, ..Quirks::default() }
}

fn eight_handles() -> Quirks {
    Quirks { max_handles: Some(8), ..Quirks::default() }
}

fn one_session() -> Quirks {
    Quirks { max_sessions: Some(1), ..Quirks::default() }
}

fn check_file(how: CheckFile) -> Quirks {
    Quirks { check_file: Some(how), ..Quirks::default() }
}

const STATS: &[u8] = &[packet::LSTAT, packet::STAT, packet::FSTAT];
const SETSTATS: &[u8] = &[packet::SETSTAT, packet::FSETSTAT];
const LOOKS: &[u8] = &[packet::LSTAT, packet::STAT, packet::FSTAT, packet::OPENDIR];
const POSIX_RENAME: &str = "posix-rename@openssh.com";
const FSYNC: &str = "fsync@openssh.com";
const LIMITS: &str = "limits@openssh.com";
const LONG: Duration = Duration::from_secs(2);
const MENU: &str = "printf 'Welcome\\n 1) change password\\n 2) quit\\nYour choice: '; cat >/dev/null; exit 0";
const NO_ROOM: &[&str] = &["no space"];
const QUOTA: &[&str] = &["quota"];
const NOT_UTF8: &[&str] = &["not valid UTF-8"];

/// All rows.
pub(super) fn all() -> Vec<Manner> {
    use Rule::*;
    vec![
        Manner::real("OpenSSH", Server::Real(Kind::OpenSsh)).large(),
        Manner::real("Dropbear", Server::Real(Kind::Dropbear)),
        Manner::real("internal-sftp, chrooted", Server::Real(Kind::SftpOnly)),
        Manner::real("ProFTPD", Server::Real(Kind::ProFtpd)).large(),
        Manner::of("rclone, no cache", Server::Real(Kind::Rclone("off"))).large(),
        Manner::of("rclone, cache of writes", Server::Real(Kind::Rclone("writes"))).large(),
        Manner::real("OpenSSH, MaxSessions 1", Server::Configured("MaxSessions 1")),
        Manner::real("OpenSSH, .bashrc of 12 s", Server::Bash("sleep 12\n")),
        Manner::shell("no SETSTAT", &[Refuses(SETSTATS, packet::UNSUPPORTED)]),
        Manner::sftp("no SETSTAT, no shell", &[Refuses(SETSTATS, packet::UNSUPPORTED)]),
        Manner::sftp("opening empties", &[OpeningEmpties]).large(),
        Manner::shell("opening empties, shell", &[OpeningEmpties]),
        Manner::sftp("no resume", &[ResumesNothing]),
        Manner::sftp("no overwrite", &[OverwritesNothing]),
        Manner::sftp("time set at close", &[TimesAtClose]),
        Manner::sftp("time set at close, no SETSTAT", &[TimesAtClose, Refuses(SETSTATS, packet::UNSUPPORTED)]),
        Manner::sftp("posix-rename unsupported", &[OnlyAdvertises(POSIX_RENAME)]),
        Manner::sftp("posix-rename missing", &[Lacks(POSIX_RENAME)]),
        Manner::sftp("fsync unsupported", &[OnlyAdvertises(FSYNC)]),
        Manner::sftp("LSTAT unsupported", &[Refuses(&[packet::LSTAT], packet::UNSUPPORTED)]),
        Manner::sftp("STAT, FSTAT unsupported", &[Refuses(&[packet::STAT, packet::FSTAT], packet::UNSUPPORTED)]),
        Manner::sftp("no stat, denied", &[Refuses(STATS, packet::DENIED)]),
        Manner::sftp("write-only", &[Refuses(LOOKS, packet::DENIED), ReadsNothing]).proof(Proof::NotVerified),
        Manner::sftp(
            "write-only, no posix-rename",
            &[Lacks(POSIX_RENAME), Refuses(LOOKS, packet::DENIED), ReadsNothing],
        )
        .proof(Proof::NotVerified),
        Manner::sftp("emptied when it was read back", &[EmptiesOnce]),
        Manner::sftp("missing is FAILURE (4)", &[MissingIs(4)]),
        Manner::sftp("missing is a bare FAILURE", &[MissingIsWordless(4)]),
        Manner::sftp("missing names the question", &[MissingNamesTheQuestion]),
        Manner { takes_any_name: true, ..Manner::sftp("names are UTF-8", &[RefusesOddNames]) }
            .except(&[(Cell::Names, Proof::Refused(NOT_UTF8)), (Cell::Delete, Proof::Refused(NOT_UTF8))]),
        Manner::sftp("missing is 10", &[MissingIs(10)]),
        Manner::sftp("no types in attributes", &[BareAttributes]),
        Manner::sftp("full: 14 without text", &[WritesEndWith(14)])
            .proof(Proof::Refused(NO_ROOM))
            .except(&[(Cell::Zero, Proof::Verified), (Cell::Delete, Proof::Refused(NO_ROOM))]),
        Manner::sftp("quota: 15 without text", &[WritesEndWith(15)])
            .proof(Proof::Refused(QUOTA))
            .except(&[(Cell::Zero, Proof::Verified), (Cell::Delete, Proof::Refused(QUOTA))]),
        Manner::sftp("empty names in listings", &[EmptyNames]),
        Manner::sftp("close takes 2 s", &[ClosesSlowly(LONG)]),
        Manner::quirk("8 handles", eight_handles),
        Manner::of(
            "8 handles, not told",
            Server::Embedded { rules: &[Lacks(LIMITS)], quirks: eight_handles, shell: false, rooted: false },
        ),
        Manner::quirk("30 greeting lines", thirty_lines),
        Manner::quirk("greeting of 400 bytes", a_long_line),
        Manner::quirk("blank greeting line", a_blank_line),
        Manner { consumes: true, ..Manner::sftp("consumer", &[Consumes]) },
        Manner { consumes: true, ..Manner::shell("consumer, shell", &[Consumes]) },
        Manner::shell("exec disconnects", &[Commands(Command::Disconnects)]),
        Manner { timeout: "5s", ..Manner::shell("exec is never answered", &[Commands(Command::IsNeverAnswered)]) },
        Manner::shell("exec is refused", &[Commands(Command::IsRefused)]),
        Manner::shell("exec shows a menu", &[Commands(Command::Is(MENU))]),
        Manner::of(
            "another tree in the shell",
            Server::Embedded { rules: &[], quirks: Quirks::default, shell: true, rooted: true },
        ),
        Manner::quirk("one channel", one_session),
        Manner::sftp("MKDIR ignores the mode", &[IgnoresMode]),
        Manner::hashes("check-file", || check_file(CheckFile::Right)),
        Manner::hashes("check-file, no ranges", || check_file(CheckFile::ToTheEnd)),
        Manner::hashes("check-file, wrong hash", || check_file(CheckFile::WrongHash)),
        Manner::hashes("check-file, MD5", || check_file(CheckFile::WrongAlgorithm)),
        Manner::hashes("check-file, half a hash", || check_file(CheckFile::ShortHash)),
        Manner::hashes("check-file fails", || check_file(CheckFile::Fails)),
    ]
}
