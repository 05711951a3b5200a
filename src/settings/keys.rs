//! The table of keys: what can be set where, what it means, and what holds when it isn't set.
//!
//! Also what a misspelt name may have meant. Knows no values of a particular file.

use super::problems::Diagnostic;
use Preset::{Otherwise, Required, Value};
use SectionKind::{Directory, Monster, Vessel};

/// A kind of section that has keys of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionKind {
    /// `[MONSTER]`
    Monster,
    /// `[Directory x]`
    Directory,
    /// `[Vessel y]`
    Vessel,
}

/// What holds when a key isn't set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// It must be set.
    Required,
    /// This value, as it could be written in the file.
    Value(&'static str),
    /// What these words say.
    Otherwise(&'static str),
}

/// A key that the settings know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownKey {
    /// The kind of section it belongs to; every key may stand in `[DEFAULT]` too.
    pub section: SectionKind,
    /// The key as it is written; in `RemoteLocation.x` the `x` stands for a directory's name.
    pub name: &'static str,
    /// What holds when it isn't set.
    pub preset: Preset,
    /// What it means, with unit and range, in a line.
    pub doc: &'static str,
}

pub(super) const PER_DIRECTORY: &str = "RemoteLocation.";
pub(super) const SSH_CONFIG: &str = "SSHConfig";

