//! The programs that are measured: how each is told to deliver all files to a directory on the vessel.
//!
//! Every peer is called as its manual says for this work, with as many parallel transfers as it is usually given, and with
//! its own checks of what arrived at their defaults.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::builder::PossibleValuesParser;

use crate::Result;
use crate::case::Case;
use crate::freight::at;
use crate::ours::{self, Ours};
use crate::task::Task;
use crate::vessel::is_root;
use crate::watch::Until;

/// One program.
#[derive(Clone)]
pub(crate) enum Program {
    /// This program, or another build of it.
    Ours(Ours),
    Scp,
    Sftp,
    Rsync,
    Rclone,
    Lftp,
    Mscp(PathBuf),
    /// The Python ContentMonster, by its directory.
    Original(PathBuf),
}

const INSTALLED: &[Program] = &[Program::Scp, Program::Sftp, Program::Rsync, Program::Rclone, Program::Lftp];

/// What `--peers` takes.
pub(crate) fn peer_names() -> PossibleValuesParser {
    PossibleValuesParser::new(["scp", "sftp", "rsync", "rclone", "lftp", "mscp", "original", "none"])
}

/// The peers that are there, of those named (none named: all).
pub(crate) fn peers(named: &[String], mscp: Option<&Path>, original: Option<&Path>) -> Vec<Program> {
    let wanted = |program: &Program| named.is_empty() || named.iter().any(|name| name == program.name());
    let given = mscp.map(|path| Program::Mscp(path.to_owned()));
    let given = given.into_iter().chain(original.map(|path| Program::Original(path.to_owned())));
    let all: Vec<_> = INSTALLED.iter().cloned().chain(given).filter(wanted).collect();
    let (there, missing): (Vec<_>, Vec<_>) = all.into_iter().partition(Program::is_installed);
    for program in missing {
        eprintln!("peers: {} is not installed and left out", program.name());
    }
    there
}

impl Program {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Ours(ours) => &ours.name,
            Self::Scp => "scp",
            Self::Sftp => "sftp",
            Self::Rsync => "rsync",
            Self::Rclone => "rclone",
            Self::Lftp => "lftp",
            Self::Mscp(_) => "mscp",
            Self::Original(_) => "original",
        }
    }

    /// How it is called, for the tables.
    pub(crate) fn label(&self) -> &str {
        match self {
            Self::Rsync => "rsync -a",
            Self::Rclone => "rclone --transfers 8",
            Self::Lftp => "lftp mirror -P 8",
            Self::Mscp(_) => "mscp -n 8",
            Self::Original(_) => "Python original",
            _ => self.name(),
        }
    }

    pub(crate) fn is_ours(&self) -> bool {
        matches!(self, Self::Ours(_))
    }

    fn is_installed(&self) -> bool {
        match self {
            Self::Mscp(path) => path.exists(),
            Self::Original(path) => path.join("worker.py").exists(),
            Self::Ours(_) => true,
            _ => {
                let places = std::env::var_os("PATH").unwrap_or_default();
                std::env::split_paths(&places).any(|place| place.join(self.name()).is_file())
            }
        }
    }

    /// What it says of its version, in a line; empty where it has nothing to say.
    pub(crate) fn version(&self) -> String {
        let (program, option) = match self {
            Self::Ours(ours) => (ours.binary.as_os_str().to_owned(), "--version"),
            Self::Scp | Self::Sftp => ("ssh".into(), "-V"),
            Self::Rclone => ("rclone".into(), "version"),
            Self::Mscp(path) => (path.as_os_str().to_owned(), "-h"),
            Self::Original(_) => return String::new(),
            Self::Rsync | Self::Lftp => (OsString::from(self.name()), "--version"),
        };
        let Ok(output) = Command::new(program).arg(option).output() else { return String::new() };
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().next().unwrap_or_default();
        let line = line.split(" | Copyright").next().unwrap_or_default();
        let words = line.split_whitespace().take_while(|word| *word != "protocol").filter(|word| *word != "|");
        words.collect::<Vec<_>>().join(" ")
    }

    /// Why it can't do what a case asks for, if it can't.
    pub(crate) fn cannot(&self, case: &Case) -> Option<&'static str> {
        match self {
            Self::Ours(_) => None,
            Self::Original(_) if case.vessels > 1 => {
                Some("it delivers to the source's own path, so to one vessel only")
            }
            Self::Original(_) if !is_root() => Some("it needs a mount namespace: run the benchmark as root"),
            _ => None,
        }
    }

    /// The commands to start at once: this program serves all destinations, the others are started once for each.
    pub(crate) fn commands(&self, task: &Task, set: &[(String, String)]) -> Result<Vec<Command>> {
        let mut commands = match self {
            Self::Ours(ours) => vec![ours.command(&ours::write_settings(task, &[], set)?, true)],
            Self::Original(path) => vec![original(path, task)?],
            _ => {
                let to = task.destinations.iter().enumerate();
                to.map(|(number, to)| self.peer(task, number, to)).collect::<Result<_>>()?
            }
        };
        for command in &mut commands {
            // Nobody's own configuration has a say.
            command.env("HOME", task.vessel.home()).env_remove("SSH_AUTH_SOCK").env_remove("XDG_CONFIG_HOME");
        }
        Ok(commands)
    }

    /// When a run of it is over.
    pub(crate) fn until<'a>(&self, all_processed: &'a dyn Fn() -> bool) -> Until<'a> {
        if matches!(self, Self::Original(_)) { Until::So(all_processed) } else { Until::Ended }
    }

    fn peer(&self, task: &Task, number: usize, to: &Path) -> Result<Command> {
        let vessel = task.vessel;
        let (source, to) = (task.freight.directory(), to.display());
        let config = vessel.home().join("ssh_config").display().to_string();
        let there = format!("{}:{to}/", vessel.address);
        let mut command = Command::new(self.name());
        match self {
            Self::Scp => {
                command.args(["-q", "-p", "-F", &config]).args(task.freight.paths()).arg(there);
            }
            Self::Sftp => {
                let batch = task.work.join(format!("batch-{number}"));
                fs::write(&batch, format!("put -p {}/* {to}/\n", source.display())).map_err(at(&batch))?;
                command.args(["-q", "-F", &config, "-b"]).arg(batch).arg(&vessel.address);
            }
            Self::Rsync => {
                let from = format!("{}/", source.display());
                command.arg("-a").args(["-e", &format!("ssh -F {config}"), &from, &there]);
            }
            Self::Rclone => {
                let file = rclone_config(task)?;
                let there = format!("vessel:{to}");
                command.arg("--config").arg(file).args(["copy", "--transfers", "8"]).arg(source).arg(there);
            }
            Self::Lftp => {
                let (from, user, port) = (source.display(), &vessel.user, vessel.port);
                let script = format!(
                    "set sftp:connect-program \"ssh -a -x -F {config}\"; \
                     open -u {user},none sftp://{}:{port}; mirror -R -P 8 {from} {to}; bye",
                    vessel.address
                );
                command.args(["--norc", "-c", &script]);
            }
            Self::Mscp(path) => {
                command = Command::new(path);
                command.args([
                    "-q",
                    "-n",
                    "8",
                    "-F",
                    &config,
                    "-P",
                    &vessel.port.to_string(),
                    "-l",
                    &vessel.user,
                    "-i",
                ]);
                command.arg(vessel.identity()).args(task.freight.paths()).arg(there);
            }
            Self::Ours(_) | Self::Original(_) => unreachable!("they have their own commands"),
        }
        Ok(command)
    }
}

