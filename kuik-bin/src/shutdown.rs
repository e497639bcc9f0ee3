//! When to stop: the first SIGTERM or SIGINT asks, the second one does not wait.

use std::{io, process};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The exit code of a process that was told to stop at once: 128 and the number of SIGTERM.
const STOPPED_AT_ONCE: i32 = 143;

/// The signals that end a process.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Catches the signals from now on. To be called inside a tokio runtime.
    ///
    /// # Errors
    /// Where the system does not let us.
    pub fn catch() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Ends with the first signal. From then on another one ends the process.
    pub async fn asked_to_stop(mut self) {
        self.next().await;
        tracing::info!("stopping: running pulls may finish; another signal stops at once");
        tokio::spawn(async move {
            self.next().await;
            process::exit(STOPPED_AT_ONCE);
        });
    }
}