#[rustfmt::skip]
const TABLE: &[KnownKey] = &[
    key(Monster, "ChunkSize", Value("10485760"), "size of the pieces that files are cut into; bytes or with unit; 64 KiB to 1 GiB"),
    key(Monster, "Cache", Value("64 MiB"), "memory for pieces of files that all vessels share; bytes or with unit; 8 MiB to 64 GiB"),
    key(Monster, "Database", Value("database.sqlite3"), "the ledger's file; relative to the settings file"),
    key(Monster, "Listen", Otherwise("none: no status page"), "address and port of the status page and the metrics, such as 127.0.0.1:8022"),
    key(Monster, "ListenToken", Otherwise("none: the page can only be looked at"), "who has it may give orders on the page: pause, resume, retry, forget"),
    key(Monster, "ListenTokenFile", Otherwise("none"), "file whose first line is the ListenToken; like PasswordFile"),
    key(Monster, "RateLimit", Value("none"), "bytes of files per second to all vessels together, also by the time of day; from 1 KiB/s; `none` for no limit"),
    key(Monster, "LogLevel", Otherwise("info; only warnings beside progress bars"), "what is logged: error, warn, info, debug or trace; CONTENTMONSTER_LOG in the environment holds before it"),
    key(Monster, "LogFormat", Otherwise("text; what journald reads has no time and says how grave it is"), "what log lines look like: `text`, `json` or `journald`"),
    key(Monster, "LogFile", Otherwise("standard error"), "where log lines go: a file, opened anew on SIGHUP; relative to the settings file; or `syslog`"),
    key(Monster, "Simulate", Value("no"), "`yes`: nothing is sent, moved, deleted or entered, but the log says what would be; `no`"),
    key(Monster, "MinFree", Value("64 MiB"), "room that must be left on the ledger's disk: with less, no new files are taken in; bytes or with unit; 0 for any"),
    key(Monster, "KeepHistory", Value("forever"), "how long the ledger, and its receipts, remember what has ended: `forever`, or a time from 1s"),
    key(Monster, "KeepProcessed", Value("forever"), "how long delivered sources stay in processed/: `forever`, a time from 1s, or `no`: they are deleted instead of moved"),
    key(Monster, "OnDelivered", Value("none"), "command that is run when a vessel has a file; no shell reads it; `none`"),
    key(Monster, "OnRetired", Value("none"), "command that is run when all vessels have a file and its source is out of the way; `none`"),
    key(Monster, "OnParked", Value("none"), "command that is run when a file is set aside because it can't be delivered; `none`"),
    key(Monster, "HookTimeout", Value("60s"), "how long such a command may take before it is ended; 1s to 1d"),
    key(Monster, "Webhook", Otherwise("none"), "addresses that what happens is posted to as JSON; separated by commas"),
    key(Monster, "WebhookSecret", Otherwise("none: posts are not signed"), "what posts are signed with"),
    key(Monster, "WebhookSecretFile", Otherwise("none"), "file whose first line is the WebhookSecret; like PasswordFile"),
    key(Monster, "Heartbeat", Otherwise("none"), "address that is asked for as long as all is well, for a dead-man switch"),
    key(Monster, "HeartbeatInterval", Value("60s"), "how often; 1s to 1d"),
    key(Directory, "Location", Required, "where the directory lies on the shore; relative to the settings file"),
    key(Directory, "RemoteLocation", Otherwise("the same path as Location"), "where its files go on the vessels; absolute, or relative to the login directory"),
    key(Directory, "SettleTime", Value("2s"), "how long a file is left alone before it retires, and must stay unchanged before it is sent when nobody was seen to close it; 10ms to 1d"),
    key(Directory, "RescanInterval", Value("60s"), "how often the whole directory is looked through; 1s to 1d"),
    key(Directory, "IgnoreNames", Value("*.part, *.partial, *.tmp, *~, .*.sw?, *.crdownload, *.filepart, *.opdownload, *.aria2, *.gstmp, .*.[0-9A-Za-z][0-9A-Za-z][0-9A-Za-z][0-9A-Za-z][0-9A-Za-z][0-9A-Za-z], .in.*, .pureftpd-upload.*, .goutputstream-*, *.kate-swp, .~lock.*, ~$*, .#*, [#]*[#], .nfs????????*, .fuse_hidden*"), "file names that are left alone: globs, separated by commas; `none` for none"),
    key(Directory, "Delta", Value("auto"), "whether of a changed file only the changes are sent: `auto` (`yes` in a mirror, elsewhere from the third version of a name on), `yes` (from the second), `no`"),
    key(Directory, "Mode", Value("replicate"), "`replicate`: sources move to processed/ when all vessels have them; `mirror`: they stay, and changes follow"),
    key(Directory, "Recursive", Value("no"), "`yes`: what lies in directories below it is taken too; `no`"),
    key(Directory, "Delete", Value("no"), "`yes`: what is deleted from a mirror is deleted on the vessels; `no`"),
    key(Directory, "MaxDelete", Value("100"), "how many deletions are repeated within a minute without a person: a number, or a percentage of the mirror"),
    key(Directory, "Consumed", Value("yes"), "a connection broke while a file got its name, and it is at neither name afterwards: `yes`, somebody there took it; `no`, it is sent again"),
    key(Directory, "Links", Value("skip"), "symbolic links in a mirror: `skip`, `follow` (send what they lead to), `copy` (make the same link)"),
    key(Directory, "Owner", Value("no"), "`yes`: owner and group numbers are set on the vessels too, where the account there may; for mirrors"),
    key(Directory, "Interval", Value("0"), "how often changes go out at the most; 0 (at once) to 1d"),
    key(Directory, "Include", Value(""), "what is taken: patterns as in .gitignore, separated by commas; empty for everything"),
    key(Directory, "Exclude", Value(""), "what is left alone: patterns as in .gitignore, separated by commas"),
    key(Directory, "MinSize", Value("0"), "smallest file that is taken; bytes or with unit"),
    key(Directory, "MaxSize", Value("none"), "largest file that is taken; bytes or with unit; `none` for any"),
    key(Directory, "MinAge", Value("0"), "how long ago a file must have changed last; 0 to 1d"),
    key(Directory, "KeepProcessed", Otherwise("that of [MONSTER]"), "how long delivered sources stay in processed/, for this directory"),
    key(Directory, "OnDelivered", Otherwise("that of [MONSTER]"), "command that is run when a vessel has a file of this directory; `none`"),
    key(Directory, "OnRetired", Otherwise("that of [MONSTER]"), "command that is run when all vessels have one; `none`"),
    key(Directory, "OnParked", Otherwise("that of [MONSTER]"), "command that is run when one is set aside; `none`"),
    key(Vessel, "Address", Required, "host name, IP address, or a host of the ssh config"),
    key(Vessel, "Transport", Value("ssh"), "how files get there: `ssh`; `local`: to a directory on this host or a mounted disk, with `Address = localhost`"),
    key(Vessel, "MountPoint", Otherwise("none"), "with Transport = local: where something must be mounted before anything is written; relative to the settings file"),
    key(Vessel, "Port", Otherwise("what the ssh config says, else 22"), "port of the SSH server; 1 to 65535"),
    key(Vessel, "Username", Otherwise("what the ssh config says, else who runs contentmonster"), "user to log in as"),
    key(Vessel, SSH_CONFIG, Otherwise("~/.ssh/config and /etc/ssh/ssh_config, where they exist"), "ssh config that is read for what isn't set here; relative to the settings file; `no` for none"),
    key(Vessel, "ProxyJump", Otherwise("what the ssh config says, else none"), "hops on the way: [user@]host[:port], separated by commas, the nearest first; `none` for none"),
    key(Vessel, "Password", Otherwise("none: log in with a key"), "password to log in with"),
    key(Vessel, "PasswordFile", Otherwise("none"), "file whose first line is the password; relative to the settings file, or a systemd credential"),
    key(Vessel, "IdentityFile", Otherwise("what the ssh config says, else the agent and the usual keys in ~/.ssh"), "private keys to log in with, separated by commas; relative to the settings file"),
    key(Vessel, "CertificateFile", Otherwise("what lies beside the keys as KEY-cert.pub"), "certificates of the private keys, separated by commas; relative to the settings file"),
    key(Vessel, "Passphrase", Otherwise("none"), "passphrase of the private keys"),
    key(Vessel, "PassphraseFile", Otherwise("none"), "file whose first line is the passphrase; like PasswordFile"),
    key(Vessel, "HostKey", Otherwise("known_hosts decides"), "the only host keys taken: SHA256 fingerprints, separated by commas"),
    key(Vessel, "HostKeyPolicy", Value("strict"), "`strict`: only known host keys; `accept-new`: the first key of an unknown host is taken and recorded"),
    key(Vessel, "TempDir", Value("/tmp/.ContentMonster"), "where chunks are kept on the vessel; absolute, or relative to the login directory"),
    key(Vessel, "Timeout", Value("10s"), "deadline for connecting, logging in, and any answer; 1s to 1h"),
    key(Vessel, "ReconnectWait", Value("60s"), "longest wait before it is connected to again after connections failed; 1s to 1d"),
    key(Vessel, "Connections", Value("auto"), "how many connections are made: `auto`, or 1 to 8"),
    key(Vessel, "CongestionControl", Value("auto"), "what connections send with: `auto` (bbr where the kernel allows it), `system`, or a kernel's name such as bbr, cubic"),
    key(Vessel, "Compression", Value("no"), "`yes`: SSH compresses where the vessel offers zlib@openssh.com; `no`"),
    key(Vessel, "RateLimit", Value("none"), "bytes of files per second to this vessel, also by the time of day; from 1 KiB/s; `none` for no limit"),
    key(Vessel, "Assembly", Value("cat"), "how large files are put together: `cat` joins uploaded parts, `direct` writes into the one temporary file"),
    key(Vessel, "Shell", Value("auto"), "whether the vessel's shell is used beside SFTP: `auto` where it answers, `no` for SFTP alone"),
    key(Vessel, "Dirs", Otherwise("all directories"), "names of the only directories that go to this vessel, separated by commas"),
    key(Vessel, "IgnoreDirs", Value(""), "names of the directories that don't go to this vessel, separated by commas"),
    key(Vessel, "RemoteLocation.x", Otherwise("the RemoteLocation of the directory"), "where directory x goes on this vessel"),
];

