//! Reads ssh config files line by line, and selects the values that apply to a host.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::asked::{Asked, Source, Spot, Trouble};
use super::line;
use super::words::expand;
use crate::names::host_pattern;
use crate::settings::problems::Diagnostic;

/// Maximum depth of nested includes, the same as in OpenSSH.
const DEEPEST: usize = 16;

/// Maximum number of bytes that are read from a file; real files are smaller.
const LONGEST: u64 = 4 << 20;

/// The supported keywords, as OpenSSH writes them.
const HEEDED: [&str; 15] = [
    "HostName",
    "User",
    "Port",
    "IdentityFile",
    "CertificateFile",
    "IdentityAgent",
    "IdentitiesOnly",
    "UserKnownHostsFile",
    "GlobalKnownHostsFile",
    "HostKeyAlias",
    "ProxyJump",
    "ProxyCommand",
    "ServerAliveInterval",
    "ServerAliveCountMax",
    "ConnectTimeout",
];

/// Unsupported keywords that would change the server or the login, each with its alternative.
const TOLD: [(&str, &str); 11] = [
    ("AddressFamily", "give an address of that family as HostName"),
    ("BindAddress", "the system's routes decide"),
    ("BindInterface", "the system's routes decide"),
    ("CanonicalizeHostname", "give the full name as HostName"),
    ("KnownHostsCommand", "no program is run; use known_hosts or HostKey"),
    ("PKCS11Provider", "add the key to the agent"),
    ("PreferredAuthentications", "keys are tried first, then the password"),
    ("PubkeyAuthentication", "keys are tried first, then the password"),
    ("RevokedHostKeys", "mark the keys as @revoked in known_hosts"),
    ("SecurityKeyProvider", "add the key to the agent"),
    ("StrictHostKeyChecking", "HostKeyPolicy of the vessel applies"),
];

/// The words that follow a keyword, and their place.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) words: Vec<String>,
    pub(super) spot: Spot,
}

/// All values for a host, by keyword.
#[derive(Default)]
pub(super) struct Gathered {
    found: HashMap<&'static str, Vec<Found>>,
    pub(super) unheeded: Vec<String>,
}

impl Gathered {
    /// Returns the first value of a keyword.
    pub(super) fn first(&self, keyword: &str) -> Option<&Found> {
        self.all(keyword).first()
    }

    /// Returns all values of a keyword, in order.
    pub(super) fn all(&self, keyword: &str) -> &[Found] {
        self.found.get(keyword).map_or(&[], Vec::as_slice)
    }

    /// Adds a value, unless an earlier one takes precedence. Of `ProxyJump` and `ProxyCommand`, the one that comes
    /// first takes precedence.
    fn take(&mut self, keyword: &'static str, found: Found) {
        let rival = match keyword {
            "ProxyJump" => "ProxyCommand",
            "ProxyCommand" => "ProxyJump",
            _ => "",
        };
        let adds_up = matches!(keyword, "IdentityFile" | "CertificateFile");
        if self.found.contains_key(rival) || (self.found.contains_key(keyword) && !adds_up) {
            return;
        }
        self.found.entry(keyword).or_default().push(found);
    }

    fn note(&mut self, note: String) {
        if !self.unheeded.contains(&note) {
            self.unheeded.push(note);
        }
    }
}

/// Reads the files in order.
pub(super) fn read(sources: &[Source], asked: &Asked<'_>) -> Result<Gathered, Trouble> {
    let mut reader = Reader { asked, gathered: Gathered::default() };
    for source in sources {
        reader.file(source, true, 0)?;
    }
    Ok(reader.gathered)
}

struct Reader<'a> {
    asked: &'a Asked<'a>,
    gathered: Gathered,
}

