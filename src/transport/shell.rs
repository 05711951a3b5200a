//! Builds scripts for a vessel's shell.
//!
//! A script is sent to a plain `sh` on its standard input, never as an argument, so that neither the account's login
//! shell (csh, fish) nor the length limit of arguments affects the script. [`Script::word`] quotes text from outside
//! the program.

/// A POSIX shell script under construction.
///
/// A script consists of trusted code of this program and of quoted words from outside the program.
#[derive(Clone, Debug, Default)]
pub struct Script(Vec<u8>);

impl Script {
    /// Creates an empty script.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds trusted shell code.
    #[must_use]
    pub fn code(mut self, code: &'static str) -> Self {
        self.0.extend_from_slice(code.as_bytes());
        self
    }

    /// Adds a number.
    #[must_use]
    pub fn number(mut self, number: u64) -> Self {
        self.0.extend_from_slice(number.to_string().as_bytes());
        self
    }

    /// Adds a word from outside the program, quoted and preceded by a space.
    #[must_use]
    pub fn word(mut self, word: impl AsRef<[u8]>) -> Self {
        self.0.push(b' ');
        self.0.extend_from_slice(&quote(word.as_ref()));
        self
    }

    /// Adds a path from outside the program as a quoted word that no command parses as an option.
    #[must_use]
    pub fn path(self, path: impl AsRef<[u8]>) -> Self {
        let path = path.as_ref();
        if path.starts_with(b"-") { self.word([b"./", path].concat()) } else { self.word(path) }
    }

    /// Returns the script's bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Quotes a word for a POSIX shell in single quotes, which preserve every byte except the quote itself.
fn quote(word: &[u8]) -> Vec<u8> {
    let mut quoted = Vec::with_capacity(word.len() + 2);
    quoted.push(b'\'');
    for byte in word {
        match byte {
            b'\'' => quoted.extend_from_slice(br"'\''"),
            byte => quoted.push(*byte),
        }
    }
    quoted.push(b'\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::Script;
    use proptest::prelude::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    fn through_sh(script: Script) -> Vec<u8> {
        let mut sh = Command::new("sh").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        sh.stdin.take().unwrap().write_all(&script.into_bytes()).unwrap();
        sh.wait_with_output().unwrap().stdout
    }

    #[test]
    fn the_usual_suspects_survive_a_real_shell() {
        for word in ["", "-rf", "a b", "$(id)", "`id`", "a'b", "a\"b", "a\\b", "two\nlines", "*", "~", "!1", "'"] {
            assert_eq!(through_sh(Script::new().code("printf %s").word(word)), word.as_bytes(), "{word:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_word_survives_a_real_shell(word in proptest::collection::vec(1u8.., 0..200)) {
            prop_assert_eq!(through_sh(Script::new().code("printf %s").word(&word)), word);
        }
    }
}
