//! The Unix socket beside the ledger, through which the command line reaches the running program.
//!
//! Only the user that runs the program can open the socket (mode 0600), so callers need no further authentication.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::{Method, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustix::fs::{Mode, OFlags};
use socket2::{Domain, SockAddr, Type};
use tokio::net::{UnixListener, UnixStream};

/// Timeout for a response. It is long because the ledger may be busy with a transaction.
const PATIENCE: Duration = Duration::from_secs(30);
/// Maximum length of a path in a socket's address, in bytes; the kernel needs one more byte for the terminating zero.
const LONGEST: usize = 107;

/// The reason why a call to the running program failed.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// No program listens on the socket.
    #[error("no running contentmonster listens on {}", .0.display())]
    NobodyListens(PathBuf),
    /// The socket can't be used.
    #[error("cannot use {}: {why}", .path.display())]
    Unusable {
        /// The socket's path.
        path: PathBuf,
        /// The system's error.
        why: String,
    },
    /// The program refused the call.
    #[error("contentmonster rejected the request with status {status}: {text}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The text of the response.
        text: String,
    },
}

/// A listening socket; dropping it removes the path.
pub struct Socket {
    listener: Option<UnixListener>,
    path: PathBuf,
}

impl Socket {
    /// Creates the socket and listens. The caller must hold the ledger's lock: it ensures that no other program uses an
    /// existing socket, so that the socket can be replaced.
    ///
    /// # Errors
    /// When the path can't be used.
    pub fn listen(path: &Path) -> io::Result<Self> {
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(".new");
        let fresh = PathBuf::from(fresh);
        match std::fs::remove_file(&fresh) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
        let (address, _directory) = address(&fresh)?;
        socket.bind(&address)?;
        // The mode is set before `listen`, so that no other user can ever connect.
        std::fs::set_permissions(&fresh, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        socket.listen(64)?;
        std::fs::rename(&fresh, path)?;
        let listener = UnixListener::from_std(std::os::unix::net::UnixListener::from(OwnedFd::from(socket)))?;
        Ok(Self { listener: Some(listener), path: path.to_owned() })
    }

    /// Returns the listener on the first call, then `None`. The socket's path stays until `self` is dropped.
    pub(super) fn take(&mut self) -> Option<UnixListener> {
        self.listener.take()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_file(&self.path) {
            tracing::debug!(socket = %self.path.display(), "Cannot remove the socket: {e}");
        }
    }
}

/// Returns the socket address of a path. If the path is too long for an address, the address uses a descriptor of the
/// path's directory, which is also returned and must stay open while the address is used.
fn address(path: &Path) -> io::Result<(SockAddr, Option<OwnedFd>)> {
    if path.as_os_str().len() <= LONGEST {
        return Ok((SockAddr::unix(path)?, None));
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidFilename));
    };
    let directory = rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    if short.as_os_str().as_bytes().len() > LONGEST {
        let why = "its name is too long for a socket; give Database a file name of at most 75 bytes";
        return Err(io::Error::new(io::ErrorKind::InvalidFilename, why));
    }
    Ok((SockAddr::unix(short)?, Some(directory)))
}

/// Calls the running program: sends a GET request for `path`, or with `post` a POST request with this JSON.
///
/// # Errors
/// [`SocketError::NobodyListens`] when the program doesn't run, another error when the call fails or is refused.
pub async fn call(socket: &Path, path: &str, post: Option<String>) -> Result<Bytes, SocketError> {
    let unusable = |why: String| SocketError::Unusable { path: socket.into(), why };
    let answer = tokio::time::timeout(PATIENCE, exchange(socket, path, post)).await;
    let (status, body) =
        answer.map_err(|_| unusable(format!("no answer for {}", crate::text::duration(PATIENCE))))??;
    if status.is_success() {
        return Ok(body);
    }
    Err(SocketError::Refused { status: status.as_u16(), text: String::from_utf8_lossy(&body).trim().to_owned() })
}

async fn exchange(socket: &Path, path: &str, post: Option<String>) -> Result<(StatusCode, Bytes), SocketError> {
    let unusable = |why: &dyn std::fmt::Display| SocketError::Unusable { path: socket.into(), why: why.to_string() };
    let stream = connect(socket).await.map_err(|e| match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => SocketError::NobodyListens(socket.into()),
        _ => unusable(&e),
    })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| unusable(&e))?;
    let request = Request::builder()
        .method(if post.is_some() { Method::POST } else { Method::GET })
        .uri(path)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::<Bytes>::from(post.unwrap_or_default()))
        .map_err(|e| unusable(&e))?;
    let asking = async {
        let answer = sender.send_request(request).await.map_err(|e| unusable(&e))?;
        let status = answer.status();
        Ok((status, answer.into_body().collect().await.map_err(|e| unusable(&e))?.to_bytes()))
    };
    tokio::pin!(asking);
    tokio::select! {
        answer = &mut asking => answer,
        // The connection may end before the response was read completely, so the rest is read after its end.
        _ = connection => asking.await,
    }
}

async fn connect(path: &Path) -> io::Result<UnixStream> {
    let (address, _directory) = address(path)?;
    let address = address.as_pathname().ok_or(io::ErrorKind::InvalidFilename)?;
    UnixStream::connect(address).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn a_socket_is_its_owners_alone_takes_the_place_of_a_stale_one_and_goes_with_its_owner() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("ledger.sqlite3.sock");
        std::fs::write(&path, "stale").unwrap();
        let socket = Socket::listen(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        connect(&path).await.unwrap();
        drop(socket);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let nobody = call(&path, "/", None).await.unwrap_err();
        assert!(matches!(nobody, SocketError::NobodyListens(_)), "{nobody:?}");
    }

    #[tokio::test]
    async fn a_long_path_is_no_obstacle_but_a_long_name_is_said() {
        let dir = tempfile::TempDir::new().unwrap();
        let deep = dir.path().join("d".repeat(200));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("ledger.sqlite3.sock");
        let _socket = Socket::listen(&path).unwrap();
        connect(&path).await.unwrap();
        let refused = Socket::listen(&deep.join("n".repeat(200))).err().unwrap().to_string();
        assert!(refused.contains("at most 75 bytes"), "{refused}");
    }
}
