//! Error of a command, with its exit code.

use std::{error::Error, io, process::ExitCode};

use kuik_core::error::chain;

/// A failed command: the error to print, and whether the usage or the configuration was wrong.
#[derive(Debug)]
pub struct CliError {
    error: Box<dyn Error + Send + Sync>,
    usage: bool,
}

impl CliError {
    /// Creates an error with exit code 1.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { error: error.into(), usage: false }
    }

    /// Creates an error with exit code 2: invalid usage or configuration.
    pub fn usage(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { error: error.into(), usage: true }
    }

    /// Creates the error of a build without object storage: exit code 2.
    #[cfg(not(feature = "object-storage"))]
    pub(crate) fn no_object_storage() -> Self {
        Self::usage("storage: this program was built without the feature `object-storage`")
    }

    /// Prints the error of `result`, if any, prefixed with the name of `binary`, and returns the exit code.
    pub(crate) fn exit_code(binary: &str, result: Result<(), Self>) -> ExitCode {
        match result {
            Ok(()) => ExitCode::SUCCESS,
            // The reader of the output has closed it: `kuik … | head` is not a failure.
            Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
            Err(error) => {
                error.report(binary);
                ExitCode::from(if error.usage { 2 } else { 1 })
            }
        }
    }

    fn is_broken_pipe(&self) -> bool {
        self.error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Prints the error and its causes.
    #[expect(clippy::print_stderr, reason = "commands report errors on standard error")]
    fn report(&self, binary: &str) {
        eprintln!("{binary}: {}", chain(self.error.as_ref()));
    }
}