const fn key(section: SectionKind, name: &'static str, preset: Preset, doc: &'static str) -> KnownKey {
    KnownKey { section, name, preset, doc }
}

/// Every key there is, section by section.
pub fn known_keys() -> &'static [KnownKey] {
    TABLE
}

/// The key of a kind of section; any `RemoteLocation.…` of a vessel is `RemoteLocation.x`.
pub(super) fn known(kind: SectionKind, name: &str) -> Option<&'static KnownKey> {
    let name = if kind == Vessel && name.starts_with(PER_DIRECTORY) { "RemoteLocation.x" } else { name };
    TABLE.iter().find(|key| key.section == kind && key.name == name)
}

/// What may be shown of a key. A line with its `=` in the wrong place may hold a secret before it.
pub(super) fn shown(key: &str) -> &str {
    if key.starts_with(PER_DIRECTORY) {
        return key;
    }
    key.split(|c: char| c.is_whitespace() || c == ':').next().unwrap_or_default()
}

/// What to say of a key that `kind` (`None`: `[DEFAULT]`, where every key may stand) doesn't know.
pub(super) fn unknown(kind: Option<SectionKind>, key: &str) -> Diagnostic {
    let here = |known: &&KnownKey| kind.is_none_or(|kind| known.section == kind);
    let mut namesakes = TABLE.iter().filter(|known| known.name == shown(key)).peekable();
    if let Some(first) = namesakes.peek().copied() {
        if namesakes.any(|known| here(&known)) {
            let message = "there is more than the key before the `=`";
            return Diagnostic::new(message, format!("write `{} = value`", first.name));
        }
        return elsewhere(first);
    }
    if let Some(found) = known(Vessel, key) {
        return elsewhere(found);
    }
    let candidates: Vec<_> = TABLE.iter().filter(here).map(|known| known.name).collect();
    let remedy = match nearest(key, candidates.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None if kind.is_none() => "every key of every section may stand here, no other".to_owned(),
        None => format!("known here: {}", candidates.join(", ")),
    };
    Diagnostic::new("unknown key", remedy)
}

