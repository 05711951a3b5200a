//! The layers of the house, enforced: who may import whom, and which library is known where.
//!
//! It reads the sources as text, without comments, strings and unit tests: what a test imports is no dependency.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules of the crate, lowest layer first. A module imports only from layers before its own.
const LAYERS: &[(&str, &[&str])] = &[
    ("L0, text and formats", &["text", "compression"]),
    ("L0, pure values", &["digest", "names", "chunk", "fault", "backoff", "rights"]),
    ("L0, built from these values", &["records", "signature"]),
    ("L1", &["settings", "monitor", "bell", "clock", "root"]),
    ("L1, built from the settings", &["rate_limit"]),
    ("L2, the ports", &["local", "ledger", "transport", "embedded_vessel"]),
    ("L3, the connections to a vessel", &["link"]),
    ("L3, one delivery", &["transfer"]),
    ("L3, the workflows", &["shore", "vessel", "orders", "notifications", "housekeeping"]),
    ("L4, read-only views", &["status"]),
    ("L5, the composition root", &["daemon"]),
    ("L6, the outside", &["logging"]),
    ("L6, the command line", &["cli"]),
    ("what fuzz targets call", &["strangers"]),
];

/// A thing that only some places may name, and why.
struct Confined {
    /// Whole words that must not stand elsewhere.
    words: &'static [&'static str],
    /// What must follow the word for it to be meant.
    followed_by: &'static str,
    /// Beginnings of paths below `src/` where it may be named.
    places: &'static [&'static str],
    reason: &'static str,
}

const CONFINED: &[Confined] = &[
    Confined {
        words: &["russh", "russh_sftp"],
        followed_by: "::",
        places: &["transport", "embedded_vessel"],
        reason: "the SSH library is a detail of the transport: everybody else speaks to `transport::Remote`",
    },
    Confined {
        words: &["notify"],
        followed_by: "::",
        places: &["local/watch"],
        reason: "kernel events are hints, and one place turns them into ours and knows their limits",
    },
    Confined {
        words: &["sqlx"],
        followed_by: "::",
        places: &["ledger"],
        reason: "the ledger alone knows SQL: another store must be able to take SQLite's place",
    },
    Confined {
        words: &["axum", "hyper"],
        followed_by: "::",
        places: &["status", "notifications/http"],
        reason: "HTTP is one way of showing the status document, and one of telling others: everybody else asks those",
    },
    Confined {
        words: &["rustls", "tokio_rustls"],
        followed_by: "::",
        places: &["notifications/http"],
        reason: "TLS is a detail of asking addresses on the web",
    },
    Confined {
        words: &["println", "print", "eprintln", "eprint", "dbg"],
        followed_by: "!",
        places: &["cli"],
        reason: "only the command line speaks to the terminal; everything else logs or returns what it has to say",
    },
    Confined {
        words: &["exit", "abort"],
        followed_by: "(",
        places: &["main.rs"],
        reason: "ending the process skips every destructor; return an error or an exit code to main",
    },
];

/// Modules without a place of their own: they tie the others together.
const ROOTS: &[&str] = &["lib.rs", "main.rs"];

#[test]
fn every_module_imports_only_lower_layers() {
    let broken = violations(&sources());
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

/// What breaks the rules, a line each.
fn violations(sources: &[(PathBuf, String)]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in sources {
        let code = without_tests(&without_comments_and_strings(text)).to_owned();
        found.extend(confined_names(path, &code));
        if !ROOTS.iter().any(|root| Path::new(root) == path) {
            found.extend(imports_upwards(path, &code));
        }
    }
    found
}

fn imports_upwards(path: &Path, code: &str) -> Vec<String> {
    let own = module_of(path);
    let Some(own_layer) = layer_of(&own) else {
        let advice = "give it a place in LAYERS in tests/it/layers.rs (and in DESIGN.md), as low as its imports allow";
        return vec![format!("src/{}: module `{own}` belongs to no layer yet; {advice}", path.display())];
    };
    let mut found = Vec::new();
    for import in imported_modules(path, code) {
        let Some(layer) = layer_of(&import).filter(|_| import != own) else { continue };
        let reason = match layer.cmp(&own_layer) {
            std::cmp::Ordering::Less => continue,
            std::cmp::Ordering::Equal => {
                "siblings never import each other: what both need belongs below, what joins them above"
            }
            std::cmp::Ordering::Greater => {
                "a module imports only lower layers, so that each can be understood and tested without what is built on it"
            }
        };
        let (here, there) = (LAYERS[own_layer].0, LAYERS[layer].0);
        found.push(format!("src/{}: `{own}` ({here}) imports `{import}` ({there}); {reason}", path.display()));
    }
    found
}

fn confined_names(path: &Path, code: &str) -> Vec<String> {
    let place = path.to_string_lossy();
    let elsewhere = CONFINED.iter().filter(|rule| !rule.places.iter().any(|allowed| place.starts_with(allowed)));
    let mut found = Vec::new();
    for rule in elsewhere {
        let named = |word: &&&str| word_ends(code, word).any(|rest| rest.trim_start().starts_with(rule.followed_by));
        if let Some(word) = rule.words.iter().find(named) {
            found.push(format!(
                "src/{place}: names `{word}`, which belongs to {:?} alone; {}",
                rule.places, rule.reason
            ));
        }
    }
    found
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|(_, modules)| modules.contains(&module))
}

