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

mod client_auth;
mod client_content;
mod client_faults;
mod client_ssrf_and_redirects;
mod cloud_credentials;
mod crd;
#[cfg(all(feature = "ecr", feature = "google", feature = "azure"))]
mod mock_cloud;
mod plan_table;
mod reference_properties;
mod reference_table;
mod rewrite;
mod store_conformance;
#[cfg(feature = "client")]
#[path = "../support/mod.rs"]
mod support;
mod upstream_fallback;
