//! Certificate authorities are files that change while a process runs: those of a Secret or ConfigMap that is mounted.
//!
//! Invariant: files that cannot be used change nothing, and that is said once. New ones are for new connections.

use std::{fs, time::Duration};

use kuik_core::registry::{CertificateAuthorities, HttpTransport};
use tokio::{task::spawn_blocking, time::sleep};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What the files have; `None` for one that cannot be read.
type Contents = Vec<Option<Vec<u8>>>;

/// Has `transport` trust what is in `files`, whenever that has changed, for ever.
pub async fn keep(files: Vec<String>, transport: HttpTransport) {
    if files.is_empty() {
        return;
    }
    // They may have changed since the transport was made.
    let mut before = None;
    loop {
        let now = contents(&files).await;
        if before.as_ref() != Some(&now) {
            match trust(&files, &now, &transport) {
                Ok(()) => tracing::info!(?files, "these certificate authorities are trusted"),
                Err(problem) => tracing::warn!(
                    %problem,
                    "the certificate authorities cannot be used: those from before are trusted"
                ),
            }
            before = Some(now);
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn contents(files: &[String]) -> Contents {
    let files = files.to_vec();
    let read = spawn_blocking(move || files.iter().map(|file| fs::read(file).ok()).collect());
    // It does not panic: an end of the process alone comes between.
    read.await.unwrap_or_default()
}

fn trust(files: &[String], contents: &Contents, transport: &HttpTransport) -> Result<(), String> {
    let read = |(file, pem): (&String, &Option<Vec<u8>>)| {
        let pem = pem.as_ref().ok_or_else(|| format!("{file}: it cannot be read"))?;
        CertificateAuthorities::from_pem(file, pem).map_err(|error| error.to_string())
    };
    let authorities: Vec<_> = files.iter().zip(contents).map(read).collect::<Result<_, _>>()?;
    transport.trust(&authorities).map_err(|error| error.to_string())
}
