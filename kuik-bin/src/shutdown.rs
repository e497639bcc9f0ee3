//! When to stop: the first SIGTERM or SIGINT asks, the second one does not wait.

use std::{io, process};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

/// The exit code of a process that was told to stop at once: 128 and the number of SIGTERM.
const STOPPED_AT_ONCE: i32 = 143;

/// Whether this process is to stop, for all of its parts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stop(watch::Sender<bool>);

impl Stop {
    /// Catches the signals from now on. To be called inside a tokio runtime.
    ///
    /// # Errors
    /// Where the system does not let us.
    pub fn catch() -> io::Result<Self> {
        let mut signals = Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        };
        let (stop, _) = watch::channel(false);
        let stop = Self(stop);
        let told = stop.clone();
        // It ends with the process.
        tokio::spawn(async move {
            signals.next().await;
            tracing::info!("stopping: what is running may finish; another signal stops at once");
            told.now();
            signals.next().await;
            process::exit(STOPPED_AT_ONCE);
        });
        Ok(stop)
    }

    /// Asks every part to stop.
    pub fn now(&self) {
        self.0.send_replace(true);
    }

    /// Ends when the process is to stop.
    pub async fn asked(&self) {
        // The sender is ours: the channel stays open for as long.
        let _ = self.0.subscribe().wait_for(|stop| *stop).await;
    }
}

/// The signals that end a process.
#[derive(Debug)]
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
