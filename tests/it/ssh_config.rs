//! The ssh config: read as OpenSSH reads it, overruled by the settings, and shown by `check`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use contentmonster::settings::{Environment, Settings, Vessel};

use crate::fleet::Fleet;

/// A home directory with an ssh config, and what is asked of it.
struct Home {
    directory: tempfile::TempDir,
}

impl Home {
    fn with(config: &str) -> Self {
        let home = Self { directory: tempfile::tempdir().unwrap() };
        fs::create_dir(home.path(".ssh")).unwrap();
        home.write("config", config);
        home
    }

    fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join(below)
    }

    /// A file below `.ssh`.
    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(".ssh").join(name), text).unwrap();
        fs::set_permissions(self.path(".ssh").join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn settings(&self, lines: &str) -> Result<Settings, String> {
        let text = format!("[Directory d]\nLocation = /d\n[Vessel v]\n{lines}\n");
        let environment = Environment {
            user: Some(whoami()),
            home: Some(self.directory.path().to_owned()),
            system_ssh_config: Some(self.path(".ssh/system")),
            ..Environment::default()
        };
        Settings::parse(&text, &self.path("settings.ini"), &environment).map_err(|e| e.to_string())
    }

    #[track_caller]
    fn vessel(&self, lines: &str) -> Vessel {
        self.settings(lines).unwrap().vessels.remove(0)
    }

    #[track_caller]
    fn refused(&self, lines: &str, words: &[&str]) {
        let error = self.settings(lines).expect_err("it is refused");
        assert!(words.iter().all(|word| error.contains(word)), "{words:?} in {error}");
    }
}

