//! `receipts`: lists acknowledged and expired deliveries.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::{Timestamp, Zoned};
use serde::Serialize;

use super::shore::on_shore;
use super::times::in_past;
use super::{Exit, output, say_error, sizes};
use crate::ledger::{LedgerError, LedgerView, Receipt};
use crate::records::{DeliveryId, Verified};
use crate::text::{visible, visible_json};

/// Number of receipts per query.
const PAGE: u32 = 1000;

/// The text in `verified` for an expired delivery.
const EXPIRED: &str = "expired: not delivered";

/// The output format of receipts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Json,
    Csv,
}

impl Form {
    /// Returns the format that the options select.
    pub(super) fn of(json: bool, csv: bool) -> Self {
        match (json, csv) {
            (true, _) => Self::Json,
            (_, true) => Self::Csv,
            _ => Self::Text,
        }
    }
}

/// One line of output.
#[derive(Serialize)]
struct Line<'a> {
    /// The time of the acknowledgement, or of the expiry.
    delivered: Timestamp,
    vessel: Cow<'a, str>,
    directory: Cow<'a, str>,
    file: Cow<'a, str>,
    bytes: u64,
    sha256: String,
    verified: Cow<'a, str>,
    /// Bytes of the file that were written, including those written again.
    written_bytes: Option<u64>,
    /// The delivery's share of the bytes on the link.
    link_bytes: Option<u64>,
    /// The file on the vessel that was moved, or from which the whole content or some blocks were copied.
    made_from: Option<Cow<'a, str>>,
    /// Number of bytes that were moved or copied from `made_from`.
    saved_bytes: Option<u64>,
}

impl<'a> Line<'a> {
    fn of(receipt: &'a Receipt) -> Self {
        Self {
            delivered: Timestamp::from_millisecond(receipt.acknowledged_at).unwrap_or(Timestamp::MIN),
            vessel: receipt.vessel.as_str().into(),
            directory: receipt.directory.as_str().into(),
            file: receipt.path.to_string().into(),
            bytes: receipt.size,
            sha256: receipt.digest.map(|digest| digest.to_string()).unwrap_or_default(),
            verified: receipt.verified.as_str().into(),
            written_bytes: receipt.cost.map(|cost| cost.written),
            link_bytes: receipt.cost.and_then(|cost| cost.link),
            made_from: receipt.made_from.as_deref().map(Cow::from),
            saved_bytes: receipt.saved_bytes,
        }
    }

    /// Escapes the texts for CSV, because people open CSV files with spreadsheets.
    fn for_spreadsheets(self) -> Self {
        Self {
            vessel: no_formula(self.vessel),
            directory: no_formula(self.directory),
            file: no_formula(self.file),
            verified: no_formula(self.verified),
            made_from: self.made_from.map(no_formula),
            ..self
        }
    }
}

/// Prefixes a cell with `'` if a spreadsheet would run the cell as a formula. File names may come from attackers
/// (OWASP, "CSV Injection").
fn no_formula(cell: Cow<'_, str>) -> Cow<'_, str> {
    match cell.chars().next() {
        // Spreadsheets treat the full-width forms of these characters like the ASCII ones.
        Some('=' | '+' | '-' | '@' | '\t' | '\r' | '\n' | '＝' | '＋' | '－' | '＠') => {
            Cow::Owned(format!("'{}", visible(&cell)))
        }
        _ => cell,
    }
}

/// Returns a phrase that says from which file on the vessel a file of `bytes` bytes was made. `verified` is how the
/// file was verified, `saved` is the number of bytes that were moved or copied.
pub(super) fn made_from(verified: &str, from: &str, bytes: u64, saved: Option<u64>) -> String {
    match saved.filter(|saved| *saved < bytes) {
        _ if verified == Verified::Moved.as_str() => format!(" from {from}"),
        Some(saved) => format!(", blocks of {from} ({} copied)", sizes::bytes(saved)),
        None => format!(", copied from {from}"),
    }
}

/// The options that select the receipts to list.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) file: Option<PathBuf>,
    pub(super) vessel: Option<String>,
    pub(super) only_expired: bool,
    pub(super) since: Option<String>,
    pub(super) until: Option<String>,
    pub(super) limit: Option<u32>,
}

