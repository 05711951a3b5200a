//! Clones a file on the vessel if its file system can (`cp --reflink`), so that the copy takes no time, and no space
//! until one of the two files changes.

use super::transfers::Transfers;
use crate::fault::Fault;
use crate::names::RemotePath;
use crate::settings::Assembly;

/// Clones a file to an assembly. Returns `false` if the vessel can't; then the assembly does not exist.
pub(super) async fn clone_file(
    transfers: &Transfers,
    from: &RemotePath,
    assembly: &RemotePath,
    size: u64,
) -> Result<bool, Fault> {
    let session = &transfers.session;
    let capabilities = session.remote.capabilities();
    let (Some(source), Some(target)) = (from.parent(), assembly.parent()) else { return Ok(false) };
    let pair = (source, target);
    if !capabilities.clones || session.link.settings.assembly != Assembly::Cat || transfers.no_clones.contains(&pair) {
        return Ok(false);
    }
    // No bytes are joined yet, so nothing in an existing file with the assembly's name is needed.
    session.remote.remove(assembly).await.map_err(|e| e.fault())?;
    match session.remote.clone_file(from, assembly, size).await {
        Err(e) if e.is_connection() => Err(e.fault()),
        Ok(true) => Ok(true),
        Ok(false) | Err(_) => {
            transfers.no_clones.add(pair);
            Ok(false)
        }
    }
}