impl Reader<'_> {
    /// Reads one file. `within` tells whether the block with the `Include` of this file applies to the host; it is
    /// `true` for a file that is not included.
    fn file(&mut self, source: &Source, within: bool, depth: usize) -> Result<(), Trouble> {
        let shared: Arc<Path> = Arc::from(source.file.as_path());
        let Some(text) = text_of(source, &shared)? else { return Ok(()) };
        let mut concerned = within;
        for (index, line) in text.lines().enumerate() {
            let spot = Spot { file: shared.clone(), line: index + 1 };
            let trouble = |keyword: &str| {
                let (spot, keyword) = (spot.clone(), keyword.to_owned());
                move |diagnostic| Trouble { spot, keyword, diagnostic }
            };
            let Some((keyword, words)) = line::split(line).map_err(trouble(""))? else { continue };
            let no_words = || Diagnostic::new("the value is missing", "give a value or remove the line");
            match keyword.as_str() {
                "host" | "match" | "include" if words.is_empty() => return Err(trouble(&keyword)(no_words())),
                "host" => concerned = within && host_pattern::any(words.iter().map(String::as_str), self.asked.host),
                "match" => concerned = self.matches(&words, &spot).map_err(trouble("Match"))? && within,
                "include" => self.include(source, &words, concerned, depth, &spot)?,
                _ => self.keyword(&keyword, words, concerned, spot.clone()).map_err(trouble(&keyword))?,
            }
        }
        Ok(())
    }

    fn keyword(&mut self, keyword: &str, words: Vec<String>, concerned: bool, spot: Spot) -> Result<(), Diagnostic> {
        if let Some(known) = HEEDED.into_iter().find(|known| known.eq_ignore_ascii_case(keyword)) {
            if words.is_empty() {
                return Err(Diagnostic::new("the value is missing", "give a value or remove the line"));
            }
            if concerned {
                self.gathered.take(known, Found { words, spot });
            }
        } else if let Some((known, instead)) = TOLD.iter().find(|(known, _)| known.eq_ignore_ascii_case(keyword))
            && concerned
        {
            self.gathered.note(format!("{known} ({spot}) is ignored: {instead}"));
        }
        Ok(())
    }

    /// Returns whether all conditions of a `Match` hold. An unsupported condition never holds.
    fn matches(&mut self, words: &[String], spot: &Spot) -> Result<bool, Diagnostic> {
        let mut holds = true;
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let (negated, condition) = word.strip_prefix('!').map_or((false, word.as_str()), |rest| (true, rest));
            let (condition, joined) = condition.split_once('=').map_or((condition, None), |(c, v)| (c, Some(v)));
            let condition = condition.to_ascii_lowercase();
            if condition == "all" {
                holds &= !negated;
                continue;
            }
            let subject = match condition.as_str() {
                "host" => self.host_so_far(),
                "originalhost" => self.asked.host.to_owned(),
                "user" => self.user_so_far(),
                "localuser" => self.asked.local_user.unwrap_or_default().to_owned(),
                _ => {
                    let note = format!(
                        "the condition `{condition}` of `Match` ({spot}) is not supported, so its block is ignored"
                    );
                    self.gathered.note(note);
                    return Ok(false);
                }
            };
            let list = joined.or_else(|| words.next().map(String::as_str));
            let list = list.ok_or_else(|| {
                Diagnostic::new(format!("no patterns follow `{condition}`"), "write patterns, separated by commas")
            })?;
            holds &= host_pattern::any(list.split(','), &subject) != negated;
        }
        Ok(holds)
    }

    fn host_so_far(&self) -> String {
        let name = self.gathered.first("HostName").and_then(|found| found.words.first());
        let tokens = [('h', self.asked.host.to_owned())];
        name.and_then(|name| expand(name, &tokens).ok()).unwrap_or_else(|| self.asked.host.to_owned())
    }

    fn user_so_far(&self) -> String {
        let found = || self.gathered.first("User").and_then(|found| found.words.first()).map(String::as_str);
        self.asked.user.or_else(found).or(self.asked.local_user).unwrap_or_default().to_owned()
    }

    fn include(
        &mut self,
        source: &Source,
        patterns: &[String],
        concerned: bool,
        depth: usize,
        spot: &Spot,
    ) -> Result<(), Trouble> {
        let trouble = |diagnostic| Trouble { spot: spot.clone(), keyword: "Include".to_owned(), diagnostic };
        if depth == DEEPEST {
            let message = format!("nested more than {DEEPEST} levels deep");
            let diagnostic = Diagnostic::new(message, "check whether a file includes itself");
            return Err(trouble(diagnostic));
        }
        for pattern in patterns {
            let pattern = self.path(pattern, &source.beside).map_err(trouble)?;
            for file in found_by(&pattern).map_err(trouble)? {
                let included = Source { file, required: true, ..source.clone() };
                self.file(&included, concerned, depth + 1)?;
            }
        }
        Ok(())
    }

    fn path(&self, text: &str, beside: &Path) -> Result<PathBuf, Diagnostic> {
        match (text.strip_prefix("~/"), self.asked.home) {
            (Some(below), Some(home)) => Ok(home.join(below)),
            (Some(_), None) => {
                Err(Diagnostic::new("cannot expand `~`: the home directory is unknown", "write the path in full"))
            }
            (None, _) => Ok(beside.join(text)),
        }
    }
}

