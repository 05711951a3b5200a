//! The checks behind `contentmonster check`: they report in readable form which functions work with a vessel.

use std::sync::Arc;
use std::time::Duration;

use super::trial::{Trial, try_place, within};
use crate::fault::Scope;
use crate::link::prepare_temp_dir;
use crate::local;
use crate::names::{InstanceId, RemotePath};
use crate::settings::{self, Assembly, Compression, Connections, SmallFiles, Verify};
use crate::transfer::same_host_fault;
use crate::transfer::{clashes, located};
use crate::transport::{
    Capabilities, ConnectError, KnownShell, Lead, Rank, Remote, SftpChannel, Space, SshEnvironment,
};

/// Timeout for a lookup on the shore's own disk.
const MOMENT: Duration = Duration::from_secs(2);

/// How long the check waits for a shell to start, and the interval at which the shell is polled.
const SHELL_PATIENCE: Duration = Duration::from_secs(30);
const SHELL_POLL: Duration = Duration::from_millis(50);

/// One line of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A function works.
    Good(String),
    /// A function works, but not as well as possible.
    Note(String),
    /// The vessel lacks something that deliveries need; the text names the error and the remedy.
    Bad(String),
}

/// Connects to a vessel and tries the operations of deliveries, in TempDir and in each directory's place. Also probes
/// whether the vessel's shell is usable, regardless of earlier results. Returns the findings, and whether the shell is
/// usable.
///
/// Files and directories created by the check are removed at once.
pub async fn check(
    vessel: &Arc<settings::Vessel>,
    directories: &[Arc<settings::Directory>],
    environment: &Arc<SshEnvironment>,
) -> (Vec<Finding>, bool) {
    let mut findings = if vessel.local.is_some() { Vec::new() } else { say_way(vessel) };
    let Some((remote, vessel)) = connect(vessel, environment, &mut findings).await else { return (findings, false) };
    let vessel = &vessel;
    if !remote.is_this_host() {
        findings.extend(check_link(&remote, vessel));
    }
    wait_for_shell(&remote).await;
    if let KnownShell::Unusable(why) = remote.known_shell() {
        findings.push(Finding::Note(format!("the shell is not used: {why}")));
    }
    if let Some(place) = remote.capabilities().other_tree() {
        let note = format!(
            "the shell finds SFTP's files under other paths ({place}); contentmonster translates paths for the shell"
        );
        findings.push(Finding::Note(note));
    }
    let mut tried: Vec<Trial> = Vec::new();
    let mut places = Vec::new();
    if remote.capabilities().shell {
        places.push(check_temp_dir(&remote, vessel).await);
    }
    let taken: Vec<_> = directories.iter().filter(|d| vessel.takes(&d.name)).cloned().collect();
    let located = if remote.is_this_host() { Vec::new() } else { located(&remote, vessel, taken.clone()).await };
    places.extend(clashes(vessel, &located).into_iter().map(|(_, fault)| Finding::Bad(fault.to_string())));
    for directory in &taken {
        let (found, trial) = check_place(&remote, vessel, directory).await;
        places.push(found);
        tried.extend(trial);
    }
    findings.push(Finding::Good(remote.capabilities().to_string()));
    findings.extend(abilities(&remote, vessel, environment, &tried).await);
    findings.extend(places);
    let has_shell = remote.capabilities().shell;
    remote.hang_up().await;
    (findings, has_shell)
}

/// Connects to a vessel over each of its ways. Returns the first connection, and the settings for its way.
async fn connect(
    vessel: &Arc<settings::Vessel>,
    environment: &Arc<SshEnvironment>,
    findings: &mut Vec<Finding>,
) -> Option<(Remote, Arc<settings::Vessel>)> {
    let mut ways: Vec<Arc<settings::Vessel>> = vessel.ways.iter().map(|way| Arc::new(vessel.over(way))).collect();
    if ways.is_empty() {
        ways.push(vessel.clone());
    }
    let mut connected = None;
    for way in ways {
        let lead = Lead::alone(Rank::first(true, 0));
        let name = way.way().map(|name| format!("way {name}: ")).unwrap_or_default();
        match Remote::connect(&way, environment, &KnownShell::Unknown, &lead).await {
            Ok(remote) => {
                if vessel.has_ways() {
                    findings.push(Finding::Good(format!("{name}connected")));
                }
                connected = connected.or(Some((remote, way)));
            }
            // An unreachable way is only a note if an earlier way in the list is connected.
            Err(ConnectError::Unreachable { .. } | ConnectError::NotDialledIn { .. }) if connected.is_some() => {
                findings.push(Finding::Note(format!("{name}cannot be reached now")));
            }
            Err(e) => findings.push(Finding::Bad(format!("{name}{}", e.fault()))),
        }
    }
    connected
}

