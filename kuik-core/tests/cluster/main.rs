//! Integration tests with a real Kubernetes API server, built by `tools/install-parts kube`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may fail, and prints what it measured"
)]

mod api_server;
mod cached_images;
mod leader;
mod pods;
mod pull_secrets;
#[cfg(feature = "controller")]
mod support;
