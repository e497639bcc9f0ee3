//! The command lines: one module per subcommand of `kuik`, each with its arguments and what it does, and
//! [`controller`], [`proxy`], [`registry`] and [`webhook`] for the binaries `kuik-controller`, `kuik-proxy`,
//! `kuik-registry` and `kuik-webhook`, which `kuik` is too, under their names ([`run_as_called`]).

mod called;
pub mod configure_containerd;
pub mod controller;
pub mod crds;
pub mod demo;
pub mod gc;
pub mod image_ref;
pub mod proxy;
pub mod rbac;
pub mod registry;
pub mod rewrite;
pub mod serve;
pub mod webhook;

use std::{error::Error, io, process::ExitCode};

pub use called::run_as_called;

/// Keeps the container images that you run close to you.
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
    Crds(crds::Arguments),
    ImageRef(image_ref::Arguments),
    Rewrite(rewrite::Arguments),
    Gc(gc::Arguments),
    Rbac(rbac::Arguments),
}

/// Why a command failed, and what that means for the exit code.
#[derive(Debug)]
pub struct Failure {
    error: Box<dyn Error + Send + Sync>,
    usage: bool,
}

impl Cli {
    /// Does what the command line says. What goes wrong is said on standard error.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let result = match self.command {
            Command::Serve(arguments) => arguments.run(),
            Command::Demo(arguments) => arguments.run(),
            Command::Crds(arguments) => arguments.run(),
            Command::ImageRef(arguments) => arguments.run().map_err(Failure::new),
            Command::Rewrite(arguments) => arguments.run(),
            Command::Gc(arguments) => arguments.run(),
            Command::Rbac(arguments) => arguments.run(),
        };
        Failure::exit_code("kuik", result)
    }
}

impl Failure {
    /// Something went wrong: exit code 1.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { error: error.into(), usage: false }
    }

    /// The command was told something that cannot be: exit code 2.
    pub fn usage(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { error: error.into(), usage: true }
    }

    /// Says what went wrong, where something did, in the name of `binary`; the exit code for it.
    fn exit_code(binary: &str, result: Result<(), Self>) -> ExitCode {
        match result {
            Ok(()) => ExitCode::SUCCESS,
            // Whoever reads our output has seen enough: `kuik … | head` is no failure.
            Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
            Err(failure) => {
                failure.report(binary);
                ExitCode::from(if failure.usage { 2 } else { 1 })
            }
        }
    }

    fn is_broken_pipe(&self) -> bool {
        self.error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Prints the error and its causes.
    #[expect(clippy::print_stderr, reason = "standard error is where a command says what went wrong")]
    fn report(&self, binary: &str) {
        let first: &dyn Error = self.error.as_ref();
        let chain = std::iter::successors(Some(first), |&error| error.source());
        let line: Vec<_> = chain.map(ToString::to_string).collect();
        eprintln!("{binary}: {}", line.join(": "));
    }
}
