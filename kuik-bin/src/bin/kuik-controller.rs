//! The `kuik-controller` binary: the command line, and nothing else.

use std::process::ExitCode;

use clap::Parser;
use kuik_bin::command::controller::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
