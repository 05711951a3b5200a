//! The book (`docs/`): what it shows is so. Its commands are run, its settings parsed, its links followed.
//!
//! What a block's first line says, and what becomes of the block, stands in `docs/src/about.md`. Blocks marked `sh root` are
//! run by `docker/packagetest`.

mod page;
mod picture;
mod reference;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use contentmonster::settings::{Environment, Settings};
use page::{Page, pages, source};
use rstest::rstest;

use crate::fleet::Fleet;
use crate::fleet::daemon::{Daemon, Ended};
use crate::fleet::namespace::Mounts;
use crate::fleet::web::{get, page_of};

/// Commands that are shown and not run, in the whole book, and no more.
const NOT_RUN: usize = 5;

#[test]
fn every_page_is_in_the_summary_and_every_link_leads_somewhere() {
    let pages = pages();
    let summary = Page::read(&source().join("SUMMARY.md"));
    for page in &pages {
        let file = format!("{}.md", page.name());
        let listed = summary.links.iter().filter(|(_, to)| *to == file).count();
        assert_eq!(listed, usize::from(page.name() != "SUMMARY"), "{file} in SUMMARY.md");
    }
    let readme = Page::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"));
    for page in pages.iter().chain([&readme]) {
        let beside = page.path.parent().expect("it lies in a directory");
        for (line, link) in page.links.iter().filter(|(_, link)| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.path.clone() } else { beside.join(file) };
            assert!(target.exists(), "{}: there is no {link}", page.place(*line));
            let found = anchor.is_empty() || Page::read(&target).anchors.contains(anchor);
            assert!(found, "{}: there is no heading #{anchor}", page.place(*line));
        }
    }
}

#[test]
fn every_block_is_of_a_kind_that_is_checked() {
    let script = |name| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    let (packagetest, release_test) = (script("docker/packagetest"), script("scripts/release-test"));
    let mut not_run = 0;
    for page in pages() {
        for block in &page.blocks {
            let place = page.place(block.line);
            match (block.info.as_str(), block.file()) {
                ("sh", _) => assert!(RUN_HERE.contains(&page.name().as_str()), "{place}: who runs it?"),
                ("sh root", _) => {
                    let called = packagetest.lines().any(|line| line == format!("chapter {}", page.name()));
                    assert!(called, "{place}: docker/packagetest does not run it");
                }
                ("sh tarball" | "sh verify", _) => {
                    let called = release_test.contains(&format!("blocks '{}' {}", block.info, page.name()));
                    assert!(called, "{place}: scripts/release-test does not run it");
                }
                ("sh not-run", _) => not_run += 1,
                ("text" | "ini" | "yaml" | "json", None) | (_, Some(_)) => {}
                (other, _) => panic!("{place}: what kind of block is `{other}`? See docs/src/about.md"),
            }
            let has_prompt = block.text.lines().any(|line| line.starts_with("$ "));
            assert!(!has_prompt, "{place}: commands stand without a prompt, in a block of their own");
        }
    }
    assert!(not_run <= NOT_RUN, "{not_run} blocks are not run");
}

#[test]
fn all_settings_are_valid() {
    for page in pages() {
        for block in page.blocks.iter().filter(|block| block.language() == "ini" && !block.text.contains("[Service]")) {
            let environment =
                Environment { user: Some("ann".into()), home: Some("/home/ann".into()), ..Environment::default() };
            let mut text = block.text.clone();
            for (kind, rest) in [("Directory", "Location = /srv/d"), ("Vessel", "Address = v.example")] {
                if !text.contains(&format!("[{kind} ")) {
                    text += &format!("[{kind} book]\n{rest}\n");
                }
            }
            let parsed = Settings::parse(&text, Path::new("/etc/cm/settings.ini"), &environment);
            parsed.unwrap_or_else(|problems| panic!("{}: {problems}", page.place(block.line)));
        }
    }
}

#[test]
fn every_metric_it_names_is_there() {
    let Some(fleet) = Fleet::new().monster("Listen", "127.0.0.1:0").openssh("aurora").start() else { return };
    let daemon = fleet.run();
    let metrics = get(&page_of(&daemon), "/metrics").body;
    let pages = pages();
    let blocks = pages.iter().flat_map(|page| page.blocks.iter().map(move |block| (page, block)));
    let yaml = blocks.filter(|(_, block)| block.language() == "yaml");
    let mut texts: Vec<_> = yaml.map(|(page, block)| (page.place(block.line), block.text.clone())).collect();
    for name in ["alerts.yaml", "grafana.json"] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(name);
        texts.push((name.to_owned(), fs::read_to_string(file).unwrap()));
    }
    let mut named = 0;
    for (place, text) in texts {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for name in words.filter(|word| word.starts_with("contentmonster_")) {
            // Counters and histograms have series with these ends.
            let family = ["_total", "_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end));
            let there = |name: &str| metrics.lines().any(|line| line.starts_with(&format!("# TYPE {name} ")));
            assert!(there(name) || family.is_some_and(there), "{place}: there is no metric {name}");
            named += 1;
        }
    }
    assert!(named > 20, "{named} metrics are named");
    daemon.terminate();
}

