//! One binary that is every program of kuik's, by the name that it is started under: what they have in common, which is
//! most of them, is in an image once.

use std::{env, ffi::OsStr, path::Path, process::ExitCode};

use clap::Parser as _;

use super::{Cli, controller, proxy, registry, webhook};

/// Runs the program that this process was started as: `kuik-controller`, `kuik-proxy`, `kuik-registry` or
/// `kuik-webhook`, and `kuik` under any other name.
#[must_use]
pub fn run_as_called() -> ExitCode {
    let path = env::args_os().next().unwrap_or_default();
    match program(&path) {
        Some("kuik-controller") => controller::Cli::parse().run(),
        Some("kuik-proxy") => proxy::Cli::parse().run(),
        Some("kuik-registry") => registry::Cli::parse().run(),
        Some("kuik-webhook") => webhook::Cli::parse().run(),
        _ => Cli::parse().run(),
    }
}

/// The name of the program in the path that it was started by.
fn program(path: &OsStr) -> Option<&str> {
    Path::new(path).file_name()?.to_str()
}
