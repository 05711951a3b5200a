//! Promises under fire: vessels inside the test that fail on purpose at any step, and a program that is killed at any.
//!
//! A [`Bay`](bay::Bay) is a shore and its vessels; each vessel has a [`Witness`](witness::Witness) that lets a
//! [policy](policy) decide what goes wrong, and looks at every rename before it happens: what gets a final name must be
//! one of the versions that ever were, whole. No root is needed.

mod at_random;
mod bay;
mod consequences;
mod every_kill;
mod every_request;
mod fairness;
mod hostile;
mod many;
mod no_times;
mod owners;
mod policy;
mod witness;