/// Waits until a slow shell has responded. Deliveries would start without the shell, but the check must report whether
/// it works.
async fn wait_for_shell(remote: &Remote) {
    let waiting = async {
        while matches!(remote.known_shell(), KnownShell::Slow) && !remote.is_lost() {
            tokio::time::sleep(SHELL_POLL).await;
        }
    };
    // After the timeout, the current state is reported.
    let _ = tokio::time::timeout(SHELL_PATIENCE, waiting).await;
}

/// Returns one finding for each capability of the vessel: yes, or no and the fallback.
async fn abilities(
    remote: &Remote,
    vessel: &Arc<settings::Vessel>,
    environment: &Arc<SshEnvironment>,
    tried: &[Trial],
) -> Vec<Finding> {
    let capabilities = remote.capabilities();
    let failed = |what: fn(&Trial) -> &Option<String>| tried.iter().find_map(|trial| what(trial).clone());
    let line = |what: &str, can: Result<String, String>| match can {
        Ok(how) => Finding::Good(format!("{what}: yes{how}")),
        Err(instead) => Finding::Note(format!("{what}: no; {instead}")),
    };
    let yes = |can: bool, instead: &str| if can { Ok(String::new()) } else { Err(instead.to_owned()) };
    let here = remote.is_this_host();
    let mut findings = Vec::new();
    if !here {
        let instead = "large files are sent over 1 connection, without TempDir";
        findings.push(line("shell", yes(capabilities.shell, instead)));
    }
    findings.push(line("hash", hashes(capabilities, vessel.verify, failed(|trial| &trial.hash))));
    let unsafe_instead = "acknowledged files may be lost if the vessel loses power";
    findings.push(line(
        "flush",
        match (capabilities.fsync(), failed(|trial| &trial.flush), capabilities.sync) {
            (true, None, _) => Ok(", by SFTP".into()),
            (_, _, true) => Ok(", by `sync`".into()),
            (true, Some(why), false) => Err(format!("{unsafe_instead} ({why})")),
            (false, _, false) => Err(unsafe_instead.into()),
        },
    ));
    let replace = failed(|trial| &trial.replace).is_none() && capabilities.posix_rename();
    findings.push(line("atomic replace", yes(replace, "a file that is replaced is missing for a moment")));
    let resume = match failed(|trial| &trial.resume) {
        None => Ok(String::new()),
        Some(why) => Err(format!("an interrupted file is sent again from the start ({why})")),
    };
    findings.push(line("resume", resume));
    if !here {
        findings.push(line("several connections", several(vessel, environment).await));
    }
    let delta = capabilities.copy_data() || capabilities.shell && vessel.assembly == Assembly::Cat;
    findings.push(line("delta", yes(delta, "changed files are sent whole")));
    if !here {
        let by_loop = capabilities.receives_files() && vessel.small_files != SmallFiles::Sftp;
        let instead = "if the network's round trip is long, a small file takes five round trips over SFTP";
        findings.push(line("small files in one round trip", yes(by_loop, instead)));
        let decompressor = capabilities.decompressor.map(|codec| format!(", by `{}`", codec.command()));
        let instead = "with `Compression = auto`, SSH compresses instead if the network's round trip is long";
        findings.push(line("decompression", decompressor.ok_or_else(|| instead.into())));
    }
    let mut notes: Vec<String> = tried.iter().flat_map(Trial::notes).collect();
    notes.dedup();
    findings.extend(notes.into_iter().map(Finding::Note));
    findings
}