/// Returns the files that match a glob, sorted.
fn found_by(pattern: &Path) -> Result<Vec<PathBuf>, Diagnostic> {
    let no_glob = |why: &dyn std::fmt::Display| {
        Diagnostic::new(
            format!("invalid path `{}`: {why}", pattern.display()),
            "expected a readable path, which may contain * and ?",
        )
    };
    let text = pattern.to_str().ok_or_else(|| no_glob(&"it is not UTF-8"))?;
    let options = glob::MatchOptions { require_literal_leading_dot: true, ..glob::MatchOptions::new() };
    let files = glob::glob_with(text, options).map_err(|e| no_glob(&e))?;
    files.collect::<Result<_, _>>().map_err(|e| no_glob(&e))
}

/// Returns the file's text; `None` if the file doesn't exist and isn't required. Invalid UTF-8 is accepted, because
/// comments may be in any encoding.
fn text_of(source: &Source, file: &Arc<Path>) -> Result<Option<String>, Trouble> {
    let trouble = |message: String, remedy: &str| Trouble {
        spot: Spot { file: file.clone(), line: 1 },
        keyword: String::new(),
        diagnostic: Diagnostic::new(message, remedy),
    };
    let read = || -> io::Result<(fs::Metadata, Vec<u8>)> {
        let opened = File::open(&source.file)?;
        let metadata = opened.metadata()?;
        let mut bytes = Vec::new();
        opened.take(LONGEST).read_to_end(&mut bytes)?;
        Ok((metadata, bytes))
    };
    let (metadata, bytes) = match read() {
        Err(e) if e.kind() == io::ErrorKind::NotFound && !source.required => return Ok(None),
        Err(e) => {
            let remedy = "give contentmonster read access to the file, or write `SSHConfig = no`";
            return Err(trouble(format!("cannot read the ssh config: {e}"), remedy));
        }
        Ok(read) => read,
    };
    let ours = [0, rustix::process::getuid().as_raw()].contains(&metadata.uid());
    if source.guarded && (!ours || metadata.mode() & 0o022 != 0) {
        let message = match ours {
            true => format!("other users can write to the ssh config (mode {:04o})", metadata.mode() & 0o7777),
            false => format!("the ssh config belongs to another user (uid {})", metadata.uid()),
        };
        let remedy = match ours {
            true => format!("run: chmod go-w {}", source.file.display()),
            false => {
                format!("make it belong to root or to the user of contentmonster: chown root {}", source.file.display())
            }
        };
        return Err(trouble(message, &remedy));
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}