/// The top-level module that a file belongs to.
fn module_of(path: &Path) -> String {
    let first = path.components().next().expect("a file has a name").as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// The top-level modules that code names by `crate::`, or by as many `super::` as lead to the root.
fn imported_modules(path: &Path, code: &str) -> Vec<String> {
    let is_root = path.ends_with("mod.rs");
    let depth = path.components().count() - usize::from(is_root);
    let mut modules: Vec<_> =
        word_ends(code, "crate").filter_map(|rest| rest.strip_prefix("::")).flat_map(heads).collect();
    let to_the_root = "super::".repeat(depth);
    let by_super = code.match_indices(&to_the_root).filter(|(at, _)| !code[..*at].ends_with("::"));
    modules.extend(
        by_super.flat_map(|(at, found)| heads(&code[at + found.len()..])).filter(|name| layer_of(name).is_some()),
    );
    modules.sort();
    modules.dedup();
    modules
}

/// The first names of the paths that follow `crate::`: one, or those of a group in braces.
fn heads(rest: &str) -> Vec<String> {
    let name =
        |text: &str| text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = rest.trim_start().strip_prefix('{') else { return vec![name(rest)] };
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                found.push(name(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

/// What follows each occurrence of a whole word.
fn word_ends<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).filter_map(move |(at, _)| {
        let rest = &code[at + word.len()..];
        (!code[..at].ends_with(part_of_word) && !rest.starts_with(part_of_word)).then_some(rest)
    })
}

/// Unit tests stand at the end of their file.
fn without_tests(code: &str) -> &str {
    let tests = code.find("#[cfg(test)]\nmod ").unwrap_or(code.len());
    &code[..tests]
}

/// The code with comments and the insides of string and character literals blanked out.
fn without_comments_and_strings(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            'r' if !code.ends_with(|c: char| c.is_alphanumeric() || c == '_') => raw_string(rest),
            '"' => quoted(rest, '"'),
            // A lifetime has no closing quote two or three characters on.
            '\'' if rest[1..].starts_with('\\') || rest.chars().nth(2) == Some('\'') => quoted(rest, '\''),
            _ => 0,
        };
        if skipped == 0 {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            rest = &rest[skipped..];
        }
    }
    code
}

