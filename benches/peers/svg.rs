//! The drawing: for each case a bar for each program, as long as it took. It follows the reader's light or dark theme.

use crate::machine::Machine;
use crate::report::{Bar, Section};

const WIDTH: f64 = 760.0;
/// Where bars begin, and how long the longest is; the rest is for the time behind it.
const LEFT: f64 = 190.0;
const LONGEST: f64 = 470.0;
const LINE: f64 = 22.0;
const BAR: f64 = 14.0;

const STYLE: &str = "
    text { font: 13px system-ui, sans-serif; fill: #24292f }
    .title { font-weight: 600; font-size: 14px }
    .faint { fill: #6e7781; font-size: 11px }
    .ours { fill: #0969da }
    .peer { fill: #afb8c1 }
    .open { fill: none; stroke: #afb8c1; stroke-dasharray: 4 3 }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3 }
      .faint { fill: #8b949e }
      .ours { fill: #4493f8 }
      .peer { fill: #59636e }
      .open { stroke: #59636e }
    }
";

/// Draws all sections that have bars, one below the other.
pub(crate) fn draw(machine: &Machine, sections: &[Section]) -> String {
    let mut body = String::new();
    let mut y = 10.0;
    for section in sections.iter().filter(|section| !section.bars.is_empty()) {
        y += LINE;
        body.push_str(&text(10.0, y, "title", &section.heading.replace('`', "")));
        y += 8.0;
        let longest = section.bars.iter().map(|bar| bar.seconds).fold(f64::MIN_POSITIVE, f64::max);
        for bar in &section.bars {
            body.push_str(&row(bar, y, LONGEST * bar.seconds / longest));
            y += LINE;
        }
        y += 10.0;
    }
    y += 10.0;
    let made = format!("median seconds, shorter is better; {}; {}", machine.date, machine.ours);
    for foot in [&made, &machine.hardware] {
        body.push_str(&text(10.0, y, "faint", foot));
        y += 16.0;
    }
    let height = y;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         role=\"img\">\n<title>contentmonster and its peers</title>\n<style>{STYLE}</style>\n{body}</svg>\n"
    )
}

fn row(bar: &Bar, y: f64, length: f64) -> String {
    let class = match (bar.open_ended, bar.is_ours) {
        (true, _) => "open",
        (false, true) => "ours",
        (false, false) => "peer",
    };
    // A bar too short to see is not drawn.
    let length = length.max(1.5);
    let rect = format!(
        "<rect class=\"{class}\" x=\"{LEFT}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{BAR}\" rx=\"2\"/>\n"
    );
    let (baseline, behind) = (y + BAR - 2.5, LEFT + length + 6.0);
    let label = text(10.0, baseline, "", &bar.label);
    format!("{label}{rect}{}", text(behind, baseline, "", &bar.text))
}

fn text(x: f64, y: f64, class: &str, words: &str) -> String {
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{words}</text>\n")
}
