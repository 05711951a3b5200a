//! What works with a vessel, for a person to read: the checks behind `contentmonster check`.

use std::sync::Arc;

use super::temp_dir;
use crate::fault::Fault;
use crate::names::{InstanceId, RemotePath, assembly_name};
use crate::settings;
use crate::transport::{KnownShell, Lead, OpenFlags, Remote, Space, SshEnvironment};

/// One line of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It works.
    Good(String),
    /// It works, but not as well as it could.
    Note(String),
    /// It doesn't work; what it is and how to mend it.
    Bad(String),
}

/// Connects to a vessel and tries what deliveries will need: TempDir, and each directory's place.
///
/// Files that it makes to see whether it can are removed again at once.
pub async fn check(
    vessel: &Arc<settings::Vessel>,
    directories: &[Arc<settings::Directory>],
    environment: &Arc<SshEnvironment>,
) -> Vec<Finding> {
    let mut findings = if vessel.local.is_some() { Vec::new() } else { say_way(vessel) };
    let remote = match Remote::connect(vessel, environment, &KnownShell::Unknown, &Lead::alone()).await {
        Ok(remote) => remote,
        Err(e) => {
            findings.push(Finding::Bad(e.fault().to_string()));
            return findings;
        }
    };
    if !remote.is_this_host() {
        findings.extend(check_link(&remote, vessel));
    }
    let capabilities = remote.capabilities();
    findings.push(Finding::Good(capabilities.to_string()));
    if !capabilities.fsync() && !capabilities.sync {
        findings.push(Finding::Note(
            "files can't be flushed there: what is acknowledged may be lost if its power fails".into(),
        ));
    }
    if !capabilities.posix_rename() {
        findings.push(Finding::Note("a file that is replaced is missing for a moment (no posix-rename)".into()));
    }
    if let KnownShell::Unusable(why) = remote.known_shell() {
        findings.push(Finding::Note(format!("the shell is not used: {why}")));
    }
    if capabilities.shell {
        findings.push(check_temp_dir(&remote, vessel).await);
    } else if !remote.is_this_host() {
        findings.push(Finding::Note(
            "no shell: files are written in place without TempDir and verified by reading them back".into(),
        ));
    }
    for directory in directories.iter().filter(|d| vessel.takes(&d.name)) {
        findings.push(check_place(&remote, vessel, directory).await);
    }
    remote.hang_up().await;
    findings
}

/// What the ssh config has a say in, and the hops.
fn say_way(vessel: &settings::Vessel) -> Vec<Finding> {
    let mut findings = Vec::new();
    for host in vessel.hops.iter().chain([&vessel.ssh]) {
        let settings::SshHost { address, port, username, .. } = host;
        let hop = host.hop.as_ref().map(|hop| format!("hop {hop}: {username}@{address}, port {port}"));
        let said =
            (!host.from_ssh_config.is_empty()).then(|| format!("ssh config: {}", host.from_ssh_config.join(", ")));
        let what: Vec<_> = hop.into_iter().chain(said).collect();
        if !what.is_empty() {
            findings.push(Finding::Good(what.join("; ")));
        }
        findings.extend(host.unheeded.iter().map(|what| Finding::Note(format!("ssh config: {what}"))));
    }
    findings
}

fn check_link(remote: &Remote, vessel: &settings::Vessel) -> Vec<Finding> {
    let compression = if remote.compresses() { "zlib" } else { "none" };
    let (cipher, congestion) = (remote.cipher(), remote.congestion());
    let connected = format!("connected, {cipher}, compression {compression}, congestion control {congestion}");
    let mut findings = vec![Finding::Good(connected)];
    findings.extend(remote.congestion_refused().map(|why| Finding::Note(format!("congestion control: {why}"))));
    if vessel.compression && !remote.compresses() {
        findings.push(Finding::Note("the vessel doesn't offer zlib@openssh.com: nothing is compressed".into()));
    }
    findings
}

async fn check_temp_dir(remote: &Remote, vessel: &settings::Vessel) -> Finding {
    match temp_dir::prepare(remote, vessel, stranger()).await {
        Ok(()) => Finding::Good(format!("TempDir {}{}", vessel.temp_dir, free(remote, &vessel.temp_dir).await)),
        Err(fault) => Finding::Bad(fault.to_string()),
    }
}

async fn check_place(remote: &Remote, vessel: &settings::Vessel, directory: &settings::Directory) -> Finding {
    let place = vessel.remote_location(directory);
    // Where the directory is one file, this is the file's own path.
    let beside = directory.only.as_ref().and_then(|_| place.parent());
    let place = beside.as_ref().unwrap_or(place);
    let what = format!("[Directory {}] at {place}", directory.name);
    match try_place(remote, place).await {
        Ok(true) => Finding::Good(format!("{what}{}", free(remote, place).await)),
        Ok(false) => Finding::Note(format!("{what}: not there yet, it is made with the first file")),
        Err(fault) => Finding::Bad(format!("{what}: {fault}")),
    }
}

/// Whether the place is there; an error when nothing can be written there.
async fn try_place(remote: &Remote, place: &RemotePath) -> Result<bool, Fault> {
    match remote.look_through(place).await.map_err(|e| e.fault())? {
        None => return Ok(false),
        Some(attrs) if !attrs.is_dir() => {
            return Err(Fault::file("it is no directory").mend("remove it there, or choose another RemoteLocation"));
        }
        Some(_) => {}
    }
    let probe = place.join(assembly_name(stranger(), 0, Some(fastrand::u64(..))));
    let file = match remote.open(&probe, OpenFlags::WRITE, 0o600).await {
        Ok(file) => file,
        Err(e) => return Err(remote.explain(e, place, 1).await.fault()),
    };
    file.close().await.map_err(|e| e.fault())?;
    remote.remove(&probe).await.map_err(|e| e.fault())?;
    Ok(true)
}

/// A check opens no ledger, and so has no id of its own.
fn stranger() -> InstanceId {
    InstanceId::new(fastrand::u64(..))
}

async fn free(remote: &Remote, place: &RemotePath) -> String {
    match remote.space(place).await {
        Ok(Some(Space { free, .. })) => format!(", {} MiB free", free >> 20),
        _ => String::new(),
    }
}
