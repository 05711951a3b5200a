//! The calls of the Linux kernel that no library offers without `unsafe`: read leases on files, and the state and the
//! pace of TCP connections. The rest of the program forbids `unsafe`.

#[cfg(not(target_os = "linux"))]
compile_error!("these calls exist on Linux only");

mod lease;
mod tcp;

pub use lease::is_open_for_writing;
pub use tcp::{TcpInfo, limit_pace, tcp_info};
