//! Draws the book's picture of the demo, when asked to: `cargo test --test it draws_the_demo -- --ignored`.

use std::fmt::Write;
use std::fs;
use std::process::Command;

use super::page::source;

/// Width of a character, in pixels of a picture that scales.
const CELL: f32 = 7.8;
/// Height of a line.
const LINE: usize = 18;
/// Room around the text.
const MARGIN: usize = 16;

#[test]
#[ignore = "writes docs/src/images/demo.svg"]
fn draws_the_demo() {
    let shown = Command::new(env!("CARGO_BIN_EXE_contentmonster")).arg("demo").output().unwrap();
    assert!(shown.status.success(), "{shown:?}");
    let text = format!("$ contentmonster demo\n{}", String::from_utf8(shown.stdout).unwrap());
    fs::write(source().join("images/demo.svg"), terminal(&text)).unwrap();
}

/// A terminal that shows the text.
fn terminal(text: &str) -> String {
    let columns = text.lines().map(|line| line.trim_end().chars().count()).max().unwrap_or(0);
    let (width, height) = (columns as f32 * CELL + 2.0 * MARGIN as f32, text.lines().count() * LINE + 2 * MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height}\" role=\"img\" \
         aria-label=\"Output of contentmonster demo\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#16202c\"/>\n\
         <g font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace\" font-size=\"13\" fill=\"#d8dee9\">\n"
    );
    for (row, line) in (1..).zip(text.lines()) {
        let line = line.trim_end();
        let colour = if line.ends_with("equal") || line.starts_with("every file") { " fill=\"#a3d39c\"" } else { "" };
        // Several blanks in a row are one, unless they don't break.
        let escaped = line.replace('&', "&amp;").replace('<', "&lt;").replace(' ', "\u{a0}");
        let (y, length) = (MARGIN + row * LINE - 5, line.chars().count() as f32 * CELL);
        if !line.is_empty() {
            let _ = writeln!(svg, "<text x=\"{MARGIN}\" y=\"{y}\" textLength=\"{length:.1}\"{colour}>{escaped}</text>");
        }
    }
    svg + "</g>\n</svg>\n"
}
