//! Writes the man pages, and the completions for bash, zsh and fish, into a directory: what the packages take along.
//!
//! An example, so that what makes man pages is no part of the program.
//!
//!     cargo run --example manual -- target/manual

mod settings_page;

use std::path::PathBuf;
use std::{env, fs, io};

use clap_complete::Shell;

fn main() -> io::Result<()> {
    let Some(place) = env::args_os().nth(1).map(PathBuf::from) else {
        return Err(io::Error::other("say where to: cargo run --example manual -- DIRECTORY"));
    };
    fs::create_dir_all(&place)?;
    clap_mangen::generate_to(contentmonster::cli::arguments(), &place)?;
    fs::write(place.join("settings.ini.5"), settings_page::page())?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut contentmonster::cli::arguments(), "contentmonster", &place)?;
    }
    Ok(())
}
