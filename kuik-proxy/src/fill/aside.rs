//! Short parts far ahead of a fill, fetched on their own: who reads a file out of a large layer does not wait for all
//! that stands before it.
//!
//! Invariants: a block is fetched aside once at most, so that upstream sends a byte twice at most; it is kept until the
//! fill has come by and compared it, and a fill that finds other bytes fails; the last bytes of a blob, which wait for
//! the digest, are never fetched aside.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Bytes, BytesMut};
use futures::{
    FutureExt as _, TryStreamExt as _,
    future::{BoxFuture, Shared},
};
use kuik_core::{
    content::{ByteRange, ContentSource, Digest, SourceError, SourceErrorKind},
    reference::RepositoryName,
};
use tokio_util::task::TaskTracker;

/// A part that is longer comes with the fill: who wants so much wants the rest as well.
const LONGEST_PART: u64 = 4 << 20;

/// How far ahead of the fill a part has to begin. Nearer ones are there soon, and clients that fetch all of a blob in
/// parallel parts ask for the next ones.
const FAR_AHEAD: u64 = 32 << 20;

/// What is fetched at once.
const BLOCK: u64 = 1 << 20;

/// How many blocks of one fill are kept.
const MOST_BLOCKS: usize = 16;

/// The blocks of a fill that were fetched aside, by their offsets.
#[derive(Debug, Default)]
pub(super) struct Aside(Mutex<Blocks>);

#[derive(Debug, Default)]
struct Blocks {
    kept: BTreeMap<u64, Fetching>,
    /// Upstream did not give one: it is not asked for another.
    closed: bool,
}

/// A block on its way, for all who wait for it.
type Fetching = Shared<BoxFuture<'static, Result<Bytes, SourceError>>>;

/// Who is asked for a block, and on which tasks.
pub(super) struct Upstream<'a> {
    pub source: &'a Arc<dyn ContentSource>,
    pub repository: &'a RepositoryName,
    pub digest: &'a Digest,
    /// Where the bytes begin that wait for the digest.
    pub held_from: u64,
    pub tasks: &'a TaskTracker,
}

/// Whether `part` of a blob is fetched aside, whose last bytes from `held_from` on wait for the digest, and of which so
/// many have been `received`.
pub(super) fn is_for(part: &Range<u64>, received: u64, held_from: u64) -> bool {
    part.end.saturating_sub(part.start) <= LONGEST_PART
        && part.start >= received.saturating_add(FAR_AHEAD)
        && part.start < held_from
}

impl Aside {
    /// Some bytes from `offset` on; `None` where the fill will bring them.
    ///
    /// Whoever asks first makes the request, and the others wait for the same answer.
    pub(super) async fn read(&self, upstream: &Upstream<'_>, offset: u64) -> Option<Bytes> {
        let start = offset - offset % BLOCK;
        let end = (start + BLOCK).min(upstream.held_from);
        let fetching = {
            let mut blocks = self.blocks();
            match blocks.kept.get(&start) {
                Some(fetching) => fetching.clone(),
                None if blocks.closed || blocks.kept.len() >= MOST_BLOCKS => return None,
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
            // Where the fill came by before the block was there, nobody has compared it.
            Ok(_) if !blocks.kept.contains_key(&start) => None,
            Ok(bytes) => {
                let from = usize::try_from(offset - start).ok().filter(|&from| from < bytes.len())?;
                Some(bytes.slice(from..))
            }
            Err(error) => {
                tracing::debug!(digest = %upstream.digest, error = error.chain(), "no part was fetched aside");
                blocks.closed = true;
                None
            }
        }
    }

    /// Whether what the fill has received, `chunks` from `start` on, is what was fetched aside in its place. Blocks that
    /// the fill has passed go.
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
                // What has not come yet has been seen by nobody, and will not be.
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes `range` out of `bytes`, which begin at `start`.
fn slice<'a>(bytes: &'a Bytes, start: u64, range: &Range<u64>) -> Option<&'a [u8]> {
    let (from, to) = (range.start.checked_sub(start)?, range.end.checked_sub(start)?);
    bytes.get(usize::try_from(from).ok()?..usize::try_from(to).ok()?)
}

/// The block, on a task of its own: whoever asked for it may leave.
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
            return Err(other("upstream does not send what was asked for"));
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
            Err(SourceError::caused_by(SourceErrorKind::Unavailable, "fetch a part aside", error))
        })
    });
    fetched.boxed().shared()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_parts_far_ahead_are_fetched_aside() {
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

    fn kept(blocks: &[(u64, &'static [u8])]) -> Aside {
        let aside = Aside::default();
        for &(start, bytes) in blocks {
            let fetching = std::future::ready(Ok(Bytes::from_static(bytes))).boxed().shared();
            // A handle that was polled to its end has nothing to look at any more.
            assert!(fetching.clone().now_or_never().is_some());
            aside.blocks().kept.insert(start, fetching);
        }
        aside
    }

    #[test]
    fn what_was_fetched_aside_is_compared_as_the_fill_comes_by() {
        let chunks = |text: &'static str| [Bytes::from_static(text.as_bytes())];
        let aside = kept(&[(4, b"efgh")]);
        assert!(aside.agrees_with(0, &chunks("abcd")));
        assert!(aside.agrees_with(4, &chunks("ef")));
        assert!(aside.agrees_with(6, &[Bytes::from_static(b"g"), Bytes::from_static(b"hi")]));
        assert!(aside.blocks().kept.is_empty(), "it is not needed any more");
        assert!(!kept(&[(4, b"efgh")]).agrees_with(0, &chunks("abcdefgX")));
        assert!(kept(&[(4, b"efgh")]).agrees_with(0, &chunks("abcdefghX")));
    }

    #[test]
    fn a_block_that_comes_later_than_the_fill_is_nobodys() {
        let aside = Aside::default();
        aside.blocks().kept.insert(4, std::future::pending().boxed().shared());
        assert!(aside.agrees_with(0, &[Bytes::from_static(b"abcd")]));
        assert_eq!(aside.blocks().kept.len(), 1);
        assert!(aside.agrees_with(4, &[Bytes::from_static(b"e")]));
        assert!(aside.blocks().kept.is_empty());
    }
}
