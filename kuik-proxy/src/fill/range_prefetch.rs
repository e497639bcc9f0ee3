//! Range prefetch: fetches short ranges far ahead of a fill separately, so that reading a file out of a large layer
//! does not wait for all bytes before it.
//!
//! Invariants: a block is prefetched at most once, so upstream sends a byte at most twice; it is kept until the fill
//! has reached and compared it, and a fill that finds other bytes fails; the last bytes of a blob, which wait for the
//! digest, are never prefetched.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures::{
    FutureExt as _, TryStreamExt as _,
    future::{BoxFuture, Shared},
};
use kuik_core::{
    content::{ByteRange, ContentSource, Digest, SourceError, SourceErrorKind},
    reference::RepositoryName,
};
use parking_lot::{Mutex, MutexGuard};
use tokio_util::task::TaskTracker;

/// Maximum length of a prefetched range. A client that wants a longer one usually wants the rest as well, and waits
/// for the fill.
const MAX_PART: u64 = 4 << 20;

/// Minimum distance ahead of the fill. Nearer ranges arrive soon, and clients that fetch a whole blob in parallel
/// ranges request the next ones.
const FAR_AHEAD: u64 = 32 << 20;

/// Number of bytes fetched at once.
const BLOCK: u64 = 1 << 20;

/// Maximum number of prefetched blocks per fill.
const MAX_BLOCKS: usize = 16;

/// The prefetched blocks of a fill, by offset.
#[derive(Debug, Default)]
pub(super) struct RangePrefetch(Mutex<Blocks>);

#[derive(Debug, Default)]
struct Blocks {
    kept: BTreeMap<u64, Fetching>,
    /// Upstream failed to return one: no other is requested.
    closed: bool,
}

/// A block in transfer, shared by all readers that wait for it.
type Fetching = Shared<BoxFuture<'static, Result<Bytes, SourceError>>>;

/// Source of the blocks, and the tasks to fetch them on.
pub(super) struct Upstream<'a> {
    pub source: &'a Arc<dyn ContentSource>,
    pub repository: &'a RepositoryName,
    pub digest: &'a Digest,
    /// Offset of the first byte that waits for the digest.
    pub held_from: u64,
    pub tasks: &'a TaskTracker,
}

/// Whether to prefetch `part` of a blob whose last bytes, starting at `held_from`, wait for the digest, and of which
/// `received` bytes have arrived.
pub(super) fn is_for(part: &Range<u64>, received: u64, held_from: u64) -> bool {
    part.end.saturating_sub(part.start) <= MAX_PART
        && part.start >= received.saturating_add(FAR_AHEAD)
        && part.start < held_from
}

impl RangePrefetch {
    /// Returns some bytes starting at `offset`; `None` if the fill will deliver them.
    ///
    /// The first reader sends the request, and the others wait for the same response.
    pub(super) async fn read(&self, upstream: &Upstream<'_>, offset: u64) -> Option<Bytes> {
        let start = offset - offset % BLOCK;
        let end = (start + BLOCK).min(upstream.held_from);
        let fetching = {
            let mut blocks = self.blocks();
            match blocks.kept.get(&start) {
                Some(fetching) => fetching.clone(),
                None if blocks.closed || blocks.kept.len() >= MAX_BLOCKS => return None,
                None => {
                    let fetching = fetch(upstream, start..end);
                    blocks.kept.insert(start, fetching.clone());
                    fetching
                }
            }
        };
        let fetched = fetching.await;
        let mut blocks = self.blocks();
        match fetched {
            // If the fill passed before the block arrived, the block was not compared.
            Ok(_) if !blocks.kept.contains_key(&start) => None,
            Ok(bytes) => {
                let from = usize::try_from(offset - start).ok().filter(|&from| from < bytes.len())?;
                Some(bytes.slice(from..))
            }
            Err(error) => {
                tracing::debug!(digest = %upstream.digest, error = error.chain(), "range prefetch failed, waiting for the fill");
                blocks.closed = true;
                None
            }
        }
    }

    /// Whether the bytes received by the fill, `chunks` starting at `start`, equal the prefetched ones. Drops blocks
    /// that the fill has passed.
    pub(super) fn agrees_with(&self, start: u64, chunks: &[Bytes]) -> bool {
        let mut blocks = self.blocks();
        if blocks.kept.is_empty() {
            return true;
        }
        let mut offset = start;
        let mut agrees = true;
        for chunk in chunks {
            let end = offset + chunk.len() as u64;
            blocks.kept.retain(|&block, fetching| {
                // A block that has not arrived has not been read, and will not be.
                let Some(Ok(kept)) = fetching.peek() else { return block >= end };
                let kept_end = block + kept.len() as u64;
                let common = offset.max(block)..end.min(kept_end);
                if common.start < common.end {
                    agrees &= slice(chunk, offset, &common) == slice(kept, block, &common);
                }
                kept_end > end
            });
            offset = end;
        }
        agrees
    }

