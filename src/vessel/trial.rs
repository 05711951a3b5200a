//! Tries all operations that a delivery needs in a place on a vessel: creating a file, writing, reading its attributes,
//! reading it back, setting attributes, flushing, resuming, renaming, replacing and removing. Removes all files again,
//! whichever operation fails.

use bytes::Bytes;

use crate::digest::Digest;
use crate::fault::{Cause, Fault};
use crate::link::open_new;
use crate::names::{InstanceId, RemotePath, assembly_name};
use crate::transport::{Attrs, OpenFlags, Remote, RemoteError};

/// Content of the files, in two pieces.
const FIRST: &[u8] = b"contentmonster tries what it can do here, ";
const SECOND: &[u8] = b"and removes this file\n";
/// A modification time that no file has by accident (2001-09-09).
const TIME: i64 = 1_000_000_000;

/// Result of a trial that found deliveries to be possible: for each operation, why it failed, or `None` if it works.
#[derive(Debug, Default)]
pub(super) struct Trial {
    /// Why a file's attributes can't be read.
    pub(super) look: Option<String>,
    /// Why a file can't be hashed by `check-file`.
    pub(super) hash: Option<String>,
    /// Why a file can't be read back.
    pub(super) read: Option<String>,
    /// Why mode and time can't be set.
    pub(super) attributes: Option<String>,
    /// Why a file can't be flushed.
    pub(super) flush: Option<String>,
    /// Why an existing file can't be resumed.
    pub(super) resume: Option<String>,
    /// Why a file can't be replaced atomically.
    pub(super) replace: Option<String>,
    /// Why a file can't be removed.
    pub(super) remove: Option<String>,
}

