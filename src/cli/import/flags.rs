//! Translates `rsync`'s short options, or explains why they have no equivalent.

/// The `rsync` options in a string of letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags {
    pub(super) recursive: bool,
    pub(super) copies_links: bool,
    pub(super) follows_links: bool,
    pub(super) owner: bool,
    pub(super) compresses: bool,
    pub(super) dry_run: bool,
    pub(super) whole_files: bool,
    pub(super) modes: bool,
    pub(super) times: bool,
    /// Options without an equivalent and the reasons, as one line each.
    pub(super) notes: Vec<String>,
}

/// Option letters that take the rest of the string as their value.
const WITH_VALUE: &str = "BefMT@";

impl Flags {
    pub(super) fn parse(letters: &str) -> Self {
        let mut flags = Self::default();
        let mut rest = letters.trim_start_matches('-').chars();
        while let Some(letter) = rest.next() {
            if WITH_VALUE.contains(letter) {
                let value: String = rest.by_ref().collect();
                flags.note(letter, &value);
            } else {
                flags.set(letter);
            }
        }
        if !flags.modes {
            let note = "without `p` rsync applies the target's umask; contentmonster always keeps the modes";
            flags.notes.push(note.to_owned());
        }
        if !flags.times {
            let note = "without `t` a copy gets the time of copying; contentmonster always keeps the source's time";
            flags.notes.push(note.to_owned());
        }
        flags
    }

    fn set(&mut self, letter: char) {
        match letter {
            'a' => "rlptgoD".chars().for_each(|letter| self.set(letter)),
            'r' => self.recursive = true,
            'l' => self.copies_links = true,
            'L' => self.follows_links = true,
            'o' | 'g' => self.owner = true,
            'p' => self.modes = true,
            't' => self.times = true,
            'z' => self.compresses = true,
            'n' => self.dry_run = true,
            'W' => self.whole_files = true,
            // No equivalent is needed: uploads are always resumed, and the log reports progress.
            'P' | 'v' | 'q' | 'h' | 'i' => {}
            letter => self.note(letter, ""),
        }
    }

    fn note(&mut self, letter: char, value: &str) {
        let why = match letter {
            'D' => "devices, pipes and sockets are never copied",
            'B' => "the block size cannot be set",
            'u' => "a file that is newer on the target is replaced too",
            'x' => "other file systems below the directory are included",
            'c' => "every file is verified by its hash anyway",
            'H' => "hard links become separate files",
            'A' => "access control lists are not copied",
            'X' => "extended attributes are not copied",
            'S' => "sparse files have no holes on the target",
            'b' => "replaced files are not backed up",
            'd' => "directories are sent with their contents, or not at all",
            'R' => "paths on the target are relative to the source",
            'C' => "write `Exclude` with the patterns to skip",
            'f' | 'F' => "write `Include` and `Exclude`",
            'e' => "the connection is configured in its [Vessel]",
            'm' => "empty directories are created too",
            'I' | 'y' | 'E' | 'J' | 'O' | 'N' | 'U' | 'k' | 'K' | 'M' | 'T' | '@' | '0' | '4' | '6' | '8' | 's' => {
                "contentmonster has no equivalent"
            }
            'V' => "rsync prints its version and copies nothing",
            _ => "rsync rejects this unknown option, so Poni copies nothing",
        };
        let misread = if letter == 'B' && value.parse::<u64>().is_err() {
            format!(" (rsync rejects `{value}` as the block size, so Poni copies nothing)")
        } else {
            String::new()
        };
        self.notes.push(format!("`{letter}{value}` is not imported: {why}{misread}"));
    }
}
