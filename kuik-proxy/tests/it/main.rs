//! Hermetic tests: no root, no daemons, no programs other than those built by Cargo.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may fail, and prints what it measured"
)]

mod chain;
mod cloud;
mod failing;
mod fill;
mod fill_model;
mod freshness;
mod garbage_collection;
mod gc_in_flight;
#[path = "../harness/mod.rs"]
mod harness;
mod object_storage;
mod object_storage_faults;
mod pull_through;
mod push;
mod quota;
mod redirects;
mod route_properties;
mod scrub;
mod server;
mod shared_bucket;
mod stampede;
mod store_conformance;
mod store_crash;
mod store_uploads;
mod time;
mod upstream_faults;