/// What to say of a key of another kind of section.
fn elsewhere(key: &KnownKey) -> Diagnostic {
    let homes: Vec<_> =
        TABLE.iter().filter(|known| known.name == key.name).map(|known| header(known.section)).collect();
    Diagnostic::new("does not belong here", format!("it is a key of {}", homes.join(" and ")))
}

/// What to say of a section that is none of ours.
pub(super) fn unknown_section(title: &str) -> Diagnostic {
    let (kind, name) = title.split_once(' ').unwrap_or((title, "x"));
    let near = nearest(kind, ["MONSTER", "DEFAULT", "Directory", "Vessel"]);
    let remedy = match near {
        Some(kind @ ("Directory" | "Vessel")) => format!("did you mean [{kind} {name}]?"),
        Some(kind) => format!("did you mean [{kind}]?"),
        None => "known are [MONSTER], [Directory x], [Vessel y] and [DEFAULT]".to_owned(),
    };
    Diagnostic::new("unknown section", remedy)
}

/// How the header of a kind of section is written.
fn header(kind: SectionKind) -> &'static str {
    match kind {
        Monster => "[MONSTER]",
        Directory => "[Directory x]",
        Vessel => "[Vessel y]",
    }
}

/// The candidate that a misspelt word most probably means, if any is near: a third of its letters may differ.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let fold = |text: &str| -> String { text.to_lowercase().replace([' ', '_', '-'], "") };
    let folded = fold(word);
    // Nobody misspells a name that long, and the distance costs the square of its length.
    if folded.len() > 200 {
        return None;
    }
    let distances = candidates.into_iter().map(|c| (strsim::damerau_levenshtein(&folded, &fold(c)), c));
    let (distance, near) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= near.chars().count().div_ceil(3)).then_some(near)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_keys_find_what_was_meant() {
        for (written, meant) in [
            ("Prot", "Port"),
            ("port", "Port"),
            ("Adress", "Address"),
            ("Host Key", "HostKey"),
            ("temp_dir", "TempDir"),
            ("IgnoreDir", "IgnoreDirs"),
            ("remotelocation.x", "RemoteLocation.x"),
        ] {
            assert_eq!(unknown(Some(Vessel), written).remedy, format!("did you mean {meant}?"), "{written}");
        }
        assert!(unknown(Some(Monster), "Colour").remedy.starts_with("known here: ChunkSize, Cache, Database"));
        assert_eq!(unknown(Some(Directory), "Port").remedy, "it is a key of [Vessel y]");
        assert_eq!(unknown(Some(Directory), "RateLimit").remedy, "it is a key of [MONSTER] and [Vessel y]");
        assert_eq!(unknown(Some(Vessel), "RateLimit 1").remedy, "write `RateLimit = value`");
        assert_eq!(nearest(&"x".repeat(10_000), ["x"]), None);
    }

    #[test]
    fn misspelt_sections_find_what_was_meant() {
        for (written, meant) in [
            ("Vesel a b", "did you mean [Vessel a b]?"),
            ("directory a", "did you mean [Directory a]?"),
            ("Monster", "did you mean [MONSTER]?"),
            ("default", "did you mean [DEFAULT]?"),
            ("Server a", "known are [MONSTER], [Directory x], [Vessel y] and [DEFAULT]"),
        ] {
            assert_eq!(unknown_section(written).remedy, meant, "{written}");
        }
    }

    #[test]
    fn what_may_be_a_secret_is_not_shown() {
        assert_eq!(shown("Password hunter2"), "Password");
        assert_eq!(shown("Password:hunter2"), "Password");
        assert_eq!(shown("RemoteLocation.a b: c"), "RemoteLocation.a b: c");
    }
}