/// The length of a raw string that starts here; 0 when none does.
fn raw_string(rest: &str) -> usize {
    let hashes = rest[1..].chars().take_while(|c| *c == '#').count();
    if !rest[1 + hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let inside = 2 + hashes;
    rest[inside..].find(&end).map_or(rest.len(), |at| inside + at + end.len())
}

/// The length of a literal that starts here, with its quotes.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// All of `src/`: paths below it, and what they hold. Files of unit tests are left out.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let of_tests = path.file_stem().is_some_and(|stem| stem == "tests");
            if path.is_dir() && !of_tests {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !of_tests {
                found.push((path.strip_prefix(&root).unwrap().to_owned(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(found.len() > 10, "the sources are where they were");
    found
}

#[test]
fn no_two_files_of_one_room_need_each_other() {
    let found = circles(&sources());
    assert!(
        found.is_empty(),
        "these import each other; put what both need into a file below both:\n{}",
        found.join("\n")
    );
}

/// Modules of one directory that lead back to themselves by their imports, a line each.
fn circles(sources: &[(PathBuf, String)]) -> Vec<String> {
    let mut rooms: BTreeMap<PathBuf, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for (path, text) in sources {
        let code = without_tests(&without_comments_and_strings(text)).to_owned();
        // A file imports for each directory that it lies in: as itself, or as part of a module there.
        let modules: Vec<_> =
            path.iter().map(|part| part.to_string_lossy().trim_end_matches(".rs").to_owned()).collect();
        for depth in 1..modules.len() {
            let (room, module) = (path.iter().take(depth).collect::<PathBuf>(), &modules[depth]);
            if module == "mod" {
                continue;
            }
            let ups = modules.len() - depth - usize::from(modules.last().is_some_and(|last| last == "mod"));
            let whole = format!("crate::{}::", modules[..depth].join("::"));
            let imports = rooms.entry(room).or_default().entry(module.clone()).or_default();
            imports.extend(after(&code, &"super::".repeat(ups)));
            imports.extend(after(&code, &whole));
            imports.remove(module);
        }
    }
    rooms.iter().flat_map(|(room, modules)| circles_in(room, modules)).collect()
}

/// The names that follow a path, wherever it stands whole.
fn after(code: &str, path: &str) -> Vec<String> {
    let whole = code.match_indices(path).filter(|(at, _)| !code[..*at].ends_with("::"));
    whole.flat_map(|(at, found)| heads(&code[at + found.len()..])).collect()
}

/// All modules that one leads to.
fn reached<'a>(modules: &'a BTreeMap<String, BTreeSet<String>>, from: &'a str) -> BTreeSet<&'a String> {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(module) = next.pop() {
        for import in modules[module].iter().filter(|import| modules.contains_key(*import)) {
            if seen.insert(import) {
                next.push(import);
            }
        }
    }
    seen
}

fn circles_in(room: &Path, modules: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let in_circle = modules.keys().filter(|module| reached(modules, module).contains(module));
    let names: Vec<_> = in_circle.map(String::as_str).collect();
    if names.is_empty() { vec![] } else { vec![format!("src/{}: {}", room.display(), names.join(", "))] }
}

/// What the rules say of one file.
fn judged(path: &str, text: &str) -> String {
    violations(&[(path.into(), text.to_owned())]).join("\n")
}

#[test]
fn imports_of_higher_layers_and_of_siblings_are_found_however_they_are_written() {
    for text in [
        "use crate::shore::Settle;",
        "use crate::{names::RelPath, shore::{Settle, Intake}};",
        "fn f() -> crate::shore::Settle { todo!() }",
        "use super::shore::Settle;",
    ] {
        assert!(judged("ledger/mod.rs", text).contains("only lower layers"), "{text}");
    }
    assert!(judged("shore/retire.rs", "use crate::vessel::Worker;").contains("siblings"));
    assert!(judged("shore/retire.rs", "use super::super::vessel::Worker;").contains("siblings"));
}

#[test]
fn what_is_allowed_and_what_only_looks_like_an_import_is_let_pass() {
    let text = r##"
        //! See [`crate::shore`].
        use crate::{names::{RelPath, VesselName}, records::Version};
        use super::wal::Wal;
        fn quiet() -> &'static str { "use crate::shore; println!() \" russh::" }
        fn raw() -> &'static str { r#"russh:: "quoted" crate::daemon"# }
        fn letter(c: char) -> bool { c == '"' || c == '\'' }
        fn sd() { sd_notify::notify(); waiting.notify_one(); }
        #[cfg(test)]
        mod tests { use crate::shore::Settle; }
    "##;
    assert_eq!(judged("ledger/mod.rs", &text.replace("        ", "")), "");
}

#[test]
fn libraries_printing_and_exits_are_confined_to_their_places() {
    for (text, place) in [
        ("use russh::client;", "transport/session.rs"),
        ("use notify::Watcher;", "local/watch.rs"),
        ("use sqlx::SqlitePool;", "ledger/mod.rs"),
        ("fn f() { println!(); }", "cli/check.rs"),
        ("fn main() { std::process::exit(1) }", "main.rs"),
    ] {
        assert_eq!(judged(place, text), "");
        assert!(judged("shore/mod.rs", text).contains("src/shore/mod.rs: names"), "{text}");
    }
}

#[test]
fn a_module_without_a_layer_is_told_to_get_one() {
    assert!(judged("utils.rs", "").contains("belongs to no layer yet"));
}

#[test]
fn files_that_need_each_other_are_found() {
    let room = |files: &[(&str, &str)]| {
        let sources: Vec<_> = files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect();
        circles(&sources).join("\n")
    };
    let (one, two) = ("use super::two::Two;", "use super::{one::One, three::Three};");
    assert_eq!(room(&[("shore/one.rs", one), ("shore/two.rs", two)]), "src/shore: one, two");
    assert_eq!(room(&[("shore/one.rs", one), ("shore/two.rs", "use super::three::Three;")]), "");
    let deep = [("shore/one.rs", one), ("shore/two/mod.rs", ""), ("shore/two/part.rs", "use super::super::one::One;")];
    assert_eq!(room(&deep), "src/shore: one, two");
    assert_eq!(room(&[("shore/one.rs", one), ("shore/two.rs", "use crate::shore::one::One;")]), "src/shore: one, two");
}
