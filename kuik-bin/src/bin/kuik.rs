//! The `kuik` binary: the command line, and nothing else. Under the name of another program of kuik's it is that one.

use std::process::ExitCode;

fn main() -> ExitCode {
    kuik_bin::command::run_as_called()
}
