//! Fill progress, and which bytes readers may get: pure decisions.
//!
//! Invariant: until every byte is hashed and the digest matches, the last [`HOLD_BACK`] bytes of the blob are
//! withheld from every reader, whichever part of it they requested. A client of wrong content sees a broken transfer,
//! never a complete one; and ranges of it, which are served as they arrive, do not add up to a complete blob.

use kuik_core::content::{Digest, SourceError, SourceErrorKind};

/// How many of the last bytes wait for the digest.
pub(super) const HOLD_BACK: u64 = 16 << 10;

/// Progress of a fill.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    /// Bytes that have arrived from upstream.
    pub received: u64,
    /// How many of these are in the spool; the others are in the window.
    pub spooled: u64,
    /// Size of the blob by manifests, the smallest if there are several: the end that clients expect may come before
    /// the one that upstream announces.
    pub expected: Option<u64>,
    pub phase: Phase,
}

/// Phase of a fill.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// Waiting for upstream's headers.
    Connecting,
    /// Bytes arrive; `size` is the one that upstream announced, if it did.
    Filling { size: Option<u64> },
    /// All bytes arrived, and the digest matches.
    Verified,
    /// The store had the blob already: readers get it from there.
    Stored,
    /// No more bytes will arrive.
    Failed(SourceError),
}

/// Next step of a reader at some offset.
#[derive(Debug)]
pub(super) enum Next {
    /// Continue reading, up to this offset.
    Read { end: u64 },
    /// Everything requested has been read.
    Done,
    /// Wait for the fill to progress.
    Wait,
    /// Stop with this error.
    Fail(SourceError),
}

impl Progress {
    pub(super) const fn new() -> Self {
        Self { received: 0, spooled: 0, expected: None, phase: Phase::Connecting }
    }

    /// The size of the blob, once it is known.
    pub(super) fn size(&self) -> Option<u64> {
        match self.phase {
            Phase::Filling { size } => size,
            Phase::Verified => Some(self.received),
            Phase::Connecting | Phase::Stored | Phase::Failed(_) => None,
        }
    }

    /// Whether the bytes before `end` are known to have arrived, however many follow.
    pub(super) fn reaches(&self, end: u64) -> bool {
        self.size().is_some() || self.readable() >= end
    }

    /// Whether no more bytes will come from upstream.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Verified | Phase::Stored | Phase::Failed(_))
    }

    /// Records that a manifest gives the blob `size` bytes.
    pub(super) fn expect(&mut self, size: u64) {
        self.expected = Some(self.expected.map_or(size, |expected| expected.min(size)));
    }

    /// Offset of the first byte that waits for the digest.
    pub(super) fn held_from(&self) -> u64 {
        let end = self.size().unwrap_or(self.received);
        self.expected.map_or(end, |expected| expected.min(end)).saturating_sub(HOLD_BACK)
    }

    /// The offset up to which readers may read.
    pub(super) fn readable(&self) -> u64 {
        match self.phase {
            Phase::Verified => self.received,
            Phase::Filling { .. } => self.received.min(self.held_from()),
            Phase::Connecting | Phase::Stored | Phase::Failed(_) => 0,
        }
    }

    /// Returns the next step of a reader that has read up to `offset`, and wants to read up to `end` (or all).
    pub(super) fn next(&self, offset: u64, end: Option<u64>) -> Next {
        if end.is_some_and(|end| offset >= end) {
            return Next::Done;
        }
        let readable = self.readable().min(end.unwrap_or(u64::MAX));
        match &self.phase {
            Phase::Failed(error) => Next::Fail(error.clone()),
            _ if offset < readable => Next::Read { end: readable },
            Phase::Verified | Phase::Stored => Next::Done,
            Phase::Connecting | Phase::Filling { .. } => Next::Wait,
        }
    }
}

/// Error for readers whose fill ended without a result: the runtime is shutting down.
pub(super) fn abandoned(digest: &Digest) -> SourceError {
    SourceError::new(
        SourceErrorKind::Unavailable,
        format!("fetch blob {digest}: this process is shutting down"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(received: u64, spooled: u64, phase: Phase) -> Progress {
        Progress { received, spooled, phase, ..Progress::new() }
    }

    #[test]
    fn last_bytes_wait_for_the_digest() {
        let size = 1 << 20;
        let filling = Phase::Filling { size: Some(size) };
        assert_eq!(
            progress(100, 100, filling.clone()).readable(),
            100,
            "far from the end no byte is withheld"
        );
        assert_eq!(progress(size, size, filling).readable(), size - HOLD_BACK);
        assert_eq!(progress(size, size, Phase::Filling { size: None }).readable(), size - HOLD_BACK);
        assert_eq!(progress(size, size, Phase::Verified).readable(), size);
        let small = Phase::Filling { size: Some(10) };
        assert_eq!(progress(10, 10, small).readable(), 0, "a small blob is withheld entirely");
        let mut longer = progress(size, size, Phase::Filling { size: Some(2 * size) });
        longer.expect(size);
        assert_eq!(longer.readable(), size - HOLD_BACK, "the size in a manifest counts too");
    }

    #[test]
    fn next_step_is_bounded_by_the_readable_and_the_requested_range() {
        let filling = progress(200_000, 100_000, Phase::Filling { size: Some(1 << 20) });
        assert!(matches!(filling.next(0, None), Next::Read { end: 200_000 }));
        assert!(matches!(filling.next(0, Some(10)), Next::Read { end: 10 }));
        assert!(matches!(filling.next(10, Some(10)), Next::Done));
        assert!(matches!(filling.next(300_000, Some(300_010)), Next::Wait));
        assert!(matches!(filling.next(200_000, None), Next::Wait));
        let done = progress(200_000, 200_000, Phase::Verified);
        assert!(matches!(done.next(199_999, None), Next::Read { end: 200_000 }));
        assert!(matches!(done.next(9, Some(10)), Next::Read { end: 10 }));
        assert!(matches!(done.next(200_000, None), Next::Done));
    }

    #[test]
    fn failure_reaches_readers_with_bytes_outstanding() {
        let error = SourceError::new(SourceErrorKind::Unavailable, "fetch");
        let failed = progress(10, 10, Phase::Failed(error));
        assert!(matches!(failed.next(0, None), Next::Fail(_)));
        assert!(
            matches!(failed.next(5, Some(5)), Next::Done),
            "a reader with all requested bytes does not fail"
        );
    }
}
