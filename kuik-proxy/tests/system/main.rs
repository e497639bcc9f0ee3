//! Tests with real registries, clients and S3 servers, which `tools/install-parts` installs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may fail, and prints what it measured"
)]

#[path = "../harness/mod.rs"]
mod harness;
mod layout;
mod object_storage_s3;
mod store_adopted;
