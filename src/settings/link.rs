//! The use of a vessel's link: congestion control, compression, connections, and the assembly of files.

/// The congestion control of the connections to a vessel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CongestionControl {
    /// BBR if the kernel lets this process use it, otherwise the system's default.
    #[default]
    Auto,
    /// The system's default.
    System,
    /// The algorithm with this name in the kernel.
    Named(String),
}

/// Whether data is compressed on its way to a vessel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Nothing is compressed.
    #[default]
    No,
    /// SSH compresses everything, if the vessel offers compression.
    Yes,
    /// Files that compression makes smaller are sent compressed over slow links, and the vessel's shell expands them.
    /// If the shell can't, SSH compresses instead.
    Auto,
}

/// The number of connections to a vessel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Connections {
    /// As many connections as increase the throughput.
    #[default]
    Auto,
    /// A fixed number from 1 to 8.
    Fixed(u8),
}

/// How a file of several chunks is assembled on a vessel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Assembly {
    /// Chunks are uploaded as parts and joined with `cat`.
    #[default]
    Cat,
    /// Chunks are written at their offsets into one temporary file.
    Direct,
}

/// Whether commands are run on a vessel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shell {
    /// Commands are run if the vessel allows commands.
    #[default]
    Auto,
    /// No commands are run: only SFTP is used.
    No,
}

/// How files of at most 1 MiB are sent to a vessel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SmallFiles {
    /// By the shell if the round-trip time is long, otherwise by SFTP.
    #[default]
    Auto,
    /// By the shell, whatever the round-trip time. Files that the shell cannot receive are sent by SFTP.
    Shell,
    /// Always by SFTP.
    Sftp,
}

/// How a vessel's copy of a file is verified before the copy gets its final name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// The vessel hashes its copy; if it can't, the copy is read back.
    #[default]
    Hash,
    /// The copy is read back, even if the vessel can hash it.
    ReadBack,
    /// The vessel hashes its copy; if it can't, only the size is compared.
    Size,
}

/// Whether only the changed blocks of a changed file are sent, which requires a signature of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delta {
    /// In a mirror, every file of 1 MiB or more gets a signature. Elsewhere, such a file gets a signature only if the
    /// vessel holds an earlier version of it.
    #[default]
    Auto,
    /// Every file of 1 MiB or more gets a signature.
    Yes,
    /// No file gets a signature.
    No,
}

/// Whether content that a vessel has already is renamed or copied on the vessel instead of being sent again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dedup {
    /// Moved entries are renamed on the vessel, and files with the content of a delivered file are copied there.
    #[default]
    Auto,
    /// Everything is sent.
    No,
}

/// Parses `auto`, `system`, or the name of an algorithm. The name only needs a valid form; this kernel may lack the
/// algorithm.
pub(super) fn congestion_control(text: &str) -> Option<CongestionControl> {
    // TCP_CA_NAME_MAX is 16, including the terminating zero.
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
    match text {
        "auto" => Some(CongestionControl::Auto),
        "system" => Some(CongestionControl::System),
        name if (1..16).contains(&name.len()) && name.chars().all(is_name) => {
            Some(CongestionControl::Named(name.to_owned()))
        }
        _ => None,
    }
}

/// Parses `auto`, or a number from 1 to 8.
pub(super) fn connections(text: &str) -> Option<Connections> {
    match text.as_bytes() {
        b"auto" => Some(Connections::Auto),
        [digit @ b'1'..=b'8'] => Some(Connections::Fixed(digit - b'0')),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_that_a_kernel_may_have_is_a_congestion_control() {
        for name in ["bbr", "cubic", "reno", "bbr2", "tcp_x-y", "fifteen_letters"] {
            assert_eq!(congestion_control(name), Some(CongestionControl::Named(name.into())));
        }
        assert_eq!(congestion_control("auto"), Some(CongestionControl::Auto));
        assert_eq!(congestion_control("system"), Some(CongestionControl::System));
        for bad in ["", "BBR", "two words", "sixteen_letters_", "b\0r", "bbr,cubic"] {
            assert!(congestion_control(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn connections_are_one_to_eight() {
        assert_eq!(connections("auto"), Some(Connections::Auto));
        assert_eq!(connections("1"), Some(Connections::Fixed(1)));
        assert_eq!(connections("8"), Some(Connections::Fixed(8)));
        for bad in ["", "0", "9", "10", "-1", "+1", "01", "Auto", "all"] {
            assert!(connections(bad).is_none(), "{bad}");
        }
    }
}
