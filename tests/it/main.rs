//! The integration tests.

mod settings;
