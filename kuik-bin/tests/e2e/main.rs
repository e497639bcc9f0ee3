//! End-to-end tests on a real cluster: kuik is installed from its chart, with its image, while registries and components fail.
//!
//! `make e2e` runs this on a cluster of its own; with KUBECONFIG set, on that one ([`place`] lists its requirements).
//! Scenarios run one at a time ([`Scenario`]), because each may stop a part of the release. Each waits for conditions, and
//! prints pods, events and logs if one is not met.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may fail, and says how long things took"
)]

mod certificates;
mod choices;
mod command;
mod distribution;
mod expiry;
mod faults;
mod idle;
mod image;
mod matrix;
mod nodes;
mod pages;
mod place;
mod pod;
mod private;
mod promise;
mod registries;
mod release;
mod scenario;
mod storage;
mod switch;
mod upstream;
mod wait;

use self::{
    command::{apply, helm, json, kubectl},
    image::Image,
    place::Place,
    scenario::{NAMESPACE, Scenario},
    upstream::Upstream,
    wait::{PATIENCE, until},
};
