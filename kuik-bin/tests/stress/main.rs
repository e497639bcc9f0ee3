//! Load tests of the binaries: garbage collection under load, large stores, many replicas, many pods. `make nightly`
//! runs them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may fail, and prints what it measured"
)]

mod large_stores;
mod replicas;
mod scale;
mod soak;
#[path = "../support/mod.rs"]
mod support;
