//! Command lines: one module per subcommand of `kuik`, with its arguments and its implementation.
//!
//! [`controller`], [`proxy`], [`registry`] and [`webhook`] are the programs `kuik-controller`, `kuik-proxy`,
//! `kuik-registry` and `kuik-webhook`. The `kuik` executable runs them too if it is started under their names
//! ([`multicall`]).

pub mod configure_containerd;
#[cfg(feature = "kubernetes")]
pub mod controller;
#[cfg(feature = "kubernetes")]
pub mod crds;
pub mod demo;
#[cfg(feature = "kubernetes")]
pub mod flags;
pub mod gc;
pub mod image_ref;
pub mod multicall;
pub mod proxy;
#[cfg(feature = "kubernetes")]
pub mod rbac;
pub mod registry;
pub mod rewrite;
pub mod serve;
#[cfg(feature = "kubernetes")]
pub mod webhook;

use std::process::ExitCode;

use crate::cli_error::CliError;

/// Image cache for Kubernetes.
#[derive(Debug, clap::Parser)]
#[command(name = "kuik", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Serve(Box<serve::Arguments>),
    Demo(demo::Arguments),
    #[cfg(feature = "kubernetes")]
    Crds(crds::Arguments),
    ImageRef(image_ref::Arguments),
    Rewrite(rewrite::Arguments),
    Gc(gc::Arguments),
    #[cfg(feature = "kubernetes")]
    Rbac(rbac::Arguments),
    #[cfg(feature = "kubernetes")]
    #[command(hide = true)]
    Flags(flags::Arguments),
}

impl Cli {
    /// Runs the subcommand, and prints an error to standard error if it fails.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let result = match self.command {
            Command::Serve(arguments) => arguments.run(),
            Command::Demo(arguments) => arguments.run(),
            #[cfg(feature = "kubernetes")]
            Command::Crds(arguments) => arguments.run(),
            Command::ImageRef(arguments) => arguments.run().map_err(CliError::new),
            Command::Rewrite(arguments) => arguments.run(),
            Command::Gc(arguments) => arguments.run(),
            #[cfg(feature = "kubernetes")]
            Command::Rbac(arguments) => arguments.run(),
            #[cfg(feature = "kubernetes")]
            Command::Flags(arguments) => arguments.run(),
        };
        CliError::exit_code("kuik", result)
    }
}
