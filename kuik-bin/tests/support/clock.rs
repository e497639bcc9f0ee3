//! Clock of a process that a test moves, while the process runs and before it starts: libfaketime between the process and
//! the C library. Times of files and monotonic time are the true ones.

use std::fs;

use tempfile::TempDir;

/// Path of the library in Debian's package `faketime`; the loader knows the folder of the architecture.
const LIBRARY: &str = "/usr/$LIB/faketime/libfaketime.so.1";

/// The clock of the processes that are started with its environment.
#[derive(Debug)]
pub(crate) struct Clock(TempDir);

impl Clock {
    /// A clock that is ahead by `offset`, such as `+13m` or `-400d`.
    pub(crate) fn at(offset: &str) -> Self {
        let clock = Self(tempfile::tempdir().unwrap());
        clock.move_to(offset);
        clock
    }

    /// Moves the clock, also for processes that run already.
    pub(crate) fn move_to(&self, offset: &str) {
        // The library reads the file for each look at the clock: it is never half written.
        let next = self.0.path().join("next");
        fs::write(&next, offset).unwrap();
        fs::rename(next, self.file()).unwrap();
    }

    /// The environment of a process that has this clock.
    pub(crate) fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("LD_PRELOAD", LIBRARY.to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
        ]
    }

    fn file(&self) -> std::path::PathBuf {
        self.0.path().join("offset")
    }
}
