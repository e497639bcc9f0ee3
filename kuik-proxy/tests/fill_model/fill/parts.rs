//! What stands around the parts that are real: an upstream without a connection, a disk in memory, clients.
//!
//! Each pauses where the real one awaits, so that the others can come in between.

use std::sync::{Arc, LazyLock, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use kuik_core::{
    content::{BlobSpool, BlobWriter, SourceError, SourceErrorKind, Verified},
    reference::RepositoryName,
};

use super::{
    Fill,
    progress::{HOLD_BACK, Phase},
    reader, room, spool,
    window::{Position, WINDOW_BYTES},
};
use crate::schedule::pause;

/// Two of them are more than the window holds.
pub(super) const CHUNK: u64 = WINDOW_BYTES / 2 + 1;
pub(super) const SIZE: u64 = 3 * CHUNK;

/// Chunks that begin and end with their number, so that a reader can tell which one it has, and that nothing is missing.
static CHUNKS: LazyLock<Vec<Bytes>> = LazyLock::new(|| {
    let chunk = |number| {
        let mut chunk = vec![0; CHUNK as usize];
        chunk[0] = number;
        chunk[CHUNK as usize - 1] = number;
        Bytes::from(chunk)
    };
    (1..=(SIZE / CHUNK) as u8).map(chunk).collect()
});

/// A disk that takes so many bytes, and no more.
#[derive(Debug, Clone)]
struct Disk {
    written: Arc<Mutex<Vec<Bytes>>>,
    room: u64,
}

#[async_trait]
impl BlobWriter for Disk {
    async fn append(&mut self, chunks: &[Bytes]) -> Result<(), SourceError> {
        pause().await;
        {
            let mut written = self.written.lock().unwrap();
            let bytes: u64 = written.iter().chain(chunks).map(|chunk| chunk.len() as u64).sum();
            if bytes > self.room {
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
    Phase::Failed(SourceError::new(SourceErrorKind::Unavailable, "upstream broke off"))
}

/// What `receive` does, without a hash.
pub(super) async fn receive(fill: Arc<Fill>, end: End) {
    fill.enter(Phase::Filling { size: Some(SIZE) });
    for chunk in CHUNKS.iter() {
        pause().await;
        fill.window.push(std::slice::from_ref(chunk));
        fill.progress.send_modify(|progress| progress.received += CHUNK);
        // It is hashed, and the next one is on its way.
        pause().await;
        // Nobody's patience ends: whoever does not move at all would be seen to wait for ever.
        let waited = room::wait(&fill, async |moved| {
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

/// What the spool's half of `run` does, on a disk with `room`. Whether the disk has everything in the end.
pub(super) async fn keep(fill: Arc<Fill>, room: u64) -> bool {
    let mut progress = fill.progress.subscribe();
    progress.wait_for(|now| !matches!(now.phase, Phase::Connecting)).await.unwrap();
    let mut disk = Disk { written: Arc::default(), room };
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

/// How far a client gets that wants the bytes of `from..`, or leaves after so many chunks.
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
        // The client takes them in.
        pause().await;
    }
    Ok(offset)
}
