//! The integration tests.

mod embedded_vessel;
mod packaging;
mod settings;
