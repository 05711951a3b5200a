//! Values outside the settings file that the settings depend on, such as the user, this host's name, and the location
//! of secrets.

use std::path::PathBuf;

/// The environment in which the settings file is read. Passed as a parameter, so that tests can choose it.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// The user that runs the program: the default of `Username`.
    pub user: Option<String>,
    /// The home directory, which replaces `~/`.
    pub home: Option<PathBuf>,
    /// `$CREDENTIALS_DIRECTORY`: the directory of secrets from systemd's `LoadCredential=`.
    pub credentials: Option<PathBuf>,
    /// The path of OpenSSH's system-wide client configuration.
    pub system_ssh_config: Option<PathBuf>,
    /// The name of this host, for `{hostname}`.
    pub hostname: Option<String>,
    /// The permission bits of the settings file; set by [`Settings::load`](super::Settings::load).
    pub settings_mode: Option<u32>,
}

impl Environment {
    /// Reads the environment of the running process.
    pub fn from_process() -> Self {
        Self {
            user: user_name(),
            home: std::env::home_dir().filter(|home| home.is_absolute()),
            credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from).filter(|d| d.is_absolute()),
            system_ssh_config: Some("/etc/ssh/ssh_config".into()),
            hostname: rustix::system::uname()
                .nodename()
                .to_str()
                .ok()
                .map(str::to_owned)
                .filter(|name| !name.is_empty()),
            settings_mode: None,
        }
    }
}

/// Returns `$LOGNAME`, or else `$USER`, or else the user's name in `/etc/passwd`, because containers often set neither
/// variable.
fn user_name() -> Option<String> {
    let set = |name| std::env::var(name).ok().filter(|user| !user.is_empty());
    set("LOGNAME").or_else(|| set("USER")).or_else(|| {
        let uid = rustix::process::getuid().as_raw().to_string();
        let passwd = std::fs::read("/etc/passwd").ok()?;
        String::from_utf8_lossy(&passwd).lines().find_map(|line| {
            let mut fields = line.split(':');
            let user = fields.next()?;
            (fields.nth(1)? == uid).then(|| user.to_owned())
        })
    })
}
