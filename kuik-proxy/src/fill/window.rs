//! The newest bytes of a fill, in memory: readers have them before the disk does.
//!
//! Bytes leave the window once nobody needs them here: when the spool has them, or, where the store cannot keep the
//! blob (a full disk), when the slowest reader has read them. Invariant: the window holds at most [`WINDOW_BYTES`]
//! and one batch; upstream waits while it is full.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::{Notify, futures::Notified};

/// How many bytes the window holds before upstream has to wait.
pub(super) const WINDOW_BYTES: u64 = 4 << 20;

/// The window, and the readers of the fill.
#[derive(Debug, Default)]
pub(super) struct Window {
    held: Mutex<Held>,
    readers: Mutex<Vec<Weak<AtomicU64>>>,
    moved: Notify,
    spooled: Notify,
}

#[derive(Debug, Default)]
struct Held {
    start: u64,
    end: u64,
    chunks: VecDeque<Bytes>,
}

/// Where a reader stands; dropping it tells the window not to wait for it.
#[derive(Debug)]
pub(super) struct Position {
    offset: Arc<AtomicU64>,
    window: Arc<Window>,
}

impl Window {
    /// Registers a reader that starts at `offset`.
    pub(super) fn reader_at(self: &Arc<Self>, offset: u64) -> Position {
        let position = Arc::new(AtomicU64::new(offset));
        let mut readers = self.readers();
        readers.retain(|reader| reader.strong_count() > 0);
        readers.push(Arc::downgrade(&position));
        Position { offset: position, window: self.clone() }
    }

    /// Adds bytes at the window's end.
    pub(super) fn push(&self, chunks: &[Bytes]) {
        let mut held = self.held();
        for chunk in chunks {
            held.end += chunk.len() as u64;
            held.chunks.push_back(chunk.clone());
        }
    }

    /// Some bytes from `offset` on, up to `end`; `None` where they are not here any more.
    pub(super) fn read(&self, offset: u64, end: u64) -> Option<Bytes> {
        let held = self.held();
        let mut start = held.start;
        for chunk in &held.chunks {
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

    /// Everything from `offset` on, which is where a chunk begins.
    pub(super) fn all_from(&self, offset: u64) -> Vec<Bytes> {
        let held = self.held();
        let mut start = held.start;
        let skipped = held.chunks.iter().take_while(|chunk| {
            let skipped = start < offset;
            start += if skipped { chunk.len() as u64 } else { 0 };
            skipped
        });
        let skipped = skipped.count();
        held.chunks.iter().skip(skipped).cloned().collect()
    }

    /// Drops the chunks that end at or before `offset`; returns how many bytes are left.
    pub(super) fn trim(&self, offset: u64) -> u64 {
        let mut held = self.held();
        while let Some(chunk) = held.chunks.front() {
            let next = held.start + chunk.len() as u64;
            if next > offset {
                break;
            }
            held.start = next;
            held.chunks.pop_front();
        }
        held.end - held.start
    }

    /// Ends when a reader has moved since this was called.
    pub(super) fn moved(&self) -> Notified<'_> {
        self.moved.notified()
    }

    /// Ends when the spool has got something, or will get nothing more, since this was called.
    pub(super) fn spooled(&self) -> Notified<'_> {
        self.spooled.notified()
    }

    /// Says that the spool has got something, or will get nothing more.
    pub(super) fn has_spooled(&self) {
        self.spooled.notify_one();
    }

    /// Where the slowest reader stands; `None` where there is none.
    pub(super) fn slowest(&self) -> Option<u64> {
        let mut readers = self.readers();
        readers.retain(|reader| reader.strong_count() > 0);
        readers.iter().filter_map(Weak::upgrade).map(|position| position.load(Ordering::Acquire)).min()
    }

    /// Waits no longer for the readers that stand at or before `offset`. Once the others have moved on, they find
    /// their bytes gone.
    pub(super) fn leave_behind(&self, offset: u64) {
        self.readers().retain(|reader| {
            reader.upgrade().is_some_and(|position| position.load(Ordering::Acquire) > offset)
        });
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn readers(&self) -> MutexGuard<'_, Vec<Weak<AtomicU64>>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Position {
    pub(super) fn get(&self) -> u64 {
        self.offset.load(Ordering::Acquire)
    }

    /// Says that everything before `offset` has been read.
    pub(super) fn advance_to(&self, offset: u64) {
        self.offset.store(offset, Ordering::Release);
        self.window.moved.notify_one();
    }
}

impl Drop for Position {
    fn drop(&mut self) {
        // Beyond every byte, so that this reader is nobody's slowest even before it is forgotten.
        self.advance_to(u64::MAX);
    }
}
