//! Fill task. Two things run concurrently: upstream's bytes are received, made readable and hashed; and they are
//! written to the spool. Neither a slow disk nor a full one delays the readers.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use kuik_core::content::{BlobWriter, ContentStore, SourceError, SourceErrorKind, Verified, Verifier};

use super::{Fill, Fills, backpressure, download::Download, progress::Phase, spool, window::length_of};

/// Below this size, hashing costs less than moving it to another thread.
const WORTH_A_THREAD: usize = 64 << 10;

/// How long the disk, or one reader, may stall before the fill continues without it.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Fetches, verifies and publishes; every outcome ends up in the fill's progress.
pub(super) async fn run(fills: &Fills, fill: &Arc<Fill>, verifier: Verifier, store: &dyn ContentStore) {
    let repository = &fill.fetched_from;
    // An earlier fill may have published between the cache miss that started this one and now.
    if !fill.replaces && store.has_blob(&fill.digest).await.is_ok_and(|size| size.is_some()) {
        // Forgotten before readers are notified: a retry goes to the store.
        fills.forget(fill);
        fill.enter(Phase::Stored);
        return;
    }
    let receiving = async {
        let received = receive(fills, fill, verifier).await;
        match &received {
            // Readers get their last bytes now; they do not wait until the blob is durable.
            Ok(_) => fill.enter(Phase::Verified),
            Err(error) => {
                tracing::warn!(digest = %fill.digest, %repository, error = error.chain(), "failed to fetch a blob");
                if error.kind() == SourceErrorKind::InvalidContent {
                    fills.remember_corrupt(fill);
                    // Retries use another upstream, if there is one.
                    fill.upstream.report_corrupt(repository, &fill.digest);
                }
                // Forgotten before readers are notified: a retry does not join the failed fill.
                fills.forget(fill);
                fill.enter(Phase::Failed(error.clone()));
            }
        }
        received.ok()
    };
    let (verified, writer) = tokio::join!(receiving, spool_or_overflow(fills, fill, store));
    if let (Some(verified), Some(writer)) = (verified, writer)
        && let Err(error) = publish(fills, fill, verified, writer, store).await
    {
        tracing::warn!(digest = %fill.digest, error = error.chain(), "failed to store a fetched blob");
    }
}

/// Publishes into the store, and into every authorized repository.
async fn publish(
    fills: &Fills,
    fill: &Arc<Fill>,
    verified: Verified,
    writer: Box<dyn BlobWriter>,
    store: &dyn ContentStore,
) -> Result<(), SourceError> {
    let repositories = fill.authorized.after(0);
    writer.publish(verified, &repositories).await?;
    // New requests go to the store from now on. Repositories authorized meanwhile were not linked with the others.
    fills.forget(fill);
    let (mut linked, mut result) = (repositories.len(), Ok(()));
    loop {
        let late = fill.authorized.after(linked);
        if late.is_empty() {
            return result;
        }
        for repository in &late {
            result = result.and(store.link_blob(repository, &fill.digest).await);
        }
        linked += late.len();
    }
}

/// Receives upstream's bytes into the window and hashes them.
async fn receive(fills: &Fills, fill: &Fill, mut verifier: Verifier) -> Result<Verified, SourceError> {
    let (repository, digest) = (&fill.fetched_from, &fill.digest);
    let invalid = |problem: String| {
        let attempted = format!("fetch blob {digest} of {repository}: {problem}");
        SourceError::new(SourceErrorKind::InvalidContent, attempted)
    };
    let mut download = Download::open(fill.upstream.as_ref(), repository, digest).await?;
    let size = download.size();
    let limit = fills.max_blob_bytes;
    if size.is_some_and(|size| size > limit) {
        return Err(invalid(format!("it exceeds the limit of {limit} bytes")));
    }
    let limit = size.unwrap_or(limit);
    fill.enter(Phase::Filling { size });

    let mut received = 0;
    let mut next = download.next_batch().await;
    while let Some(batch) = next {
        let batch = batch?;
        let length = length_of(&batch);
        if !fill.prefetch.agrees_with(received, &batch) {
            return Err(invalid("upstream sent other bytes than for a range request".to_owned()));
        }
        received += length;
        if received > limit {
            return Err(invalid(format!("upstream sent more than {limit} bytes")));
        }
        fill.window.push(&batch);
        fill.progress.send_modify(|progress| progress.received += length);
        let (hashed, following) = tokio::join!(hash(verifier, batch), download.next_batch());
        (verifier, next) = (hashed?, following);
        backpressure::wait(fill, async |moved| tokio::time::timeout(STALL_TIMEOUT, moved).await.is_ok())
            .await?;
    }
    if let Some(size) = size.filter(|&size| size != received) {
        return Err(invalid(format!("upstream announced {size} bytes and sent {received}")));
    }
    verifier.finish().map_err(|mismatch| {
        let attempted = format!("fetch blob {digest} of {repository}");
        SourceError::caused_by(SourceErrorKind::InvalidContent, attempted, mismatch)
    })
}

/// Writes the window to the spool, until everything is stored. Returns `None` if the fill fails, or if the store
/// cannot store the blob: then its bytes go to the current readers only.
async fn spool_or_overflow(
    fills: &Fills,
    fill: &Arc<Fill>,
    store: &dyn ContentStore,
) -> Option<Box<dyn BlobWriter>> {
    let spooling = tokio::select! {
        spooled = spool(fill, store) => spooled,
        () = fill.overflowing() => {
            let problem = format!("write blob {}: the store does not answer", fill.digest);
            Err(SourceError::new(SourceErrorKind::Storage, problem))
        }
    };
    spooling.unwrap_or_else(|error| {
        tracing::warn!(
            digest = %fill.digest,
            error = error.chain(),
            "the store cannot store a blob, streaming it to its readers only"
        );
        // New requests start a fill of their own, when the store may have room again.
        fills.forget(fill);
        fill.overflow();
        None
    })
}

async fn spool(fill: &Fill, store: &dyn ContentStore) -> Result<Option<Box<dyn BlobWriter>>, SourceError> {
    let mut progress = fill.progress.subscribe();
    let begun = progress.wait_for(|now| !matches!(now.phase, Phase::Connecting)).await;
    let failed = begun.map_or(true, |now| matches!(now.phase, Phase::Failed(_)));
    if failed {
        return Ok(None);
    }
    let mut writer = store.write_blob().await?;
    // Set once: a fill has one spool.
    let _ = fill.spool.set(writer.spool());
    Ok(spool::copy(fill, writer.as_mut()).await?.then_some(writer))
}

async fn hash(mut verifier: Verifier, batch: Vec<Bytes>) -> Result<Verifier, SourceError> {
    let worth_a_thread = length_of(&batch) >= WORTH_A_THREAD as u64;
    let update = move || {
        batch.iter().for_each(|chunk| verifier.update(chunk));
        verifier
    };
    if !worth_a_thread {
        return Ok(update());
    }
    tokio::task::spawn_blocking(update)
        .await
        .map_err(|error| SourceError::caused_by(SourceErrorKind::Storage, "hash a blob", error))
}
