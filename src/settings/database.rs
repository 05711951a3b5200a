//! `Database`: where the ledger is, a file or a PostgreSQL database.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::problems::Diagnostic;
use super::secrets::Secret;
use super::values::{self, Start};

/// Where the ledger is.
#[derive(Clone, Debug, PartialEq)]
pub enum Database {
    /// An SQLite file, with an absolute path.
    File(PathBuf),
    /// A PostgreSQL database.
    Postgres(Box<PostgresAddress>),
}

impl Default for Database {
    fn default() -> Self {
        Self::File(PathBuf::new())
    }
}

impl Database {
    /// Returns the ledger's file; `None` if the ledger is in PostgreSQL.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(file) => Some(file),
            Self::Postgres(_) => None,
        }
    }

    /// Parses an argument of the command line: a path, which may be relative to the current directory, or a
    /// `postgresql://` address.
    ///
    /// `lock` is the lock file of a ledger in PostgreSQL: a second process on this host that uses the same lock file
    /// can't open the ledger. For a ledger in a file, `lock` is not used.
    ///
    /// # Errors
    /// When the address is invalid. The error names the expected form.
    pub fn of_argument(text: &str, lock: PathBuf) -> Result<Self, String> {
        if !is_address(text) {
            return std::path::absolute(text).map(Self::File).map_err(|e| e.to_string());
        }
        let address = PostgresAddress::parse(text).map_err(|it| format!("{}; {}", it.message, it.remedy))?;
        Ok(Self::Postgres(Box::new(PostgresAddress { lock, ..address })))
    }

    /// Parses a path, which may be relative to the directory of the settings, or a `postgresql://` address.
    pub(super) fn parse(text: &str, start: &Start) -> Result<Self, Diagnostic> {
        match is_address(text) {
            true => Ok(Self::Postgres(Box::new(PostgresAddress::parse(text)?))),
            false => Ok(Self::File(start.path(text)?)),
        }
    }

    /// Returns the default path of the socket: beside the ledger's file, or beside the settings if the ledger is in
    /// PostgreSQL.
    pub(super) fn socket(&self, start: &Start) -> PathBuf {
        match self {
            Self::File(file) => with_suffix(file, ".sock"),
            Self::Postgres(_) => start.beside.join("contentmonster.sock"),
        }
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => file.display().fmt(f),
            Self::Postgres(address) => address.fmt(f),
        }
    }
}

/// The address of a PostgreSQL database.
#[derive(Clone, Debug, PartialEq)]
pub struct PostgresAddress {
    shown: String,
    /// One address for each host, in the order of the setting.
    pub urls: Vec<String>,
    /// `DatabasePassword` or `DatabasePasswordFile`: the password of the database.
    pub password: Option<Secret>,
    /// `LeaseTime`: how long the right to use the ledger lasts without being renewed.
    pub lease_time: Duration,
    /// The lock file, which lets only one process on this host use the ledger.
    pub lock: PathBuf,
    /// `ShoreName`: the name of this shore among all shores that use the ledger.
    pub shore: String,
}

impl fmt::Display for PostgresAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

fn is_address(text: &str) -> bool {
    text.starts_with("postgresql://") || text.starts_with("postgres://")
}

impl PostgresAddress {
    /// Parses an address, which may name several hosts, separated by commas. Diagnostics don't repeat the address,
    /// because it may contain a password.
    fn parse(text: &str) -> Result<Self, Diagnostic> {
        let remedy = "expected an address such as postgresql://user@host/name?sslmode=verify-full";
        let text = values::not_empty(text)?;
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (format!("{user}@"), hosts),
            None => (String::new(), authority),
        };
        let mut urls = Vec::new();
        for host in hosts.split(',') {
            let one = format!("{scheme}://{user}{host}{path}");
            let url = Url::parse(&one)
                .map_err(|e| Diagnostic::new(format!("invalid address of a PostgreSQL database: {e}"), remedy))?;
            if url.password().is_some() || url.query_pairs().any(|(key, _)| key == "password") {
                let remedy = "put the password into a file and name the file in DatabasePasswordFile, or use ~/.pgpass";
                return Err(Diagnostic::new("the address contains a password", remedy));
            }
            if url.path().trim_start_matches('/').is_empty() && !url.query_pairs().any(|(key, _)| key == "dbname") {
                return Err(Diagnostic::new("the address names no database", remedy));
            }
            if let Some((key, _)) = url.query_pairs().find(|(key, _)| !PARAMETERS.contains(&&**key)) {
                let message = format!("unknown parameter `{key}` of a PostgreSQL address");
                return Err(Diagnostic::new(message, format!("expected one of: {}", PARAMETERS.join(", "))));
            }
            urls.push(one);
        }
        let (lease_time, lock, shore) = (Duration::from_secs(15), PathBuf::new(), String::new());
        Ok(Self { shown: text.to_owned(), urls, password: None, lease_time, lock, shore })
    }
}

/// The parameters that an address may have.
const PARAMETERS: [&str; 9] =
    ["sslmode", "sslrootcert", "sslcert", "sslkey", "host", "port", "dbname", "user", "application_name"];

/// Returns a path with text added to its last component.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Start {
        Start { beside: "/etc/cm".into(), home: Some("/home/ann".into()) }
    }

    #[test]
    fn a_path_is_a_file_and_an_address_is_postgresql() {
        let file = Database::parse("ledger.sqlite3", &start()).unwrap();
        assert_eq!(file.file(), Some(Path::new("/etc/cm/ledger.sqlite3")));
        assert_eq!(file.socket(&start()), Path::new("/etc/cm/ledger.sqlite3.sock"));
        let text = "postgresql://cm@db1:5433,db2/ledger?sslmode=verify-full";
        let database = Database::parse(text, &start()).unwrap();
        assert_eq!((database.file(), database.to_string()), (None, text.to_owned()));
        assert_eq!(database.socket(&start()), Path::new("/etc/cm/contentmonster.sock"));
        let Database::Postgres(address) = database else { panic!("it is not a file") };
        let urls = ["db1:5433", "db2"].map(|host| format!("postgresql://cm@{host}/ledger?sslmode=verify-full"));
        assert_eq!(address.urls, urls);
    }

    #[test]
    fn an_address_with_a_password_or_a_misspelt_parameter_is_refused_without_being_repeated() {
        for bad in [
            "postgresql://cm:hunter2@db/ledger",
            "postgresql://cm@db/ledger?password=hunter2",
            "postgresql://cm@db",
            "postgresql://cm@db/ledger?ssl=hunter2",
            "postgresql://cm@db:port/hunter2",
        ] {
            let refused = Database::parse(bad, &start()).unwrap_err();
            assert!(!format!("{refused:?}").contains("hunter2"), "{bad}: {refused:?}");
        }
    }
}