fn rclone_config(task: &Task) -> Result<PathBuf> {
    let vessel = task.vessel;
    // In the vessel's home, so that what rclone learns of the server in its first run is known in the next, as it would be
    // in use.
    let file = vessel.home().join("rclone.conf");
    if !file.exists() {
        let text = format!(
            "[vessel]\ntype = sftp\nhost = {}\nport = {}\nuser = {}\nkey_file = {}\nknown_hosts_file = {}\n",
            vessel.address,
            vessel.port,
            vessel.user,
            vessel.identity().display(),
            vessel.home().join("known_hosts").display(),
        );
        fs::write(&file, text).map_err(at(&file))?;
    }
    Ok(file)
}

/// The original delivers to the source's own path. So it gets the source shown at the destination's path, in a mount
/// namespace of its own; the server sees the destination there.
fn original(path: &Path, task: &Task) -> Result<Command> {
    let (vessel, work, to) = (task.vessel, task.work, task.destinations[0].display());
    let text = format!(
        "[MONSTER]\nDatabase = {work}/database.sqlite3\n\n[Directory freight]\nLocation = {to}\n\n\
         [Vessel v1]\nAddress = {}\nPort = {}\nUsername = {}\nTempDir = {work}/temp\n",
        vessel.address,
        vessel.port,
        vessel.user,
        work = work.display(),
    );
    let code = work.join("code");
    fs::create_dir(&code).map_err(at(&code))?;
    // It reads the settings beside its own code.
    for part in ["worker.py", "classes"] {
        crate::vessel::output(Command::new("cp").arg("-r").arg(path.join(part)).arg(&code))?;
    }
    fs::write(code.join("settings.ini"), text).map_err(at(&code))?;
    let venv = path.join("venv/bin/python");
    let python = if venv.exists() { venv } else { "python3".into() };
    let script = format!("set -e\nmount --bind '{}' '{to}'\nexec \"$@\"\n", task.freight.directory().display());
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--", "sh", "-c", &script, "sh"]);
    command.arg(python).arg(code.join("worker.py")).current_dir(&code);
    Ok(command)
}
