//! How far a fill has come, and what its readers may have of it: pure decisions.
//!
//! Invariant: until every byte is hashed and the digest matches, the last [`HOLD_BACK`] bytes of the blob are withheld
//! from every reader, whichever part of it they asked for. A client of wrong content sees a broken transfer, never a
//! complete one; and from parts of it, which come as they arrive, nobody can put together a blob.

use kuik_core::content::SourceError;

/// How many of the last bytes wait for the digest.
pub(super) const HOLD_BACK: u64 = 16 << 10;

/// How far a fill has come.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    /// Bytes that have arrived from upstream.
    pub received: u64,
    /// How many of these the spool has; the others are in the window.
    pub spooled: u64,
    /// How many bytes manifests give the blob, the smallest number of several: the end that clients expect may come
    /// before the one that upstream announces.
    pub expected: Option<u64>,
    pub phase: Phase,
}

/// What a fill is doing.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// Waiting for upstream's headers.
    Connecting,
    /// Bytes arrive; `size` is what upstream announced, where it did.
    Filling { size: Option<u64> },
    /// All bytes arrived, and the digest matches.
    Verified,
    /// The store had the blob already: it is to be read from there.
    Kept,
    /// Nothing more will come.
    Failed(SourceError),
}

/// What a reader at some offset does next.
#[derive(Debug)]
pub(super) enum Next {
    /// Read on, up to this offset.
    Read { end: u64 },
    /// Everything that was asked for has been read.
    Done,
    /// Wait for the fill to move.
    Wait,
    /// Give up.
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
            Phase::Connecting | Phase::Kept | Phase::Failed(_) => None,
        }
    }

    /// Whether the bytes before `end` are known to be there, however many follow.
    pub(super) fn reaches(&self, end: u64) -> bool {
        self.size().is_some() || self.readable() >= end
    }

    /// Whether nothing more will come from upstream.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Verified | Phase::Kept | Phase::Failed(_))
    }

    /// A manifest gives the blob `size` bytes.
    pub(super) fn expect(&mut self, size: u64) {
        self.expected = Some(self.expected.map_or(size, |expected| expected.min(size)));
    }

    /// Where the bytes begin that wait for the digest.
    pub(super) fn held_from(&self) -> u64 {
        let end = self.size().unwrap_or(self.received);
        self.expected.map_or(end, |expected| expected.min(end)).saturating_sub(HOLD_BACK)
    }

    /// The offset up to which readers may read.
    pub(super) fn readable(&self) -> u64 {
        match self.phase {
            Phase::Verified => self.received,
            Phase::Filling { .. } => self.received.min(self.held_from()),
            Phase::Connecting | Phase::Kept | Phase::Failed(_) => 0,
        }
    }

    /// What a reader that has read up to `offset`, and wants to read up to `end` (or all), does next.
    pub(super) fn next(&self, offset: u64, end: Option<u64>) -> Next {
        if end.is_some_and(|end| offset >= end) {
            return Next::Done;
        }
        let readable = self.readable().min(end.unwrap_or(u64::MAX));
        match &self.phase {
            Phase::Failed(error) => Next::Fail(error.clone()),
            _ if offset < readable => Next::Read { end: readable },
            Phase::Verified | Phase::Kept => Next::Done,
            Phase::Connecting | Phase::Filling { .. } => Next::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use kuik_core::content::SourceErrorKind;

    use super::*;

    fn progress(received: u64, spooled: u64, phase: Phase) -> Progress {
        Progress { received, spooled, phase, ..Progress::new() }
    }

    #[test]
    fn the_last_bytes_wait_for_the_digest() {
        let size = 1 << 20;
        let filling = Phase::Filling { size: Some(size) };
        assert_eq!(progress(100, 100, filling.clone()).readable(), 100, "far from the end nothing waits");
        assert_eq!(progress(size, size, filling).readable(), size - HOLD_BACK);
        assert_eq!(progress(size, size, Phase::Filling { size: None }).readable(), size - HOLD_BACK);
        assert_eq!(progress(size, size, Phase::Verified).readable(), size);
        let small = Phase::Filling { size: Some(10) };
        assert_eq!(progress(10, 10, small).readable(), 0, "a small blob waits whole");
        let mut longer = progress(size, size, Phase::Filling { size: Some(2 * size) });
        longer.expect(size);
        assert_eq!(longer.readable(), size - HOLD_BACK, "the end that a manifest gives counts too");
    }

    #[test]
    fn readers_read_what_they_may_and_asked_for() {
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
    fn a_failure_reaches_every_reader() {
        let error = SourceError::new(SourceErrorKind::Unavailable, "fetch");
        let failed = progress(10, 10, Phase::Failed(error));
        assert!(matches!(failed.next(0, None), Next::Fail(_)));
        assert!(
            matches!(failed.next(5, Some(5)), Next::Done),
            "who has all that it asked for is not disturbed"
        );
    }
}