/// Lists the wanted receipts, oldest first.
pub(super) fn receipts(settings: &Path, wanted: &Wanted, form: Form) -> Exit {
    let now = Zoned::now();
    let time = |text: &Option<String>| text.as_ref().map(|text| in_past(text, &now)).transpose();
    let (since, until) = match (time(&wanted.since), time(&wanted.until)) {
        (Ok(since), Ok(until)) => (since, until),
        (Err(why), _) | (_, Err(why)) => {
            say_error(format_args!("{why}"));
            return Exit::Usage;
        }
    };
    let ms = |time: Zoned| time.timestamp().as_millisecond();
    let (since, until) = (since.map_or(i64::MIN, ms), until.map_or(i64::MAX, ms));
    on_shore(settings, async |shore| {
        let ledger = shore.ledger().await?;
        let only = match &wanted.file {
            Some(file) => {
                let meant = shore.find(&ledger, file).await?;
                Some((meant.name, meant.path))
            }
            None => None,
        };
        let is_wanted = |receipt: &Receipt| {
            only.as_ref().is_none_or(|(directory, path)| (directory, path) == (&receipt.directory, &receipt.path))
                && wanted.vessel.as_ref().is_none_or(|vessel| vessel == receipt.vessel.as_str())
        };
        let mut out = Out::new(form);
        let mut pages = [Pages::new(wanted.only_expired, since), Pages::new(false, since)];
        // With a limit, the newest receipts so far.
        let mut last = VecDeque::new();
        loop {
            for (pages, expired) in pages.iter_mut().zip([false, true]) {
                pages.fill(&ledger, expired).await?;
            }
            let [received, expired] = &mut pages;
            let is_next = match (received.next(), expired.next()) {
                (None, None) => break,
                (Some(received), Some(expired)) => received.acknowledged_at <= expired.acknowledged_at,
                (received, _) => received.is_some(),
            };
            let from = if is_next { received } else { expired };
            let Some(receipt) = from.found.pop_front() else { continue };
            if receipt.acknowledged_at >= until {
                break;
            }
            if !is_wanted(&receipt) {
                continue;
            }
            let receipt = match wanted.limit {
                None => Some(receipt),
                Some(limit) => {
                    last.push_back(receipt);
                    if last.len() > limit as usize {
                        last.pop_front();
                    }
                    None
                }
            };
            if let Some(Err(e)) = receipt.map(|receipt| out.write(&receipt)) {
                output::note(&e);
                return Ok(Exit::Good);
            }
        }
        let written = last.iter().try_for_each(|receipt| out.write(receipt)).and_then(|()| out.finish());
        if let Err(e) = written {
            output::note(&e);
        }
        Ok(Exit::Good)
    })
}

/// The receipts of either acknowledged or expired deliveries, read page by page.
struct Pages {
    found: VecDeque<Receipt>,
    after: (i64, DeliveryId),
    is_over: bool,
}

impl Pages {
    fn new(is_over: bool, since: i64) -> Self {
        Self { found: VecDeque::new(), after: (since, DeliveryId(i64::MIN)), is_over }
    }

    fn next(&self) -> Option<&Receipt> {
        self.found.front()
    }

    async fn fill(&mut self, ledger: &LedgerView, expired: bool) -> Result<(), LedgerError> {
        if self.is_over || !self.found.is_empty() {
            return Ok(());
        }
        let mut page = match expired {
            false => ledger.receipts(self.after, PAGE).await?,
            true => ledger.expired(self.after, PAGE).await?,
        };
        match page.last() {
            Some(last) => self.after = (last.acknowledged_at, last.delivery),
            None => self.is_over = true,
        }
        if expired {
            page.iter_mut().for_each(|receipt| EXPIRED.clone_into(&mut receipt.verified));
        }
        self.found = page.into();
        Ok(())
    }
}

/// The output in one of the formats.
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
            Form::Csv => self.csv.serialize(line.for_spreadsheets()).map_err(io::Error::from),
            Form::Json => writeln!(self.text, "{}", visible_json(&serde_json::to_string(&line)?)),
            Form::Text => {
                let link = line.link_bytes.map_or_else(String::new, |bytes| format!("  {bytes} bytes on the link"));
                let from = line.made_from.as_ref();
                let from = from.map(|from| made_from(&line.verified, from, line.bytes, line.saved_bytes));
                let from = from.unwrap_or_default();
                let text = format!(
                    "{}  {}  {}/{}  {} bytes  {}  {}{from}{link}",
                    line.delivered, line.vessel, line.directory, line.file, line.bytes, line.sha256, line.verified
                );
                writeln!(self.text, "{}", visible(&text))
            }
        }
    }

    fn finish(mut self) -> io::Result<()> {
        self.csv.flush()?;
        self.text.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::no_formula;

    #[test]
    fn a_name_that_a_spreadsheet_would_run_is_text_in_csv() {
        for (name, cell) in [
            ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
            ("+1", "'+1"),
            ("-2+3", "'-2+3"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\\t=1"),
            ("\r=1", "'\\r=1"),
            ("＝1", "'＝1"),
            ("a=b", "a=b"),
            ("", ""),
        ] {
            assert_eq!(no_formula(name.into()), cell);
        }
    }
}
