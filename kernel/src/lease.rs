//! Asks the kernel whether anybody has a file open for writing.
//!
//! Linux grants a read lease on a file only while nobody has it open for writing (`fcntl_setlease`, `F_SETLEASE` in
//! fcntl(2)), which counts open descriptors of every process and shared writable mappings. The lease itself is of no use
//! here: it is given back at once.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use libc::{EAGAIN, EINTR, F_RDLCK, F_SETLEASE, F_UNLCK, c_int};

/// The command that chooses a lease's signal. `libc` does not define it; `include/uapi/asm-generic/fcntl.h` does, and of
/// all of Linux's architectures parisc alone has another number.
const F_SETSIG: c_int = 10;

/// Whether any process, this one included, has the file open for writing. `file` must be open for reading only.
///
/// Takes about a microsecond. A program that opens the file for writing in that moment waits for so long; only one that
/// opens it with `O_NONBLOCK` gets `EWOULDBLOCK` instead. On a network file system only programs of this host count.
///
/// # Errors
/// When the kernel does not tell: `EACCES` when this process neither owns the file nor has `CAP_LEASE`, `EINVAL` when the
/// file system has no leases.
pub fn is_open_for_writing(file: &File) -> io::Result<bool> {
    // Whoever breaks a lease sends its holder SIGIO, which ends a process that does not expect it. SIGURG is ignored.
    fcntl(file, F_SETSIG, libc::SIGURG)?;
    match fcntl(file, F_SETLEASE, F_RDLCK) {
        Ok(()) => {
            // Closing the file would release the lease too: that this fails is not expected, and harms nobody for long.
            fcntl(file, F_SETLEASE, F_UNLCK)?;
            Ok(false)
        }
        Err(error) if error.raw_os_error() == Some(EAGAIN) => Ok(true),
        Err(error) => Err(error),
    }
}

/// One `fcntl` whose argument is a number.
fn fcntl(file: &File, command: c_int, argument: c_int) -> io::Result<()> {
    loop {
        // SAFETY: `file` keeps its descriptor open for the whole call, and none of the commands used above takes a pointer:
        // F_SETSIG and F_SETLEASE read one `int`, so no memory of this process is read or written by the kernel.
        if unsafe { libc::fcntl(file.as_raw_fd(), command, argument) } != -1 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(EINTR) {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    fn asked(path: &std::path::Path) -> bool {
        is_open_for_writing(&File::open(path).unwrap()).unwrap()
    }

    #[test]
    fn a_file_is_open_for_writing_from_open_to_close() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(asked(file.path()), "by this process");
        let path = file.into_temp_path();
        assert!(!asked(&path));
        let reader = File::open(&path).unwrap();
        assert!(!asked(&path), "a reader is no writer");
        drop(reader);
        let script = "exec 3>>\"$1\"; echo open; read line";
        let mut writer = Command::new("sh");
        writer.args(["-c", script, "sh"]).arg(&path);
        writer.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut writer = writer.spawn().unwrap();
        let mut said = [0; 5];
        io::Read::read_exact(writer.stdout.as_mut().unwrap(), &mut said).unwrap();
        assert!(asked(&path), "by another process");
        drop(writer.stdin.take());
        writer.wait().unwrap();
        assert!(!asked(&path));
    }

    #[test]
    fn programs_that_open_the_file_meanwhile_neither_fail_nor_end_this_process() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    drop(OpenOptions::new().append(true).open(&path).unwrap());
                }
                done.store(true, Ordering::Release);
            });
            while !done.load(Ordering::Acquire) {
                asked(&path);
            }
        });
        assert!(!asked(&path));
    }

    #[test]
    fn what_has_no_leases_is_an_error_and_no_answer() {
        assert!(is_open_for_writing(&File::open("/dev/null").unwrap()).is_err());
    }
}
