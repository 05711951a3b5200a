//! `receipts`: what was delivered, for the record.

use std::io::{self, Write};
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use super::shore::on_shore;
use super::{Exit, say_error};
use crate::ledger::Receipt;
use crate::records::DeliveryId;

/// How many are asked for at once.
const PAGE: u32 = 1000;

/// How receipts are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Json,
    Csv,
}

impl Form {
    /// What the options ask for.
    pub(super) fn of(json: bool, csv: bool) -> Self {
        match (json, csv) {
            (true, _) => Self::Json,
            (_, true) => Self::Csv,
            _ => Self::Text,
        }
    }
}

/// One line.
#[derive(Serialize)]
struct Line<'a> {
    delivered: Timestamp,
    vessel: &'a str,
    directory: &'a str,
    file: String,
    bytes: u64,
    sha256: String,
    verified: &'a str,
}

impl<'a> Line<'a> {
    fn of(receipt: &'a Receipt) -> Self {
        Self {
            delivered: Timestamp::from_millisecond(receipt.acknowledged_at).unwrap_or(Timestamp::MIN),
            vessel: receipt.vessel.as_str(),
            directory: receipt.directory.as_str(),
            file: receipt.path.to_string(),
            bytes: receipt.size,
            sha256: receipt.digest.map(|digest| digest.to_string()).unwrap_or_default(),
            verified: &receipt.verified,
        }
    }
}

/// Lists them, oldest first.
pub(super) fn receipts(settings: &Path, file: Option<&Path>, vessel: Option<&str>, form: Form) -> Exit {
    on_shore(settings, async |shore| {
        let ledger = shore.ledger().await?;
        let only = match file {
            Some(file) => {
                let (directory, path, _) = shore.find(&ledger, file).await?;
                Some((directory.name.clone(), path))
            }
            None => None,
        };
        let wanted = |receipt: &Receipt| {
            only.as_ref().is_none_or(|(directory, path)| (directory, path) == (&receipt.directory, &receipt.path))
                && vessel.is_none_or(|vessel| vessel == receipt.vessel.as_str())
        };
        let mut out = Out::new(form);
        let mut after = (i64::MIN, DeliveryId(0));
        loop {
            let page = ledger.receipts(after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = (last.acknowledged_at, last.delivery);
            if let Err(e) = page.iter().filter(|receipt| wanted(receipt)).try_for_each(|receipt| out.write(receipt)) {
                return Ok(ended(&e));
            }
        }
        Ok(out.finish().map_or_else(|e| ended(&e), |()| Exit::Good))
    })
}

/// Whoever read has had enough (`| head`): that is no error.
fn ended(error: &io::Error) -> Exit {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Exit::Good;
    }
    say_error(format_args!("can't write: {error}"));
    Exit::Broken
}

/// Where the lines go.
struct Out {
    form: Form,
    csv: csv::Writer<io::BufWriter<io::Stdout>>,
    text: io::BufWriter<io::Stdout>,
}

impl Out {
    fn new(form: Form) -> Self {
        Self {
            form,
            csv: csv::Writer::from_writer(io::BufWriter::new(io::stdout())),
            text: io::BufWriter::new(io::stdout()),
        }
    }

    fn write(&mut self, receipt: &Receipt) -> io::Result<()> {
        let line = Line::of(receipt);
        match self.form {
            Form::Csv => self.csv.serialize(line).map_err(io::Error::from),
            Form::Json => {
                serde_json::to_writer(&mut self.text, &line)?;
                writeln!(self.text)
            }
            Form::Text => writeln!(
                self.text,
                "{}  {}  {}/{}  {} bytes  {}  {}",
                line.delivered, line.vessel, line.directory, line.file, line.bytes, line.sha256, line.verified
            ),
        }
    }

    fn finish(mut self) -> io::Result<()> {
        self.csv.flush()?;
        self.text.flush()
    }
}
