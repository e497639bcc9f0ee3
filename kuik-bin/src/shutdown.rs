//! Graceful shutdown: the first SIGTERM or SIGINT requests it, the second one exits at once.

use std::{io, process};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

/// Exit code after the second signal: 128 plus the number of SIGTERM.
const STOPPED_AT_ONCE: i32 = 143;

/// The stop signal of a process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stop(watch::Sender<bool>);

impl Stop {
    /// Installs the signal handlers. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// Fails if a signal handler cannot be installed.
    pub fn catch() -> io::Result<Self> {
        let mut signals = Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        };
        let (stop, _) = watch::channel(false);
        let stop = Self(stop);
        let handle = stop.clone();
        // The task ends with the process.
        tokio::spawn(async move {
            signals.next().await;
            tracing::info!("stopping after running requests finish; send another signal to exit at once");
            handle.now();
            signals.next().await;
            process::exit(STOPPED_AT_ONCE);
        });
        Ok(stop)
    }

    /// Requests the shutdown.
    pub fn now(&self) {
        self.0.send_replace(true);
    }

    /// Completes when the shutdown is requested.
    pub async fn asked(&self) {
        // `self` holds the sender, so the channel stays open.
        let _ = self.0.subscribe().wait_for(|stop| *stop).await;
    }
}

/// The signals that stop a process.
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
