//! Sets `CONTENTMONSTER_VERSION`, the version that the program shows: that of `Cargo.toml`, and the commit.
//!
//! The commit is that of the environment variable `CONTENTMONSTER_COMMIT`, otherwise that of the clone, which is looked up
//! in release builds only: other builds would have to be repeated after each commit. Without git, the commit is left out.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CONTENTMONSTER_COMMIT");
    let given = env::var("CONTENTMONSTER_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = given.or_else(|| (env::var("PROFILE").as_deref() == Ok("release")).then(commit_of_the_clone)?);
    let version = env::var("CARGO_PKG_VERSION").expect("cargo sets it");
    let shown = commit.map_or(version.clone(), |commit| format!("{version} (commit {commit})"));
    println!("cargo::rustc-env=CONTENTMONSTER_VERSION={shown}");
}

/// Returns the commit that is checked out, and tells cargo which files change with it.
fn commit_of_the_clone() -> Option<String> {
    // A clone around an unpacked source archive would be another project's.
    let here = env::var("CARGO_MANIFEST_DIR").ok()?;
    let top = git(&["rev-parse", "--show-toplevel"])?;
    if std::fs::canonicalize(here).ok()? != std::fs::canonicalize(top).ok()? {
        return None;
    }
    for name in ["HEAD", "logs/HEAD"] {
        println!("cargo::rerun-if-changed={}", git(&["rev-parse", "--git-path", name])?);
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
