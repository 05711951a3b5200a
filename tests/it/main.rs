//! The integration tests.

mod settings;
mod embedded_vessel;
mod packaging;
