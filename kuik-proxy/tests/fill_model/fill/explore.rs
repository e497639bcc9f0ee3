//! The exploration: one fill, its spool and a reader, in every order.

use std::sync::{Arc, LazyLock};

use super::{
    Fill,
    progress::{HOLD_BACK, Phase},
    reader, room, spool,
    sync::Mutex,
    window::{Position, WINDOW_BYTES},
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use kuik_core::{
    content::{BlobSpool, BlobWriter, SourceError, SourceErrorKind, Verified},
    reference::RepositoryName,
    testkit::MemoryStore,
};
use loom::{future::block_on, thread};

/// Two of them are more than the window holds.
const CHUNK: u64 = WINDOW_BYTES / 2 + 1;
const SIZE: u64 = 3 * CHUNK;

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
        let mut written = self.written.lock().unwrap();
        let bytes: u64 = written.iter().chain(chunks).map(|chunk| chunk.len() as u64).sum();
        if bytes > self.room {
            return Err(SourceError::new(SourceErrorKind::Storage, "the disk is full"));
        }
        written.extend_from_slice(chunks);
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
        let chunk = self.written.lock().unwrap()[(start / CHUNK) as usize].clone();
        let from = start % CHUNK;
        Ok(chunk.slice(from as usize..CHUNK.min(from + end - start) as usize))
    }
}

/// How upstream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
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
async fn receive(fill: &Fill, end: End) {
    fill.enter(Phase::Filling { size: Some(SIZE) });
    for chunk in CHUNKS.iter() {
        fill.window.push(std::slice::from_ref(chunk));
        fill.progress.send_modify(|progress| progress.received += CHUNK);
        // Nobody's patience ends: whoever does not move at all would be seen as a deadlock.
        let waited = room::wait(fill, async |moved| {
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

/// What a reader of `from..` has in the end.
async fn read(fill: Arc<Fill>, position: Position, from: u64) -> Result<u64, SourceError> {
    let mut body = reader::stream(fill.clone(), position, from, None);
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
    }
    Ok(offset)
}

/// One fill, its spool on a disk with `room`, and a reader, in every order.
fn explore(end: End, room: u64, from: u64) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound.get_or_insert(2);
    model.check(move || {
        let fill = Arc::new(Fill::new(Arc::new(MemoryStore::default())));
        // A reader joins before the task of the fill runs.
        let position = fill.reader();
        let receiving = thread::spawn({
            let fill = fill.clone();
            move || block_on(receive(&fill, end))
        });
        let spooling = thread::spawn({
            let fill = fill.clone();
            move || {
                let mut disk = Disk { written: Arc::default(), room };
                fill.spool.set(disk.spool()).unwrap();
                match block_on(spool::copy(&fill, &mut disk)) {
                    Ok(whole) => whole,
                    Err(_) => {
                        fill.overflow();
                        false
                    }
                }
            }
        });
        let read = block_on(read(fill.clone(), position, from));
        receiving.join().unwrap();
        let kept = spooling.join().unwrap();
        match end {
            End::Right => assert_eq!(read.unwrap(), SIZE),
            End::Wrong | End::Broken => assert!(read.is_err()),
        }
        assert_eq!(kept, end == End::Right && room >= SIZE);
    });
}

#[test]
fn a_fill_that_succeeds() {
    explore(End::Right, SIZE, 0);
}

#[test]
fn a_part_of_a_fill_that_succeeds() {
    explore(End::Right, SIZE, CHUNK + 7);
}

#[test]
fn a_fill_whose_disk_is_full() {
    explore(End::Right, CHUNK, 0);
}

#[test]
fn a_fill_that_breaks_off() {
    explore(End::Broken, SIZE, 0);
}

#[test]
fn a_fill_with_a_wrong_digest() {
    explore(End::Wrong, SIZE, 0);
}
