//! Tests with real registries and clients, which `tools/install-parts` installs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may fail, and prints what it measured"
)]

mod copy;
mod real_parts;
mod real_registry;
#[cfg(feature = "client")]
#[path = "../support/mod.rs"]
mod support;
