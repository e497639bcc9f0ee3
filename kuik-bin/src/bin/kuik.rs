//! The `kuik` binary: the command line, and nothing else.

use std::process::ExitCode;

use clap::Parser;
use kuik_bin::command::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
