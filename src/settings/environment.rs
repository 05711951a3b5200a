//! What the settings take from outside the file: who runs the program, and where secrets are handed to it.

use std::path::PathBuf;

/// What comes from outside the settings file; passed in, so that tests can choose it.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// Who runs the program: the default of `Username`.
    pub user: Option<String>,
    /// The home directory: what `~/` stands for.
    pub home: Option<PathBuf>,
    /// `$CREDENTIALS_DIRECTORY`: where systemd's `LoadCredential=` puts secrets.
    pub credentials: Option<PathBuf>,
    /// OpenSSH's configuration for the whole machine.
    pub system_ssh_config: Option<PathBuf>,
    /// The permission bits of the settings file; [`Settings::load`](super::Settings::load) fills them in.
    pub settings_mode: Option<u32>,
}

impl Environment {
    /// Takes it from the running process.
    pub fn from_process() -> Self {
        Self {
            user: user_name(),
            home: std::env::home_dir().filter(|home| home.is_absolute()),
            credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from).filter(|d| d.is_absolute()),
            system_ssh_config: Some("/etc/ssh/ssh_config".into()),
            settings_mode: None,
        }
    }
}

/// `$LOGNAME`, `$USER`, else what `/etc/passwd` calls our user id (containers often set neither).
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
