//! The integration tests.

mod embedded_vessel;
mod settings;
