//! Hermetic tests of the binaries: no root, no daemons, no programs but what Cargo builds.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may fail, and prints what it measured"
)]

mod cache_access;
mod coalesce;
mod command_line;
mod configure_containerd;
mod controller_webhook;
mod copy;
mod extremes;
mod flags;
mod gc;
mod hostile;
mod image_ref;
mod ipv6;
mod registry_tls;
mod rewrite;
#[path = "../support/mod.rs"]
mod support;
mod traces;
mod upstreams;
mod webhook;
