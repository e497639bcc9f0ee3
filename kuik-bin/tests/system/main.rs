//! Tests of the binaries with real registries, clients and containerd, which `tools/install-parts` installs; some
//! need root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may fail, and prints what it measured"
)]

mod access;
mod bucket;
mod crash;
mod faults;
mod gc_online;
mod image;
mod ipv6;
mod metrics;
mod mirror;
mod outages;
mod proxy;
mod pull;
mod quota;
mod real_clients;
mod registry;
mod serve;
#[path = "../support/mod.rs"]
mod support;
mod tls;