    fn blocks(&self) -> MutexGuard<'_, Blocks> {
        self.0.lock()
    }
}

/// Returns `range` of `bytes`, which begin at `start`.
fn slice<'a>(bytes: &'a Bytes, start: u64, range: &Range<u64>) -> Option<&'a [u8]> {
    let (from, to) = (range.start.checked_sub(start)?, range.end.checked_sub(start)?);
    bytes.get(usize::try_from(from).ok()?..usize::try_from(to).ok()?)
}

/// Fetches the block on its own task: the reader that requested it may disconnect.
fn fetch(upstream: &Upstream<'_>, block: Range<u64>) -> Fetching {
    let (source, repository, digest) =
        (upstream.source.clone(), upstream.repository.clone(), upstream.digest.clone());
    let task = upstream.tasks.spawn(async move {
        let attempted = format!("fetch bytes {}-{} of blob {digest} of {repository}", block.start, block.end);
        let range = ByteRange::From { first: block.start, last: Some(block.end.saturating_sub(1)) };
        let part = source.blob(&repository, &digest, range).await?.content;
        let other = |problem: &str| {
            SourceError::new(SourceErrorKind::InvalidContent, format!("{attempted}: {problem}"))
        };
        if part.range.as_ref() != Some(&block) {
            return Err(other("upstream returned another range"));
        }
        let length = usize::try_from(block.end - block.start).unwrap_or_default();
        let bytes = part.body.try_fold(BytesMut::with_capacity(length), async |mut all, chunk| {
            all.extend_from_slice(&chunk);
            Ok(all)
        });
        let bytes = bytes.await?.freeze();
        if bytes.len() == length { Ok(bytes) } else { Err(other("upstream sent another number of bytes")) }
    });
    let fetched = task.map(|ended| {
        ended.unwrap_or_else(|error| {
            Err(SourceError::caused_by(SourceErrorKind::Unavailable, "prefetch a range", error))
        })
    });
    fetched.boxed().shared()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_ranges_far_ahead_are_prefetched() {
        let held_from = 1 << 30;
        for (part, received, expected) in [
            (500 << 20..501 << 20, 0, true),
            (500 << 20..(504 << 20) + 1, 0, false),
            (FAR_AHEAD..FAR_AHEAD + 1, 0, true),
            (FAR_AHEAD..FAR_AHEAD + 1, 1, false),
            (held_from - 1..held_from + 10, 0, true),
            (held_from..held_from + 10, 0, false),
        ] {
            assert_eq!(is_for(&part, received, held_from), expected, "{part:?}");
        }
    }

    fn kept(blocks: &[(u64, &'static [u8])]) -> RangePrefetch {
        let prefetch = RangePrefetch::default();
        for &(start, bytes) in blocks {
            let fetching = std::future::ready(Ok(Bytes::from_static(bytes))).boxed().shared();
            // A future that was polled to completion has no result left to peek at.
            assert!(fetching.clone().now_or_never().is_some());
            prefetch.blocks().kept.insert(start, fetching);
        }
        prefetch
    }

    #[test]
    fn prefetched_blocks_are_compared_with_the_fill() {
        let chunks = |text: &'static str| [Bytes::from_static(text.as_bytes())];
        let prefetch = kept(&[(4, b"efgh")]);
        assert!(prefetch.agrees_with(0, &chunks("abcd")));
        assert!(prefetch.agrees_with(4, &chunks("ef")));
        assert!(prefetch.agrees_with(6, &[Bytes::from_static(b"g"), Bytes::from_static(b"hi")]));
        assert!(prefetch.blocks().kept.is_empty(), "it is no longer needed");
        assert!(!kept(&[(4, b"efgh")]).agrees_with(0, &chunks("abcdefgX")));
        assert!(kept(&[(4, b"efgh")]).agrees_with(0, &chunks("abcdefghX")));
    }

    #[test]
    fn block_is_dropped_if_the_fill_passes_before_it_arrives() {
        let prefetch = RangePrefetch::default();
        prefetch.blocks().kept.insert(4, std::future::pending().boxed().shared());
        assert!(prefetch.agrees_with(0, &[Bytes::from_static(b"abcd")]));
        assert_eq!(prefetch.blocks().kept.len(), 1);
        assert!(prefetch.agrees_with(4, &[Bytes::from_static(b"e")]));
        assert!(prefetch.blocks().kept.is_empty());
    }
}
