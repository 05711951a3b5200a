//! The Markdown file of results: each table stands between two comments that name it, and takes the place of the one that
//! stood there. What is written around them stays.

use std::fs;
use std::path::Path;

use crate::Result;
use crate::freight::at;
use crate::machine::Machine;
use crate::report::Section;

const HEAD: &str = "# Results of the benchmark against peers\n";

/// Brings the tables of these sections up to date.
pub(crate) fn update(file: &Path, machine: &Machine, sections: &[Section]) -> Result<()> {
    let mut text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => HEAD.to_owned(),
        Err(e) => return Err(at(file)(e)),
    };
    for section in sections {
        text = put(&text, &section.key, &block(machine, section));
    }
    fs::write(file, text).map_err(at(file))
}

fn block(machine: &Machine, section: &Section) -> String {
    let others = machine.versions.join(", ");
    let ours = &machine.ours;
    format!("{}\n{}: {ours}; {}; {others}\n", section.as_markdown(), machine.date, machine.hardware)
}

/// The text with `block` between the comments that name `key`; at the end, if there are none yet.
fn put(text: &str, key: &str, block: &str) -> String {
    let (begin, end) = (format!("<!-- begin {key} -->"), format!("<!-- end {key} -->"));
    let new = format!("{begin}\n\n{block}\n{end}");
    if let Some((before, rest)) = text.split_once(&begin)
        && let Some((_, after)) = rest.split_once(&end)
    {
        return format!("{before}{new}{after}");
    }
    format!("{}\n\n{new}\n", text.trim_end())
}
