//! Fakes around the real modules: an upstream without a connection, a disk in memory, clients.
//!
//! Each pauses where the real one awaits, so that the others can interleave.

use std::sync::{Arc, LazyLock, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use kuik_core::{
    content::{BlobSpool, BlobWriter, SourceError, SourceErrorKind, Verified},
    reference::RepositoryName,
};

use super::super::schedule::pause;
use super::{
    Fill, backpressure,
    progress::{HOLD_BACK, Phase},
    reader, spool,
    window::{Position, WINDOW_BYTES},
};

/// Two of them exceed the window.
pub(super) const CHUNK: u64 = WINDOW_BYTES / 2 + 1;
pub(super) const SIZE: u64 = 3 * CHUNK;

/// Chunks that begin and end with their number, so that a reader can identify each one and detect gaps.
static CHUNKS: LazyLock<Vec<Bytes>> = LazyLock::new(|| {
    let chunk = |number| {
        let mut chunk = vec![0; CHUNK as usize];
        chunk[0] = number;
        chunk[CHUNK as usize - 1] = number;
        Bytes::from(chunk)
    };
    (1..=(SIZE / CHUNK) as u8).map(chunk).collect()
});

/// A disk with a limited capacity.
#[derive(Debug, Clone)]
struct Disk {
    written: Arc<Mutex<Vec<Bytes>>>,
    capacity: u64,
}

#[async_trait]
impl BlobWriter for Disk {
    async fn append(&mut self, chunks: &[Bytes]) -> Result<(), SourceError> {
        pause().await;
        {
            let mut written = self.written.lock().unwrap();
            let bytes: u64 = written.iter().chain(chunks).map(|chunk| chunk.len() as u64).sum();
            if bytes > self.capacity {
                return Err(SourceError::new(SourceErrorKind::Storage, "the disk is full"));
            }
            written.extend_from_slice(chunks);
        }
        pause().await;
        Ok(())
    }

    fn spool(&self) -> Arc<dyn BlobSpool> {
        Arc::new(self.clone())
    }

    async fn publish(self: Box<Self>, _: Verified, _: &[RepositoryName]) -> Result<(), SourceError> {
        Ok(())
    }
}

#[async_trait]
impl BlobSpool for Disk {
    async fn read(&self, start: u64, end: u64) -> Result<Bytes, SourceError> {
        pause().await;
        let chunk = self.written.lock().unwrap()[(start / CHUNK) as usize].clone();
        let from = start % CHUNK;
        Ok(chunk.slice(from as usize..CHUNK.min(from + end - start) as usize))
    }
}

/// How upstream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Right,
    /// After everything, with a wrong digest.
    Wrong,
    /// After the first chunk.
    Broken,
}

fn failure() -> Phase {
    Phase::Failed(SourceError::new(SourceErrorKind::Unavailable, "upstream disconnected"))
}

/// Models `receive`, without a hash.
pub(super) async fn receive(fill: Arc<Fill>, end: End) {
    fill.enter(Phase::Filling { size: Some(SIZE) });
    for chunk in CHUNKS.iter() {
        pause().await;
        fill.window.push(std::slice::from_ref(chunk));
        fill.progress.send_modify(|progress| progress.received += CHUNK);
        // The chunk is hashed, and the next one is in transfer.
        pause().await;
        // The timeout never expires: a stalled task shows up as a deadlock.
        let waited = backpressure::wait(&fill, async |moved| {
            moved.await;
            true
        });
        if end == End::Broken || waited.await.is_err() {
            fill.enter(failure());
            return;
        }
        assert!(fill.window.trim(0) <= WINDOW_BYTES, "the window holds more than it may");
    }
    fill.enter(if end == End::Right { Phase::Verified } else { failure() });
}

/// Models the spool's half of `run`, on a disk with `capacity`. Returns whether the disk has everything at the end.
pub(super) async fn keep(fill: Arc<Fill>, capacity: u64) -> bool {
    let mut progress = fill.progress.subscribe();
    progress.wait_for(|now| !matches!(now.phase, Phase::Connecting)).await.unwrap();
    let mut disk = Disk { written: Arc::default(), capacity };
    pause().await;
    fill.spool.set(disk.spool()).unwrap();
    match spool::copy(&fill, &mut disk).await {
        Ok(whole) => whole,
        Err(_) => {
            fill.overflow();
            false
        }
    }
}

/// Returns how far a client gets that reads `from..`, or disconnects after `most_chunks`.
pub(super) async fn read(
    fill: Arc<Fill>,
    position: Position,
    from: u64,
    most_chunks: usize,
) -> Result<u64, SourceError> {
    let mut body = reader::stream(fill.clone(), position, from, None).take(most_chunks);
    let mut offset = from;
    while let Some(bytes) = body.next().await {
        let bytes = bytes?;
        for (at, byte) in [(offset, bytes[0]), (offset + bytes.len() as u64 - 1, bytes[bytes.len() - 1])] {
            let edge = at % CHUNK == 0 || at % CHUNK == CHUNK - 1;
            assert_eq!(byte, if edge { (at / CHUNK) as u8 + 1 } else { 0 }, "at {at}");
        }
        offset += bytes.len() as u64;
        let verified = matches!(fill.progress.borrow().phase, Phase::Verified);
        assert!(offset <= SIZE - HOLD_BACK || verified, "the last bytes came before the digest was known");
        // The client consumes the bytes.
        pause().await;
    }
    Ok(offset)
}
