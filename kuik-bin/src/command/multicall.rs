//! Multi-call binary: one executable that runs the program whose name it was started under.
//!
//! The programs share most of their code, so an image contains that code once.

use std::{env, ffi::OsStr, path::Path, process::ExitCode};

use clap::Parser as _;

use super::{Cli, proxy, registry};
#[cfg(feature = "kubernetes")]
use super::{controller, webhook};

/// Runs `kuik-controller`, `kuik-proxy`, `kuik-registry` or `kuik-webhook` if this process was started under that name,
/// and `kuik` otherwise.
#[must_use]
pub fn run() -> ExitCode {
    let path = env::args_os().next().unwrap_or_default();
    match program(&path) {
        #[cfg(feature = "kubernetes")]
        Some("kuik-controller") => controller::Cli::parse().run(),
        Some("kuik-proxy") => proxy::Cli::parse().run(),
        Some("kuik-registry") => registry::Cli::parse().run(),
        #[cfg(feature = "kubernetes")]
        Some("kuik-webhook") => webhook::Cli::parse().run(),
        _ => Cli::parse().run(),
    }
}

/// Returns the file name of `path`.
fn program(path: &OsStr) -> Option<&str> {
    Path::new(path).file_name()?.to_str()
}
