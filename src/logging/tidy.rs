//! Escapes log lines so that they can't deceive a reader: each event is one line, whatever a file name or a message
//! from a vessel contains.

use std::io::{self, Write};

use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

use crate::text::{visible, visible_json};

/// A writer that escapes unprintable and deceptive characters in each line.
pub(super) struct Tidy<M> {
    inner: M,
    form: Form,
}

/// The format of a line, which determines the escapes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Plain text.
    Text,
    /// Text with colours. `tracing_subscriber` has already escaped all escape sequences that are not colours.
    Coloured,
    /// One JSON object per line.
    Json,
}

impl<M> Tidy<M> {
    pub(super) fn new(inner: M, form: Form) -> Self {
        Self { inner, form }
    }
}

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for Tidy<M> {
    type Writer = Line<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Line { inner: self.inner.make_writer(), form: self.form }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Self::Writer {
        Line { inner: self.inner.make_writer_for(meta), form: self.form }
    }
}

/// A log line. One call of `write` is one line, because `tracing_subscriber` writes each line with one call.
pub(super) struct Line<W> {
    inner: W,
    form: Form,
}

impl<W: Write> Write for Line<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.iter().rev().skip(1).all(|b| matches!(b, b' '..=b'~')) {
            self.inner.write_all(bytes)?;
        } else {
            self.inner.write_all(tidied(bytes, self.form).as_bytes())?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn tidied(bytes: &[u8], form: Form) -> String {
    let text = String::from_utf8_lossy(bytes);
    let (line, end) = text.strip_suffix('\n').map_or((&*text, ""), |line| (line, "\n"));
    let tidy = match form {
        Form::Json => visible_json(line),
        Form::Text => visible(line),
        Form::Coloured => line.split('\x1b').map(visible).collect::<Vec<_>>().join("\x1b").into(),
    };
    tidy.into_owned() + end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_line_and_shows_what_is_in_it() {
        let line = "WARN kept: caf\u{e9} \u{202e}x\u{200b}\nERROR forged\u{2028}\u{1b}[2J\n";
        let shown = "WARN kept: caf\u{e9} \\u{202e}x\\u{200b}\\nERROR forged\\u{2028}\\u{1b}[2J\n";
        assert_eq!(tidied(line.as_bytes(), Form::Text), shown);
        assert_eq!(tidied("\x1b[32mINFO\x1b[0m a\r\n".as_bytes(), Form::Coloured), "\x1b[32mINFO\x1b[0m a\\r\n");
    }

    #[test]
    fn a_json_line_stays_json() {
        let line = format!("{}\n", serde_json::json!({ "file": "\u{202e}a\u{e0041}\u{7f}", "message": "one\ntwo" }));
        let tidy = tidied(line.as_bytes(), Form::Json);
        assert!(tidy.is_ascii() && tidy.contains("\\u202e"), "{tidy}");
        let same: serde_json::Value = serde_json::from_str(&tidy).unwrap();
        assert_eq!(same, serde_json::from_str::<serde_json::Value>(&line).unwrap());
    }
}
