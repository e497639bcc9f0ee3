//! The `kuik-webhook` binary: the command line, and nothing else.

use std::process::ExitCode;

use clap::Parser;
use kuik_bin::command::webhook::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
