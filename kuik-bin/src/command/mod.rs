//! The command line of `kuik`: one module per subcommand, each with its arguments and what it does.

pub mod image_ref;

use std::{error::Error, io, process::ExitCode};

/// Keeps the images that a cluster runs close to it.
#[derive(Debug, clap::Parser)]
#[command(name = "kuik", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    ImageRef(image_ref::Arguments),
}

impl Cli {
    /// Does what the command line says. What goes wrong is said on standard error.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let result = match self.command {
            Command::ImageRef(arguments) => arguments.run(),
        };
        match result {
            Ok(()) => ExitCode::SUCCESS,
            // Whoever reads our output has seen enough: `kuik … | head` is no failure.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(error) => {
                report(&error);
                ExitCode::FAILURE
            }
        }
    }
}

/// Prints an error and its causes in one line.
#[expect(clippy::print_stderr, reason = "standard error is where a command says what went wrong")]
fn report(error: &dyn Error) {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    let line: Vec<_> = causes.map(ToString::to_string).collect();
    eprintln!("kuik: {}", line.join(": "));
}
