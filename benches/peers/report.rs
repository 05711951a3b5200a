//! A table, as text for the terminal and as Markdown, with the bars that the drawing makes of it.

use crate::figures::{Row, Verdict};

/// What one case has come to.
pub(crate) struct Section {
    /// Case and conditions, which together name it from run to run.
    pub(crate) key: String,
    /// A heading for people.
    pub(crate) heading: String,
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    /// What is drawn; nothing for cases without times to compare.
    pub(crate) bars: Vec<Bar>,
}

/// A bar of the drawing.
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) is_ours: bool,
    /// Its length, seconds.
    pub(crate) seconds: f64,
    /// What stands behind it.
    pub(crate) text: String,
    /// Whether it took longer than shown.
    pub(crate) open_ended: bool,
}

/// Bytes from which on it matters how often the source is read; below, the ledger's pages are most of what is read.
const LARGE: f64 = 10e6;

const COMPARISON: &[&str] =
    &["program", "median s", "min–max s", "ours ÷ it", "Mbit/s", "CPU s", "peak MiB", "bytes read ÷ size"];

impl Section {
    pub(crate) fn new(case: &str, title: &str, conditions: &str) -> Self {
        Self {
            key: format!("{case}; {conditions}"),
            heading: format!("`{case}`: {title} ({conditions})"),
            header: Vec::new(),
            rows: Vec::new(),
            bars: Vec::new(),
        }
    }

    /// Fills in a comparison of programs that each brought `bytes` to each of `vessels`.
    pub(crate) fn compare(&mut self, rows: &[Row], bytes: u64, vessels: u64) {
        self.header = COMPARISON.to_vec();
        let ours = rows.iter().find(|row| row.is_ours).and_then(Row::seconds);
        let per_run = (bytes * vessels) as f64;
        self.rows = rows.iter().map(|row| comparison(row, ours, bytes as f64, per_run)).collect();
        self.bars = rows.iter().filter_map(bar).collect();
    }

    /// Adds a line of figures under these headings.
    pub(crate) fn add(&mut self, header: &[&'static str], figures: Vec<String>) {
        self.header = header.to_vec();
        self.rows.push(figures);
    }

    pub(crate) fn as_text(&self) -> String {
        let mut text = format!("{}\n", self.heading);
        for line in self.lines() {
            text.push_str(&format!("  {}\n", line.join("  ").trim_end()));
        }
        text
    }

    pub(crate) fn as_markdown(&self) -> String {
        let mut lines = self.lines().into_iter().map(|line| format!("| {} |\n", line.join(" | ")));
        let columns = self.header.len();
        let mut text = format!("### {}\n\n{}", self.heading, lines.next().unwrap_or_default());
        text.push_str(&format!("|---|{}\n", "--:|".repeat(columns.saturating_sub(1))));
        text.extend(lines);
        text
    }

    /// Header and rows, padded to columns: the first to the left, figures to the right.
    fn lines(&self) -> Vec<Vec<String>> {
        let header: Vec<_> = self.header.iter().map(|&word| word.to_owned()).collect();
        let all: Vec<_> = std::iter::once(&header).chain(&self.rows).collect();
        let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<_> = (0..header.len()).map(width).collect();
        let pad = |(column, text): (usize, &String)| {
            let width = widths[column];
            if column == 0 { format!("{text:<width$}") } else { format!("{text:>width$}") }
        };
        all.into_iter().map(|row| row.iter().enumerate().map(pad).collect()).collect()
    }
}

fn comparison(row: &Row, ours: Option<f64>, size: f64, per_run: f64) -> Vec<String> {
    let (seconds, spread) = match row.verdict {
        Verdict::Took { median, least, most } => (figure(median), format!("{}–{}", figure(least), figure(most))),
        Verdict::Failed { bad, of } => (format!("FAILED {bad} of {of}"), String::new()),
        Verdict::Overtime(limit) => (format!("> {limit}"), String::new()),
    };
    let ratio = match (&row.verdict, ours) {
        (Verdict::Took { median, .. }, Some(ours)) => format!("{:.2}", ours / median),
        (Verdict::Overtime(limit), Some(ours)) => format!("< {:.2}", ours / limit),
        _ => String::new(),
    };
    let rate = row.seconds().map(|seconds| per_run * 8.0 / 1e6 / seconds);
    let shown = |value: Option<f64>, digits: usize| value.map(|v| format!("{v:.digits$}")).unwrap_or_default();
    let read = row.read.filter(|_| row.is_ours && size >= LARGE).map(|read| read / size);
    let mebibytes = row.peak.map(|peak| peak / f64::from(1 << 20));
    let name = row.program.clone();
    vec![name, seconds, spread, ratio, shown(rate, 1), shown(row.cpu, 2), shown(mebibytes, 0), shown(read, 2)]
}

fn bar(row: &Row) -> Option<Bar> {
    let (seconds, open_ended) = match row.verdict {
        Verdict::Took { median, .. } => (median, false),
        Verdict::Overtime(limit) => (limit, true),
        Verdict::Failed { .. } => return None,
    };
    let text = format!("{}{} s", if open_ended { "> " } else { "" }, figure(seconds));
    Some(Bar { label: row.program.clone(), is_ours: row.is_ours, seconds, text, open_ended })
}

/// A number with about three digits that mean something.
pub(crate) fn figure(value: f64) -> String {
    let digits = if value < 10.0 { 2 } else { 1 };
    format!("{value:.digits$}")
}
