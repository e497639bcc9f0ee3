//! What becomes of a fill that the store cannot take any more (a full disk): its readers still get their bytes.
//!
//! From then on bytes pass through a window in memory. It moves on when the slowest reader has read, so upstream is
//! still asked once; a reader that stands still for too long is left behind. Invariant: the window holds at most
//! [`WINDOW_BYTES`] and one batch.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::Notify;

/// How many bytes the window holds before upstream has to wait.
const WINDOW_BYTES: u64 = 4 << 20;

/// How long one standing reader may hold up the others.
const PATIENCE: Duration = Duration::from_secs(30);

/// The window, and the readers that it waits for.
#[derive(Debug, Default)]
pub(super) struct Overflow {
    window: Mutex<Window>,
    readers: Mutex<Vec<Weak<AtomicU64>>>,
    moved: Notify,
}

#[derive(Debug, Default)]
struct Window {
    start: u64,
    end: u64,
    chunks: VecDeque<Bytes>,
}

/// Where a reader stands; dropping it tells the window not to wait for it.
#[derive(Debug)]
pub(super) struct Position {
    offset: Arc<AtomicU64>,
    overflow: Arc<Overflow>,
}

impl Overflow {
    /// Registers a reader that starts at `offset`.
    pub(super) fn reader_at(self: &Arc<Self>, offset: u64) -> Position {
        let position = Arc::new(AtomicU64::new(offset));
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.retain(|reader| reader.strong_count() > 0);
        readers.push(Arc::downgrade(&position));
        Position { offset: position, overflow: self.clone() }
    }

    /// Opens the window at `offset`: everything before it is in the spool.
    pub(super) fn open_at(&self, offset: u64) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        *window = Window { start: offset, end: offset, chunks: VecDeque::new() };
    }

    /// Adds bytes at the window's end.
    pub(super) fn push(&self, chunks: impl IntoIterator<Item = Bytes>) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in chunks {
            window.end += chunk.len() as u64;
            window.chunks.push_back(chunk);
        }
    }

    /// Waits until the window has room. False where no reader is left to wait for.
    pub(super) async fn room(&self) -> bool {
        loop {
            let moved = self.moved.notified();
            let Some(slowest) = self.slowest() else { return false };
            if self.trim(slowest) <= WINDOW_BYTES {
                return true;
            }
            if tokio::time::timeout(PATIENCE, moved).await.is_err() {
                // Once the others have moved on, it finds its bytes gone, and ends with an error.
                self.forget(slowest);
            }
        }
    }

    /// Some bytes from `offset` on, up to `end`; `None` where they are gone.
    pub(super) fn read(&self, offset: u64, end: u64) -> Option<Bytes> {
        let window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let mut start = window.start;
        for chunk in &window.chunks {
            let next = start + chunk.len() as u64;
            if (start..next).contains(&offset) {
                let from = usize::try_from(offset - start).ok()?;
                let to = usize::try_from(end.min(next) - start).ok()?;
                return Some(chunk.slice(from..to));
            }
            start = next;
        }
        None
    }

    /// Drops the chunks that end at or before `offset`; returns how many bytes are left.
    fn trim(&self, offset: u64) -> u64 {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(chunk) = window.chunks.front() {
            let next = window.start + chunk.len() as u64;
            if next > offset {
                break;
            }
            window.start = next;
            window.chunks.pop_front();
        }
        window.end - window.start
    }

    fn slowest(&self) -> Option<u64> {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.retain(|reader| reader.strong_count() > 0);
        readers.iter().filter_map(Weak::upgrade).map(|position| position.load(Ordering::Acquire)).min()
    }

    fn forget(&self, slowest: u64) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.retain(|reader| {
            reader.upgrade().is_some_and(|position| position.load(Ordering::Acquire) > slowest)
        });
    }
}

impl Position {
    pub(super) fn get(&self) -> u64 {
        self.offset.load(Ordering::Acquire)
    }

    /// Says that everything before `offset` has been read.
    pub(super) fn advance_to(&self, offset: u64) {
        self.offset.store(offset, Ordering::Release);
        self.overflow.moved.notify_one();
    }
}

impl Drop for Position {
    fn drop(&mut self) {
        // Beyond every byte, so that this reader is nobody's slowest even before it is forgotten.
        self.advance_to(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: usize = 1 << 20;

    fn filled_at(offset: u64) -> Arc<Overflow> {
        let overflow = Arc::new(Overflow::default());
        overflow.open_at(offset);
        overflow.push((0..6).map(|n| Bytes::from(vec![n; CHUNK])));
        overflow
    }

    #[tokio::test]
    async fn waits_for_the_slowest_reader_and_forgets_those_who_left() {
        let overflow = filled_at(1000);
        let slow = overflow.reader_at(1000);
        let fast = overflow.reader_at(1000);
        fast.advance_to(1000 + 6 * CHUNK as u64);
        let waiting = tokio::spawn({
            let overflow = overflow.clone();
            async move { overflow.room().await }
        });
        assert_eq!(overflow.read(1000, 1010).unwrap(), Bytes::from_static(&[0; 10]));
        assert!(overflow.read(999, 1010).is_none(), "what lies before the window is in the spool");
        slow.advance_to(1000 + 2 * CHUNK as u64);
        assert!(waiting.await.unwrap());
        assert!(overflow.read(1000, 1010).is_none(), "what everybody has read is gone");
        drop((slow, fast));
        overflow.push([Bytes::from(vec![9; 8 * CHUNK])]);
        assert!(!overflow.room().await, "nobody is left to wait for");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stands_still_is_left_behind() {
        let overflow = filled_at(0);
        let standing = overflow.reader_at(0);
        let moving = overflow.reader_at(3 * CHUNK as u64);
        assert!(overflow.room().await);
        assert!(overflow.read(standing.get(), 1).is_none());
        assert!(overflow.read(moving.get(), u64::MAX).is_some());
    }
}