impl Trial {
    /// Returns a note for each operation that failed, with the consequence.
    pub(super) fn notes(&self) -> Vec<String> {
        let note = |why: &Option<String>, instead: &str| why.as_ref().map(|why| format!("{instead} ({why})"));
        [
            note(&self.look, "the status of files can't be read: existing files are not found"),
            note(&self.read, "files can't be read back: they are verified only if the vessel hashes them"),
            note(&self.attributes, "mode and time of files can't be set: the vessel chooses them"),
            note(&self.remove, "files can't be removed: remains of broken uploads stay, and a mirror deletes nothing"),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Creates a directory and its parents if they are missing, runs `act`, and removes the created directories again. Also
/// returns whether any directory was created.
pub(super) async fn within<T>(
    remote: &Remote,
    directory: &RemotePath,
    act: impl AsyncFnOnce() -> Result<T, Fault>,
) -> Result<(T, bool), Fault> {
    let mut made = Vec::new();
    let outcome = match remote.make_dirs_noting(directory, &mut made).await {
        Ok(()) => act().await,
        Err(e) if e.is_connection() => return Err(e.fault()),
        Err(e) => Err(match remote.explain(e, directory, 0).await.fault() {
            fault if fault.remedy.is_empty() => {
                fault.mend(format_args!("check {directory} on the vessel, or choose another directory"))
            }
            fault => fault,
        }),
    };
    for made in &made {
        // A directory that another process uses meanwhile can't be removed and stays.
        let _ = remote.remove_dir(made).await;
    }
    Ok((outcome?, !made.is_empty()))
}

/// A function that is given the path of a file just created in a place, and returns why the place must not receive
/// deliveries.
pub(super) type Refuse<'a> = &'a (dyn Fn(&RemotePath) -> Option<Fault> + Sync);

/// Tries all operations of a delivery on files in an existing directory.
///
/// # Errors
/// Fails if no file can be created, written or renamed there, or if the place is refused.
pub(super) async fn try_place(
    remote: &Remote,
    place: &RemotePath,
    stranger: InstanceId,
    refuse: Refuse<'_>,
) -> Result<Trial, Fault> {
    let [probe, named] = [0, 1].map(|number| place.join(assembly_name(stranger, number, Some(fastrand::u64(..)))));
    let mut trial = Trial::default();
    let outcome = try_files(remote, &probe, &named, refuse, &mut trial).await;
    for path in [&probe, &named] {
        let removed = remote.remove(path).await;
        if let Err(e) = &removed
            && e.is_refusal()
        {
            trial.remove = Some(e.to_string());
            continue;
        }
        if outcome.is_ok() && path == &named && removed.is_err() {
            return Err(explained(remote, removed, place).await.err().unwrap_or_else(|| Fault::file("not removed")));
        }
    }
    outcome.map(|()| trial)
}

async fn try_files(
    remote: &Remote,
    probe: &RemotePath,
    named: &RemotePath,
    refuse: Refuse<'_>,
    trial: &mut Trial,
) -> Result<(), Fault> {
    trial.look = unless_lost(remote.look(probe).await)?.err();
    write(remote, probe, trial).await?;
    if let Some(fault) = refuse(probe) {
        return Err(fault);
    }
    let held = go_on(remote, probe, trial).await?;
    trial.hash = hash(remote, probe, &held).await?.err();
    read_back(remote, probe, &held, trial).await?;
    let renamed = remote.rename_over(probe, named, None).await;
    explained(remote, renamed, named).await?;
    if !remote.capabilities().posix_rename() {
        trial.replace = Some("the vessel does not offer posix-rename".into());
    }
    // The file is written and renamed again, to try the replacement of an existing file.
    write(remote, probe, &mut Trial::default()).await?;
    let renamed = remote.rename_over(probe, named, None).await;
    explained(remote, renamed, named).await.map(drop)
}

/// Writes the first piece, sets attributes, flushes and closes, as a delivery does.
async fn write(remote: &Remote, probe: &RemotePath, trial: &mut Trial) -> Result<(), Fault> {
    let file = explained(remote, open_new(remote, remote.main_channel(), probe).await, probe).await?;
    let sent = explained(remote, file.send(0, Bytes::from_static(FIRST)).await, probe).await?;
    explained(remote, sent.taken().await, probe).await?;
    let attrs = Attrs { mode: Some(0o600), times: Some((TIME, TIME)), ..Attrs::default() };
    trial.attributes = unless_lost(file.set(attrs).await)?.err();
    if remote.capabilities().fsync() {
        trial.flush = unless_lost(file.flush().await)?.err();
    }
    explained(remote, file.close().await, probe).await
}

/// Opens the file again and appends the second piece, like a delivery after a lost connection. Returns the expected
/// content.
async fn go_on(remote: &Remote, probe: &RemotePath, trial: &mut Trial) -> Result<Vec<u8>, Fault> {
    let going_on = async {
        let file = remote.open(probe, OpenFlags::WRITE_EXISTING, 0o600).await?;
        file.send(FIRST.len() as u64, Bytes::from_static(SECOND)).await?.taken().await?;
        file.close().await?;
        remote.look(probe).await
    };
    let whole = [FIRST, SECOND].concat();
    match unless_lost(going_on.await)? {
        Ok(Some(attrs)) if attrs.size.is_none_or(|size| size == whole.len() as u64) => Ok(whole),
        Ok(_) => {
            trial.resume = Some("the vessel truncates a file that is opened again".into());
            write(remote, probe, &mut Trial::default()).await?;
            Ok(FIRST.to_vec())
        }
        Err(why) => {
            trial.resume = Some(why);
            write(remote, probe, &mut Trial::default()).await?;
            Ok(FIRST.to_vec())
        }
    }
}

/// Lets the vessel hash the file by `check-file`, and compares the hash with the hash of the known content.
async fn hash(remote: &Remote, probe: &RemotePath, held: &[u8]) -> Result<Result<(), String>, Fault> {
    if !remote.checks_files() {
        return Ok(Ok(()));
    }
    let found = remote.check_file(remote.main_channel(), probe, (0, 0), held.len() as u64).await;
    Ok(match unless_lost(found)? {
        Ok(Some(digest)) if digest == Digest::of(held) => Ok(()),
        Ok(Some(_)) => Err("check-file gives wrong hashes".into()),
        Ok(None) => Err("check-file is refused".into()),
        Err(why) => Err(why),
    })
}

async fn read_back(remote: &Remote, probe: &RemotePath, held: &[u8], trial: &mut Trial) -> Result<(), Fault> {
    let reading = async {
        let file = remote.open(probe, OpenFlags::READ, 0).await?;
        let read = file.read_at(0, 4096).await;
        file.close().await?;
        read
    };
    match unless_lost(reading.await)? {
        Ok(Some(bytes)) if bytes == held => Ok(()),
        Ok(_) => {
            let fault = Fault::file(format_args!("{probe} does not contain the bytes that were written to it"));
            Err(fault.mend("check the vessel's disk").of(Cause::Damaged))
        }
        Err(why) => {
            trial.read = Some(why);
            Ok(())
        }
    }
}

/// Returns a lost connection as a fault, and the error of a rejected operation as text.
fn unless_lost<T>(result: Result<T, RemoteError>) -> Result<Result<T, String>, Fault> {
    match result {
        Err(e) if e.is_connection() => Err(e.fault()),
        result => Ok(result.map_err(|e| e.to_string())),
    }
}

async fn explained<T>(remote: &Remote, result: Result<T, RemoteError>, at: &RemotePath) -> Result<T, Fault> {
    match result {
        Ok(value) => Ok(value),
        Err(e) => Err(remote.explain(e, at, 1).await.fault()),
    }
}
