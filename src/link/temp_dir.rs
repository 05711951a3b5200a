//! TempDir, the directory for temporary files on the vessel: created for this account alone, and rejected if it isn't
//! safe.

use super::new_file::owner_in;
use crate::fault::Fault;
use crate::names::{InstanceId, RemotePath, probe_name};
use crate::settings::Vessel;
use crate::transport::{Attrs, ErrorKind, Remote, RemoteError};

/// Creates TempDir with mode 0700 if it is missing. An existing TempDir must be a directory of this account, because
/// anyone could have created it in `/tmp` first. If other users can write to TempDir, its mode is set to 0700. If the
/// vessel sets no modes, TempDir is used unchanged, provided that this account owns it.
pub(crate) async fn prepare(remote: &Remote, vessel: &Vessel, instance: InstanceId) -> Result<(), Fault> {
    let temp_dir = &vessel.temp_dir;
    let explain = async |error: RemoteError| {
        remote.explain(error, temp_dir, 0).await.fault_of_vessel(&format!("check TempDir of [Vessel {}]", vessel.name))
    };
    // The requests are sent at once, which saves three round trips where TempDir is missing. An existing TempDir is not
    // changed.
    let (there, made, now) =
        tokio::join!(remote.look(temp_dir), remote.make_dir(temp_dir, 0o700), remote.look(temp_dir));
    let attrs = match there {
        Ok(Some(attrs)) => attrs,
        Ok(None) => {
            let (made, now) = match made {
                Ok(()) => (made, now),
                Err(_) => (make(remote, temp_dir).await, remote.look(temp_dir).await),
            };
            // Another process may have created TempDir concurrently, for example a session of another configured vessel
            // on the same host. Also, some servers ignore the requested mode.
            match (made, now) {
                (Ok(()), Ok(Some(attrs))) if attrs.is_dir() && !is_open_to_others(&attrs) => return Ok(()),
                (_, Ok(Some(attrs))) => attrs,
                (Ok(()), _) => return Ok(()),
                (Err(e), _) => return Err(explain(e).await),
            }
        }
        // If TempDir could be created, it belongs to this account. If not, it may exist, but its owner can't be
        // checked, so files are delivered without it.
        Err(e) if e.is_refusal() => {
            return match make(remote, temp_dir).await {
                Ok(()) => Ok(()),
                Err(again) if again.is_connection() => Err(again.fault()),
                Err(_) => {
                    Err(Fault::place(e).mend(format_args!("give the account on the vessel write access to {temp_dir}")))
                }
            };
        }
        Err(e) => return Err(explain(e).await),
    };
    refuse_traps(temp_dir, &attrs)?;
    let us = match owner_in(remote, &temp_dir.join(probe_name(instance))).await {
        Ok(us) => us,
        Err(e) => return Err(explain(e).await),
    };
    if us.is_some() && attrs.owner.map(|(user, _)| user) != us {
        return Err(trap(
            format!("{temp_dir} on the vessel belongs to another user"),
            "remove it there, or choose another TempDir",
        ));
    }
    if is_open_to_others(&attrs) { close_to_others(remote, temp_dir, us.is_some()).await } else { Ok(()) }
}

async fn make(remote: &Remote, temp_dir: &RemotePath) -> Result<(), RemoteError> {
    if let Some(parent) = temp_dir.parent() {
        remote.make_dirs(&parent).await?;
    }
    remote.make_dir(temp_dir, 0o700).await
}

fn refuse_traps(temp_dir: &RemotePath, attrs: &Attrs) -> Result<(), Fault> {
    if attrs.is_link() {
        return Err(trap(
            format!("{temp_dir} on the vessel is a symbolic link"),
            "remove it there, or set TempDir to the real directory",
        ));
    }
    if !attrs.is_dir() {
        return Err(trap(
            format!("{temp_dir} on the vessel is not a directory"),
            "remove it there, or choose another TempDir",
        ));
    }
    Ok(())
}

fn is_open_to_others(attrs: &Attrs) -> bool {
    attrs.mode.is_some_and(|mode| mode & 0o022 != 0)
}

/// Sets the mode of TempDir to 0700. If the vessel does not change the mode, TempDir is used anyway, provided that it
/// certainly belongs to this account (`ours`): every file is hashed before it gets its final name.
async fn close_to_others(remote: &Remote, temp_dir: &RemotePath, ours: bool) -> Result<(), Fault> {
    let set = remote.set(temp_dir, Attrs { mode: Some(0o700), ..Attrs::default() }).await;
    let now = remote.look(temp_dir).await;
    match (set, now) {
        (Err(e), _) | (_, Err(e)) if e.is_connection() => Err(e.fault()),
        (Ok(()), Ok(Some(now))) if !is_open_to_others(&now) => Ok(()),
        _ if ours => {
            tracing::debug!(%temp_dir, "The vessel did not change the mode of TempDir to 0700; it is used although other users may write to it");
            Ok(())
        }
        _ => Err(trap(
            format!("other users can write to {temp_dir} on the vessel"),
            format!("run there: chmod 700 {temp_dir}"),
        )),
    }
}

fn trap(reason: String, remedy: impl std::fmt::Display) -> Fault {
    Fault::vessel(reason).mend(remedy)
}

impl RemoteError {
    /// Returns the fault for an error in a resource that every file on the vessel needs.
    fn fault_of_vessel(&self, remedy: &str) -> Fault {
        match self.kind {
            ErrorKind::Connection | ErrorKind::NoSpace { .. } | ErrorKind::Quota | ErrorKind::ReadOnly => self.fault(),
            _ => Fault::vessel(self).mend(remedy),
        }
    }
}
