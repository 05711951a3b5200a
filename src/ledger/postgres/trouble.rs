//! Classifies errors of PostgreSQL: the database is unavailable or rejects writes, or the statement is wrong.
//!
//! The meaning of the codes: postgresql.org/docs/current/errcodes-appendix.html.

use sqlx::Error;

use crate::ledger::LedgerError;

/// The meaning of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The database can't be reached, is stopping or starting, or lacks resources such as connections.
    Away,
    /// The database answers but rejects writes: its disk is full, or it is a standby.
    RefusesWrites,
    /// Two transactions conflicted. The same attempt may succeed at once.
    Conflict,
    /// Another process has taken over the ledger.
    Fenced,
    /// A permanent error: waiting doesn't help.
    Lasting,
}

/// The error code that the SQL function `fence` raises when this process no longer has its lease.
const FENCED: &str = "CM001";

/// Returns the meaning of an error.
pub(super) fn meaning(error: &Error) -> Trouble {
    match error {
        Error::Io(_) | Error::Tls(_) | Error::Protocol(_) | Error::WorkerCrashed => Trouble::Away,
        Error::PoolTimedOut | Error::PoolClosed => Trouble::Away,
        Error::Database(_) => match code_of(error).as_deref().unwrap_or_default() {
            FENCED => Trouble::Fenced,
            "40001" | "40P01" => Trouble::Conflict,
            // read_only_sql_transaction (on a standby, for example) and disk_full.
            "25006" | "53100" => Trouble::RefusesWrites,
            // The server is stopping or starting, closed the session, has too many sessions or too little memory, or
            // reports an I/O error.
            "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "53000" | "53200" | "53300" | "58030" => Trouble::Away,
            // A user of the server cancelled the statement, so the attempt may be repeated.
            "57014" => Trouble::Conflict,
            code if code.starts_with("08") => Trouble::Away,
            _ => Trouble::Lasting,
        },
        _ => Trouble::Lasting,
    }
}

/// Returns the meaning of an error of the ledger.
pub(super) fn meaning_of(error: &LedgerError) -> Trouble {
    match error {
        LedgerError::Failed(error) => meaning(error),
        _ => Trouble::Lasting,
    }
}

fn code_of(error: &Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

/// Returns the server's own text of an error, without the prefix that sqlx adds.
pub(super) fn text_of(error: &Error) -> String {
    match error {
        Error::Database(error) => error.message().to_owned(),
        Error::Io(error) => error.to_string(),
        Error::PoolTimedOut => "no connection became free".to_owned(),
        other => other.to_string(),
    }
}

/// Returns the remedy for an error that occurred when the ledger was opened.
pub(super) fn remedy(error: &Error) -> &'static str {
    match code_of(error).as_deref().unwrap_or_default() {
        code if code.starts_with("28") => {
            "check the user in Database, the password (DatabasePasswordFile, the credential or ~/.pgpass), and \
             pg_hba.conf on the server"
        }
        "3D000" => "create the database: createdb --owner USER --encoding UTF8 --template template0 NAME",
        "42501" => "make the user of Database the owner of the database: ALTER DATABASE NAME OWNER TO USER",
        "53300" => "raise max_connections of the server; contentmonster needs 6 connections",
        "25006" | "53100" => "name the primary server in Database, and check the free space of its disk",
        _ => match error {
            Error::Tls(_) => {
                "check sslmode and sslrootcert in Database; the server's certificate must name the host in Database"
            }
            _ => "check that the server of Database runs and accepts connections from this host",
        },
    }
}
