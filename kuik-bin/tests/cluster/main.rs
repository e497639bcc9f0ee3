//! Tests of the binaries and the chart with a real Kubernetes API server and Helm, which `tools/install-parts kube
//! chart` builds.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may fail, and prints what it measured"
)]

mod bad_input;
mod cache_access;
mod chart;
mod controller;
mod controller_faults;
mod controller_webhook;
mod documentation;
mod full_cache;
mod model;
mod retention;
mod shared_bucket;
#[path = "../support/mod.rs"]
mod support;
mod try_now;
mod webhook;
mod writes;
