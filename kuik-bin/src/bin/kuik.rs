//! The `kuik` binary. Started under the name of another of kuik's programs, it runs that one.

use std::process::ExitCode;

fn main() -> ExitCode {
    kuik_bin::command::multicall::run()
}
