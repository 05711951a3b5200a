//! The `contentmonster` program.

fn main() {}
