//! Servers that are neither OpenSSH nor Dropbear: how they are configured and started.
//!
//! Both get the same key, password and tree as the others.

use std::path::Path;

use super::vessel::PASSWORD;

/// `proftpd.conf` with mod_sftp. `keys` is the file of the keys that may log in, in RFC 4716's form.
pub(super) fn proftpd_config(port: u16, host_key: &Path, keys: &Path) -> String {
    format!(
        "LoadModule mod_sftp.c\nServerType standalone\nDefaultAddress 127.0.0.1\nUseIPv6 off\nPort {port}\n\
         User root\nGroup root\nRootLogin on\nUseFtpUsers off\nRequireValidShell off\nAuthOrder mod_auth_unix.c\nUmask 022\n\
         PidFile /run/proftpd.pid\nScoreboardFile /run/proftpd.scoreboard\nDelayEngine off\nWtmpLog off\n\
         SystemLog none\nTransferLog none\nUseReverseDNS off\nAllowOverwrite on\nAllowStoreRestart on\n\
         SFTPEngine on\nSFTPHostKey {}\nSFTPAuthMethods publickey password\nSFTPAuthorizedUserKeys file:{}\n",
        host_key.display(),
        keys.display(),
    )
}

/// `rclone serve sftp` of a tree, which it shows as `/`.
pub(super) fn rclone(
    port: u16,
    host_key: &Path,
    keys: &Path,
    tree: &Path,
    cache: &str,
    cache_dir: &Path,
) -> Vec<String> {
    let address = format!("127.0.0.1:{port}");
    let path = |path: &Path| path.display().to_string();
    let mut words: Vec<String> =
        ["rclone", "serve", "sftp", "--config", "/dev/null", "--user", "root"].map(str::to_owned).to_vec();
    let more = [
        ("--pass", PASSWORD.to_owned()),
        ("--addr", address),
        ("--key", path(host_key)),
        ("--authorized-keys", path(keys)),
        ("--vfs-cache-mode", cache.to_owned()),
        ("--cache-dir", path(cache_dir)),
    ];
    words.extend(more.into_iter().flat_map(|(key, value)| [key.to_owned(), value]));
    words.push(path(tree));
    words
}
