//! The `contentmonster` program. What it does stands in the library.

fn main() -> std::process::ExitCode {
    contentmonster::cli::main().into()
}
