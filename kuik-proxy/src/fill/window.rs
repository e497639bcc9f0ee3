//! In-memory window over the newest bytes of a fill: readers get them before the disk does.
//!
//! Bytes leave the window once they are in the spool, or, if the store cannot store the blob (a full disk), once the
//! slowest reader has read them. Invariant: the window holds at most [`WINDOW_BYTES`] and one batch; upstream waits
//! while it is full.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, futures::Notified};

/// Number of bytes the window holds before upstream has to wait.
pub(super) const WINDOW_BYTES: u64 = 4 << 20;

/// The window, and the positions of the fill's readers.
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

/// Position of a reader; once dropped, the window no longer waits for it.
#[derive(Debug)]
pub(super) struct Position {
    offset: Arc<AtomicU64>,
    window: Arc<Window>,
}

/// Total length of `chunks` in bytes.
pub(super) fn length_of(chunks: &[Bytes]) -> u64 {
    chunks.iter().map(|chunk| chunk.len() as u64).sum()
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

    /// Appends bytes to the window.
    pub(super) fn push(&self, chunks: &[Bytes]) {
        let mut held = self.held();
        for chunk in chunks {
            held.end += chunk.len() as u64;
            held.chunks.push_back(chunk.clone());
        }
    }

    /// Returns some bytes starting at `offset`, up to `end`; `None` if they have left the window.
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

    /// Returns all bytes starting at `offset`, which must be the start of a chunk.
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

    /// Ends when the spool has written bytes, or has finished, since this was called.
    pub(super) fn spooled(&self) -> Notified<'_> {
        self.spooled.notified()
    }

    /// Signals that the spool has written bytes, or has finished.
    pub(super) fn has_spooled(&self) {
        self.spooled.notify_one();
    }

    /// Returns the position of the slowest reader; `None` if there is no reader.
    pub(super) fn slowest(&self) -> Option<u64> {
        let mut readers = self.readers();
        readers.retain(|reader| reader.strong_count() > 0);
        readers.iter().filter_map(Weak::upgrade).map(|position| position.load(Ordering::Acquire)).min()
    }

    /// Stops waiting for the readers at or before `offset`. Once the others have moved on, those readers find their
    /// bytes gone.
    pub(super) fn leave_behind(&self, offset: u64) {
        self.readers().retain(|reader| {
            reader.upgrade().is_some_and(|position| position.load(Ordering::Acquire) > offset)
        });
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock()
    }

    fn readers(&self) -> MutexGuard<'_, Vec<Weak<AtomicU64>>> {
        self.readers.lock()
    }
}

impl Position {
    pub(super) fn get(&self) -> u64 {
        self.offset.load(Ordering::Acquire)
    }

    /// Signals that everything before `offset` has been read.
    pub(super) fn advance_to(&self, offset: u64) {
        self.offset.store(offset, Ordering::Release);
        self.window.moved.notify_one();
    }
}

impl Drop for Position {
    fn drop(&mut self) {
        // Beyond every byte, so that this reader is not the slowest even before it is removed.
        self.advance_to(u64::MAX);
    }
}
