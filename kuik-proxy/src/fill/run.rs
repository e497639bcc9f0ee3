//! The task of a fill. Two things go on in it side by side: upstream's bytes are received, shown to the readers and
//! hashed; and they are written to the spool. Neither a slow disk nor a full one holds up the readers.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use kuik_core::content::{
    BlobWriter, ContentStore, Digest, SourceError, SourceErrorKind, Verified, Verifier,
};

use super::{Fill, Fills, download::Download, progress::Phase, room, spool};

/// Below this, hashing costs less than handing it to another thread.
const WORTH_A_THREAD: usize = 64 << 10;

/// How long the disk, or one reader, may stand still before the others go on without it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Fetches, verifies and publishes; every outcome ends up in the fill's progress.
pub(super) async fn run(fills: &Fills, fill: &Arc<Fill>, verifier: Verifier, store: &dyn ContentStore) {
    let repository = &fill.fetched_from;
    // An earlier fill may have published between the miss that started this one and now.
    if !fill.replaces && store.has_blob(&fill.digest).await.is_ok_and(|size| size.is_some()) {
        // Forgotten before anybody learns of it: who looks again goes to the store.
        fills.forget(fill);
        fill.enter(Phase::Kept);
        return;
    }
    let receiving = async {
        let received = receive(fills, fill, verifier).await;
        match &received {
            // Readers get their last bytes now; that the blob becomes durable is not theirs to wait for.
            Ok(_) => fill.enter(Phase::Verified),
            Err(error) => {
                tracing::warn!(digest = %fill.digest, %repository, error = error.chain(), "a blob could not be fetched");
                if error.kind() == SourceErrorKind::InvalidContent {
                    fills.remember_as_wrong(fill);
                    // Whoever tries again is to have it from another one, where there is one.
                    fill.upstream.distrust(repository, &fill.digest);
                }
                // Forgotten before anybody learns of it: who tries again finds no fill that has failed.
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
        tracing::warn!(digest = %fill.digest, error = error.chain(), "a fetched blob could not be kept");
    }
}

/// Into the store, and into every repository that may read it.
async fn publish(
    fills: &Fills,
    fill: &Arc<Fill>,
    verified: Verified,
    writer: Box<dyn BlobWriter>,
    store: &dyn ContentStore,
) -> Result<(), SourceError> {
    let repositories = fill.admitted.after(0);
    writer.publish(verified, &repositories).await?;
    // Newcomers go to the store from now on. Those who came meanwhile had no link with the others.
    fills.forget(fill);
    let (mut linked, mut result) = (repositories.len(), Ok(()));
    loop {
        let late = fill.admitted.after(linked);
        if late.is_empty() {
            return result;
        }
        for repository in &late {
            result = result.and(store.link_blob(repository, &fill.digest).await);
        }
        linked += late.len();
    }
}

/// Upstream's bytes, into the window and through the hash.
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
        return Err(invalid(format!("it has more than the {limit} bytes that are accepted")));
    }
    let limit = size.unwrap_or(limit);
    fill.enter(Phase::Filling { size });

    let mut received = 0;
    let mut next = download.next_batch().await;
    while let Some(batch) = next {
        let batch = batch?;
        let length = length_of(&batch);
        if !fill.aside.agrees_with(received, &batch) {
            return Err(invalid(
                "upstream sent other bytes than when it was asked for them alone".to_owned(),
            ));
        }
        received += length;
        if received > limit {
            return Err(invalid(format!("upstream sent more than {limit} bytes")));
        }
        fill.window.push(&batch);
        fill.progress.send_modify(|progress| progress.received += length);
        let (hashed, following) = tokio::join!(hash(verifier, batch), download.next_batch());
        (verifier, next) = (hashed?, following);
        room::wait(fill, async |moved| tokio::time::timeout(PATIENCE, moved).await.is_ok()).await?;
    }
    if let Some(size) = size.filter(|&size| size != received) {
        return Err(invalid(format!("upstream announced {size} bytes and sent {received}")));
    }
    verifier.finish().map_err(|mismatch| {
        let attempted = format!("fetch blob {digest} of {repository}");
        SourceError::caused_by(SourceErrorKind::InvalidContent, attempted, mismatch)
    })
}

/// Writes what the window holds to the spool, until everything is there. `None` where the fill fails, or where the
/// store cannot keep the blob: then its bytes are for those who wait for them now.
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
            "the store cannot keep a blob: it is passed on to those who wait for it"
        );
        // Newcomers start a fill of their own, which may find room again.
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

pub(super) fn length_of(chunks: &[Bytes]) -> u64 {
    chunks.iter().map(|chunk| chunk.len() as u64).sum()
}

/// What readers learn when the task of their fill ended without a word: the runtime is shutting down.
pub(super) fn abandoned(digest: &Digest) -> SourceError {
    SourceError::new(
        SourceErrorKind::Unavailable,
        format!("fetch blob {digest}: this process is shutting down"),
    )
}