/// Returns how the vessel hashes files, or how they are verified instead. `failed` tells why `check-file` does not
/// work.
fn hashes(capabilities: &Capabilities, verify: Verify, failed: Option<String>) -> Result<String, String> {
    let instead = match verify {
        Verify::Hash => "files are read back and hashed on the shore",
        Verify::ReadBack => return Err("files are read back because of `Verify = read-back`".into()),
        Verify::Size => "only the size is compared, because of `Verify = size`; the content of files is not verified",
    };
    match (capabilities.hash_tool, capabilities.check_file, failed) {
        (Some(tool), ..) => Ok(format!(", by `{}`", tool.command())),
        (None, true, None) => Ok(", by check-file".into()),
        (None, true, Some(why)) => Err(format!("{instead} ({why})")),
        (None, false, _) => Err(instead.into()),
    }
}

/// Checks whether another connection can be opened in parallel to the first.
async fn several(vessel: &Arc<settings::Vessel>, environment: &Arc<SshEnvironment>) -> Result<String, String> {
    if vessel.connections == Connections::Fixed(1) {
        return Err("a single connection is used because of `Connections = 1`".into());
    }
    match SftpChannel::connect(vessel, environment, None).await {
        Ok(_) => Ok(String::new()),
        Err(e) => Err(format!("a single connection is used ({e})")),
    }
}

/// Reports the hops on the way to the vessel, and which values came from the ssh config.
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
    if vessel.compression == Compression::Yes && !remote.compresses() {
        findings.push(Finding::Note("the vessel doesn't offer zlib@openssh.com: nothing is compressed".into()));
    }
    findings
}

async fn check_temp_dir(remote: &Remote, vessel: &settings::Vessel) -> Finding {
    let temp_dir = &vessel.temp_dir;
    let stranger = stranger();
    // `prepare_temp_dir` creates TempDir with the right mode. TempDir is removed again if it did not exist before.
    let was_there = !matches!(remote.look(temp_dir).await, Ok(None));
    let parent = temp_dir.parent().unwrap_or_else(|| RemotePath::new("."));
    let trying = async || {
        prepare_temp_dir(remote, vessel, stranger).await?;
        let tried = try_place(remote, temp_dir, stranger, &|_| None).await;
        let free = free(remote, temp_dir).await;
        tried.map(|_| free)
    };
    let tried = within(remote, &parent, async || {
        let tried = trying().await;
        if !was_there {
            let _ = remote.remove_dir(temp_dir).await;
        }
        tried
    });
    match tried.await {
        Ok((free, _)) => Finding::Good(format!("TempDir {temp_dir}{free}")),
        // Deliveries can work without TempDir.
        Err(fault) if fault.scope == Scope::Place => {
            Finding::Note(format!("TempDir {temp_dir}: {fault}; without it, large files are sent over 1 connection"))
        }
        Err(fault) => Finding::Bad(fault.to_string()),
    }
}

async fn check_place(
    remote: &Remote,
    vessel: &settings::Vessel,
    directory: &settings::Directory,
) -> (Finding, Option<Trial>) {
    let place = vessel.remote_location(directory);
    // If the directory is a single file, its location is the path of that file, so the parent directory is checked.
    let beside = directory.only.as_ref().and_then(|_| place.parent());
    let place = beside.as_ref().unwrap_or(place);
    let what = format!("[Directory {}] at {place}", directory.name);
    let met = |probe: &RemotePath| {
        let (asked, root, probe) = (directory.clone(), vessel.remote_location(directory).clone(), probe.clone());
        let met = local::within(MOMENT, move || local::meeting(&asked, None, &root, &probe)).flatten();
        met.filter(|_| !remote.is_this_host()).map(|met| same_host_fault(vessel, directory, met))
    };
    let tried = within(remote, place, async || {
        let trial = try_place(remote, place, stranger(), &met).await?;
        Ok((trial, free(remote, place).await))
    });
    match tried.await {
        Ok(((trial, free), made)) => {
            let made = if made { ": the directory is created with the first file" } else { "" };
            (Finding::Good(format!("{what}{free}{made}")), Some(trial))
        }
        Err(fault) => (Finding::Bad(format!("{what}: {fault}")), None),
    }
}

/// Returns a random id, because a check opens no ledger and so has no id of its own.
fn stranger() -> InstanceId {
    InstanceId::new(fastrand::u64(..))
}

async fn free(remote: &Remote, place: &RemotePath) -> String {
    match remote.space(place).await {
        Ok(Some(Space { free, .. })) => format!(", {} MiB free", free >> 20),
        _ => String::new(),
    }
}