/// Pages whose `sh` blocks are run here.
const RUN_HERE: &[&str] =
    &["introduction", "getting-started", "fleets", "mirrors", "bad-links", "operations", "moving"];

#[rstest]
#[case("introduction")]
#[case("getting-started")]
#[case("fleets")]
#[case("mirrors")]
#[case("bad-links")]
#[case("operations")]
#[case("moving")]
fn its_commands_do_what_it_says(#[case] name: &str) {
    assert!(RUN_HERE.contains(&name));
    let page = Page::read(&source().join(name).with_extension("md"));
    let Some(fleet) = Fleet::new().openssh("aurora").unknown().openssh("borealis").unknown().start() else { return };
    if name != "getting-started" {
        let known = ["aurora", "borealis"].map(|vessel| fleet.vessel(vessel).known_hosts_line());
        fs::write(fleet.known_hosts(), known.concat()).unwrap();
    }
    let ended = run(&fleet, &page);
    assert_eq!(ended.code, Some(0), "docs/src/{name}.md:\n{}\n{}", ended.stdout, ended.stderr);
    compare(&page, &ended.stdout);
}

/// Does what the page says, in a new directory, block by block, and answers every question with yes.
fn run(fleet: &Fleet, page: &Page) -> Ended {
    let place = fleet.path("book");
    fs::create_dir(&place).unwrap();
    let mut script = String::new();
    for block in &page.blocks {
        if let Some(file) = block.file() {
            let text = if block.language() == "ini" { for_fleet(fleet, &block.text) } else { block.text.clone() };
            script += &format!("cat >'{file}' <<'END OF FILE'\n{text}END OF FILE\n");
        } else if block.info == "sh" {
            script += &format!("echo '{MARK}{}'\n{}", block.line, block.text);
        }
    }
    fs::write(fleet.path("script"), script).unwrap();
    let mut command = Mounts::default().command();
    command.args(["sh", "-c", "yes y | sh -eu ../script 2>&1"]).current_dir(&place);
    let program = Path::new(env!("CARGO_BIN_EXE_contentmonster")).parent().expect("it lies in a directory");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::iter::once(program.to_owned()).chain(std::env::split_paths(&path));
    command.env("PATH", std::env::join_paths(paths).unwrap());
    command.env("HOME", fleet.path("home")).env("TMPDIR", fleet.path("staging"));
    for foreign in ["SSH_AUTH_SOCK", "RUST_LOG", "NOTIFY_SOCKET", "JOURNAL_STREAM", "CREDENTIALS_DIRECTORY"] {
        command.env_remove(foreign);
    }
    Daemon::spawn(command, "").ended()
}

/// What separates the outputs of two blocks.
const MARK: &str = "=== block in line ";

/// The settings with this fleet's servers in place of the vessels named there.
fn for_fleet(fleet: &Fleet, text: &str) -> String {
    let mut adapted = String::new();
    for line in text.lines() {
        let key = line.split(" =").next().unwrap_or_default();
        if ["Address", "Port", "Username", "TempDir"].contains(&key) {
            continue;
        }
        adapted += &format!("{line}\n");
        if let Some(name) = line.strip_prefix("[Vessel ").and_then(|rest| rest.strip_suffix(']')) {
            let vessel = fleet.vessel(name);
            let (port, temp) = (vessel.port(), vessel.remote("temp/parts"));
            adapted += &format!("Address = 127.0.0.1\nPort = {port}\nUsername = root\nTempDir = {temp}\n");
        }
    }
    adapted
}

/// Compares each `text` block with the output of the commands before it.
fn compare(page: &Page, output: &str) {
    let outputs: BTreeMap<usize, &str> = output
        .split(MARK)
        .filter_map(|part| part.split_once('\n'))
        .map(|(line, out)| (line.parse().unwrap(), out))
        .collect();
    for pair in page.blocks.windows(2) {
        let [commands, shown] = pair else { continue };
        let Some(said) = outputs.get(&commands.line).filter(|_| shown.info == "text") else { continue };
        for line in shown.text.lines().filter(|line| !line.trim().is_empty()) {
            let found = said.lines().any(|said| fits(line, said));
            assert!(found, "{}: nothing says\n{line}\nbut\n{said}", page.place(shown.line));
        }
    }
}

/// Whether a line is as shown: `…` stands for anything, several blanks for one.
fn fits(shown: &str, said: &str) -> bool {
    let one_blank = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (shown, said) = (one_blank(shown), one_blank(said));
    let parts: Vec<_> = shown.split('…').collect();
    let [first, between @ .., last] = parts.as_slice() else { return shown == said };
    let inner = said.strip_prefix(first).and_then(|rest| rest.strip_suffix(last));
    let skip_past = |rest: &str, part: &&str| rest.find(part).map(|at| rest[at + part.len()..].to_owned());
    inner.is_some_and(|inner| between.iter().try_fold(inner.to_owned(), |rest, part| skip_past(&rest, part)).is_some())
}

#[test]
fn a_shown_line_fits_what_was_said() {
    assert!(fits("a  … c", "a b  c") && fits("a…", "abc") && fits("abc", "abc") && fits("…c", "abc"));
    assert!(!fits("a", "ab") && !fits("a…c", "ab") && !fits("…a", "ab"));
}
