//! Hermetic tests: no root, no daemons, no programs but what Cargo builds.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may fail, and prints what it measured"
)]

mod certificates;
mod pods;
mod properties;
mod servers;
#[cfg(feature = "admission")]
mod support;
