//! Reload of certificate authority files, such as those of a mounted Secret or ConfigMap.
//!
//! Invariant: unusable files change nothing, and are logged once. New authorities apply to new connections.

use std::{fs, time::Duration};

use kuik_core::client::{CertificateAuthorities, InvalidTransport};
use tokio::{task::spawn_blocking, time::sleep};

/// Interval of reading the files.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Contents of the files; `None` for one that cannot be read.
type Contents = Vec<Option<Vec<u8>>>;

/// Calls `trust` with the authorities in `files`, now and when they change. Never returns.
pub async fn keep(
    files: Vec<String>,
    trust: impl Fn(&[CertificateAuthorities]) -> Result<(), InvalidTransport>,
) {
    if files.is_empty() {
        return;
    }
    // The files may have changed since the transport was created.
    let mut before = None;
    loop {
        let now = contents(&files).await;
        if before.as_ref() != Some(&now) {
            match parse(&files, &now).and_then(|roots| trust(&roots).map_err(|error| error.to_string())) {
                Ok(()) => tracing::info!(?files, "certificate authorities loaded"),
                Err(problem) => tracing::warn!(
                    %problem,
                    "cannot load certificate authorities, keeping the previous ones"
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
    // The task does not panic; it fails only if the process ends.
    read.await.unwrap_or_default()
}

fn parse(files: &[String], contents: &Contents) -> Result<Vec<CertificateAuthorities>, String> {
    let read = |(file, pem): (&String, &Option<Vec<u8>>)| {
        let pem = pem.as_ref().ok_or_else(|| format!("cannot read {file}"))?;
        CertificateAuthorities::from_pem(file, pem).map_err(|error| error.to_string())
    };
    files.iter().zip(contents).map(read).collect()
}
