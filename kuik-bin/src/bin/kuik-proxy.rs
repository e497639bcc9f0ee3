//! The `kuik-proxy` binary: the command line, and nothing else.

use std::process::ExitCode;

use clap::Parser;
use kuik_bin::command::proxy::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
