//! kuik on a real cluster: installed by Helm from its chart, with its image, while registries and parts of it go away.
//!
//! `make e2e` runs this on a cluster of its own; with KUBECONFIG set, on that one ([`place`] says what it has to offer).
//! Scenarios take turns ([`Scenario`]), because each may take a part of the release away. Each waits for conditions, and
//! where one never comes true it prints what a person would look at: pods, events, logs.
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
