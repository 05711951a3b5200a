//! The `contentmonster` program. The library contains the code.

fn main() -> std::process::ExitCode {
    contentmonster::cli::main().into()
}