fn whoami() -> String {
    let out = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

/// What the real `ssh` makes of a host, by its own words for it, in lower case.
fn by_ssh(home: &Home, host: &str, word: &str) -> Vec<String> {
    let config = home.path(".ssh/config");
    let out = Command::new("ssh").arg("-G").arg("-F").arg(config).arg(host).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    let values = text.lines().filter_map(|line| line.split_once(' ')).filter(|(key, _)| *key == word);
    values.map(|(_, value)| value.to_owned()).collect()
}

const CONFIG: &str = r#"
# What stands before the first Host is for all.
ServerAliveCountMax 7

Host bastion !nobody
    HostName 192.0.2.1
    Port=2222
    User "ann"
    IdentityFile /keys/bastion

Host *.example !db.example
    User web
    IdentityFile /keys/%r@%h
    IdentityFile /keys/second

Host db.example
    HostName=db-%h
    User db
    ServerAliveInterval 1m

Match host db-db.example
    Port 5022

Match originalhost db.example user db
    IdentityFile /keys/matched

Match user web,other host a*.example
    Port 4022

Match all
    ConnectTimeout 90s

Host *
    User late
    Port 1022
    IdentityFile /keys/everybody
"#;

#[test]
fn hosts_are_made_of_the_config_as_ssh_makes_them() {
    let home = Home::with(CONFIG);
    for host in ["bastion", "nobody", "a.example", "b.example", "db.example", "elsewhere", "BASTION"] {
        let vessel = home.vessel(&format!("Address = {host}"));
        let ours = &vessel.ssh;
        let theirs = |word: &str| by_ssh(&home, host, word);
        // ssh writes names in lower case.
        assert_eq!([ours.address.to_lowercase()], theirs("hostname")[..], "{host}");
        assert_eq!([ours.port.to_string()], theirs("port")[..], "{host}");
        assert_eq!(std::slice::from_ref(&ours.username), theirs("user"), "{host}");
        let keys: Vec<_> = theirs("identityfile").iter().map(|key| key.replace("%r", &ours.username)).collect();
        let keys: Vec<_> = keys.iter().map(|key| PathBuf::from(key.replace("%h", &ours.address))).collect();
        assert_eq!(ours.identity_files, keys, "{host}");
        assert_eq!([ours.alive.1.to_string()], theirs("serveralivecountmax")[..], "{host}");
        assert_eq!([ours.connect_timeout.as_secs().to_string()], theirs("connecttimeout")[..], "{host}");
        if host == "db.example" {
            assert_eq!([ours.alive.0.as_secs().to_string()], theirs("serveraliveinterval")[..]);
        }
    }
}

#[test]
fn what_the_settings_say_wins() {
    let home = Home::with(&format!("{CONFIG}\nHost bastion\nProxyJump far\n"));
    let vessel =
        home.vessel("Address = bastion\nPort = 99\nUsername = me\nIdentityFile = mine\nTimeout = 3s\nProxyJump = none");
    let ssh = &vessel.ssh;
    assert_eq!((ssh.address.as_str(), ssh.port, ssh.username.as_str()), ("192.0.2.1", 99, "me"));
    assert_eq!(ssh.identity_files, [home.path("mine")]);
    assert_eq!(ssh.connect_timeout.as_secs(), 3);
    assert!(vessel.hops.is_empty());
    let from = ssh.from_ssh_config.join("\n");
    assert!(from.contains("HostName 192.0.2.1") && from.contains(".ssh/config:6)"), "{from}");
    assert!(!from.contains("User") && !from.contains("Port "), "what is overruled is not shown: {from}");
    assert_eq!(home.vessel("Address = bastion:98").ssh.port, 98);
    assert_eq!(home.vessel("Address = bastion\nSSHConfig = no\nUsername = me").ssh.address, "bastion");
    home.refused("Address = bastion:98\nPort = 99", &["settings.ini:5", "already part of Address"]);
}

#[test]
fn another_file_takes_the_place_of_all_others_and_must_be_there() {
    let home = Home::with("Host *\n Port 1\n");
    home.write("system", "Host *\n Port 2\n User system\n");
    home.write("other", "Host *\n Port 3\n");
    let vessel = home.vessel("Address = a");
    assert_eq!((vessel.ssh.port, vessel.ssh.username.as_str()), (1, "system"));
    let vessel = home.vessel("Address = a\nSSHConfig = .ssh/other");
    assert_eq!((vessel.ssh.port, vessel.ssh.username), (3, whoami()));
    home.refused("Address = a\nSSHConfig = .ssh/missing", &[".ssh/missing:1: cannot read the ssh config"]);
}

#[test]
fn files_are_included_by_globs_and_within_the_block_that_includes_them() {
    let home = Home::with(
        "Include conf.d/*.conf missing/*\nHost here\n Include inner\nHost *\n User late\n Include ~/.ssh/last\n",
    );
    fs::create_dir(home.path(".ssh/conf.d")).unwrap();
    home.write("conf.d/20.conf", "Host a\n Port 20\n");
    home.write("conf.d/10.conf", "Host a\n Port 10\n");
    home.write("conf.d/.hidden.conf", "Port 66\n");
    home.write("inner", "Port 30\nHost there\n Port 31\n");
    home.write("last", "HostName last.example\n");
    for (host, port) in [("a", 10), ("here", 30), ("there", 22)] {
        let vessel = home.vessel(&format!("Address = {host}"));
        assert_eq!(vessel.ssh.port, port, "{host}");
        assert_eq!((vessel.ssh.username.as_str(), vessel.ssh.address.as_str()), ("late", "last.example"), "{host}");
        // The real one looks for what is included in the home directory of the passwd file.
    }
    home.write("last", "Include last\n");
    home.refused("Address = a", &[".ssh/last:1", "nested more than 16 levels deep"]);
}

#[test]
fn what_is_broken_is_told_with_file_and_line() {
    for (config, words) in [
        ("Host a\n Port none\n", &["config:2", "Port", "invalid port `none`"][..]),
        ("Host \"a\n", &["config:1", "quote", "missing"]),
        ("Host\n", &["config:1", "host", "the value is missing"]),
        ("Host *\n HostName\n", &["config:2", "the value is missing"]),
        ("Host *\n IdentityFile %Q/key\n", &["config:2", "IdentityFile", "unknown token `%Q`", "%h"]),
        ("Host *\n IdentityFile ${HOME}/key\n", &["config:2", "write the path in full"]),
        ("Host *\n ProxyJump a b:c:d\n ProxyJump a,b:c\n", &[]),
        ("Host *\n ProxyJump a,b:c\n", &["config:2", "ProxyJump", "invalid hop"]),
        ("Host *\n ServerAliveInterval soon\n", &["config:2", "invalid time `soon`"]),
        ("Match user\n", &["config:1", "Match", "no patterns follow `user`"]),
        ("Host *\n HostName a:22\n", &["config:2", "HostName", "port"]),
    ] {
        let home = Home::with(config);
        if !words.is_empty() {
            home.refused("Address = a", words);
        }
    }
    let home = Home::with("Port 1\n");
    fs::set_permissions(home.path(".ssh/config"), fs::Permissions::from_mode(0o666)).unwrap();
    home.refused("Address = a", &["config:1", "other users can write", "chmod go-w"]);
    assert_eq!(home.vessel("Address = a\nSSHConfig = .ssh/config").ssh.port, 1, "one that is named is trusted");
}

#[test]
fn hops_are_found_along_the_way() {
    let home = Home::with(
        "Host inner\n ProxyJump ann@middle,last:2022\nHost middle\n HostName 192.0.2.2\n ProxyJump outer\n\
         IdentityFile /keys/middle\nHost last\n ProxyJump never\n User lee\nHost outer\n Port 23\n",
    );
    let hops = |lines: &str| {
        let vessel = home.vessel(lines);
        let way = vessel.hops.iter().map(|hop| format!("{}@{}:{}", hop.username, hop.address, hop.port));
        way.collect::<Vec<_>>()
    };
    let way = hops("Address = inner\nUsername = me");
    assert_eq!(way, ["me@outer:23", "ann@192.0.2.2:22", "lee@last:2022"]);
    assert_eq!(hops("Address = inner\nUsername = me\nProxyJump = last"), ["me@never:22", "lee@last:22"]);
    assert_eq!(hops("Address = inner\nProxyJump = none"), [""; 0]);
    let vessel = home.vessel("Address = inner\nIdentityFile = mine\nPassword = secret");
    let keys: Vec<_> = vessel.hops.iter().map(|hop| hop.identity_files[0].clone()).collect();
    assert_eq!(keys, [home.path("mine"), "/keys/middle".into(), home.path("mine")]);
    assert!(vessel.hops.iter().all(|hop| hop.password.is_none()));

    let home = Home::with("Host *\n ProxyJump bastion\n");
    home.refused("Address = inner", &["config:2", "ProxyJump", "more than 8 hops", "Host * !"]);
}

#[test]
fn a_program_for_the_connection_is_refused_with_what_to_write() {
    let home = Home::with("Host a\n ProxyCommand nc %h %p\nHost b\n ProxyCommand none\nHost c\n ProxyJump a\n");
    home.refused("Address = a", &["config:2", "ProxyCommand", "[Vessel v]", "ProxyJump = ", "SSHConfig = no"]);
    home.refused("Address = c", &["config:2", "the hop a"]);
    home.vessel("Address = a\nProxyJump = none");
    home.vessel("Address = a\nProxyJump = b");
    home.vessel("Address = b");
    let home = Home::with("Host a\n ProxyJump b\n ProxyCommand nc %h %p\n");
    assert_eq!(home.vessel("Address = a").hops.len(), 1, "the first of the two counts");
}

#[test]
fn what_is_not_heeded_is_told() {
    let home = Home::with(
        "Match exec \"true\"\n Port 1\nMatch final all\n Port 2\nHost *\n BindAddress 192.0.2.9\n SendEnv LANG\n\
         RevokedHostKeys /revoked\nHost other\n AddressFamily inet\n",
    );
    let vessel = home.vessel("Address = a");
    assert_eq!(vessel.ssh.port, 22);
    let told = vessel.ssh.unheeded.join("\n");
    for word in ["`exec`", "config:1", "`final`", "BindAddress", "config:6", "RevokedHostKeys", "@revoked"] {
        assert!(told.contains(word), "{word} in {told}");
    }
    assert!(!told.contains("SendEnv") && !told.contains("AddressFamily"), "{told}");
}

// ---- with real servers ----

/// Has the settings name an alias, and nothing but that, instead of address, port and user.
fn by_alias(fleet: &Fleet, names: &[&str]) {
    let mut text = fs::read_to_string(fleet.settings()).unwrap();
    for name in names {
        let port = fleet.vessel(name).port();
        let own = format!("Address = 127.0.0.1\nPort = {port}\nUsername = root\n");
        assert!(text.contains(&own), "{text}");
        text = text.replace(&own, &format!("Address = the-{name}\n"));
    }
    fleet.write_settings(&text);
}

fn write_config(fleet: &Fleet, text: &str) {
    let file = fleet.path("home/.ssh/config");
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn an_alias_is_all_that_a_vessel_needs() {
    let Some(fleet) = Fleet::new().openssh("open").openssh("inner").openssh("hop").start() else { return };
    by_alias(&fleet, &["open", "inner", "hop"]);
    let keys = |from: &str, to: &str| fs::rename(fleet.path("home/.ssh").join(from), fleet.path(to)).unwrap();
    keys("id_ed25519", "key of the shore");
    keys("id_ed25519.pub", "key of the shore.pub");
    keys("known_hosts", "known");
    let known = |name: &str| {
        fleet.vessel(name).known_hosts_line().replace(&format!("[127.0.0.1]:{}", fleet.vessel(name).port()), name)
    };
    fs::write(fleet.path("known"), ["open", "inner", "hop"].map(known).concat()).unwrap();
    let port = |name: &str| fleet.vessel(name).port();
    let shared = fleet.path("");
    write_config(
        &fleet,
        &format!(
            "Host the-open\n Port {}\n HostKeyAlias open\nHost the-inner\n Port {}\n HostKeyAlias inner\n ProxyJump the-hop\n\
         Host the-hop\n Port {}\n HostKeyAlias hop\nMatch host the-*\n HostName 127.0.0.1\n User root\n\
         IdentityFile \"{shared}/key of the shore\"\n IdentitiesOnly yes\n IdentityAgent none\n\
         UserKnownHostsFile {shared}/known\n BatchMode yes\n",
            port("open"),
            port("inner"),
            port("hop"),
            shared = shared.display(),
        ),
    );
    fleet.put("cargo", b"cargo");
    let done = fleet.once();
    assert_eq!(done.code, Some(0), "{done:?}");
    ["open", "inner", "hop"].iter().for_each(|vessel| fleet.assert_equal(vessel, "cargo", b"cargo"));
    let checked = fleet.call(&["check"], "");
    println!("{}", checked.stdout);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    checked.must_say(&["ok", "vessel open", "ssh config", "HostName 127.0.0.1", "home/.ssh/config:12"]);
    checked.must_say(&["ok", "vessel inner", "hop the-hop", "root@127.0.0.1"]);
}

#[test]
fn a_broken_config_ends_the_program_with_file_and_line() {
    let Some(fleet) = Fleet::new().openssh("open").start() else { return };
    write_config(&fleet, "Host *\n Port 99999\n");
    let ended = fleet.once();
    assert_eq!(ended.code, Some(3), "{ended:?}");
    ended.must_say(&["home/.ssh/config:2", "Port", "99999", "1 to 65535"]);
    let text = fs::read_to_string(fleet.settings()).unwrap();
    fleet.write_settings(&text.replace("[Vessel open]\n", "[Vessel open]\nSSHConfig = no\n"));
    assert_eq!(fleet.once().code, Some(0));
}

#[test]
fn the_machines_own_config_can_be_read() {
    let config = Path::new("/etc/ssh/ssh_config");
    if !config.exists() {
        return;
    }
    let environment =
        Environment { user: Some("ann".into()), system_ssh_config: Some(config.into()), ..Environment::default() };
    let text = "[Directory d]\nLocation = /d\n[Vessel v]\nAddress = a.example\n";
    let settings = Settings::parse(text, Path::new("/nowhere/settings.ini"), &environment).unwrap();
    assert_eq!(settings.vessels[0].ssh.address, "a.example");
}
